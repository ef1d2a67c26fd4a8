"""The engine: requests as rows of a batch, and what their tokens become."""

from __future__ import annotations

import asyncio
import random
import secrets
import time
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final, TypeVar

from finetuned_decoding.token_choice import Sampling
from finetuned_sdk.engines import Adapter, EngineStatus, Request, RequestError
from finetuned_transformers import bodies
from finetuned_transformers.answers import Answer, usage
from finetuned_transformers.bodies import ChatBody, CommonBody, CompletionBody
from finetuned_transformers.decoder import Decoder, Prompt
from finetuned_transformers.detokenizer import CONTEXT
from finetuned_transformers.generation import Generation
from finetuned_transformers.prompting import Prompting
from finetuned_transformers.row_sampling import Choice, Drawn
from finetuned_transformers.rows import Event, Row
from finetuned_transformers.stop_strings import StopStrings
from finetuned_transformers.writing import Piece, Writing, joined

Json = Any
T = TypeVar("T")

CHAT: Final = "/v1/chat/completions"
COMPLETIONS: Final = "/v1/completions"
ENDPOINTS: Final = (CHAT, COMPLETIONS)
TEMPLATE: Final = "chat_template.jinja"  # what an adapter was trained with lies beside it


@dataclass(frozen=True, slots=True, kw_only=True)
class Loaded:
    """A model that was loaded. ``length``: tokens that a row may have; ``most_tokens``: those of all rows."""

    decoder: Decoder
    tokenizer: Any
    vocabulary: int
    stop_ids: frozenset[int]
    length: int
    most_tokens: int
    at_once: int
    max_loras: int = 8


