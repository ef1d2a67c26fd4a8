"""A plugin of the harness: the fake kind without a validator, so that a job costs one attempt and not two."""

from __future__ import annotations

from dataclasses import replace

from finetuned_sdk import Registry, hookimpl
from finetuned_sdk.fake import FAKE

QUICK = replace(FAKE, name="quick", summary="Does nothing, at once.", validator=None)


@hookimpl
def finetuned_register(register: Registry) -> None:
    """Declare the kind."""
    register.job_kind(QUICK)
