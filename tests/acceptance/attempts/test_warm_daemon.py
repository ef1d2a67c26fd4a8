"""A real daemon that forks its attempts, and one that is told not to."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.acceptance.attempts import forked_kind
from tests.acceptance.daemon.process import Daemon


@pytest.mark.parametrize("warm", [True, False])
def test_a_kind_that_says_what_to_import_is_forked_unless_that_is_switched_off(
    tmp_path: Path, warm: bool
) -> None:
    config = tmp_path / "config.toml"
    config.write_text(f"warm_start = {str(warm).lower()}\n", encoding="utf-8")
    plugins = {"FINETUNED_EXTRA_PLUGINS": f"finetuned_sdk.fake,{forked_kind.__name__}"}
    with Daemon("--config", str(config), **plugins).start() as daemon:
        assert daemon.process is not None
        job = daemon.held(kind="forked")
        (runner,) = daemon._runners(job)
        zygotes = children(daemon.process.pid, "finetuned.attempts.zygote")
        assert [runner in children(zygote, str(daemon.state)) for zygote in zygotes] == (
            [True] if warm else []
        )
        daemon.open_gate()
        assert daemon.wait_for(job)["state"] == "succeeded"
        daemon.stop()
        assert [zygote for zygote in zygotes if Path(f"/proc/{zygote}").exists()] == []


def children(pid: int, mark: str) -> list[int]:
    """The children of a process that have something in their command lines."""
    found: list[int] = []
    for task in Path(f"/proc/{pid}/task").iterdir():
        found += map(int, (task / "children").read_text(encoding="ascii").split())
    return [each for each in found if mark in Path(f"/proc/{each}/cmdline").read_bytes().decode()]
