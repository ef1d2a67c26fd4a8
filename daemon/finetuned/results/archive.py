"""A zip archive that is never written: where each byte of it comes from follows from names, sizes and CRC-32 alone.

Files are stored, not compressed (weights do not compress), so any range of the archive is a few headers and pieces of
files. Zip64 records are there where sizes, offsets or counts need them (APPNOTE 6.3.10, 4.3 and 4.5.3). Pure.
"""

from __future__ import annotations

import hashlib
import struct
from array import array
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate

LIMIT_32 = 0xFFFFFFFF
LIMIT_16 = 0xFFFF

_DATE = 1 << 5 | 1  # 1980-01-01: the same content is the same archive
_UTF8 = 1 << 11
_STORED = 0
_VERSION = 20
_VERSION_64 = 45
_UNIX = 3 << 8
_REGULAR = 0o100644 << 16

_LOCAL = struct.Struct("<IHHHHHIIIHH")
_CENTRAL = struct.Struct("<IHHHHHHIIIHHHHHII")
_END = struct.Struct("<IHHHHIIH")
_END_64 = struct.Struct("<IQHHIIQQQQ")
_LOCATOR_64 = struct.Struct("<IIQI")
_EXTRA_LOCAL = struct.Struct("<HHQQ")


@dataclass(frozen=True, slots=True)
class Member:
    """One file of the archive: its name with slashes, its size in bytes and its CRC-32."""

    name: str
    bytes: int
    crc32: int


@dataclass(frozen=True, slots=True)
class Piece:
    """Bytes ``start`` to ``stop`` of the file of a member."""

    member: int
    start: int
    stop: int


class Layout:
    """Where each byte of the archive of ``members`` comes from. Keeps sixteen bytes a member; headers are made when asked for."""

    def __init__(self, members: Sequence[Member]) -> None:
        self._members = members
        lengths = (len(_local(each)) + each.bytes for each in members)
        self._offsets = array("Q", accumulate(lengths, initial=0))
        centrals = (len(self._central(number)) for number in range(len(members)))
        self._directory = array("Q", accumulate(centrals, initial=self._offsets[-1]))
        self._end = self._closing()
        self.size = self._directory[-1] + len(self._end)

    @property
    def etag(self) -> str:
        """An entity tag of what the manifest says: equal if names, sizes and checksums of the files are."""
        digest = hashlib.sha256()
        for each in self._members:
            name = _name(each)
            digest.update(struct.pack("<IQI", len(name), each.bytes, each.crc32) + name)
        return f'"{digest.hexdigest()[:40]}"'

    def pieces(self, start: int, stop: int) -> Iterator[bytes | Piece]:
        """What bytes ``start`` to ``stop`` of the archive consist of: bytes as they are, and pieces of files."""
        for begin, item in self._sections(start):
            if begin >= stop:
                return
            length = item.stop if isinstance(item, Piece) else len(item)
            low, high = max(start - begin, 0), min(stop - begin, length)
            if low < high:
                yield Piece(item.member, low, high) if isinstance(item, Piece) else item[low:high]

    def _sections(self, start: int) -> Iterator[tuple[int, bytes | Piece]]:
        """The archive's sections with their positions, from the one in which ``start`` lies on."""
        for number in range(bisect_right(self._offsets, start) - 1, len(self._members)):
            header = _local(self._members[number])
            yield self._offsets[number], header
            yield self._offsets[number] + len(header), Piece(number, 0, self._members[number].bytes)
        for number in range(max(bisect_right(self._directory, start) - 1, 0), len(self._members)):
            yield self._directory[number], self._central(number)
        yield self._directory[-1], self._end

    def _central(self, number: int) -> bytes:
        each, offset = self._members[number], self._offsets[number]
        # Only the fields that are full in the record itself are in the extra field, in this order (4.5.3).
        wide = [each.bytes, each.bytes] if each.bytes >= LIMIT_32 else []
        wide += [offset] if offset >= LIMIT_32 else []
        extra = struct.pack(f"<HH{len(wide)}Q", 1, 8 * len(wide), *wide) if wide else b""
        version, name, size = _VERSION_64 if wide else _VERSION, _name(each), min(each.bytes, LIMIT_32)
        record = _CENTRAL.pack(
            0x02014B50, _UNIX | version, version, _flags(each), _STORED, 0, _DATE, each.crc32, size, size,
            len(name), len(extra), 0, 0, 0, _REGULAR, min(offset, LIMIT_32),
        )  # fmt: skip
        return record + name + extra

    def _closing(self) -> bytes:
        count, begin, end = len(self._members), self._directory[0], self._directory[-1]
        size = end - begin
        short = _END.pack(
            0x06054B50, 0, 0, min(count, LIMIT_16), min(count, LIMIT_16), min(size, LIMIT_32),
            min(begin, LIMIT_32), 0,
        )  # fmt: skip
        if count < LIMIT_16 and size < LIMIT_32 and begin < LIMIT_32:
            return short
        long = _END_64.pack(
            0x06064B50, _END_64.size - 12, _UNIX | _VERSION_64, _VERSION_64, 0, 0, count, count, size, begin
        )
        return long + _LOCATOR_64.pack(0x07064B50, 0, end, 1) + short


def _local(each: Member) -> bytes:
    name = _name(each)
    is_wide = each.bytes >= LIMIT_32
    extra = _EXTRA_LOCAL.pack(1, 16, each.bytes, each.bytes) if is_wide else b""
    size = min(each.bytes, LIMIT_32)
    header = _LOCAL.pack(
        0x04034B50, _VERSION_64 if is_wide else _VERSION, _flags(each), _STORED, 0, _DATE, each.crc32, size,
        size, len(name), len(extra),
    )  # fmt: skip
    return header + name + extra


def _name(each: Member) -> bytes:
    return each.name.encode("utf-8", "surrogateescape")  # a name on disk that is no UTF-8 keeps its bytes


def _flags(each: Member) -> int:
    try:
        each.name.encode()
    except UnicodeEncodeError:
        return 0
    return _UTF8
