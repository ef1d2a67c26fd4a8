"""Uploads in parts: what is known of each until it is a file. In memory alone: the daemon's end is theirs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Final

import anyio

from finetuned.domain import files, ids
from finetuned.domain.errors import (
    InvalidRequestError,
    NotFoundError,
    Rejected,
    TooManyOpenUploadsError,
    TooManyUploadsError,
)
from finetuned.domain.registers import File

Json = Any

LIFE_US: Final = 3600 * 1_000_000  # as OpenAI has it: an hour
MOST: Final = 256  # uploads that are remembered, those that have ended included
MOST_OPEN: Final = 64  # uploads of one caller that have not ended
MOST_PARTS: Final = 10_000
MOST_SPARE: Final = 2  # parts may be sent again: together they may have so many times the file's bytes
PART_BYTES: Final = 64 << 20
BLOCK: Final = 1 << 20


class NoSuchUploadError(NotFoundError):
    """There is no such upload (any more)."""

    code: ClassVar[str] = "upload_not_found"


@dataclass(frozen=True, slots=True, kw_only=True)
class About:
    """What a file is to be. ``expires_after_s``: seconds that it is kept, ``None`` for as long as its purpose says."""

    filename: str
    purpose: str
    expires_after_s: int | None = None


@dataclass(frozen=True, slots=True)
class Part:
    """A part that is whole on disk."""

    id: str
    path: Path
    bytes: int
    created_at: int


@dataclass(slots=True, kw_only=True)
class Upload:
    """An upload. Times are microseconds since the epoch (UTC); ``status`` is pending, completed, cancelled or expired.

    ``owner`` began it. Hold ``turn`` while it is put together.
    """

    id: str
    owner: str
    about: About
    bytes: int
    created_at: int
    status: str = "pending"
    file: File | None = None
    made_of: tuple[str, ...] | None = (
        None  # ids of the parts of its file; None if they are not known any more
    )
    parts: dict[str, Part] = field(default_factory=dict)
    turn: anyio.Lock = field(default_factory=anyio.Lock)

    @property
    def expires_at(self) -> int:
        """When its parts go if it is not completed."""
        return self.created_at + LIFE_US

    def require_pending(self) -> None:
        """Raise ``Rejected`` if it has ended."""
        if self.status == "completing":
            raise Rejected(
                "upload_ended", f"The upload {self.id} is being put together; wait for its answer."
            )
        if self.status != "pending":
            raise Rejected(
                "upload_ended", f"The upload {self.id} is {self.status}; begin another (POST /v1/uploads)."
            )

    @property
    def is_open(self) -> bool:
        """Whether it has not ended."""
        return self.status in {"pending", "completing"}

    def require_made_of(self, part_ids: Sequence[str]) -> None:
        """Raise ``Rejected`` if its file is of other parts."""
        if self.made_of is not None and self.made_of != tuple(part_ids):
            raise Rejected(
                "upload_ended",
                f"The upload {self.id} is a file already, of other parts; begin another (POST /v1/uploads).",
                param="part_ids",
            )

    def require_room(self, size: int = 0) -> None:
        """Raise ``InvalidRequestError`` if so many bytes more are too many, or another part is."""
        if (
            len(self.parts) >= MOST_PARTS
            or size + sum(each.bytes for each in self.parts.values()) > MOST_SPARE * self.bytes
        ):
            raise InvalidRequestError(
                f"The upload {self.id} has more parts than a file of {self.bytes} bytes can need; begin another.",
                code="too_many_parts",
            )

    @contextmanager
    def ending(self) -> Iterator[None]:
        """Take no parts, and end in no other way, while it is put together."""
        self.status = "completing"
        try:
            yield
        finally:
            if self.status == "completing":
                self.status = "pending"

    def chosen(self, part_ids: Sequence[str]) -> list[Part]:
        """The parts in the order that is asked for. Raises ``InvalidRequestError`` unless they are those of the file."""
        unknown = next((each for each in part_ids if each not in self.parts), None)
        if unknown is not None or len(set(part_ids)) != len(part_ids):
            why = f"has no part {unknown[:80]!r}" if unknown is not None else "is given a part twice"
            raise InvalidRequestError(
                f"part_ids: the upload {self.id} {why}; name each part once, as they were answered.",
                param="part_ids",
                code="unknown_part",
            )
        chosen = [self.parts[each] for each in part_ids]
        size = sum(each.bytes for each in chosen)
        if size != self.bytes:
            raise InvalidRequestError(
                f"The parts have {size} bytes and the upload was to have {self.bytes}; send what is missing, or begin"
                " another with the right size.",
                param="part_ids",
                code="upload_incomplete",
            )
        return chosen


class Uploads:
    """Those that were begun since the daemon's start, the newest :data:`MOST` of them."""

    def __init__(self) -> None:
        self._known: dict[str, Upload] = {}

    def add(self, upload: Upload) -> None:
        """Remember one. Raises ``TooManyOpenUploadsError`` or ``TooManyUploadsError`` while too many have not ended."""
        if sum(each.is_open and each.owner == upload.owner for each in self._known.values()) >= MOST_OPEN:
            raise TooManyOpenUploadsError(
                f"{upload.owner} has {MOST_OPEN} uploads in parts that have not ended; complete or cancel one, or wait"
                " until one has expired.",
            )
        if len(self._known) >= MOST:
            ended = next((each.id for each in self._known.values() if not each.is_open), None)
            if ended is None:
                raise TooManyUploadsError(
                    f"{MOST} uploads in parts have not ended; complete or cancel one, or wait until one has expired."
                )
            del self._known[ended]
        self._known[upload.id] = upload

    def find(self, upload_id: str) -> Upload:
        """One of them. Raises ``NoSuchUploadError``."""
        found = self._known.get(upload_id)
        if found is None:
            raise unknown(upload_id)
        return found

    def get(self, upload_id: str) -> Upload | None:
        """One of them, if it is remembered."""
        return self._known.get(upload_id)

    def expired(self, *, now: int) -> list[Upload]:
        """Those whose time is over, which they are from now on."""
        over = [each for each in self._known.values() if each.status == "pending" and each.expires_at <= now]
        for each in over:
            each.status = "expired"
        return over


def file_id(upload_id: str) -> str:
    """The id of the file that an upload becomes: who asks again finds it, whatever is still known of the upload."""
    return ids.derived(files.PREFIX, upload_id)


def of_file(upload_id: str, file: File) -> Upload:
    """The upload that a file was, of which nothing else is known any more."""
    return Upload(
        id=upload_id,
        owner=file.created_by,
        about=About(filename=file.filename, purpose=file.purpose),
        bytes=file.bytes,
        created_at=file.created_at,
        status="completed",
        file=file,
    )


def unknown(upload_id: str) -> NoSuchUploadError:
    """The refusal of an id that stands for no upload."""
    return NoSuchUploadError(
        f"There is no upload {upload_id[:80]!r} (any more: a restart of the daemon ends those that are not"
        " complete); begin another (POST /v1/uploads).",
        param="upload_id",
    )


def blocks(parts: Sequence[Part]) -> Iterator[bytes]:
    """The bytes of the parts one after the other. Blocks. Raises ``OSError``."""
    for part in parts:
        with part.path.open("rb") as content:
            while block := content.read(BLOCK):
                yield block
