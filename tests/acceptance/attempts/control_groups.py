"""Run as PID 1 of a User Mode Linux over this machine's files: attempts in control groups of a kernel that has them.

``control_groups.py SCRATCH`` makes what systemd makes for a unit with ``Delegate=yes`` and ``DelegateSubgroup=daemon``,
runs attempts in it, and prints a line of JSON for each. The kernel is another, the rest is not.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import subprocess
import sys
import traceback
from pathlib import Path
from typing import Any

USER = 65534
GROUPS = Path("/sys/fs/cgroup")
UNIT = GROUPS / "unit"
HELD = 600 << 20
LIMIT = 300 << 20
UNIT_LIMIT = 500 << 20


def main() -> None:
    scratch = Path(sys.argv[1])
    for kind, target in (
        ("proc", "/proc"),
        ("sysfs", "/sys"),
        ("cgroup2", str(GROUPS)),
        ("tmpfs", str(scratch)),
    ):
        mount(kind, target)
    if os.fork() == 0:
        try:
            unit()
            unprivileged()
            attempts(scratch)
        except BaseException:  # noqa: BLE001 - the console is all that is seen of it
            traceback.print_exc(file=sys.stdout)
        sys.stdout.flush()
        os._exit(0)
    os.wait()
    subprocess.run(["/sbin/poweroff", "-f"], check=False)


def mount(kind: str, target: str) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.mount(kind.encode(), target.encode(), kind.encode(), 0, None):
        raise OSError(ctypes.get_errno(), target)


def unit() -> None:
    (GROUPS / "cgroup.subtree_control").write_text("+memory +cpu")
    (UNIT / "daemon").mkdir(parents=True)
    os.setxattr(UNIT, "user.delegate", b"1")
    for path in (UNIT, UNIT / "daemon"):
        for name in ("", "cgroup.procs", "cgroup.subtree_control", "cgroup.threads"):
            os.chown(path / name, USER, USER)
    (UNIT / "memory.max").write_text(str(UNIT_LIMIT))  # as of a slice
    (UNIT / "daemon/cgroup.procs").write_text("0")


def unprivileged() -> None:
    """What the unit's user, who owns what was handed over and nothing else, can do there."""
    from finetuned.attempts import cgroup
    from finetuned.attempts.cgroup import Group

    sys.stdout.flush()
    if os.fork():
        os.wait()
        return
    os.setgroups([])
    os.setgid(USER)
    os.setuid(USER)
    group = Group.create("by-user", cgroup.own(), memory=LIMIT, cpu=0.5)
    with group.joined():
        child = os.fork()
        if child == 0:
            signal.pause()
    home = Path("/proc/self/cgroup").read_text().strip()
    inside = Path(f"/proc/{child}/cgroup").read_text().strip()
    limits = [
        (group.path / name).read_text().strip() for name in ("memory.max", "memory.oom.group", "cpu.max")
    ]
    group.kill()
    _, status = os.waitpid(child, 0)
    group.remove()
    said = {
        "case": "unprivileged",
        "home": home,
        "inside": inside,
        "limits": limits,
        "signal": os.WTERMSIG(status),
        "left": group.path.exists(),
    }
    print(json.dumps(said), flush=True)  # noqa: T201 - the console is read
    os._exit(0)


def attempts(scratch: Path) -> None:
    from finetuned.attempts.testing import fake_spec
    from finetuned_sdk.bundle import Bundle, read_json

    cases: dict[str, dict[str, Any]] = {
        "too much": {"limits": {"memory": LIMIT}, "params": {"memory_bytes": HELD, "spawn_children": 1}},
        "enough": {"limits": {"memory": LIMIT, "cpu": 0.5}, "params": {"memory_bytes": 1 << 20}},
        "unit full": {"params": {"memory_bytes": 2 * UNIT_LIMIT}},
        "killed": {"limits": {"memory": LIMIT}, "params": {"crash_at": 1}},
    }
    for number, (name, changes) in enumerate(cases.items(), start=1):
        spec = fake_spec(attempt=number, environment={"PYTHONPATH": os.environ["PYTHONPATH"]}, **changes)
        bundle = Bundle(scratch / str(number))
        bundle.path.mkdir()
        bundle.create(spec)
        subprocess.run(
            [sys.executable, "-P", "-m", "finetuned.attempts.runner", str(bundle.path)], check=False
        )
        record = bundle.read_exit()
        limits = read_json(bundle.limits_path)
        said = {
            "case": name,
            "limits": limits,
            "exit_code": record and record.exit_code,
            "signal": record and record.signal,
            "oom_killed": record and record.oom_killed,
            "evidence": record and record.oom_evidence,
            "groups": sorted(path.name for path in UNIT.glob("*/")),
            "controllers": (UNIT / "cgroup.subtree_control").read_text().split(),
            "home": Path("/proc/self/cgroup").read_text().strip(),
        }
        print(json.dumps(said), flush=True)  # noqa: T201 - the console is read
        if record is None or (record.exit_code != 0 and record.signal is None):
            print(bundle.output_path.read_text())  # noqa: T201 - the console is read


if __name__ == "__main__":
    main()
