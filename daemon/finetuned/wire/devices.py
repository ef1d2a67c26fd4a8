"""Devices."""

from __future__ import annotations

from typing_extensions import TypedDict


class Holder(TypedDict):
    """The attempt that holds a device."""

    job: str
    attempt: int


class Device(TypedDict):
    """A device and the attempt that holds it."""

    id: str
    kind: str
    name: str
    memory_bytes: int
    holder: Holder | None
