"""What a model is, as a hash of what decides its output."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from pathlib import Path

READ_BYTES = 16 << 20


def hash_of(directories: Iterable[Path], *, advancing: Callable[[], None] = lambda: None) -> str | None:
    """The SHA-256 of what decides a model: names and bytes of its weights and configurations. ``None`` without a file.

    Tokenizer and card do not, where what it scores is tokens. ``advancing`` is called with each block that was read.
    """
    digest, files = hashlib.sha256(), 0
    for directory in directories:
        for path in sorted(directory.glob("*")):
            if path.suffix in {".safetensors", ".bin"} or path.name in {"config.json", "adapter_config.json"}:
                digest.update(path.name.encode() + b"\0" + _sha256(path, advancing))
                files += 1
    return digest.hexdigest() if files else None


def _sha256(path: Path, advancing: Callable[[], None]) -> bytes:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(READ_BYTES):
            digest.update(block)
            advancing()
    return digest.digest()
