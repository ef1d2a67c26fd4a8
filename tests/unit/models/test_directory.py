from __future__ import annotations

import json
from pathlib import Path

import pytest

from finetuned_models import copier, directory
from finetuned_models.params import ImportModelParams
from finetuned_sdk import RefusedError
from finetuned_sdk.testing import RecordingContext


def safetensors(data: bytes = b"\0" * 8) -> bytes:
    """One tensor's file, by the format's definition."""
    header = json.dumps({"w": {"dtype": "F32", "shape": [2], "data_offsets": [0, len(data)]}}).encode()
    return len(header).to_bytes(8, "little") + header + data


def write_model(path: Path) -> Path:
    path.mkdir()
    (path / "config.json").write_text('{"model_type": "llama"}')
    (path / "model.safetensors").write_bytes(safetensors())
    (path / "tokenizer.json").write_text("{}")
    return path


def test_a_model_and_an_adapter_are_told_apart(tmp_path: Path) -> None:
    model = directory.inspect(str(write_model(tmp_path / "m")))
    assert (model.kind, model.base, model.architecture) == ("full", None, "llama")
    adapter = tmp_path / "a"
    adapter.mkdir()
    (adapter / "adapter_config.json").write_text('{"base_model_name_or_path": "base"}')
    (adapter / "adapter_model.safetensors").write_bytes(safetensors())
    found = directory.inspect(str(adapter))
    assert (found.kind, found.base) == ("adapter", "base")


def test_a_model_in_shards_is_whole_if_each_is_there(tmp_path: Path) -> None:
    model = write_model(tmp_path / "m")
    (model / "model.safetensors").rename(model / "model-1.safetensors")
    index = model / "model.safetensors.index.json"
    index.write_text('{"weight_map": {"w": "model-1.safetensors"}}')
    assert directory.inspect(str(model)).kind == "full"
    index.write_text('{"weight_map": {"w": "model-1.safetensors", "v": "model-2.safetensors"}}')
    with pytest.raises(RefusedError, match=r"model-2\.safetensors, which is not there"):
        directory.inspect(str(model))


@pytest.mark.parametrize(
    ("file", "content", "reason"),
    [
        ("config.json", None, "has no config.json"),
        ("config.json", b"{", "cannot be read as JSON"),
        ("config.json", b"[]", "holds no JSON object"),
        ("config.json", b"{}", "names no model_type"),
        ("model.safetensors", None, "save the weights as safetensors"),
        ("model.safetensors", safetensors()[:-1], "where its header says"),
        ("model.safetensors", b"version https://git-lfs.github.com/spec/v1", "is no safetensors file"),
        ("model.safetensors", b"\x02\0\0\0\0\0\0\0[]", "header of .* cannot be read"),
    ],
)
def test_a_directory_without_a_whole_model_is_refused(
    tmp_path: Path, file: str, content: bytes | None, reason: str
) -> None:
    model = write_model(tmp_path / "m")
    if content is None:
        (model / file).unlink()
    else:
        (model / file).write_bytes(content)
    with pytest.raises(RefusedError, match=reason):
        directory.inspect(str(model))


def test_an_imported_model_is_an_artifact_and_registered(tmp_path: Path) -> None:
    model = write_model(tmp_path / "m")
    ctx = RecordingContext(tmp_path / "state")
    copier.import_model(ctx, ImportModelParams(path=str(model), name="mine"))
    (registered,) = ctx.of_type("model")
    assert (registered["name"], registered["kind"], registered["base"]) == ("mine", "full", None)
    copied = {file.name: file.read_bytes() for file in Path(registered["path"]).iterdir()}
    assert {name: copied[name] for name in ("config.json", "model.safetensors", "tokenizer.json")} == {
        file.name: file.read_bytes() for file in model.iterdir()
    }
    assert ctx.results["model"] == "mine"


def test_a_large_file_gives_a_sign_of_work_with_each_block_and_a_stop_is_heeded_between_two(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = write_model(tmp_path / "m")
    monkeypatch.setattr(copier, "BLOCK", 4)
    ctx = RecordingContext(tmp_path / "state")
    signs: list[int] = []

    def advancing() -> None:
        signs.append(1)
        if len(signs) == 3:
            ctx.request_stop("cancel", checkpoint=False)

    monkeypatch.setattr(ctx, "advancing", advancing)
    copier.import_model(ctx, ImportModelParams(path=str(model), name="mine"))
    assert len(signs) == 3
    assert ctx.of_type("model") == []


def test_a_stop_request_ends_the_copy_without_registering(tmp_path: Path) -> None:
    model = write_model(tmp_path / "m")
    ctx = RecordingContext(tmp_path / "state")
    ctx.request_stop("cancel", checkpoint=False)
    copier.import_model(ctx, ImportModelParams(path=str(model), name="mine"))
    assert ctx.of_type("model") == []
    assert ctx.was_stopped
