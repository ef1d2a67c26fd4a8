"""A version's file, as it was when it was registered or not at all."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from io import BufferedReader
from pathlib import Path
from typing import BinaryIO

from finetuned.datasets.content import open_regular
from finetuned.domain.errors import Rejected

BLOCK = 1 << 18
Roots = tuple[Path, ...]


@contextmanager
def opened(path: Path, size: int | None, roots: Roots = ()) -> Iterator[BinaryIO]:
    """The file for reading. Raises ``Rejected`` if it is gone or has not ``size`` bytes any more. Blocks.

    What is beneath one of ``roots`` must stay there, whatever symbolic links have become since.
    """
    try:
        with BufferedReader(open_regular(path, roots)) as file:
            if size is not None and os.fstat(file.fileno()).st_size != size:
                raise Rejected(
                    "dataset_changed",
                    f"{path} is not what was registered any more; put it back as it was, or register it again.",
                )
            yield file
    except OSError as error:
        raise Rejected(
            "dataset_unreadable",
            f"{path} cannot be read ({error.strerror or error}); put it back, or register it again.",
        ) from None


def check(path: Path, size: int, roots: Roots = ()) -> None:
    """Raise ``Rejected`` if the file cannot be read as it was. Blocks."""
    with opened(path, size, roots):
        pass


def read(path: Path, size: int, start: int, stop: int, roots: Roots = ()) -> Iterator[bytes]:
    """The bytes from ``start`` to before ``stop``, in blocks. Raises ``Rejected``. Blocks."""
    with opened(path, size, roots) as file:
        file.seek(start)
        while start < stop:
            block = file.read(min(BLOCK, stop - start))
            if not block:
                raise Rejected("dataset_changed", f"{path} ended early; register it again.")
            start += len(block)
            yield block
