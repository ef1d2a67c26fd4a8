"""Boot a machine with systemd as PID 1 over this one's files and run ``inside.py`` there: ``make test-systemd``.

An overlay takes everything that is written, so that nothing here changes. Needs root and systemd-nspawn; says why
and succeeds where they are not to be had. Exit code 1 if a promise does not hold.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
INSIDE = Path(__file__).with_name("inside.py")
LIMIT_S = 420.0  # it takes a third of that
SIZE = 3 << 30  # bytes that all of it takes at most
OVER_REBOOT = "over-reboot.txt"  # there once the checks of the first boot are through
TARGET = "check-finetuned.target"

_TARGET = """[Unit]
Requires=basic.target
After=basic.target
AllowIsolate=yes
"""
_CHECK = """[Unit]
After=basic.target
[Service]
Type=oneshot
TimeoutStartSec=infinity
StandardOutput=journal+console
StandardError=journal+console
ExecStart={python} -u /inside.py {python}
ExecStopPost=/bin/systemctl poweroff --no-block
[Install]
WantedBy={target}
"""


class Unavailable(Exception):
    """This machine cannot do it, and why."""


def main() -> int:
    began = time.monotonic()
    try:
        with scratch() as directory:
            python = interpreter()
            wheels = directory / "wheels"
            make_wheels(wheels, python)
            with overlay(directory) as root:
                furnish(root, wheels, python)
                print(f"prepared in {time.monotonic() - began:.0f} s; booting", flush=True)
                output = boot(root)
                if (root / OVER_REBOOT).exists():
                    print("the machine is down; booting it again", flush=True)
                    output += boot(root)
                results = root / "results.txt"
                said = results.read_text(encoding="utf-8") if results.exists() else ""
    except Unavailable as reason:
        print(f"SKIPPED: make test-systemd; {reason}")
        return 0
    print(said)
    done = [line.split() for line in said.splitlines() if line.startswith("DONE ")]
    if not done:
        print(output[-8000:])
        print("The machine did not get through the checks.")
        return 1
    print(f"{time.monotonic() - began:.0f} s")
    return 0 if len(done) == 2 and all(each[1] == each[3] for each in done) else 1


# ---- what is needed --------------------------------------------------------------------------------------


@contextlib.contextmanager
def scratch() -> Iterator[Path]:
    """A directory that can be the upper side of an overlay, and is gone at the end."""
    if os.geteuid() != 0:
        raise Unavailable("it needs root.")
    for program in ("systemd-nspawn", "mount", "umount", "chroot"):
        if shutil.which(program) is None:
            raise Unavailable(f"{program} is not here (apt-get install systemd-container).")
    for program in ("dbus-daemon", "journalctl"):
        if shutil.which(program) is None:
            raise Unavailable(f"{program} is not here (apt-get install systemd dbus).")
    directory = Path(tempfile.mkdtemp(prefix="finetuned-systemd-", dir="/var/tmp"))
    in_memory = free_memory() >= 2 * SIZE
    if not in_memory and file_system(directory) in {"overlay", "fuse-overlayfs", "aufs"}:
        raise Unavailable(
            f"{directory.parent} is an overlay itself, and {2 * SIZE >> 30} GiB of memory are not free."
        )
    try:
        if in_memory:
            mount("-t", "tmpfs", "-o", f"size={SIZE}", "tmpfs", str(directory))
        yield directory
    finally:
        if in_memory:
            subprocess.run(["umount", "-l", str(directory)], check=False)
        shutil.rmtree(directory, ignore_errors=True)


def free_memory() -> int:
    """Bytes of memory that nobody uses."""
    fields = dict(line.split(":") for line in Path("/proc/meminfo").read_text(encoding="ascii").splitlines())
    return int(fields["MemAvailable"].split()[0]) << 10


def file_system(path: Path) -> str:
    """The type of the file system that a path lies on."""
    found = subprocess.run(
        ["findmnt", "-no", "FSTYPE", "-T", str(path)], capture_output=True, text=True, check=False
    )
    return found.stdout.strip()


def interpreter() -> str:
    """A Python that the service's account can read: the system's."""
    for name in ("python3", "python3.14", "python3.13", "python3.12", "python3.11"):
        path = Path("/usr/bin") / name
        if (
            path.exists()
            and not subprocess.run(
                [path, "-c", "import sys, ensurepip, venv; sys.exit(sys.version_info < (3, 11))"],
                capture_output=True,
                check=False,
            ).returncode
        ):
            return str(path)
    raise Unavailable("there is no /usr/bin/python3 from 3.11 on with venv (apt-get install python3-venv).")


def make_wheels(wheels: Path, python: str) -> None:
    """This release, three later ones that differ from it in one thing each, and all that they need."""
    for version, change in {
        "0.1.0": None,
        "0.1.1": None,
        "0.1.2": dies_at_the_start,
        "0.1.3": knows_less,
    }.items():
        build(wheels, version, change)
    maker = wheels.parent / "maker"
    step(python, "-m", "venv", str(maker))
    pip = (str(maker / "bin" / "python"), "-m", "pip", "--disable-pip-version-check", "--quiet")
    (first,) = wheels.glob("finetuned-0.1.0-*.whl")
    try:
        step(*pip, "download", "--dest", str(wheels), "-c", str(ROOT / "constraints.txt"), str(first))
    except subprocess.CalledProcessError as error:
        raise Unavailable(
            f"the packages that finetuned needs cannot be fetched: {error.output[-500:]}"
        ) from None


def build(wheels: Path, version: str, change: Callable[[Path], None] | None) -> None:
    """Build a wheel of a copy of this checkout under another version."""
    with tempfile.TemporaryDirectory(dir=wheels.parent) as name:
        copy = Path(name)
        for each in ("daemon", "events", "plugins", "systemd"):
            shutil.copytree(ROOT / each, copy / each, ignore=shutil.ignore_patterns("__pycache__"))
        for each in ("pyproject.toml", "README.md", "LICENSE"):
            shutil.copy(ROOT / each, copy / each)
        replace(copy / "daemon/finetuned/__init__.py", '__version__ = "', f'__version__ = "{version}"  # "')
        replace(copy / "pyproject.toml", '\nversion = "', f'\nversion = "{version}"  # "')
        if change is not None:
            change(copy)
        code = "from hatchling.build import build_wheel; import sys; build_wheel(sys.argv[1])"
        wheels.mkdir(exist_ok=True)
        step(sys.executable, "-c", code, str(wheels), cwd=copy)


def dies_at_the_start(copy: Path) -> None:
    """A release with a defect that only shows when it is started."""
    replace(
        copy / "daemon/finetuned/daemon.py", "    started = time.monotonic()\n", "    raise SystemExit(3)\n"
    )


def knows_less(copy: Path) -> None:
    """A release from before `job.progress` was invented, as far as its log is concerned."""
    replace(
        copy / "daemon/finetuned/preflight.py",
        "facts.SCHEMAS",
        "{kind: schema for kind, schema in facts.SCHEMAS.items() if kind != 'job.progress'}",
    )


def replace(path: Path, old: str, new: str) -> None:
    text = path.read_text(encoding="utf-8")
    assert text.count(old) == 1, (path, old, text.count(old))
    path.write_text(text.replace(old, new), encoding="utf-8")


# ---- the machine -----------------------------------------------------------------------------------------


@contextlib.contextmanager
def overlay(directory: Path) -> Iterator[Path]:
    """This machine's files; what is written to them lands in the directory."""
    upper, work, root = (directory / name for name in ("upper", "work", "root"))
    for each in (upper, work, root):
        each.mkdir()
    try:
        mount("-t", "overlay", "overlay", "-o", f"lowerdir=/,upperdir={upper},workdir={work}", str(root))
    except subprocess.CalledProcessError as error:
        raise Unavailable(f"an overlay cannot be mounted: {error.output.strip()}") from None
    try:
        yield root
    finally:
        subprocess.run(["umount", "-l", str(root)], check=False)


