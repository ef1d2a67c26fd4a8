"""Generation: a thread that goes from token to token with whatever rows there are, and takes in others between two."""

from __future__ import annotations

import asyncio
import logging
import math
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final, TypeVar

import torch

from finetuned_decoding.ranks import close_ranks
from finetuned_sdk.engines import EngineGoneError
from finetuned_sdk.worker_failures import is_out_of_memory
from finetuned_transformers import endings
from finetuned_transformers.decoder import Decoder
from finetuned_transformers.row_sampling import draw
from finetuned_transformers.rows import Event, Row
from finetuned_transformers.waiting_list import WaitingList

log = logging.getLogger(__name__)

#: tokens of prompts that are taken in between two tokens of the rows that are there; one prompt at least
_JOINING: Final = 2048
#: tokens of a longer prompt that are computed between two tokens of the rows that are there
_PIECE: Final = 512

T = TypeVar("T")


class Generation:
    """The rows of a decoder. Made and asked on one event loop; the decoder is used by its thread alone.

    ``at_once`` rows at most, of ``most_tokens`` tokens at most if each becomes as long as the longest may. Others wait for their turn.
    Where memory turns out to be less, ``most_tokens`` becomes less, too; a row that has no room alone is refused.
    """

    def __init__(self, decoder: Decoder, *, at_once: int, most_tokens: int) -> None:
        self._decoder = decoder
        self._at_once = at_once
        self._most_tokens = most_tokens
        self._loop = asyncio.get_running_loop()
        self._threads = torch.get_num_threads()
        self._changed = threading.Condition()
        self._waiting = WaitingList()
        self._calls: deque[Callable[[], None]] = deque()
        self._rows: list[Row] = []
        self._new: list[Row] = []  # those that join: they wait no more and do not run yet
        self._long: Row | None = None  # joins when its prompt was computed but for the last piece
        self._pieces = 0  # of it that come before
        self._closing = False
        self.failure: EngineGoneError | None = None  # of what it has ended by itself
        self.tokens = 0
        self._thread = threading.Thread(target=self._run, name="generation", daemon=True)
        self._thread.start()

    @property
    def running(self) -> int:
        """Rows that are computed."""
        return sum(not row.ended for row in self._taken_in())

    @property
    def waiting(self) -> int:
        """Rows that wait for a place."""
        return len(self._waiting)

    @property
    def taken(self) -> float:
        """The share of the cache that the rows may fill."""
        return min(
            1.0, sum(row.prompt.limit for row in tuple(self._rows) if not row.ended) / self._most_tokens
        )

    def _taken_in(self) -> list[Row]:
        """Those that wait no more."""
        long = self._long
        return [*self._rows, *self._new, *([] if long is None else [long])]

    def submit(self, rows: Sequence[Row]) -> None:
        """Have completions computed. Raises ``EngineGoneError`` if nothing is any more."""
        with self._changed:
            self._check_going()
            self._waiting.add(rows)
            self._changed.notify()

    def abort(self, rows: Sequence[Row]) -> None:
        """Have no more time taken by rows."""
        with self._changed:
            for row in rows:
                row.ended = True
            self._changed.notify()

    async def call(self, function: Callable[[], T]) -> T:
        """What a function of the decoder gives, computed between two tokens; not at all if the caller goes before.

        Raises what it raises, and ``EngineGoneError`` if nothing is computed any more.
        """
        future: asyncio.Future[T] = self._loop.create_future()

        def run() -> None:
            if future.cancelled():
                return
            try:
                self._check_going()
                result = function()
            except Exception as error:
                self._tell(_fail, future, error)
                if endings.is_the_devices(error):
                    raise
            else:
                self._tell(_settle, future, result)

        with self._changed:
            self._check_going()
            self._calls.append(run)
            self._changed.notify()
        return await future

    async def close(self) -> None:
        """End all rows, and the thread, and free the decoder."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        await asyncio.to_thread(self._thread.join)

    def _check_going(self) -> None:
        if self.failure is not None:
            raise self.failure

    def _run(self) -> None:
        torch.set_num_threads(self._threads)  # a new thread has not the number that was set in another
        with torch.inference_mode():
            while self._wait():
                try:
                    self._make_calls()
                    self._advance()
                except Exception as error:
                    log.exception("Generating failed")
                    has_no_room = is_out_of_memory(error) and self._rows
                    self.failure = None if has_no_room else endings.failure(error)
                else:
                    continue
                if has_no_room:  # by now nothing holds what the step had computed
                    self._begin_again()
            self._end_all(self.failure or endings.stopping())
            if self.failure is None:
                self._decoder.free()

    def _begin_again(self) -> None:
        """Fewer rows at once: there is less memory than was thought. All wait, and go on from what they have said."""
        rows = [row for row in self._taken_in() if not row.ended]
        self._rows, self._new, self._long = [], [], None
        self._decoder.keep([])
        if len(rows) == 1:
            rows[0].ended = True
            self._tell(_deliver, [(rows[0], endings.no_room(rows[0]))])
        elif rows:
            self._have_room_for(len(rows) * max(row.prompt.limit for row in rows) // 2)
            self._waiting.add(rows)

    def _wait(self) -> bool:
        """Wait until there is something to do; whether there will be more."""
        with self._changed:
            self._changed.wait_for(
                lambda: self._closing or self.failure or self._calls or self._waiting or self._taken_in()
            )
            return not self._closing and self.failure is None

    def _make_calls(self) -> None:
        """One call, so that the rows get on between two."""
        if self._calls:
            self._calls.popleft()()

    def _advance(self) -> None:
        """A token for each row, those that join included."""
        self._drop_ended()
        events: list[tuple[Row, Event]] = []
        try:
            if self._rows:
                logits = self._decoder.step(torch.tensor([row.tokens[-1] for row in self._rows]))
                events += self._drawn(self._rows, logits)
            self._new = self._ready()
            if self._new:
                events += self._joined(self._new)
        finally:  # what was drawn is told, whatever fails then
            if events:
                self._tell(_deliver, events)

    def _joined(self, new: Sequence[Row]) -> list[tuple[Row, Event]]:
        """The first tokens of rows that join. One that cannot ends with its error, and no other does."""
        prompts = [row.so_far for row in new]
        try:
            logits = self._decoder.join(prompts)
            events = list(self._drawn(new, logits))
        except Exception as error:  # noqa: BLE001 - it is that row's, once it is known whose
            failure = error
        else:
            self._rows = [*self._rows, *new]
            self._new = [row for row in self._new if row not in new]
            self.tokens += sum(len(each.ids) - row.prepared for each, row in zip(prompts, new, strict=True))
            return events
        if endings.is_the_devices(failure):
            raise failure
        has_no_room = is_out_of_memory(failure)
        failure = failure.with_traceback(None) if has_no_room else failure  # what it holds takes room
        self._decoder.keep(range(len(self._rows)))  # without those that have joined half way
        if len(new) > 1:  # which of them it was shows when each joins alone
            return [event for row in new for event in self._joined([row])]
        self._new = [row for row in self._new if row not in new]
        if has_no_room and self._rows:
            self._have_room_for(
                len(self._rows) * max(row.prompt.limit for row in (*self._rows, *new))
            )  # as many as are there
            self._waiting.add(new)
            return []
        log.error("A request could not begin", exc_info=failure)
        new[0].ended = True
        return [(new[0], endings.no_room(new[0]) if has_no_room else failure)]

    def _have_room_for(self, tokens: int) -> None:
        self._most_tokens = min(self._most_tokens, tokens)
        log.warning("Memory ran out: the cache has room for %d tokens from now on", self._most_tokens)

    def _ready(self) -> list[Row]:
        """Rows that join now. One with a long prompt does when it was computed but for its last piece, a piece at a time."""
        if self._long is None:
            rows = list(self._joining())
            if not rows or rows[0].length <= _PIECE:
                return rows
            self._long, self._pieces = rows[0], (rows[0].length - 1) // _PIECE
        row = self._long
        if self._pieces and not row.ended:
            self._prepare(row)
            return []
        self._long = None
        return [] if row.ended else [row]

    def _prepare(self, row: Row) -> None:
        """Compute a piece of a long prompt."""
        self._pieces -= 1
        try:
            there = self._decoder.prepare(row.so_far, _PIECE)
        except Exception as error:
            if endings.is_the_devices(error):
                raise
            log.warning("A prompt could not be computed in pieces: %s", error)
            self._pieces = 0  # if it cannot be computed at all, that shows when it joins
            return
        self.tokens += max(0, there - row.prepared)
        row.prepared = max(there, row.prepared)
        if row.length - there <= _PIECE:
            self._pieces = 0

    def _joining(self) -> Iterator[Row]:
        """Rows that find a place now. None goes before one whose turn it is, or a large one might wait for ever."""
        widest = max((row.prompt.limit for row in self._rows), default=0)
        rows, tokens = len(self._rows), 0
        while (row := self._waiting.first()) is not None:
            widest = max(widest, row.prompt.limit)  # each row has the columns of the longest
            length = row.length
            tokens += length
            if rows and (  # one always may, or it would wait for ever
                rows >= self._at_once
                or (rows + 1) * widest > self._most_tokens
                or (tokens > length and (tokens > _JOINING or length > _PIECE))
            ):
                return
            rows += 1
            yield self._waiting.take(row)
            if length > _PIECE:  # it is alone
                return

    def _drawn(self, rows: Sequence[Row], logits: torch.Tensor) -> Iterator[tuple[Row, Event]]:
        """A token more for each row, and the end of those that end with it."""
        self.tokens += len(rows)
        for row, drawn in zip(rows, draw(logits, [row.choice for row in rows]), strict=True):
            row.tokens.append(drawn.id)
            if not math.isfinite(drawn.log_prob):
                row.ended = True
                yield row, endings.no_numbers()
            elif drawn.id in row.stop_ids:
                row.ended = True
                yield row, "stop"
            else:
                yield row, drawn
                if row.left <= 0:
                    row.ended = True
                    yield row, "length"

    def _drop_ended(self) -> None:
        going = [at for at, row in enumerate(self._rows) if not row.ended]
        if len(going) < len(self._rows):
            kept = close_ranks(going)
            self._decoder.keep(kept)
            self._rows = [self._rows[at] for at in kept]

    def _end_all(self, error: Exception) -> None:
        """End everything with an error: rows that run, join or wait, and calls."""
        with self._changed:  # who comes after that is told at once
            rows = [*self._taken_in(), *self._waiting.take_all()]
            calls = tuple(self._calls)
        self._rows, self._new, self._long = [], [], None
        for row in rows:
            row.ended = True
        self._tell(_deliver, [(row, error) for row in rows])
        for call in calls:
            call()

    def _tell(self, function: Callable[..., None], *args: Any) -> None:
        try:
            self._loop.call_soon_threadsafe(function, *args)
        except RuntimeError:  # the loop was closed: nobody is left to tell
            self._closing = True


def _deliver(events: Sequence[tuple[Row, Event]]) -> None:
    for row, event in events:
        row.events.put_nowait((row.place, event))


def _settle(future: asyncio.Future[T], result: T) -> None:
    if not future.cancelled():
        future.set_result(result)


def _fail(future: asyncio.Future[Any], error: Exception) -> None:
    if not future.cancelled():
        future.set_exception(error)
