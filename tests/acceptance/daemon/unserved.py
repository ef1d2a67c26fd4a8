"""A plugin of the tests: the fake kind, whose job needs a file at a step and cannot go on as long as it is not there."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, cast

from pydantic import Field

from finetuned_sdk import PauseError, Registry, WorkerContext, fake, hookimpl


class UnservedParams(fake.FakeParams):
    """What a fake job does, and what it needs for that."""

    server: str = Field(description="The file that it needs.")
    needed_at: int = Field(3, ge=1, description="The first step that needs it.")


class Unserved:
    """A job's context in which a step cannot be told without the file."""

    def __init__(self, ctx: WorkerContext, params: UnservedParams) -> None:
        self._ctx = ctx
        self._needed_at = params.needed_at
        self._server = Path(params.server)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._ctx, name)

    def progress(self, **told: Any) -> None:
        """Tell of a step, if it could be done."""
        if told["current_step"] >= self._needed_at:
            require(self._server)
        self._ctx.progress(**told)


def require(server: Path) -> None:
    """Raise ``PauseError`` without the file."""
    if not server.exists():
        raise PauseError(f"{server.name} does not answer; bring it up.", code="server_away")


def run(ctx: WorkerContext, params: UnservedParams) -> None:
    """Do the steps as the fake kind does."""
    fake.run(cast("WorkerContext", Unserved(ctx, params)), params)


def validate(_: WorkerContext, params: UnservedParams) -> None:
    """Need the file at once if it is needed for the first step."""
    if params.needed_at == 1:
        require(Path(params.server))


@hookimpl
def finetuned_register(register: Registry) -> None:
    """Declare the kind."""
    kind = replace(
        fake.FAKE,
        name="unserved",
        params=UnservedParams,
        entry=f"{__name__}:run",
        validator=f"{__name__}:validate",
    )
    register.job_kind(kind)
