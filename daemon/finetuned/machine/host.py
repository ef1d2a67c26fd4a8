"""What the daemon knows of the machine it runs on, for declarations and for refusing work in time."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

import anyio.to_thread

from finetuned.board import Board
from finetuned.domain.errors import StorageFullError
from finetuned.domain.room import Room
from finetuned.machine import devices
from finetuned_sdk import Device, Host

ROOM_STEP = 1 << 26  # bytes


def _rounded(size: int) -> int:
    return size // ROOM_STEP * ROOM_STEP


@dataclass(slots=True)
class HostFacts:
    """Describes the host to job kinds and looks after the free disk of the state directory."""

    board: Board
    state_dir: Path
    allow_remote_code: bool
    min_free_disk_bytes: int

    async def host(self) -> Host:
        """The host as job kinds may know it."""
        world = await self.board.world()
        memory_free, disk_free = await anyio.to_thread.run_sync(self._left)
        return Host(
            devices=tuple(
                Device(id=slot.id, kind=slot.kind, name=slot.name, memory_bytes=slot.memory_bytes)
                for slot in world.slots.values()
            ),
            cpu_count=devices.usable_cores(),
            memory_bytes=devices.host_memory_bytes(),
            memory_free_bytes=memory_free,
            disk_free_bytes=disk_free,
            allow_remote_code=self.allow_remote_code,
            models={model.name: Path(model.path) for model in world.models.values()},
        )

    async def room(self) -> Room:
        """What the host has left, rounded down, so that it is the same room while little changes."""
        memory_free, disk_free = await anyio.to_thread.run_sync(self._left)
        return Room(
            memory_bytes=devices.host_memory_bytes(),
            memory_free_bytes=_rounded(memory_free),
            disk_free_bytes=_rounded(disk_free),
        )

    async def check_room(self) -> None:
        """Raise ``StorageFullError`` when there is too little free disk to take on more work."""
        free = await self._free()
        if free < self.min_free_disk_bytes:
            raise StorageFullError(
                f"Only {free / 1e9:.2f} GB are free under {self.state_dir}, and min_free_disk_bytes keeps"
                f" {self.min_free_disk_bytes / 1e9:.2f} GB; free some space (`finetune delete` removes a job's"
                " files) or lower that setting."
            )

    async def _free(self) -> int:
        usage = await anyio.to_thread.run_sync(shutil.disk_usage, self.state_dir)
        return usage.free

    def _left(self) -> tuple[int, int]:
        return devices.free_memory_bytes(), shutil.disk_usage(self.state_dir).free