class TransformersEngine:
    """See :class:`finetuned_sdk.engines.Engine`. Made on the event loop that it is asked on."""

    def __init__(self, loaded: Loaded) -> None:
        self._loaded = loaded
        self._prompting = Prompting(loaded.tokenizer, loaded.vocabulary)
        self._reader = ThreadPoolExecutor(1, thread_name_prefix="tokenizer")
        self._generation = Generation(loaded.decoder, at_once=loaded.at_once, most_tokens=loaded.most_tokens)
        self._templates: dict[str, str | None] = {}  # of the adapters that are loaded, used last last
        self._uses: Counter[str] = Counter()
        self._released = asyncio.Event()
        self._changing_adapters = asyncio.Lock()

    @property
    def context_length(self) -> int:
        return self._loaded.length

    async def answer(self, request: Request) -> AsyncGenerator[Json, None]:
        body = _body(request)
        async with self._using(request.adapter):
            prompts = await self._prompts(body, request.adapter)
            answer = self._answer(body, prompts)
            events: asyncio.Queue[tuple[int, Event]] = asyncio.Queue()
            rows = self._rows(body, prompts, request, events)
            self._generation.submit(rows)
            writings = self._writings(body, rows)
            try:
                pieces = self._pieces(writings, rows, events)
                if body.stream:
                    for chunk in answer.opening(len(rows)):
                        yield chunk
                    async for piece in pieces:
                        for chunk in answer.chunks(piece):
                            yield chunk
                    for chunk in answer.closing(_usage(prompts, writings)):
                        yield chunk
                else:
                    found: list[list[Piece]] = [[] for _ in rows]
                    async for piece in pieces:
                        found[piece.place].append(piece)
                    yield answer.body([joined(each) for each in found], _usage(prompts, writings))
            finally:
                self._generation.abort(rows)

    async def score(
        self, sequences: Sequence[Sequence[int]], adapter: Adapter | None = None
    ) -> list[list[float]]:
        for each in sequences:
            self._check_scored(each)
        async with self._using(adapter):
            name = None if adapter is None else adapter.name
            return [await self._scored(list(each), name) for each in sequences]

    async def add_adapter(self, adapter: Adapter) -> None:
        if adapter.name in self._templates:
            return
        async with self._changing_adapters:
            if adapter.name in self._templates:
                return
            await self._make_room()
            await self._generation.call(lambda: self._loaded.decoder.add_adapter(adapter))
            self._templates[adapter.name] = await self._read(_template_of, adapter.path)

    async def drop_adapter(self, name: str) -> None:
        async with self._changing_adapters:
            if name not in self._templates:
                return
            del self._templates[name]  # who asks for it from now on waits, and has it loaded again
            while self._uses[name]:
                self._released.clear()
                await self._released.wait()
            await self._generation.call(lambda: self._loaded.decoder.drop_adapter(name))

    async def _make_room(self) -> None:
        """Let go of adapters that nobody uses, the least recently used first, until one more is within the limit."""
        idle = [name for name in self._templates if not self._uses[name]]
        for name in idle[: max(0, len(self._templates) - self._loaded.max_loras + 1)]:
            if self._uses[name]:  # since another was let go
                continue
            del self._templates[name]  # who asks for it from now on waits, and has it loaded again
            await self._generation.call(partial(self._loaded.decoder.drop_adapter, name))

    def status(self) -> EngineStatus:
        generation = self._generation
        if generation.failure is not None:
            raise generation.failure
        return EngineStatus(
            running=generation.running,
            waiting=generation.waiting,
            tokens=generation.tokens,
            kv_used=generation.taken,
            adapters=tuple(self._templates),
        )

    async def close(self) -> None:
        await self._generation.close()
        self._reader.shutdown(wait=False, cancel_futures=True)

    @asynccontextmanager
    async def _using(self, adapter: Adapter | None) -> AsyncIterator[None]:
        """An adapter is loaded, and stays, as long as the context lasts."""
        if adapter is None:
            yield
            return
        while adapter.name not in self._templates:
            await self.add_adapter(adapter)
        self._templates[adapter.name] = self._templates.pop(adapter.name)
        self._uses[adapter.name] += 1
        try:
            yield
        finally:
            self._uses[adapter.name] -= 1
            self._released.set()

    async def _read(self, function: Callable[..., T], *args: Any) -> T:
        """Texts are read in one thread apart, since long ones take longer than the event loop may stand still."""
        return await asyncio.get_running_loop().run_in_executor(self._reader, function, *args)

    async def _prompts(self, body: CommonBody, adapter: Adapter | None) -> list[list[int]]:
        if isinstance(body, ChatBody):
            template = None if adapter is None else self._templates[adapter.name]
            prompts = [await self._read(self._prompting.chat, body, template)]
        else:
            assert isinstance(body, CompletionBody)
            prompts = await self._read(self._prompting.completions, body)
        for each in prompts:
            self._check_length(
                len(each), _wanted(body), "messages" if isinstance(body, ChatBody) else "prompt"
            )
        return prompts

    def _check_length(self, prompt: int, wanted: int | None, param: str) -> None:
        most = self._loaded.length
        if prompt + (wanted or 1) <= most:
            return
        asked = f"{prompt} in the {param}" + (f", {wanted} in the completion" if wanted else "")
        raise RequestError(
            f"This model's maximum context length is {most} tokens. However, you requested {prompt + (wanted or 1)} tokens "
            f"({asked}). Please reduce the length of the {param} or completion.",
            code="context_length_exceeded",
            param=param,
        )

    def _check_scored(self, ids: Sequence[int]) -> None:
        if len(ids) > self._loaded.length:
            raise RequestError(
                f"A sequence has {len(ids)} tokens; at most {self._loaded.length} fit.",
                code="context_length_exceeded",
            )
        if any(not 0 <= token < self._loaded.vocabulary for token in ids):
            raise RequestError(
                f"A sequence has tokens that the model does not; they are from 0 to {self._loaded.vocabulary - 1}.",
                code="invalid_value",
            )

    async def _scored(self, ids: Sequence[int], adapter: str | None) -> list[float]:
        def score() -> list[float]:
            found: list[float] = self._loaded.decoder.score(ids, adapter).tolist() if len(ids) > 1 else []
            self._generation.tokens += len(ids)
            return found

        return await self._generation.call(score)

    def _answer(self, body: CommonBody, prompts: Sequence[Sequence[int]]) -> Answer:
        chat = isinstance(body, ChatBody)
        echoes: list[str] = []
        if isinstance(body, CompletionBody) and body.echo:
            echoes = [text for prompt in prompts for text in [self._prompting.text(prompt)] * body.n]
        return Answer(
            id=f"{'chatcmpl' if chat else 'cmpl'}-{secrets.token_hex(12)}",
            created=int(time.time()),
            model=body.model,
            chat=chat,
            tells=_tells(body),
            counts_usage=body.stream_options is not None and body.stream_options.include_usage,
            echoes=echoes,
        )

    def _rows(
        self,
        body: CommonBody,
        prompts: Sequence[Sequence[int]],
        request: Request,
        events: asyncio.Queue[tuple[int, Event]],
    ) -> list[Row]:
        """One for each completion: of the first prompt first."""
        sampling = Sampling(
            max_new_tokens=1,
            stop_ids=frozenset(),
            temperature=0 if body.is_greedy else body.temperature,
            top_p=1.0 if body.is_greedy else body.top_p,
            top_k=max(body.top_k, 0),
        )
        seed = secrets.randbits(64) if body.seed is None else body.seed
        name = None if request.adapter is None else request.adapter.name
        wanted = _wanted(body) or self._loaded.length
        return [
            Row(
                prompt=Prompt(prompt, min(len(prompt) + wanted, self._loaded.length), name),
                # A completion's own: it is the same whatever else is asked for beside it.
                choice=Choice(sampling=sampling, top=_top(body), numbers=random.Random(f"{seed}/{number}")),  # noqa: S311 - no secret
                stop_ids=frozenset() if body.ignore_eos else self._loaded.stop_ids,
                events=events,
                place=place * body.n + number,
                priority=request.priority,
            )
            for place, prompt in enumerate(prompts)
            for number in range(body.n)
        ]

    def _writings(self, body: CommonBody, rows: Sequence[Row]) -> list[Writing]:
        """A text for each row. One that goes on from a text is read with its end; an answer of a conversation begins anew."""
        return [
            Writing(
                row.place,
                self._loaded.tokenizer,
                StopStrings(body.stops),
                _tells(body),
                before=row.prompt.ids[-CONTEXT:] if isinstance(body, CompletionBody) else (),
            )
            for row in rows
        ]

    async def _pieces(
        self, writings: Sequence[Writing], rows: Sequence[Row], events: asyncio.Queue[tuple[int, Event]]
    ) -> AsyncIterator[Piece]:
        """The text of all rows as it comes, until the last has ended."""
        going = {each.place: each for each in writings}
        while going:
            place, event = await events.get()
            if isinstance(event, Exception):
                raise event
            writing = going.get(place)
            if writing is None:  # a string has ended it
                continue
            piece = writing.add(event) if isinstance(event, Drawn) else writing.end(event)
            if piece is None:
                continue
            if piece.finish is not None:
                del going[place]
                self._generation.abort([rows[place]])
            yield piece


