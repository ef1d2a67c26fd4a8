"""Whatever a built-in kind or callback reads or writes on the server is declared, so that it can be refused."""

from __future__ import annotations

import re

import pytest
from pydantic import BaseModel

from finetuned import plugins
from finetuned_sdk import Callback, JobKind, Registry, fake

#: parameters that speak of files and name none: of an archive's own files, of where results are called, and so on
NO_PATHS = {
    ("import-gguf", "member"),  # within the archive
    ("sft", "dataset_split"),  # a name's beginning
    ("sft-audit", "dataset_split"),
    ("dpo", "dataset_split"),
    ("opd", "dataset_split"),
}
SPEAKS_OF_FILES = re.compile(r"\b(file|folder|directory|path|hub id|repository|server)s?\b", re.IGNORECASE)


def registry() -> Registry:
    loaded, _reports = plugins.load()
    loaded.job_kinds.setdefault("fake", fake.FAKE)
    return loaded


DECLARATIONS: list[JobKind | Callback] = [*registry().job_kinds.values(), *registry().callbacks.values()]


@pytest.mark.parametrize("declared", DECLARATIONS, ids=lambda each: each.name)
def test_a_text_that_speaks_of_files_is_declared_as_a_path(declared: JobKind | Callback) -> None:
    named = {*declared.path_params, *declared.dataset_params, *getattr(declared, "model_params", ())}
    for name, field in declared.params.model_fields.items():
        says_so = SPEAKS_OF_FILES.search(field.description or "")
        takes_text = "str" in str(field.annotation)
        if says_so and takes_text and (declared.name, name) not in NO_PATHS:
            assert name in named, f"{declared.name}.{name}: {field.description}"


@pytest.mark.parametrize("declared", DECLARATIONS, ids=lambda each: each.name)
def test_what_is_declared_is_a_parameter(declared: JobKind | Callback) -> None:
    assert issubclass(declared.params, BaseModel)
    for name in (*declared.path_params, *declared.dataset_params, *getattr(declared, "model_params", ())):
        assert name in declared.params.model_fields


def test_the_built_in_kinds_and_callbacks_are_looked_at() -> None:
    assert {"sft", "import-gguf", "import-model", "validation", "tracker"} <= {
        each.name for each in DECLARATIONS
    }
