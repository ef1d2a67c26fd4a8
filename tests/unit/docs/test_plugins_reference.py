"""docs/reference/plugins.md says what the SDK says, of everything that a plugin's author can import."""

from __future__ import annotations

import dataclasses
import importlib.util
import re
from pathlib import Path
from types import ModuleType

import pytest

import finetuned_sdk
from finetuned_sdk import JobKind
from finetuned_sdk.testing import RecordingContext

REFERENCE = Path(__file__).parents[3] / "docs" / "reference"
PAGE = (REFERENCE / "plugins.md").read_text(encoding="utf-8")


def generator(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, REFERENCE / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


GENERATOR = generator("generate_plugins")


def test_the_page_says_what_the_sdk_says() -> None:
    assert GENERATOR.page() == PAGE, "make reference writes it anew"


def test_the_page_of_kinds_says_what_the_plugins_declare() -> None:
    page = (REFERENCE / "kinds.md").read_text(encoding="utf-8")
    assert generator("generate_kinds").page() == page, "make reference writes it anew"


def test_each_variable_of_the_environment_is_explained_in_the_reference() -> None:
    told = "".join(path.read_text(encoding="utf-8") for path in REFERENCE.glob("*.md"))
    read = {
        name
        for root in ("daemon", "plugins")
        for path in (REFERENCE.parents[1] / root).rglob("*.py")
        for name in re.findall(r'"(FINETUNED_[A-Z_]+)"', path.read_text(encoding="utf-8"))
    }
    assert {"FINETUNED_STATE_DIR", "FINETUNED_ATTEMPT"} <= read
    assert {name for name in read if f"`{name}`" not in told and f"{name}=" not in told} == set()


def test_each_hook_has_a_heading_and_its_argument_list() -> None:
    hooks = GENERATOR.hook_specifications()
    assert "finetuned_register" in [hook.__name__ for hook in hooks]
    for hook in hooks:
        assert f"\n### {hook.__name__}\n\n```python\ndef {hook.__name__}(" in PAGE
        assert hook.__doc__


@pytest.mark.parametrize("name", [*GENERATOR.public_names(), RecordingContext.__name__])
def test_each_public_name_has_a_heading_and_says_what_it_is(name: str) -> None:
    _, found, section = PAGE.partition(f"\n### {name}\n")
    assert found
    first = (getattr(finetuned_sdk, name, RecordingContext).__doc__ or "").splitlines()[0]
    assert first
    assert first.split("`")[0] in section


def test_each_field_of_a_job_kind_is_explained() -> None:
    meanings = GENERATOR.explained(JobKind)
    assert set(meanings) == {field.name for field in dataclasses.fields(JobKind)}


def test_each_method_of_the_workers_context_says_what_it_does() -> None:
    for name, member in vars(finetuned_sdk.WorkerContext).items():
        if not name.startswith("_"):
            assert GENERATOR.prose(member), name
