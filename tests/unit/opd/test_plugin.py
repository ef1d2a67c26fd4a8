"""What a distillation is told before a row of it is read: refusals with their parameter, and what it will take."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from tests.unit.opd.test_vocabulary import model
from tests.unit.training.test_estimate import HIDDEN, INNER, LAYERS, VOCABULARY, matrices, write_header

from finetuned.access.path_policy import ANYWHERE, PathPolicy
from finetuned.domain.errors import FinetunedError
from finetuned.job_request import parse_request
from finetuned.submission import resolve
from finetuned_opd import plugin, sizing
from finetuned_opd.params import OPDParams
from finetuned_sdk import Device, Host, RefusedError, Registry
from finetuned_training import checks
from finetuned_training.preloading import PRELOADED

WORDS = ("<eos>", "a", "b", "ab")
ENDPOINT = "http://teacher.example:8000/v1"
GPU = Device(id="gpu:1", kind="gpu", name="GPU", memory_bytes=1 << 36)


@pytest.fixture(autouse=True)
def _installed(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if the [train] extra were there, so that these checks run without it."""
    for module in (checks, plugin):
        monkeypatch.setattr(module, "find_spec", lambda name: name)


@pytest.fixture
def files(tmp_path: Path) -> dict[str, str]:
    """A student, a dataset, and teachers that a job may name."""
    (tmp_path / "rows.jsonl").write_text('{"prompt": "a"}\n')
    adapter = tmp_path / "adapter"
    adapter.mkdir()
    (adapter / "adapter_config.json").write_text('{"base_model_name_or_path": "big"}')
    return {
        "model": str(model(tmp_path / "student", 64)),
        "teacher": str(model(tmp_path / "teacher", 64)),
        "dataset": str(tmp_path / "rows.jsonl"),
    }


def check(files: dict[str, str], host: Host | None = None, **changes: Any) -> None:
    given = {name: value for name, value in {**files, **changes}.items() if value is not None}
    plugin.check(OPDParams.model_validate(given), host or Host())


def refusal(files: dict[str, str], host: Host | None = None, **changes: Any) -> RefusedError:
    with pytest.raises(RefusedError) as caught:
        check(files, host, **changes)
    return caught.value


# ---- refusals --------------------------------------------------------------------------------------------


def test_a_job_whose_teacher_is_there_passes(files: dict[str, str], tmp_path: Path) -> None:
    check(files)
    check(files, top_k=63)
    check(files, teacher_adapter=str(tmp_path / "adapter"))
    check(files, teacher=None, teacher_endpoint=ENDPOINT, top_k=20)
    check(files, teacher=None, self_distillation=True)
    check(files, teacher="somebody/a-model-on-the-hub")
    check(files, Host(models={"big": Path(files["teacher"])}), teacher="big")


@pytest.mark.parametrize(
    ("changes", "param", "code", "reason"),
    [
        ({"teacher": "bigger"}, "teacher", "model_not_found", "Did you mean big?"),
        ({"teacher": "/nowhere"}, "teacher", "model_not_found", "There is no model /nowhere"),
        (
            {"teacher": "{tmp}/adapter"},
            "teacher",
            "wrong_model_kind",
            "is an adapter, not a whole model; pass it as teacher_adapter=, with teacher=big",
        ),
        (
            {"teacher_adapter": "{tmp}/student"},
            "teacher_adapter",
            "wrong_model_kind",
            "is a whole model, not an adapter; pass it as teacher=, and drop teacher_adapter",
        ),
        ({"teacher_adapter": "adaptor"}, "teacher_adapter", "model_not_found", "There is no adapter adaptor"),
        ({"top_k": 64}, "top_k", "invalid_params", "top_k is 64, and the vocabulary has 64 tokens; lower it"),
        (
            {"teacher": None, "teacher_endpoint": "http://me:secret@host/v1"},
            "teacher_endpoint",
            "invalid_params",
            "must have no user, password or query",
        ),
        ({"teacher": None, "teacher_endpoint": "http://"}, "teacher_endpoint", "invalid_params", "is no URL"),
    ],
)
def test_what_cannot_teach_is_refused_with_its_parameter(
    files: dict[str, str], tmp_path: Path, changes: dict[str, Any], param: str, code: str, reason: str
) -> None:
    changes = {
        name: value.format(tmp=tmp_path) if isinstance(value, str) else value
        for name, value in changes.items()
    }
    error = refusal(files, Host(models={"big": Path(files["teacher"])}), **changes)
    assert (error.param, error.code) == (param, code)
    assert reason in error.message


