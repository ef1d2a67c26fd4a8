"""Secrets of a job: named in what is recorded, handed to its processes by a memory file, masked in what they say.

A job names ``secret:hf``; the daemon puts the value into an anonymous file that only the job's processes have a
descriptor of. Standard library only: the runner imports this module and must start in milliseconds.
"""

from __future__ import annotations

import base64
import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final
from urllib.parse import quote, quote_plus

DESCRIPTOR: Final = 3  # where a process that is handed secrets finds them
MASK: Final = "***"
SHORTEST: Final = 8  # characters: what is shorter cannot be masked without spoiling other text
#: how a secret is named in a job; the group is the name in the store
REFERENCE: Final = re.compile(r"secret:([a-z0-9][a-z0-9._-]{0,63})")
#: a name of this form is an environment variable, and is set as one in the worker
VARIABLE: Final = re.compile(r"[A-Z][A-Z0-9_]{0,63}")

_URL_SAFE: Final = str.maketrans("+/", "-_")


def to_descriptor(values: Mapping[str, str]) -> int:
    """A descriptor of an anonymous file with the values, closed when another program is executed."""
    descriptor = os.memfd_create("finetuned-secrets")
    with os.fdopen(os.dup(descriptor), "wb") as file:
        file.write(json.dumps(dict(values)).encode())
    os.lseek(descriptor, 0, os.SEEK_SET)
    return descriptor


def from_descriptor(descriptor: int) -> dict[str, str]:
    """The values behind a descriptor, which is closed."""
    with os.fdopen(descriptor, encoding="utf-8") as file:
        return {str(name): str(value) for name, value in json.load(file).items()}


def export(values: Mapping[str, str], environment: Any = os.environ) -> None:
    """Set the values whose names are those of environment variables.

    For libraries that look nowhere else. Set after the start, they do not show in ``/proc/<pid>/environ`` of
    this process, but in those of programs that it executes.
    """
    environment.update({name: value for name, value in values.items() if VARIABLE.fullmatch(name)})


def needles(values: Iterable[str]) -> list[str]:
    """What to look for in output: each value, each long line of it, and how it is often written; the longest first."""
    found = {value for value in values if value}
    lines = {line.strip() for value in found for line in value.splitlines()}
    written = {form for value in found for form in _forms(value)}
    return sorted(found | {each for each in lines | written if len(each) >= SHORTEST}, key=len, reverse=True)


def _forms(value: str) -> Iterator[str]:
    """The value as JSON, Python, URLs and Base64 write it.

    Base64 of a text in which the value begins anywhere (``user:value`` of HTTP's Basic): three characters stand for
    other bits at each place modulo 3, and those that its neighbours have a share in are left out.
    """
    data = value.encode("utf-8", "surrogateescape")
    for is_ascii in (True, False):
        yield json.dumps(value, ensure_ascii=is_ascii)[1:-1]
    yield repr(value)[1:-1]
    yield repr(data)[2:-1]
    yield quote(data, safe="")
    yield quote(data)
    yield quote_plus(data)
    for before, shared in ((0, 0), (1, 2), (2, 3)):
        whole = (before + len(data)) * 8 // 6
        encoded = base64.b64encode(bytes(before) + data)[shared:whole].decode()
        yield encoded
        yield encoded.translate(_URL_SAFE)


def masked(data: Any, values: Iterable[str]) -> Any:
    """JSON-ready data with the secret values in its texts and keys masked."""
    pattern = re.compile("|".join(re.escape(each) for each in needles(values)) or r"(?!)")

    def mask(item: Any) -> Any:
        if isinstance(item, str):
            return pattern.sub(MASK, item)
        if isinstance(item, Mapping):
            return {mask(key): mask(value) for key, value in item.items()}
        if isinstance(item, (list, tuple)):
            return [mask(value) for value in item]
        return item

    return mask(data)
