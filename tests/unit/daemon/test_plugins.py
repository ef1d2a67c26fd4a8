from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

import pytest

from finetuned import plugin_checks, plugins
from finetuned_sdk import SDK_VERSION

DECLARATION = """
from finetuned_sdk import JobKind, hookimpl
from finetuned_sdk.fake import FakeParams

@hookimpl
def {hook}({argument}):
    {argument}.job_kind(JobKind(name="{kind}", summary="", params=FakeParams, entry="{entry}"))
"""


class Declare(Protocol):
    """Write a module of a plugin; its name."""

    def __call__(
        self,
        module: str,
        *,
        hook: str = "finetuned_register",
        argument: str = "register",
        kind: str = "mine",
        entry: str = "a:b",
        above: str = "",
    ) -> str: ...


@pytest.fixture
def declare(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Declare:
    monkeypatch.syspath_prepend(str(tmp_path))

    def write(module: str, *, above: str = "", **changes: str) -> str:
        values = {"hook": "finetuned_register", "argument": "register", "kind": "mine", "entry": "a:b"}
        (tmp_path / f"{module}.py").write_text(above + DECLARATION.format(**(values | changes)))
        return module

    return write


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str], str]:
    """Write any module; its name."""
    monkeypatch.syspath_prepend(str(tmp_path))

    def write(name: str, text: str) -> str:
        (tmp_path / f"{name}.py").write_text(text)
        return name

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


def test_a_misspelt_hook_is_named_and_costs_the_other_plugins_nothing(declare: Declare) -> None:
    module = declare("typo_plugin", hook="finetuned_registre")
    kinds, reports = only(f"{module},finetuned_sdk.fake")
    assert reports[module].status == "broken"
    assert reports[module].reason == (
        "Its hook 'finetuned_registre' is none that this release has. Did you mean 'finetuned_register'? "
        "Rename the function; the hooks are: finetuned_register."
    )
    assert "fake" in kinds


def test_a_hook_that_asks_for_what_it_is_not_given_is_told_what_it_may_take(declare: Declare) -> None:
    module = declare("other_argument_plugin", argument="registry")
    _, reports = only(module)
    assert reports[module].reason == (
        "Its hook finetuned_register takes 'registry', which it is not given. Did you mean 'register'? "
        "Rename the argument; it may take: register."
    )


def test_a_hook_under_another_name_is_one_all_the_same(module: Callable[[str, str], str]) -> None:
    text = DECLARATION.format(hook="mine", argument="register", kind="mine", entry="a:b")
    name = module("renamed_plugin", text.replace("@hookimpl", '@hookimpl(specname="finetuned_register")'))
    kinds, reports = only(name)
    assert reports[name].status == "loaded"
    assert "mine" in kinds


def test_a_hook_that_says_that_it_may_be_unknown_is_left_alone(declare: Declare, tmp_path: Path) -> None:
    name = declare("optional_plugin")
    with (tmp_path / f"{name}.py").open("a") as file:
        file.write("@hookimpl(optionalhook=True)\ndef finetuned_later(register): ...\n")
    assert only(name)[1][name].status == "loaded"


def test_a_function_that_is_not_marked_is_not_silently_no_plugin(module: Callable[[str, str], str]) -> None:
    name = module("unmarked_plugin", "def finetuned_register(register): ...")
    report = only(name)[1][name]
    assert report.status == "broken"
    assert "finetuned_register is not marked as a hook: write @hookimpl" in (report.reason or "")


def test_a_module_without_any_hook_is_told_which_one_to_write(module: Callable[[str, str], str]) -> None:
    name = module("empty_plugin", "")
    report = only(name)[1][name]
    assert report.status == "broken"
    assert "It has no hook, so it adds nothing: write a function finetuned_register" in (report.reason or "")


def test_a_plugin_that_ends_the_process_or_breaks_in_its_hook_costs_only_itself(
    module: Callable[[str, str], str],
) -> None:
    leaving = module("leaving_plugin", "raise SystemExit(3)")
    failing = module(
        "failing_plugin",
        "from finetuned_sdk import hookimpl\n@hookimpl\ndef finetuned_register(register): 1 / 0\n",
    )
    kinds, reports = only(f"{leaving},{failing},finetuned_sdk.fake")
    assert reports[leaving].reason == "SystemExit: 3"
    assert reports[failing].reason == "ZeroDivisionError: division by zero"
    assert "fake" in kinds