def furnish(root: Path, wheels: Path, python: str) -> None:
    """Put the checks into the machine, and nothing of what this one may have of a finetuned."""
    shutil.copytree(wheels, root / "wheels")
    shutil.copy(INSIDE, root / "inside.py")
    for each in ("etc/finetuned", "opt/finetuned", "opt/bootstrap", "var/lib/finetuned"):
        shutil.rmtree(root / each, ignore_errors=True)
    (root / "usr/local/bin/finetune").unlink(missing_ok=True)
    units = root / "etc/systemd/system"
    units.mkdir(parents=True, exist_ok=True)
    for old in units.glob("finetuned*"):
        shutil.rmtree(old) if old.is_dir() else old.unlink()
    (units / TARGET).write_text(_TARGET, encoding="utf-8")
    (units / "check-finetuned.service").write_text(
        _CHECK.format(python=python, target=TARGET), encoding="utf-8"
    )
    step("chroot", str(root), "systemctl", "enable", "check-finetuned.service")
    machine_id = root / "etc/machine-id"
    machine_id.unlink(missing_ok=True)
    machine_id.write_text("", encoding="utf-8")


def boot(root: Path) -> str:
    """Boot it, and return its console's output when it has powered off."""
    environment = dict(os.environ)
    if not Path("/sys/fs/cgroup/cgroup.controllers").exists():
        environment["SYSTEMD_NSPAWN_UNIFIED_HIERARCHY"] = "0"  # this machine has the older control groups
    command = [
        "systemd-nspawn",
        "--quiet",
        f"--directory={root}",
        "--register=no",
        "--keep-unit",
        "--private-network",
    ]
    done = subprocess.run(
        ["timeout", "-k", "5", f"{LIMIT_S:g}", *command, "--boot", f"systemd.unit={TARGET}"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        env=environment,
        check=False,
    )
    if "Welcome to" not in done.stdout and "Reached target" not in done.stdout:
        raise Unavailable(f"systemd-nspawn cannot boot here: {done.stdout.strip()[-500:]}")
    return done.stdout


def mount(*arguments: str) -> None:
    step("mount", *arguments)


def step(*command: str, cwd: Path | None = None) -> None:
    subprocess.run(
        command,
        cwd=cwd,
        check=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
    )


if __name__ == "__main__":
    sys.exit(main())
