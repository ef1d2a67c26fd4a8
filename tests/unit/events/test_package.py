from __future__ import annotations

import dataclasses
import importlib
import inspect
import pkgutil
import subprocess
import sys
from pathlib import Path

import pytest

import finetuned_events
from finetuned_events import Event, LogError, LogLockedError, errors
from finetuned_events.event import make

MODULES = [f"finetuned_events.{module.name}" for module in pkgutil.iter_modules(finetuned_events.__path__)]
ERRORS = [thing for thing in vars(errors).values() if inspect.isclass(thing) and issubclass(thing, LogError)]


@pytest.mark.parametrize("name", ["finetuned_events", *MODULES])
def test_every_module_names_what_it_offers(name: str) -> None:
    module = importlib.import_module(name)
    assert isinstance(module.__all__, tuple)
    assert len(set(module.__all__)) == len(module.__all__)
    for exported in module.__all__:
        assert hasattr(module, exported)


def test_every_error_has_a_code_of_its_own_and_a_remedy() -> None:
    codes = [error.code for error in ERRORS]
    assert len(set(codes)) == len(codes)
    for error in ERRORS:
        assert (error.__doc__ or "").endswith(".")
        assert error.__name__ in finetuned_events.__all__
    assert str(LogError()) == "The event log could not do what was asked."
    assert "unknown" in str(LogLockedError(Path("x"), ""))


def test_a_made_event_is_an_ordinary_one() -> None:
    fields = (1, "job/1", 1, "job.noted", 1, 5, "system", None, {"a": 1})
    made, event = make(*fields), Event(*fields)
    assert type(made) is Event
    assert made == event
    assert repr(made) == repr(event)
    assert dataclasses.replace(made, seq=2) == dataclasses.replace(event, seq=2)
    with pytest.raises(dataclasses.FrozenInstanceError):
        made.seq = 2  # type: ignore[misc] # that is the point


def test_the_log_needs_no_web_server_and_no_torch() -> None:
    script = (
        "import sys, finetuned_events\n"
        "heavy = {'aiohttp', 'torch', 'pydantic', 'finetuned', 'finetuned_sdk'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    source = str(Path(finetuned_events.__file__).parents[1])
    subprocess.run([sys.executable, "-c", script], check=True, env={"PYTHONPATH": source})
