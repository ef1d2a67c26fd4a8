from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from finetuned_sdk import Device, Host, RefusedError, Registry
from finetuned_sft import plugin
from finetuned_sft.params import SFTParams
from finetuned_training import checks


@pytest.fixture
def files(tmp_path: Path) -> dict[str, str]:
    """A model directory and a dataset that a job may name."""
    model = tmp_path / "model"
    model.mkdir()
    (model / "config.json").write_text("{}")
    dataset = tmp_path / "rows.jsonl"
    dataset.write_text('{"text": "x"}\n')
    return {"model": str(model), "dataset": str(dataset)}


def check(files: dict[str, str], host: Host | None = None, **changes: Any) -> None:
    checks.check_training(SFTParams.model_validate(files | changes), host or Host())


def test_the_declaration_is_registered_with_its_entries() -> None:
    register = Registry()
    plugin.finetuned_register(register)
    kind = register.job_kinds["sft"]
    assert kind.model_params == ("model", "adapter")
    assert kind.params is SFTParams
    assert kind.resources is not None
    assert kind.resources(SFTParams(model="m", dataset="d"), Host()).devices == 1


def test_the_declaration_imports_nothing_heavy() -> None:
    program = (
        "import sys, finetuned_sft.plugin\n"
        "heavy = {'torch', 'transformers', 'trl', 'peft', 'datasets', 'pyarrow', 'tokenizers', 'numpy'}\n"
        "print(sorted(heavy & sys.modules.keys()))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_checking_a_job_imports_nothing_heavy(files: dict[str, str]) -> None:
    pytest.importorskip("trl")
    program = (
        "import sys\nfrom finetuned_sdk import Host\nfrom finetuned_sft import plugin\n"
        f"params = plugin.SFTParams(method='qlora', **{json.dumps(files)})\n"
        "plugin.checks.check_training(params, Host()); plugin.estimate(params, Host())\n"
        "print(sorted({'torch', 'transformers', 'bitsandbytes', 'pyarrow'} & sys.modules.keys()))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.fixture
def _installed(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if the [train] extra were there, so that these checks run without it."""
    monkeypatch.setattr(checks, "find_spec", lambda name: None if name in ("wandb", "tensorboardX") else name)


@pytest.mark.usefixtures("_installed")
class TestCheck:
    def test_a_job_whose_files_are_there_passes(self, files: dict[str, str]) -> None:
        check(files)
        check(files, eval_dataset=files["dataset"], report_to=["tensorboard"])

    def test_registered_names_and_hub_ids_pass(self, files: dict[str, str]) -> None:
        check(files | {"model": "base"}, Host(models={"base": Path("/models/base")}))
        check(files | {"model": "HuggingFaceTB/SmolLM2-135M-Instruct", "dataset": "trl-lib/Capybara"})

    def test_an_adapter_does_not_take_the_name_of_the_model_beneath(self, files: dict[str, str]) -> None:
        host = Host(models={"base": Path("/models/base")})
        with pytest.raises(RefusedError) as refused:
            check(files | {"model": "base"}, host, output_name="base")
        assert refused.value.param == "output_name"
        check(files | {"model": "base"}, host, output_name="base", method="full")

    @pytest.mark.parametrize(
        ("changes", "param", "reason"),
        [
            ({"model": "/nowhere"}, "model", "There is no model /nowhere"),
            ({"model": "~nobody-here/model"}, "model", "There is no model ~nobody-here/model"),
            ({"dataset": "~nobody-here/rows.jsonl"}, "dataset", "There is no dataset"),
            ({"model": "smol"}, "model", "Did you mean smollm2"),
            ({"model": "{tmp}"}, "model", "has no config.json"),
            ({"model": "{tmp}/rows.jsonl"}, "model", "import-gguf"),
            ({"adapter": "{tmp}/model"}, "adapter", "pass it as model="),
            ({"adapter": "{tmp}"}, "adapter", "has no adapter_config.json"),
            ({"model": "{tmp}/adapter"}, "model", "pass it as adapter=, with model=smollm2"),
            ({"model": "lora"}, "model", "pass it as adapter=, with model=smollm2"),
            ({"adapter": "whole"}, "adapter", "pass it as model="),
            ({"dataset": "{tmp}/none.jsonl"}, "dataset", "There is no dataset"),
            ({"dataset": "{tmp}/empty.jsonl"}, "dataset", "is empty; add rows"),
            ({"eval_dataset": "{tmp}/none.jsonl"}, "eval_dataset", "There is no dataset"),
            ({"trust_remote_code": True}, "trust_remote_code", "set trust_remote_code in its configuration"),
            ({"fp16": True}, "fp16", "needs a GPU"),
            ({"report_to": ["wandb"]}, "report_to", "pip install wandb"),
            ({"report_to": ["weights"]}, "report_to", "known are clearml"),
        ],
    )
    def test_what_cannot_work_is_refused_with_its_parameter(
        self, files: dict[str, str], tmp_path: Path, changes: dict[str, Any], param: str, reason: str
    ) -> None:
        (tmp_path / "empty.jsonl").touch()
        adapter = tmp_path / "adapter"
        adapter.mkdir()
        (adapter / "adapter_config.json").write_text('{"base_model_name_or_path": "smollm2"}')
        models = {"smollm2": Path("/models/smollm2"), "lora": adapter, "whole": Path(files["model"])}
        changes = {
            name: value.format(tmp=tmp_path) if isinstance(value, str) else value
            for name, value in changes.items()
        }
        with pytest.raises(RefusedError) as caught:
            check(files, Host(models=models), **changes)
        assert caught.value.param == param
        assert reason in caught.value.message

    def test_remote_code_passes_where_the_operator_allows_it(self, files: dict[str, str]) -> None:
        check(files, Host(allow_remote_code=True), trust_remote_code=True)

    @pytest.mark.parametrize(
        "config",
        ["{", "[]", "{}", '{"base_model_name_or_path": null}', pytest.param('{"a":' * 100_000, id="nested")],
    )
    def test_an_adapter_whose_base_is_not_known_is_refused_all_the_same(
        self, files: dict[str, str], tmp_path: Path, config: str
    ) -> None:
        (tmp_path / "adapter_config.json").write_text(config)
        with pytest.raises(RefusedError, match="with model=its base model"):
            check(files, model=str(tmp_path))

    def test_a_registered_adapter_passes_as_an_adapter(self, files: dict[str, str], tmp_path: Path) -> None:
        (tmp_path / "adapter_config.json").write_text("{}")
        check(files, Host(models={"lora": tmp_path}), adapter="lora")

    def test_fp16_passes_on_a_gpu(self, files: dict[str, str]) -> None:
        gpu = Device(id="gpu:1", kind="gpu", name="GPU", memory_bytes=1 << 34)
        check(files, Host(devices=(gpu,)), fp16=True)


@pytest.mark.parametrize(
    ("missing", "method", "param"), [("bitsandbytes", "qlora", "method"), ("trl", "lora", "kind")]
)
def test_a_missing_library_is_refused_before_the_job_starts(
    files: dict[str, str], monkeypatch: pytest.MonkeyPatch, missing: str, method: str, param: str
) -> None:
    monkeypatch.setattr(checks, "find_spec", lambda name: None if name == missing else name)
    with pytest.raises(RefusedError, match=missing) as caught:
        check(files, method=method)
    assert (caught.value.param, caught.value.code) == (param, "missing_dependency")
