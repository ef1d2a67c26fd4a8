from __future__ import annotations

import struct
import subprocess
import sys
from pathlib import Path

import pytest

from finetuned_models import plugin
from finetuned_models.params import ImportGGUFParams
from finetuned_sdk import Host, RefusedError, Registry


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "tiny.gguf"
    path.write_bytes(struct.pack("<4sIQQ", b"GGUF", 3, 7, 0) + b"\0" * 1000)
    return path


@pytest.mark.parametrize("declaration", ["finetuned_models.plugin", "finetuned_callbacks.plugin"])
def test_a_declaration_is_imported_without_torch(declaration: str) -> None:
    heavy = "{'torch', 'transformers', 'numpy', 'gguf', 'tokenizers', 'pyarrow'}"
    code = f"import sys, {declaration}; sys.exit(','.join({heavy} & set(sys.modules)) or None)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_both_kinds_are_declared_and_hold_no_device() -> None:
    registry = Registry()
    plugin.finetuned_register(registry)
    assert sorted(registry.job_kinds) == ["import-gguf", "import-model"]
    for kind in registry.job_kinds.values():
        assert kind.resources is not None
        assert kind.resources(None, Host()).devices == 0
        assert all(field.description for field in kind.params.model_fields.values())


def test_a_good_request_passes_and_is_estimated(file: Path) -> None:
    params = ImportGGUFParams(file=str(file), name="SmolLM2-135M")
    plugin.check_gguf(params, Host())
    estimate = plugin.estimate_gguf(params, Host())
    # Four bits a weight at the least, so eight times the file in float32.
    assert estimate.disk_bytes == 8 * file.stat().st_size


@pytest.mark.parametrize("name", ["", "-x", "a/b", "../x", "a b", "x" * 97, "ü"])
def test_a_name_that_is_not_well_formed_is_refused(file: Path, name: str) -> None:
    params = ImportGGUFParams.model_construct(file=str(file), name=name, replace=False)
    with pytest.raises(RefusedError, match="cannot be a model's name") as caught:
        plugin.check_gguf(params, Host())
    assert caught.value.param == "name"


def test_a_taken_name_is_refused_unless_it_shall_be_replaced(file: Path) -> None:
    host = Host(models={"m": file})
    with pytest.raises(RefusedError, match="replace=true"):
        plugin.check_gguf(ImportGGUFParams(file=str(file), name="m"), host)
    plugin.check_gguf(ImportGGUFParams(file=str(file), name="m", replace=True), host)


def test_too_little_disk_is_refused(file: Path) -> None:
    with pytest.raises(RefusedError, match="bfloat16") as caught:
        plugin.check_gguf(ImportGGUFParams(file=str(file), name="m"), Host(disk_free_bytes=10))
    assert caught.value.code == "disk_full"
