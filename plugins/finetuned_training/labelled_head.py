"""The head computed where there is something to learn, on CPUs too.

TRL's fused head scores every position of a batch on devices without Triton: prompt and padding as well, whose results
it then masks. On GPUs it leaves them out. Within :func:`labelled_only` it does so on CPUs, by the same code.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from trl.trainer import utils

ASKED = "_use_triton"  # what TRL asks before it leaves positions out; a TRL without it computes as it likes
_plain = getattr(utils, ASKED, None)


def _leaves_out(device: torch.device) -> bool:
    return device.type == "cpu" or (_plain is not None and bool(_plain(device)))


@contextmanager
def labelled_only() -> Iterator[None]:
    """Have TRL's head leave out what carries no label, where it would not by itself; for forward passes within."""
    if _plain is None:
        yield
        return
    setattr(utils, ASKED, _leaves_out)
    try:
        yield
    finally:
        setattr(utils, ASKED, _plain)
