from __future__ import annotations

from pathlib import Path

import pytest

from finetuned_callbacks import plugin
from finetuned_sdk import Callback, Registry

PAGE = Path(__file__).parents[3] / "docs" / "reference" / "callbacks.md"


def declared() -> list[Callback]:
    registry = Registry()
    plugin.finetuned_register(registry)
    return list(registry.callbacks.values())


@pytest.mark.parametrize("callback", declared(), ids=lambda callback: callback.name)
def test_the_reference_has_each_parameter_under_the_callbacks_heading(callback: Callback) -> None:
    _, found, section = PAGE.read_text(encoding="utf-8").partition(f"\n## {callback.name}\n")
    assert found
    table = [
        line.split("|")[1].strip()
        for line in section.partition("\n## ")[0].splitlines()
        if line.startswith("| `")
    ]
    parameters = [f"`{name}`" for name in callback.params.model_fields]
    assert table[: len(parameters)] == parameters
    assert all(field.description for field in callback.params.model_fields.values())
