"""Limits kept by control groups of version 2, for real: in a User Mode Linux, whose kernel is its own."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

KERNEL = shutil.which("linux.uml")
PROGRAM = Path(__file__).with_name("control_groups.py")
ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """What each attempt in there came to."""
    if KERNEL is None or os.geteuid() != 0:
        pytest.skip("it needs root and linux.uml (apt-get install user-mode-linux)")
    scratch = tmp_path_factory.mktemp("uml")
    init = scratch / "init"
    folder = scratch / "inside"
    folder.mkdir()
    sources = ":".join(str(ROOT / name) for name in ("daemon", "events", "plugins"))
    init.write_text(
        f"#!/bin/sh\nexport PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/tmp PYTHONPATH={sources}"
        f" PYTHONDONTWRITEBYTECODE=1\nexec {sys.executable} {PROGRAM} {folder}\n"
    )
    init.chmod(0o755)
    done = subprocess.run(
        [
            "timeout", "--signal=KILL", "90", KERNEL, "mem=1536M", "rootfstype=hostfs", "rootflags=/", "rw", f"init={init}",
            "con=null", "con0=null,fd:1", "quiet", f"uml_dir={scratch}",
        ],
        capture_output=True, text=True, errors="replace", stdin=subprocess.DEVNULL, timeout=90, check=False,
        cwd=scratch,
    )  # fmt: skip
    lines = [line for line in done.stdout.splitlines() if line.startswith('{"case"')]
    assert lines, done.stdout[-3000:] + done.stderr[-3000:]
    return {each["case"]: each for each in map(json.loads, lines)}


def test_an_attempt_over_its_memory_is_killed_by_the_kernel_whole_and_the_record_says_how_it_is_known(
    told: dict[str, dict[str, Any]],
) -> None:
    found = told["too much"]
    assert (found["signal"], found["oom_killed"]) == (9, True)
    assert found["evidence"].startswith("the kernel killed it for want of memory: its control group counts ")
    assert found["evidence"].endswith("; its limit is 0.31 GB")
    assert found["limits"] == {"memory": "control group"}


def test_an_attempt_within_its_limits_runs_to_its_end(told: dict[str, dict[str, Any]]) -> None:
    found = told["enough"]
    assert (found["exit_code"], found["oom_killed"], found["evidence"]) == (0, False, None)
    assert found["limits"] == {"memory": "control group", "cpu": "control group"}


def test_a_kill_from_elsewhere_is_not_taken_for_the_kernels(told: dict[str, dict[str, Any]]) -> None:
    found = told["killed"]
    assert (found["signal"], found["oom_killed"], found["evidence"]) == (9, False, None)


def test_a_kill_for_want_of_the_units_memory_is_counted_in_the_group_that_it_shares(
    told: dict[str, dict[str, Any]],
) -> None:
    found = told["unit full"]
    assert (found["signal"], found["oom_killed"], found["limits"]) == (9, True, None)
    assert (
        "the control group that it shares with other attempts counts 1 such kill; shortly before, its"
        in (found["evidence"])
    )


def test_a_user_without_privileges_makes_joins_and_removes_groups_where_they_were_handed_over(
    told: dict[str, dict[str, Any]],
) -> None:
    assert told["unprivileged"] == {
        "case": "unprivileged",
        "home": "0::/unit/daemon",
        "inside": "0::/unit/attempt-by-user",
        "limits": [str(300 << 20), "1", "50000 100000"],
        "signal": 9,
        "left": False,
    }


def test_nothing_is_left_of_an_attempts_group_and_the_daemon_is_in_its_own(
    told: dict[str, dict[str, Any]],
) -> None:
    for found in (each for name, each in told.items() if name != "unprivileged"):
        assert found["groups"] == ["daemon"]
        assert found["home"] == "0::/unit/daemon"
        assert "memory" in found["controllers"]
