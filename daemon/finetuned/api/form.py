"""Forms with one file among their fields, in any order: the file is streamed, the fields are small."""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Iterator
from typing import Final

import anyio
from aiohttp import web

from finetuned.api.body import UnsupportedMediaTypeError
from finetuned.api.multipart import End, Event, FormParser, Head, boundary_of
from finetuned.api.streamed import check_encoding, chunks
from finetuned.domain.errors import InvalidRequestError
from finetuned.spelling import nearest
from finetuned.storage.intake import stalled

LONGEST_FIELD: Final = 4096  # bytes of what is no file
OVERHEAD: Final = 64 << 10  # bytes at most of all that is not the file


class Form:
    """The form in a request's body. ``fields`` are those that have come; read the file between :meth:`until` and :meth:`rest`.

    ``file`` is the name of the field that is one, ``known`` those of the others; ``stall_s``: seconds without a byte
    after which it is given up.
    """

    def __init__(self, request: web.Request, *, file: str, known: Collection[str], stall_s: float) -> None:
        if request.content_type != "multipart/form-data":
            raise UnsupportedMediaTypeError(
                f"The body must be multipart/form-data with the file in the field {file} (curl -F {file}=@FILE).",
                code="unsupported_media_type",
            )
        check_encoding(request)
        self.fields: dict[str, str] = {}
        self.foreseen = max(0, (request.content_length or 0) - OVERHEAD)  #: bytes of the file, about
        self._parser = FormParser(boundary_of(request.headers["Content-Type"]))
        self._chunks = chunks(request)
        self._events: Iterator[Event] = iter(())  # of the last chunk, parsed as they are asked for
        self._file, self._known, self._stall_s = file, known, stall_s
        self._ended = False

    async def until_file(self) -> Head:
        """Read the fields before the file. Raises ``InvalidRequestError`` if there is no file."""
        head = await self._fields()
        if head is None:
            raise InvalidRequestError(
                f"{self._file} is missing; send the file in the form's field {self._file}.",
                param=self._file,
                code="missing_parameter",
            )
        return head

    async def content(self) -> AsyncIterator[bytes]:
        """The file's bytes as they come."""
        while isinstance(event := await self._next(), bytes):
            yield event

    async def rest(self) -> None:
        """Read the fields behind the file, to the form's end. Raises ``InvalidRequestError`` for another file."""
        if await self._fields() is not None:
            raise InvalidRequestError(
                f"{self._file} is given more than once; send one file in a form.", param=self._file
            )

    async def _fields(self) -> Head | None:
        """Read fields up to the file, which is returned, or to the form's end."""
        while (event := await self._next()) is not End.FORM:
            assert isinstance(event, Head)
            if event.name == self._file:
                return event
            await self._field(event.name)
        self._ended = True
        return None

    async def _field(self, name: str) -> None:
        if name not in self._known:
            listed = nearest(name, self._known) or f" The fields are {', '.join([self._file, *self._known])}."
            raise InvalidRequestError(
                f"{name[:80]} is not a known field.{listed}", param=name[:80], code="unknown_parameter"
            )
        if name in self.fields:
            raise InvalidRequestError(f"{name} is given more than once; give it once.", param=name)
        value = b""
        while isinstance(event := await self._next(), bytes):
            value += event
            if len(value) > LONGEST_FIELD:
                raise InvalidRequestError(
                    f"{name} is longer than {LONGEST_FIELD} bytes; make it shorter.", param=name
                )
        try:
            self.fields[name] = value.decode()
        except UnicodeDecodeError:
            raise InvalidRequestError(f"{name} is not UTF-8; correct it.", param=name) from None

    async def _next(self) -> Event:
        """What comes next. At the body's end it is the form's, or an ``InvalidRequestError``."""
        while (event := next(self._events, None)) is None:
            if self._ended:
                return End.FORM
            try:
                with anyio.fail_after(self._stall_s):
                    chunk = await anext(self._chunks, None)
            except TimeoutError:
                raise stalled(self._stall_s) from None
            if chunk is None:
                self._parser.finish()
                self._ended = True
                continue
            self._events = self._parser.feed(chunk)
        if event is End.FORM:
            self._ended = True
        return event
