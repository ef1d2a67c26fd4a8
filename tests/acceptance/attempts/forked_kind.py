"""A plugin of the tests: the kind that can be held, whose worker may be forked with its imports."""

from __future__ import annotations

from dataclasses import replace

from tests.acceptance.daemon import gated

from finetuned_sdk import Registry, fake, hookimpl


@hookimpl
def finetuned_register(register: Registry) -> None:
    """Declare the kind."""
    register.job_kind(
        replace(
            fake.FAKE,
            name="forked",
            params=gated.GatedParams,
            entry=f"{gated.__name__}:run",
            preload=lambda _params: (gated.__name__,),
        )
    )