def test_a_teacher_of_other_tokens_is_refused_by_the_first_that_differs(
    files: dict[str, str], tmp_path: Path
) -> None:
    other = model(tmp_path / "other", 64, words=("<eos>", "a", "c", "ab"))
    for named, host in ((str(other), Host()), ("other", Host(models={"other": other}))):
        error = refusal(files, host, teacher=named)
        assert (error.param, error.code) == ("teacher", "vocabulary_mismatch")
        assert "token 2 is 'b' to the student" in error.message


def test_a_teacher_that_is_padded_otherwise_is_refused_only_if_all_is_compared(
    files: dict[str, str], tmp_path: Path
) -> None:
    padded = str(model(tmp_path / "padded", 128))
    assert "their whole distributions cannot be compared" in refusal(files, teacher=padded).message
    check(files, teacher=padded, top_k=8)
    check(files, teacher=padded, objective="policy_gradient")


def test_a_teacher_in_few_bits_needs_the_library_for_it(
    files: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    check(files, teacher_in_4bit=True)
    monkeypatch.setattr(plugin, "find_spec", lambda name: None if name == "bitsandbytes" else name)
    error = refusal(files, teacher_in_4bit=True)
    assert (error.param, error.code) == ("teacher_in_4bit", "missing_dependency")


# ---- who may name what -----------------------------------------------------------------------------------


@pytest.fixture
def registry() -> Registry:
    found = Registry()
    plugin.finetuned_register(found)
    return found


@pytest.mark.parametrize(
    ("changes", "param", "code"),
    [
        ({"teacher_endpoint": ENDPOINT}, "teacher_endpoint", "url_not_allowed"),
        ({"teacher": "/etc/teacher"}, "teacher", "path_not_allowed"),
        ({"teacher": "big", "teacher_adapter": "/etc/adapter"}, "teacher_adapter", "path_not_allowed"),
    ],
)
def test_a_caller_who_may_name_no_path_may_send_a_job_nowhere(
    registry: Registry, changes: dict[str, str], param: str, code: str
) -> None:
    request = parse_request({"kind": "opd", "params": {"model": "big", "dataset": "a/b", **changes}})
    host = Host(models={"big": Path("/models/big")})
    with pytest.raises(FinetunedError) as caught:
        resolve(request, registry, host)
    assert (caught.value.stable_code, caught.value.param) == (code, f"params.{param}")


def test_a_teacher_of_a_host_that_is_allowed_may_be_named_by_everybody(registry: Registry) -> None:
    body = {"kind": "opd", "params": {"model": "big", "dataset": "a/b", "teacher_endpoint": ENDPOINT}}
    host = Host(models={"big": Path("/models/big")})
    for paths in (ANYWHERE, PathPolicy(hosts=frozenset({"teacher.example"}))):
        assert (
            resolve(parse_request(body), registry, host, paths=paths).params["teacher_endpoint"] == ENDPOINT
        )


# ---- what it will take -----------------------------------------------------------------------------------


@pytest.fixture
def whole(tmp_path: Path) -> str:
    """The directory of a model whose sizes are SmolLM2-135M's."""
    directory = model(tmp_path / "whole", VOCABULARY)
    config = {
        "hidden_size": HIDDEN, "intermediate_size": INNER, "num_hidden_layers": LAYERS, "vocab_size": VOCABULARY,
        "num_attention_heads": 9, "num_key_value_heads": 3,
    }  # fmt: skip
    (directory / "config.json").write_text(json.dumps(config))
    write_header(directory / "model.safetensors", matrices())
    return str(directory)


def estimated(files: dict[str, str], whole: str, host: Host | None = None, **changes: Any) -> Any:
    given = {**files, "model": whole, "teacher": whole, "max_length": 512, **changes}
    params = OPDParams.model_validate({name: value for name, value in given.items() if value is not None})
    return sizing.estimate(params, host or Host(cpu_count=2))


def test_the_teacher_the_samples_and_the_chunks_of_logits_are_counted(
    files: dict[str, str], whole: str
) -> None:
    found = estimated(files, whole)
    assert found.breakdown["teacher"] == 134_515_008 * 4
    rows, length = OPDParams.model_validate(files).rows_a_step, 4 + 256  # the dataset's line has 15 bytes
    assert found.breakdown["sampling"] == 2 * rows * length * LAYERS * (HIDDEN // 3) * 4
    assert found.breakdown["logits"] == 5 * 128 * VOCABULARY * 4
    assert found.host_bytes == sum(found.breakdown.values())
    assert estimated(files, whole, teacher_cache_gb=0).disk_bytes == found.disk_bytes - 4_000_000_000


def test_what_is_sampled_counts_as_what_is_learned_from(files: dict[str, str], whole: str) -> None:
    short, long = (estimated(files, whole, max_completion_length=tokens) for tokens in (60, 124))
    # 4 tokens of a prompt; attention keeps a number a token and position besides.
    assert long.breakdown["activations"] > 1.9 * short.breakdown["activations"]


@pytest.mark.parametrize(
    "changes",
    [
        {"teacher": None, "self_distillation": True},
        {"teacher": None, "teacher_endpoint": ENDPOINT},
        {"teacher": None, "precomputed_scores": True},
    ],
    ids=str,
)
def test_a_teacher_that_is_elsewhere_takes_nothing(
    files: dict[str, str], whole: str, changes: dict[str, Any]
) -> None:
    found = estimated(files, whole, **changes).breakdown
    assert "teacher" not in found
    assert ("sampling" in found) is not changes.get("precomputed_scores", False)


def test_a_teacher_in_few_bits_takes_less(files: dict[str, str], whole: str) -> None:
    usual, small = (
        estimated(files, whole, teacher_in_4bit=few).breakdown["teacher"] for few in (False, True)
    )
    assert small < 0.5 * usual


def test_a_gpu_has_it_all_and_the_host_no_more_for_it(files: dict[str, str], whole: str) -> None:
    found = estimated(files, whole, Host(cpu_count=2, devices=(GPU,)))
    assert found.device_bytes == sum(found.breakdown.values())
    assert found.breakdown["teacher"] == 134_515_008 * 2
    alone = estimated(files, whole, Host(cpu_count=2, devices=(GPU,)), teacher=None, self_distillation=True)
    assert found.host_bytes == alone.host_bytes


def test_a_model_that_is_not_here_is_not_estimated(files: dict[str, str]) -> None:
    found = sizing.estimate(OPDParams.model_validate({**files, "model": "somebody/model"}), Host())
    assert (found.host_bytes, found.device_bytes) == (None, None)


# ---- what may be imported before -------------------------------------------------------------------------


def test_the_imports_may_be_made_before_unless_bitsandbytes_is_among_them(
    files: dict[str, str], tmp_path: Path
) -> None:
    def preload(**changes: Any) -> tuple[str, ...]:
        return plugin.preload(OPDParams.model_validate({**files, **changes}))

    assert preload() == ("finetuned_opd.trainer", PRELOADED)
    stored = model(tmp_path / "stored", 64)
    (stored / "config.json").write_text('{"quantization_config": {"quant_method": "bitsandbytes"}}')
    assert preload(method="qlora") == ()
    assert preload(teacher_in_4bit=True) == ()
    assert preload(teacher=str(stored)) == ()


def test_the_declaration_and_its_check_import_nothing_heavy(files: dict[str, str], whole: str) -> None:
    pytest.importorskip("trl")
    program = (
        "import sys\nfrom finetuned_sdk import Host\nfrom finetuned_opd import plugin\n"
        f"params = plugin.OPDParams(**{files!r} | {{'model': {whole!r}, 'teacher': {whole!r}}})\n"
        "plugin.check(params, Host()); plugin.estimate(params, Host()); plugin.preload(params)\n"
        "heavy = {'torch', 'transformers', 'trl', 'peft', 'datasets', 'pyarrow', 'tokenizers', 'numpy'}\n"
        "print(sorted(heavy & sys.modules.keys()))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert (done.stdout.strip(), done.stderr) == ("[]", "")
