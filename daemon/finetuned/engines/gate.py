"""The way to an engine for requests that are answered at once."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AbstractContextManager, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import anyio
import anyio.to_thread
from anyio import TASK_STATUS_IGNORED
from anyio.abc import TaskStatus

from finetuned import checkpoint_names
from finetuned.access.path_policy import NOWHERE, PathPolicy
from finetuned.board import Board
from finetuned.domain import model_names
from finetuned.domain.engines import Wanted
from finetuned.domain.errors import (
    EngineBusyError,
    EngineEndedError,
    EngineFailedError,
    EngineNotReadyError,
    FinetunedError,
)
from finetuned.domain.job import Job
from finetuned.engines.defaults import EngineDefaults
from finetuned.engines.links import Links
from finetuned.engines.target import Names, Target
from finetuned.store import Log
from finetuned_sdk import EngineKind, Registry
from finetuned_sdk.engines import EngineClient, EngineGoneError, EngineStatus, Request, RequestError

Json = Any

MOST_ASKING = 256  # requests that wait for one engine or run on it, unless the configuration says otherwise
STATUS_S = 2.0  # that an engine may take to say how busy it is
LOOK_S = 1.0  # between two looks without an event: a failure at an engine's submission is in none


class EngineRefusedError(FinetunedError):
    """An engine refuses one request. Status, type, code and parameter are its own words."""

    code = "engine_refused"
    status = 400
    exit_code = 2
    kind = "invalid_request_error"

    def __init__(self, error: RequestError) -> None:
        super().__init__(error.message, param=error.param)
        vars(self).update(status=error.status if 400 <= error.status < 600 else 500, kind=error.type)
        self._code = error.code

    @property
    def stable_code(self) -> str:
        """The engine's code, if it gave one."""
        return self._code or self.code


@dataclass(frozen=True, slots=True)
class Asked:
    """A connection to the engine that answers for ``target``. It is shared: others ask over it too."""

    client: EngineClient
    target: Target
    kind: EngineKind

    @asynccontextmanager
    async def parts(self, endpoint: str, body: Json) -> AsyncIterator[AsyncIterator[Json]]:
        """The parts of the answer to a body of the OpenAI API. Left before the last of them, the request is aborted.

        Raises ``EngineRefusedError`` for what the engine does not do.
        """
        request = Request(endpoint=endpoint, body=body, adapter=self.target.adapter)
        try:
            async with self.client.ask(request) as parts:
                yield parts
        except RequestError as error:
            raise EngineRefusedError(error) from None


class Engines(Protocol):
    """What the gate asks for engines: the keeper."""

    def asking(self, wanted: Wanted) -> AbstractContextManager[int]:
        """Ask for an engine as long as the context lasts; when that began, for :meth:`failure`."""

    def failure(self, wanted: Wanted, began: int) -> str | None:
        """Why there will be no such engine for who began to ask then; ``None`` if there may be one."""

    async def serving(self, key: str) -> Path | None:
        """The socket of the engine of a key, if it answers."""


