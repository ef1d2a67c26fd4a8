"""The keys and values of a batch's tokens, in place from its start, so that none is copied when one is added."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812 - its usual name


class KVCache:
    """Columns in which all rows are at the same token of theirs: a shorter prompt begins at a later column.

    keys, values  [layers, rows, heads, columns, head_dim]
    first         the column of each row's first token
    end           the column that the next token of all rows goes to
    """

    def __init__(
        self, lengths: Sequence[int], new_tokens: int, *, layers: int, heads: int, head_dim: int
    ) -> None:
        self.end = max(lengths)
        self.first = [self.end - length for length in lengths]
        shape = (layers, len(lengths), heads, self.end + new_tokens, head_dim)
        self.keys, self.values = torch.zeros(shape), torch.zeros(shape)
        self._look_back()

    def write(self, layer: int, row: int, start: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Put a row's tokens from its ``start``-th on; gives all of the row's up to them. [heads, n, head_dim] twice."""
        begin = self.first[row]
        end = begin + start + keys.shape[1]
        for cache, new in ((self.keys, keys), (self.values, values)):
            cache[layer, row, :, begin + start : end] = new
        return self.keys[layer, row, :, begin:end], self.values[layer, row, :, begin:end]

    def share(self, tokens: int) -> None:
        """Give all rows the first ``tokens`` of row 0."""
        for cache in (self.keys, self.values):
            shared = cache[:, 0, :, self.first[0] : self.first[0] + tokens]
            for row, first in enumerate(self.first[1:], start=1):
                cache[:, row, :, first : first + tokens] = shared

    def attend(self, layer: int, queries: Tensor, keys: Tensor, values: Tensor, *, scale: float) -> Tensor:
        """Add a token to each row, and what its queries find. [n, heads, groups, head_dim], [n, heads, head_dim] twice."""
        rows, columns = slice(len(self.first)), slice(self._begin, self.end + 1)
        self.keys[layer, rows, :, self.end] = keys
        self.values[layer, rows, :, self.end] = values
        # The query heads that share keys stand where a sequence would: all of them see all of the tokens.
        return F.scaled_dot_product_attention(
            queries,
            self.keys[layer, rows, :, columns],
            self.values[layer, rows, :, columns],
            attn_mask=None if self._mask is None else self._mask[:, :, :, columns],
            scale=scale,
        )

    def keep(self, rows: Sequence[int]) -> None:
        """Go on with these rows, in this order; none moves to a later place."""
        for place, row in enumerate(rows):
            if place != row:
                for cache in (self.keys, self.values):
                    cache[:, place, :, self._begin : self.end] = cache[:, row, :, self._begin : self.end]
        self.first = [self.first[row] for row in rows]
        self._look_back()

    def _look_back(self) -> None:
        """Columns before all rows' first tokens are left out; those before a single row's are masked."""
        self._begin = min(self.first)
        self._mask = None
        if max(self.first) > self._begin:
            columns = torch.arange(self.keys.shape[3])
            before = columns < torch.tensor(self.first)[:, None]
            self._mask = torch.zeros(before.shape).masked_fill_(before, -torch.inf)[:, None, None]