def test_of_a_plugin_that_declares_one_thing_wrongly_nothing_is_taken(
    declare: Declare, tmp_path: Path
) -> None:
    name = declare("half_plugin", kind="good")
    with (tmp_path / f"{name}.py").open("a") as file:
        file.write(
            """    register.job_kind(JobKind(name="bad", summary="", params=FakeParams, entry="no"))\n"""
        )
    kinds, reports = only(name)
    assert reports[name].status == "broken"
    assert not {"good", "bad"} & kinds


# ---- the version of the SDK ----------------------------------------------------------------------------------


def test_a_plugin_that_is_written_for_another_sdk_is_left_out_before_it_is_imported(
    declare: Declare,
) -> None:
    above = 'FINETUNED_SDK = "99.0"\nfrom finetuned_sdk import nothing_that_is_there\n'
    module = declare("newer_plugin", above=above)
    kinds, reports = only(f"{module},finetuned_sdk.fake")
    assert reports[module].status == "broken"
    assert reports[module].reason == (
        f"It is written for version 99.0 of the plugin SDK, and this release of finetuned has {SDK_VERSION}: "
        f"upgrade finetuned, or install a release of the plugin for {SDK_VERSION}."
    )
    assert module not in sys.modules
    assert "fake" in kinds


@pytest.mark.parametrize("form", ["FINETUNED_SDK = {!r}", "FINETUNED_SDK: str = {!r}"])
def test_a_plugin_that_is_written_for_this_sdk_is_loaded(declare: Declare, form: str) -> None:
    module = declare(f"fitting_plugin_{len(form)}", above=form.format(SDK_VERSION))
    assert only(module)[1][module].status == "loaded"


@pytest.mark.parametrize("wanted", ["2.0", "2.3"])
def test_what_asks_for_as_much_or_less_of_the_same_major_version_fits(wanted: str) -> None:
    assert plugin_checks.misfit(wanted, "2.3") is None


@pytest.mark.parametrize(
    ("wanted", "remedy"),
    [
        ("2.4", "upgrade finetuned, or install a release of the plugin for 2.3."),
        ("3.0", "upgrade finetuned, or install a release of the plugin for 2.3."),
        ("1.9", "install a release of the plugin for 2.3, or port it and declare '2.3'."),
        ("2.10", "upgrade finetuned, or install a release of the plugin for 2.3."),
    ],
)
def test_what_does_not_fit_is_told_both_versions_and_what_to_do(wanted: str, remedy: str) -> None:
    problem = plugin_checks.misfit(wanted, "2.3")
    assert problem == (
        f"It is written for version {wanted} of the plugin SDK, and this release of finetuned has 2.3: {remedy}"
    )


@pytest.mark.parametrize("wanted", ["", "1", "one", ">=1,<2", "1.0.0", 1.0, None, "1.0\n"])
def test_what_is_no_version_is_told_how_to_write_one(wanted: object) -> None:
    assert plugin_checks.misfit(wanted, "1.0") == (
        f"Its FINETUNED_SDK is {wanted!r}, which is no version of the SDK: "
        "write the one that it is written for as a text, here '1.0'."
    )


def test_a_version_that_is_worked_out_is_not_known_before_the_import_and_refused(declare: Declare) -> None:
    module = declare("computing_plugin", above='FINETUNED_SDK = "1" + ".0"\n')
    assert "is no version of the SDK" in (only(module)[1][module].reason or "")


def test_a_plugin_that_cannot_be_imported_is_left_out_with_the_reason() -> None:
    kinds, reports = only("no_such_module_anywhere,finetuned_sdk.fake")
    assert "ModuleNotFoundError" in (reports["no_such_module_anywhere"].reason or "")
    assert "fake" in kinds


def test_the_second_plugin_that_takes_a_name_is_left_out(declare: Declare) -> None:
    first, second = declare("plugin_a", kind="same"), declare("plugin_b", kind="same")
    kinds, reports = only(f"{first},{second}")
    assert "same" in kinds
    assert reports[first].status == "loaded"
    assert "Two plugins declare the job kind 'same'" in (reports[second].reason or "")


def test_an_entry_that_is_no_module_and_function_is_refused(declare: Declare) -> None:
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
