"""The keys and values of rows that come and go: each row from the first column on, for as long as it is."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from math import prod
from mmap import MADV_NOHUGEPAGE, MAP_ANONYMOUS, MAP_PRIVATE, mmap

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812 - its usual name

_COLUMNS = 64  # columns are added by so many at least
_FAR = 4  # times as many columns as rows need are too many


class SlotCache:
    """Memory on the CPU in float32, which takes none before something is written there.

    keys, values  [layers, slots, heads, columns, head_dim]
    lengths       tokens of each row; row n is in slot n
    limits        tokens that each row may have
    """

    def __init__(self, layers: int, heads: int, head_dim: int, *, most_tokens: int) -> None:
        self._heads = (layers, heads, head_dim)
        self._most_tokens = most_tokens
        self._every_head = torch.arange(heads)[None]
        self.lengths: list[int] = []
        self.limits: list[int] = []
        self.keys: Tensor = torch.zeros(0)
        self.values: Tensor = torch.zeros(0)
        self._written: list[int] = []
        self._replace(0, 0, [])
        self._mask: Tensor | None = None
        self._at = self._slots = torch.zeros(0, dtype=torch.long)

    def make_room(self, row_limits: Sequence[int], *, left: Sequence[int] = ()) -> bool:
        """Have slots for more rows of so many tokens at most, and not far more columns than rows need.

        ``left`` are the tokens that ended rows have left in the slots after the rows'. Says whether they are gone by that.
        """
        rows, columns = len(self.lengths) + len(row_limits), max([*self.limits, *row_limits])
        slots, width = self.keys.shape[1], self.keys.shape[3]
        wanted = 1 << (rows - 1).bit_length()
        if columns > width:
            self._replace(wanted, _rounded(max(columns, min(2 * width, columns + 1024))), self.lengths)
            return True
        if rows > slots or self._filled_by(row_limits) > self._most_tokens:
            self._replace(wanted, _rounded(columns), self.lengths)
            return True
        if not self.lengths and width > _FAR * _rounded(max([columns, *left])):
            self._replace(slots, _rounded(max([columns, *left])), left)
        return False

    def _filled_by(self, row_limits: Sequence[int]) -> int:
        """Tokens that are written to by then, if the next rows become as long as they may."""
        first = len(self.lengths)
        after = {first + place: limit for place, limit in enumerate(row_limits)}
        return sum(max(written, after.get(slot, 0)) for slot, written in enumerate(self._written))

    def add(self, length: int, limit: int) -> None:
        """What was written to the first slot that no row has becomes a row."""
        self.lengths.append(length)
        self.limits.append(limit)

    def write(self, layer: int, slot: int, start: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Put a row's tokens from its ``start``-th on; gives all of the row's up to them. [heads, n, head_dim] twice."""
        end = start + keys.shape[1]
        self._clear(layer, slot, end)
        self._note(slot, end)
        self.keys[layer, slot, :, start:end] = keys
        self.values[layer, slot, :, start:end] = values
        return self.keys[layer, slot, :, :end], self.values[layer, slot, :, :end]

    def share(self, source: int, slot: int, tokens: int) -> None:
        """Give a slot the first tokens of another."""
        self._clear(slice(None), slot, tokens)
        self._note(slot, tokens)
        for cache in (self.keys, self.values):
            cache[:, slot, :, :tokens] = cache[:, source, :, :tokens]

    def begin_step(self) -> None:
        """Look where each row's next token goes, and what each row sees."""
        rows = len(self.lengths)
        self._slots = torch.arange(rows)
        self._at = torch.tensor(self.lengths)
        for slot, length in enumerate(self.lengths):
            self._note(slot, length + 1)
        most = max(self.lengths)
        self._mask = None
        if min(self.lengths) < most:
            unseen = torch.arange(most + 1) > self._at[:, None]
            self._mask = torch.zeros(unseen.shape).masked_fill_(unseen, -torch.inf)[:, None, None]

    def attend(self, layer: int, queries: Tensor, keys: Tensor, values: Tensor, *, scale: float) -> Tensor:
        """Add a token to each row, and what its queries find. [n, heads, groups, head_dim], [n, heads, head_dim] twice."""
        rows, columns = len(self.lengths), max(self.lengths) + 1
        self.keys[layer].index_put_((self._slots[:, None], self._every_head, self._at[:, None]), keys)
        self.values[layer].index_put_((self._slots[:, None], self._every_head, self._at[:, None]), values)
        # The query heads that share keys stand where a sequence would: all of them see all of the tokens.
        return F.scaled_dot_product_attention(
            queries,
            self.keys[layer, :rows, :, :columns],
            self.values[layer, :rows, :, :columns],
            attn_mask=self._mask,
            scale=scale,
        )

    def end_step(self) -> None:
        """All rows have one token more."""
        self.lengths = [length + 1 for length in self.lengths]

    def keep(self, rows: Sequence[int]) -> None:
        """Go on with these rows, in this order; none moves to a later slot."""
        for place, row in enumerate(rows):
            if place != row:
                self.share(row, place, self.lengths[row])
        self.lengths = [self.lengths[row] for row in rows]
        self.limits = [self.limits[row] for row in rows]

    def _clear(self, layer: int | slice, slot: int, start: int) -> None:
        """Of what is masked no number may be left that is none: nothing times that is not nothing."""
        end = self._written[slot]
        if end > start:
            self.keys[layer, slot, ..., start:end, :] = 0
            self.values[layer, slot, ..., start:end, :] = 0

    def _note(self, slot: int, end: int) -> None:
        """Memory that was written to stays taken."""
        self._written[slot] = max(self._written[slot], end)

    def _replace(self, slots: int, columns: int, lengths: Sequence[int]) -> None:
        """Other memory, with so many tokens of each of the first slots as before."""
        layers, heads, head_dim = self._heads
        shape = (layers, slots, heads, columns, head_dim)
        new = [_zeros(shape) for _ in range(2)]
        for cache, old in zip(new, (self.keys, self.values), strict=True):
            for slot, length in enumerate(lengths):  # what is not written takes no memory
                cache[:, slot, :, :length] = old[:, slot, :, :length]
        self.keys, self.values = new
        self._written = [*lengths, *[0] * (slots - len(lengths))]


def _zeros(shape: tuple[int, ...]) -> Tensor:
    """Zeros in float32 that take no memory before something is written there, and then small pages.

    A huge page would be taken whole by the first of a row's tokens, as many as come after it or not. Raises
    ``MemoryError``.
    """
    size = prod(shape) * torch.float32.itemsize
    if size == 0:
        return torch.zeros(shape)
    try:
        memory = mmap(-1, size, flags=MAP_PRIVATE | MAP_ANONYMOUS)
    except OSError as error:
        raise MemoryError(f"{size} bytes for keys or values: {error.strerror}") from error
    with suppress(OSError):  # a kernel that knows no huge pages
        memory.madvise(MADV_NOHUGEPAGE)
    return torch.frombuffer(memory, dtype=torch.float32).view(shape)


def _rounded(columns: int) -> int:
    return -(-columns // _COLUMNS) * _COLUMNS
