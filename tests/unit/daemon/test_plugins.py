from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from finetuned import plugins

DECLARATION = """
from finetuned_sdk import JobKind, hookimpl
from finetuned_sdk.fake import FakeParams

@hookimpl
def {hook}(register):
    register.job_kind(JobKind(name="{kind}", summary="", params=FakeParams, entry="{entry}"))
"""


@pytest.fixture
def declare(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> object:
    monkeypatch.syspath_prepend(str(tmp_path))

    def write(
        module: str, *, hook: str = "finetuned_register", kind: str = "mine", entry: str = "a:b"
    ) -> str:
        (tmp_path / f"{module}.py").write_text(DECLARATION.format(hook=hook, kind=kind, entry=entry))
        return module

    return write


def only(extra: str, **environment: str) -> tuple[set[str], dict[str, plugins.PluginReport]]:
    registry, reports = plugins.load({plugins.EXTRA: extra, **environment})
    return set(registry.job_kinds), {report.name: report for report in reports}


def test_the_shipped_plugins_are_found_by_entry_point() -> None:
    kinds, reports = only("")
    assert {"sft", "import-gguf"} <= kinds
    assert reports["sft"].status == "loaded"


def test_a_plugin_named_by_the_environment_is_loaded_besides() -> None:
    kinds, _ = only("finetuned_sdk.fake")
    assert "fake" in kinds


def test_a_blocked_plugin_is_reported_and_not_even_imported() -> None:
    kinds, reports = only("finetuned_sdk.fake", FINETUNED_BLOCK_PLUGINS="sft, nobody")
    assert "sft" not in kinds
    assert reports["sft"].status == "blocked"


def test_a_misspelt_hook_is_named_and_costs_the_other_plugins_nothing(declare) -> None:  # type: ignore[no-untyped-def]
    module = declare("typo_plugin", hook="finetuned_registre")
    kinds, reports = only(f"{module},finetuned_sdk.fake")
    assert reports[module].status == "broken"
    assert "finetuned_registre" in (reports[module].reason or "")
    assert "fake" in kinds


def test_a_plugin_that_cannot_be_imported_is_left_out_with_the_reason() -> None:
    kinds, reports = only("no_such_module_anywhere,finetuned_sdk.fake")
    assert "ModuleNotFoundError" in (reports["no_such_module_anywhere"].reason or "")
    assert "fake" in kinds


def test_the_second_plugin_that_takes_a_name_is_left_out(declare) -> None:  # type: ignore[no-untyped-def]
    first, second = declare("plugin_a", kind="same"), declare("plugin_b", kind="same")
    kinds, reports = only(f"{first},{second}")
    assert "same" in kinds
    assert reports[first].status == "loaded"
    assert "Two plugins declare the job kind 'same'" in (reports[second].reason or "")


def test_an_entry_that_is_no_module_and_function_is_refused(declare) -> None:  # type: ignore[no-untyped-def]
    module = declare("bad_entry_plugin", entry="just.a.module")
    _, reports = only(module)
    assert "module:function" in (reports[module].reason or "")


def test_hook_calls_can_be_traced(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO"):
        plugins.load({plugins.TRACE: "1"})
    assert "finetuned_register" in caplog.text


def test_declarations_import_neither_torch_nor_anything_that_does() -> None:
    code = (
        "import sys; from finetuned import plugins; r, reports = plugins.load();"
        "assert r.job_kinds and all(p.status == 'loaded' for p in reports), reports;"
        "heavy = {'torch', 'transformers', 'trl', 'peft', 'datasets', 'numpy', 'pyarrow'} & set(sys.modules);"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=50)
