"""The contexts have what the protocol promises, with its signatures."""

from __future__ import annotations

import inspect

import pytest

from finetuned_sdk import WorkerContext
from finetuned_sdk.bundle import PROTOCOL
from finetuned_sdk.testing import RecordingContext
from finetuned_sdk.worker_context import Context

PROMISED = [name for name in vars(WorkerContext) if not name.startswith("_")]


@pytest.mark.parametrize("context", [Context, RecordingContext])
@pytest.mark.parametrize("name", PROMISED)
def test_every_promised_member_is_there_with_its_signature(context: type, name: str) -> None:
    promised, there = inspect.getattr_static(WorkerContext, name), inspect.getattr_static(context, name)
    assert type(there) is type(promised)
    if not isinstance(promised, property):
        assert inspect.signature(there) == inspect.signature(promised)


def conforms(context: Context) -> WorkerContext:
    """Checked by mypy: a context is a ``WorkerContext``."""
    return context


def test_the_protocol_version_is_only_changed_on_purpose() -> None:
    assert PROTOCOL == 2
