"""Asking the engine: many requests at once, each until it has its result, whatever becomes of the engine meanwhile."""

from __future__ import annotations

import os
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import anyio
import anyio.to_thread

from finetuned_batch import answers
from finetuned_batch.answers import Tally
from finetuned_batch.lines import Line, parse
from finetuned_batch.requests import Row
from finetuned_batch.segments import SegmentWriter
from finetuned_batch.suspects import Suspects
from finetuned_sdk.engines import EngineClient, EngineGoneError, Request, RequestError, connect, engine_of
from finetuned_sdk.engines.engine import Adapter
from finetuned_sdk.errors import JobError

if TYPE_CHECKING:
    from finetuned_sdk.context import WorkerContext

ASKING: Final = "asking"  # the phase
LOOK_S: Final = 0.05  # between two looks for a stop request
STATUS_S: Final = 1.0  # between two questions how busy the engine is
SYNC_S: Final = 0.5  # between two syncs of the segment: a loss of power asks so much again
AGAIN_S: Final = 0.2  # before a request is asked again that the engine could not take
BUSY: Final = frozenset({429, 503})  # statuses of an engine that cannot take a request now
FAILURES: Final = 3  # of the engine at one request, after which its error is the result
PRIORITY: Final = -1  # of its requests: somebody waits for those that are asked online
ENDING_S: Final = 10.0  # that a killed process may take connections before the daemon knows of its end
LIVES: Final = 5  # engines in a row that may end without a single result between them
DIED: Final = "engine_died"
_DIED: Final = (
    "The engine died each time that it was asked this, at last with nothing else of the batch beside it; its output says"
    " why (`finetune logs` of the engine's job). Shorten the request, or change what is unusual in it."
)

Json = Any


