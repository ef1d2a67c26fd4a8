"""The bytes of a ``multipart/form-data`` body (RFC 7578), read as they come in constant memory. Knows no request."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from email.message import Message
from email.utils import collapse_rfc2231_value
from enum import Enum, auto
from typing import Final

from finetuned.domain.errors import InvalidRequestError

LONGEST_HEAD: Final = 2 << 10  # bytes of a part's headers, and of what stands before the first part
MOST_PARAMETERS: Final = (
    16  # semicolons of a part's headers; the standard library's time grows with their square
)
LONGEST_TYPE: Final = 512  # bytes of a Content-Type, for the same reason
LONGEST_BOUNDARY: Final = 70  # RFC 2046, 5.1.1
ENCODINGS: Final = frozenset({"", "7bit", "8bit", "binary"})


@dataclass(frozen=True, slots=True)
class Head:
    """A part begins: the name of its field, and its file's name where one is given."""

    name: str
    filename: str | None


class End(Enum):
    """A part has ended, or all have."""

    PART = auto()
    FORM = auto()


Event = Head | bytes | End


class _State(Enum):
    BEFORE = auto()
    HEAD = auto()
    BODY = auto()
    AFTER = auto()


class FormParser:
    """Takes blocks and gives parts: a :class:`Head`, its bytes in pieces, ``End.PART``; at last ``End.FORM``."""

    def __init__(self, boundary: str) -> None:
        self._mark = b"\r\n--" + boundary.encode()
        self._held = b"\r\n"  # the first boundary may stand at the very beginning
        self._state = _State.BEFORE
        self._fresh = False  # nothing of the part in progress was handed on

    def feed(self, block: bytes) -> Iterator[Event]:
        """What the block brings. Raises ``InvalidRequestError`` for what is no form."""
        self._held += block
        step = {
            _State.BEFORE: self._before,
            _State.HEAD: self._head,
            _State.BODY: self._body,
            _State.AFTER: self._after,
        }
        while True:
            state, held = self._state, len(self._held)
            yield from step[state]()
            if (state, held) == (self._state, len(self._held)):
                return

    def finish(self) -> None:
        """The body has ended. Raises ``InvalidRequestError`` if the form has not."""
        if self._state is not _State.AFTER:
            what = "has no part" if self._state is _State.BEFORE else "ended in the middle of a part"
            raise InvalidRequestError(
                f"The form {what}: its last boundary is missing, nothing was kept; send it again.",
                code="upload_incomplete" if self._state is not _State.BEFORE else "invalid_form",
            )

    def _before(self) -> Iterator[Event]:
        found = self._held.find(self._mark)
        if found < 0:
            if len(self._held) > LONGEST_HEAD:
                raise broken("its boundary does not come")
            return
        yield from self._delimiter(found)

    def _head(self) -> Iterator[Event]:
        end = self._held.find(b"\r\n\r\n")
        if end > LONGEST_HEAD or (end < 0 and len(self._held) > LONGEST_HEAD):
            raise broken(f"the headers of a part are longer than {LONGEST_HEAD} bytes")
        if end < 0:
            return
        head, self._held = self._held[:end], self._held[end + 2 :]  # the content may be empty
        self._state = _State.BODY
        self._fresh = True
        yield _parsed(head)

    def _body(self) -> Iterator[Event]:
        found = self._held.find(self._mark)
        start = 2 if self._fresh else 0  # the line break that ends the headers
        if found < 0:
            stop = len(self._held) - len(self._mark) + 1
            if stop > start:
                content, self._held = self._held[start:stop], self._held[stop:]
                self._fresh = False
                yield content
            return
        if len(self._held) < found + len(self._mark) + 2:
            return
        content = self._held[start:found]
        if content:
            yield content
        yield End.PART
        yield from self._delimiter(found)

    def _delimiter(self, found: int) -> Iterator[Event]:
        """Go on behind a boundary, once it is known whether it is the last."""
        after = found + len(self._mark)
        follows = self._held[after : after + 2]
        if len(follows) < 2:
            return
        if follows == b"--":
            self._state = _State.AFTER
            yield End.FORM
        elif follows != b"\r\n":
            raise broken("a boundary is followed by what no form has there")
        else:
            self._state = _State.HEAD
        self._held = self._held[after + 2 :]

    def _after(self) -> Iterator[Event]:
        self._held = b""  # what follows is to be ignored (RFC 2046, 5.1.1)
        yield from ()


def boundary_of(content_type: str) -> str:
    """The boundary of a ``Content-Type``. Raises ``InvalidRequestError`` if it has none that can be used."""
    if len(content_type) > LONGEST_TYPE:
        raise broken(f"its Content-Type is longer than {LONGEST_TYPE} bytes")
    message = Message()
    message["content-type"] = content_type
    try:
        boundary = message.get_boundary()
    except ValueError:  # of RFC 2231's charsets
        boundary = None
    if (
        not boundary
        or len(boundary) > LONGEST_BOUNDARY
        or not (boundary.isascii() and boundary.isprintable())
    ):
        raise broken(f"its Content-Type names no boundary of up to {LONGEST_BOUNDARY} characters")
    return boundary


def broken(why: str) -> InvalidRequestError:
    """The refusal of what is no form."""
    return InvalidRequestError(
        f"The form cannot be read: {why}; send multipart/form-data (curl -F, or a client that does).",
        code="invalid_form",
    )


def _parsed(head: bytes) -> Head:
    if head.count(b";") > MOST_PARAMETERS:
        raise broken(f"a part's headers have more than {MOST_PARAMETERS} parameters")
    try:
        return _read(head)
    except ValueError:  # of RFC 2231's charsets: any codec that Python has, and its errors
        raise broken("a part's headers cannot be decoded") from None


def _read(head: bytes) -> Head:
    message = Message()
    for line in head.decode("utf-8", "replace").split("\r\n"):
        name, colon, value = line.partition(":")
        if not colon or not name.strip() or name[:1].isspace():
            raise broken(f"{line[:80]!r} is no header of a part")
        message[name.strip()] = value.strip()
    if len(message.get_all("content-disposition") or []) != 1:
        raise broken("a part has no Content-Disposition, or several")
    if message.get_content_disposition() != "form-data":
        raise broken("a part's Content-Disposition is not form-data")
    field = message.get_param("name", header="content-disposition")
    if field is None or not (told := collapse_rfc2231_value(field)):
        raise broken("a part has no name")
    if not told.isprintable():
        raise broken("a part's name has characters that cannot be printed")
    if str(message.get("content-transfer-encoding", "")).lower() not in ENCODINGS:
        raise broken("a part is encoded (Content-Transfer-Encoding); send its bytes as they are")
    if message.get_content_maintype() == "multipart":
        raise broken("a part is a form itself")
    return Head(told, message.get_filename())