def _body(request: Request) -> CommonBody:
    if request.endpoint == CHAT:
        return bodies.read(ChatBody, request.body)
    if request.endpoint == COMPLETIONS:
        return bodies.read(CompletionBody, request.body)
    raise RequestError(
        f"This engine does not answer {request.endpoint}; it answers {' and '.join(ENDPOINTS)}.",
        code="unknown_endpoint",
    )


def _wanted(body: CommonBody) -> int | None:
    """Tokens of a completion; ``None``: as many as fit."""
    if isinstance(body, ChatBody):
        return body.max_completion_tokens if body.max_completion_tokens is not None else body.max_tokens
    assert isinstance(body, CompletionBody)
    return body.max_tokens


def _tells(body: CommonBody) -> bool:
    """Whether log-probabilities are told."""
    return body.logprobs if isinstance(body, ChatBody) else getattr(body, "logprobs", None) is not None


def _top(body: CommonBody) -> int:
    top: int = body.top_logprobs if isinstance(body, ChatBody) else getattr(body, "logprobs", None) or 0
    return top


def _usage(prompts: Sequence[Sequence[int]], writings: Sequence[Writing]) -> Mapping[str, Json]:
    """Of what was written: a row may have drawn some tokens more before it was known that a string has ended it."""
    return usage(sum(map(len, prompts)), sum(each.generated for each in writings))


def _template_of(path: str) -> str | None:
    file = Path(path, TEMPLATE)
    return file.read_text(encoding="utf-8") if file.is_file() else None