@dataclass(slots=True, eq=False)
class Asking:
    """Asks for rows and appends their results. ``endpoint`` is where they belong, ``window`` how many are asked at once.

    ``told`` is called after each result. A request that the engine may die of is asked alone, before the others.
    """

    ctx: WorkerContext
    source: int  # descriptor of the input
    endpoint: str
    model: str
    window: int
    segment: SegmentWriter
    tally: Tally
    told: Callable[[], None]
    suspects: Suspects
    _todo: deque[Row] = field(default_factory=deque)
    _alone: deque[Row] = field(default_factory=deque)  # of what is to be done, what is to be asked alone
    _lost: list[Row] = field(default_factory=list)  # in flight when the engine went
    _beside_others: bool = False  # whether somebody else asked the engine when the newest of ``_alone`` was
    _under_way: int = 0
    _failures: Counter[bytes] = field(default_factory=Counter)
    _gone: bool = False
    _broken: OSError | None = None  # why no result can be kept any more
    _answered: int = 0  # results that the engine gave
    _fruitless: int = 0  # engines in a row that died and gave no result
    _died: str | None = None  # socket of the engine that died last, each has its own
    _died_at: float = 0.0
    _changed: anyio.Event = field(default_factory=anyio.Event)  # there may be more to do, or nothing

    async def run(self, rows: Iterable[Row]) -> bool:
        """Ask until each row has its result; ``False`` if the job is to stop before.

        Raises ``JobError`` if there will be no engine, or if one after another dies of what it is asked.
        """
        self._todo.extend(rows)
        while self._todo or self._alone:
            state = await engine_of(self.ctx, phase=ASKING)
            if state is None:
                return False
            answered, died = self._answered, False
            try:
                async with connect(Path(state.socket or "")) as client:
                    died = not await self._asked_all(client, state.adapter)
            except EngineGoneError:
                await anyio.sleep(LOOK_S)  # it takes a moment until it is known that it has ended
            if self.ctx.stop_requested is not None:
                return False
            if died and self._has_just_died(state.socket):
                died = False
                await anyio.sleep(LOOK_S)
            if died:
                self._died, self._died_at = state.socket, time.monotonic()
                self._look_what_it_died_of()
                if self._broken is not None:
                    raise self._broken
            if self._answered > answered:
                self._fruitless = 0
            elif died:
                self._fruitless += 1
            if (self._todo or self._alone) and self._fruitless >= LIVES:
                raise JobError(
                    f"The engine ended {LIVES} times in a row without an answer; its output says why"
                    " (`finetune logs` of the engine's job). Then `finetune batch retry-failed`.",
                    code="engine_keeps_dying",
                )
        return True

    def _has_just_died(self, socket: str | None) -> bool:
        """Whether this engine's death is known: the kernel closes what a killed process has open one after the other."""
        return socket == self._died and time.monotonic() - self._died_at < ENDING_S

    async def _asked_all(self, client: EngineClient, adapter: Adapter | None) -> bool:
        """:meth:`_ask_all`; ``False`` if the engine ended before the end, and nobody had told it to."""
        try:
            await self._ask_all(client, adapter)
        except EngineGoneError:
            return client.is_leaving
        return client.is_leaving or not (self._todo or self._alone)

    async def _ask_all(self, client: EngineClient, adapter: Adapter | None) -> None:
        """Ask until all is answered, the engine is gone, or the job is to stop."""
        self._gone, self._lost = False, []
        waiting, self._todo = (*self._alone, *self._todo), deque()
        self._alone.clear()
        for row in waiting:
            (self._alone if row.key in self.suspects else self._todo).append(row)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._watch, tasks.cancel_scope)
            tasks.start_soon(self._look_after, client)
            tasks.start_soon(self._sync)
            for rows, window in ((self._alone, 1), (self._todo, self.window)):
                async with anyio.create_task_group() as workers:
                    for _ in range(min(window, len(rows))):
                        workers.start_soon(self._work, client, adapter, rows)
            tasks.cancel_scope.cancel()
        if self._broken is not None:
            raise self._broken

    async def _work(self, client: EngineClient, adapter: Adapter | None, rows: deque[Row]) -> None:
        while not self._gone and (rows or self._under_way):
            if not rows:  # what is under way may have to be asked again
                await self._changed.wait()
                continue
            if not await self._is_there(client, alone=rows is self._alone):
                self._end()
                return
            row = rows.popleft()
            self._under_way += 1
            line = None
            try:
                line = await self._result(client, adapter, row)
            except EngineGoneError:
                self._end()
                self._lost.append(row)
            finally:
                self._under_way -= 1
                if line is None:  # cancelled, too
                    rows.appendleft(row)
                if line is None or not self._under_way:
                    self._wake()
            if line is not None:
                self._answered += 1
                self._keep(line)

    def _end(self) -> None:
        """Nothing more is asked of this engine."""
        self._gone = True
        self._wake()

    def _wake(self) -> None:
        self._changed.set()
        self._changed = anyio.Event()

    async def _is_there(self, client: EngineClient, *, alone: bool) -> bool:
        """Whether the engine lives. Before a row that is asked alone it is asked: what ends it then is that row."""
        if not alone:
            return not client.is_gone
        try:
            status = await client.status()
        except (EngineGoneError, RequestError):
            return False
        self._beside_others = status.running + status.waiting > 0
        return True

    def _look_what_it_died_of(self) -> None:
        """The engine has died. What was asked alone has its result by that, once it is proven."""
        was_suspected = bool(self._lost) and self._lost[0] in self._alone
        self.suspects.engine_died(
            [row.key for row in self._lost], alone=was_suspected and not self._beside_others
        )
        if not was_suspected:
            return
        row = self._lost[0]
        self._alone.remove(row)
        if not self.suspects.is_proven(row.key):
            self._alone.append(row)  # not at once again: who asked beside it may do just that
            return
        self.suspects.found()
        self._keep(answers.unfinished(self.ctx.job_id, self._line(row).custom_id, DIED, _DIED))

    def _line(self, row: Row) -> Line:
        raw = os.pread(self.source, row.length, row.offset)
        return parse(raw, endpoint=self.endpoint, model=self.model)

    async def _result(self, client: EngineClient, adapter: Adapter | None, row: Row) -> Json:
        """A row's result line; ``None`` if it is to be asked again."""
        job = self.ctx.job_id
        line = self._line(row)
        if line.body.get("stream"):
            error = RequestError(
                "A batch does not stream; leave stream out.", param="stream", code="unsupported_parameter"
            )
            return answers.refused(job, line.custom_id, error)
        try:
            request = Request(endpoint=self.endpoint, body=line.body, adapter=adapter, priority=PRIORITY)
            return answers.answered(job, line.custom_id, await client.answer(request))
        except RequestError as error:
            if not self._is_final(row, error):
                await anyio.sleep(AGAIN_S)
                return None
            return answers.refused(job, line.custom_id, error)

    def _is_final(self, row: Row, error: RequestError) -> bool:
        """Whether an error is the row's own: a busy engine's is not, and one that failed is given more chances."""
        if error.status in BUSY:
            return False
        if error.status < 500:
            return True
        self._failures[row.key] += 1
        return self._failures[row.key] >= FAILURES

    def _keep(self, line: Json) -> None:
        if self._broken is not None:
            return
        try:
            self.segment.append(answers.encode(line))
        except OSError as error:  # raised where no task group would wrap it
            self._broken = error
            self._end()
            return
        self.tally.add(line)
        self.told()

    async def _watch(self, scope: anyio.CancelScope) -> None:
        while self.ctx.stop_requested is None:  # noqa: ASYNC110 - the request comes from another thread
            await anyio.sleep(LOOK_S)
        scope.cancel()

    async def _look_after(self, client: EngineClient) -> None:
        """Show that the work goes on as long as the engine's does: one answer may take long."""
        seen = -1
        while not client.is_gone:
            try:
                tokens = (await client.status()).tokens
            except (EngineGoneError, RequestError):
                return
            if tokens != seen:
                seen = tokens
                self.ctx.advancing()
            await anyio.sleep(STATUS_S)

    async def _sync(self) -> None:
        while True:
            await anyio.sleep(SYNC_S)
            try:
                await anyio.to_thread.run_sync(self.segment.sync)
            except OSError as error:
                self._broken = error
                self._end()
                return


class Speed:
    """Tokens a second since it was made."""

    def __init__(self, tally: Tally, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._tally = tally
        self._since = clock()
        self._tokens = tally.output_tokens

    @property
    def tokens_per_second(self) -> float | None:
        """Tokens that were generated; ``None`` before the first."""
        seconds = self._clock() - self._since
        tokens = self._tally.output_tokens - self._tokens
        return round(tokens / seconds, 1) if tokens and seconds > 0 else None
