"""Rows in a random order, sorted by length within each optimizer step: passes hold rows of like length."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import TYPE_CHECKING

from torch.utils.data import Sampler

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


class StepSortedSampler(Sampler[int]):
    """Gives what ``order`` gives, each ``rows_a_step`` of them sorted, the longest first.

    A step takes the same rows as without it, so its loss is the same but for rounding, wherever the loss is a mean over
    the step. The longest pass comes first, so that a step that does not fit ends at once. The last rows of an epoch,
    where they are fewer than a step takes, stay as they are: of pairs each pass counts alike, and one may be smaller.
    """

    def __init__(self, order: Sampler[int], lengths: NDArray[np.int32], rows_a_step: int) -> None:
        self._order = order
        self._lengths = lengths
        self._rows_a_step = rows_a_step

    def __len__(self) -> int:
        return len(self._lengths)

    def set_epoch(self, epoch: int) -> None:
        """Tell the order which pass over the data it is."""
        if hasattr(self._order, "set_epoch"):
            self._order.set_epoch(epoch)

    def __iter__(self) -> Iterator[int]:
        order = iter(self._order)
        while rows := list(islice(order, self._rows_a_step)):
            if len(rows) == self._rows_a_step:
                rows.sort(key=lambda row: (-int(self._lengths[row]), row))
            yield from rows
