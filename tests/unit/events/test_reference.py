"""The reference page says what the code does."""

from __future__ import annotations

import dataclasses
import inspect
import re
from pathlib import Path

import finetuned_events
from finetuned_events import Event, EventLog, LogError

PAGE = (Path(__file__).parents[3] / "docs" / "reference" / "event-log.md").read_text(encoding="utf-8")


def test_every_error_is_in_the_table_with_its_code() -> None:
    listed = dict(re.findall(r"^\| `(\w+Error)` \| `(\w+)` \|", PAGE, re.MULTILINE))
    errors = [getattr(finetuned_events, name) for name in finetuned_events.__all__ if name.endswith("Error")]
    assert listed == {error.__name__: error.code for error in errors if error is not LogError}


def test_every_field_of_an_event_is_explained() -> None:
    for field in dataclasses.fields(Event):
        assert f"`{field.name}`" in PAGE


def test_every_method_is_mentioned() -> None:
    methods = [name for name, _ in inspect.getmembers(EventLog) if not name.startswith("_")]
    assert len(methods) > 15
    for name in methods:
        assert re.search(rf"\b{name}\b", PAGE), name