@dataclass(slots=True, eq=False)
class EngineGate:
    """``wait_s``: seconds that a request waits for its engine. ``most``: requests that ask one engine at once.

    ``paths`` says which paths on the server everybody may name as a model. :meth:`run` it before anybody asks.
    """

    log: Log
    board: Board
    registry: Registry
    defaults: EngineDefaults
    keeper: Engines
    wait_s: float
    most: int = MOST_ASKING
    paths: PathPolicy = NOWHERE
    _links: Links = field(default_factory=Links)
    _asking: Counter[str] = field(default_factory=Counter)

    async def run(self, *, task_status: TaskStatus[None] = TASK_STATUS_IGNORED) -> None:
        """Hold the connections to engines until cancelled."""
        await self._links.run(task_status=task_status)

    @asynccontextmanager
    async def ask(
        self,
        model: str,
        *,
        engine: str | None = None,
        endpoint: str | None = None,
        may_name_paths: bool = False,
    ) -> AsyncIterator[Asked]:
        """A connection to the engine that answers for a model; it is started if there is none.

        ``endpoint`` is what will be asked: an engine that answers it is taken, by default the daemon's default.
        ``may_name_paths`` is said of a caller who may name any directory as a model.

        Raises ``ModelNotFoundError`` for a model that there is not, ``PathNotAllowedError``, ``InvalidRequestError``
        for an endpoint that no engine answers, ``EngineBusyError`` if too many ask, ``EngineNotReadyError`` if the
        engine does not come in time, ``EngineFailedError`` if it cannot come at all, and ``EngineEndedError`` if it
        ends while it is asked.
        """
        target = await self.target(model, may_name_paths=may_name_paths)
        kind = self.defaults.kind(engine, self.registry, endpoint=endpoint)
        wanted = target.wanted(kind, self.defaults.params(kind, target.base, {}))
        with self._counted(wanted), self.keeper.asking(wanted) as began:
            client = await self._client(wanted, began)
            try:
                yield Asked(client, target, kind)
            except EngineGoneError as error:
                raise EngineEndedError(
                    f"The engine of {model} ended before it had answered ({error}); send the request again."
                ) from None

    async def target(self, model: str, *, may_name_paths: bool = False) -> Target:
        """What answers for a name. Raises ``ModelNotFoundError`` or ``PathNotAllowedError``."""
        world = await self.board.world()
        paths = self.paths.of(may_name_paths=may_name_paths)
        kept = await checkpoint_names.kept(self.log, world, [model])
        names = Names(models=dict(world.models), aliases=dict(world.aliases), checkpoints=kept, paths=paths)

        def look() -> Target:
            known = names.models.keys() | names.aliases.keys()
            if not model.startswith(model_names.PREFIX):
                paths.check({"model": model}, ("model",), prefix="", known=known)
            return names.target(model)

        return await anyio.to_thread.run_sync(look)

    async def status(self, engine: Job) -> EngineStatus | None:
        """How busy an engine is; ``None`` if it does not say within a moment."""
        if engine.serves is None:
            return None
        with anyio.move_on_after(STATUS_S):
            try:
                socket = await self.keeper.serving(engine.serves)
                if socket is not None:
                    return await (await self._links.client(socket)).status()
            except (EngineGoneError, RequestError):
                return None
        return None

    def _counted(self, wanted: Wanted) -> AbstractContextManager[None]:
        """Count who asks an engine. Raises ``EngineBusyError`` for one too many."""
        if self._asking[wanted.key] >= self.most:
            raise EngineBusyError(
                f"{self.most} requests wait for the engine of {wanted.model} or run on it, as many as it takes"
                " (engine_queue in the configuration); send this one again later."
            )
        return _Place(self._asking, wanted.key)

    async def _client(self, wanted: Wanted, began: int) -> EngineClient:
        with anyio.move_on_after(self.wait_s):
            while True:
                head = self.log.head
                found = await self._connected(wanted)
                if found is not None:
                    return found
                if (reason := self.keeper.failure(wanted, began)) is not None:
                    raise EngineFailedError(f"There is no engine for {wanted.model}: {reason}")
                with anyio.move_on_after(LOOK_S):
                    await self.log.wait(head)
        raise EngineNotReadyError(
            f"The engine of {wanted.model} was not there within {self.wait_s:g} s: it loads, or waits for a device"
            " (`finetune ls` shows what it waits for); send the request again later.",
        )

    async def _connected(self, wanted: Wanted) -> EngineClient | None:
        socket = await self.keeper.serving(wanted.key)
        if socket is None:
            return None
        try:
            client = await self._links.client(socket)
        except EngineGoneError:  # it has died, and the log does not know it yet
            return None
        return None if client.is_gone else client


@dataclass(slots=True)
class _Place(AbstractContextManager[None]):
    """One of those who ask an engine."""

    asking: Counter[str]
    key: str

    def __enter__(self) -> None:
        self.asking[self.key] += 1

    def __exit__(self, *_raised: object) -> None:
        self.asking[self.key] -= 1
        if not self.asking[self.key]:
            del self.asking[self.key]
