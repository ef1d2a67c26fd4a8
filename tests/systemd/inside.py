"""What the service promises, looked at from inside a machine whose PID 1 is systemd. Run by ``drive.py`` there.

Standard library only, and everything by the doors that an operator has: ``finetune``, ``systemctl``, ``journalctl``.
The checks build on each other and are run in order; each is a sentence.
"""

from __future__ import annotations

import contextlib
import json
import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

WHEELS = Path("/wheels")
PYTHON = sys.argv[1] if len(sys.argv) > 1 else "/usr/bin/python3"
RESULTS = Path("/results.txt")
UNIT = "finetuned.service"
STATE = Path("/var/lib/finetuned")
DROP_IN = Path(f"/etc/systemd/system/{UNIT}.d/test.conf")
WATCHDOG_S = 4
#: no network is there: pip finds what it needs beside
OFFLINE = {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(WHEELS), "PIP_NO_CACHE_DIR": "1"}

Check = Callable[[], str | None]

OVER_REBOOT = Path("/over-reboot.txt")  # the job that runs when the machine goes down

CHECKS: list[Check] = []
CHECKS_AFTER_REBOOT: list[Check] = []
_job = ""
_workers: list[int] = []


def check(function: Check) -> Check:
    CHECKS.append(function)
    return function


def check_after_reboot(function: Check) -> Check:
    CHECKS_AFTER_REBOOT.append(function)
    return function


# ---- doors -----------------------------------------------------------------------------------------------


def run(*command: str, user: str | None = None, code: int | None = 0, **environment: str) -> str:
    """Run a command; its output. ``code`` is the exit code that it must have."""
    as_user = ("runuser", "-u", user, "--") if user else ()
    done = subprocess.run(
        (*as_user, *command),
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        env={**os.environ, **OFFLINE, **environment},
        cwd="/",
        check=False,
        timeout=240,
    )
    assert code is None or done.returncode == code, (command, done.returncode, done.stdout, done.stderr)
    return done.stdout + (done.stderr if code else "")


def finetune(*arguments: str, user: str | None = None) -> Any:
    """A command of the command line; its JSON."""
    said = run("/usr/local/bin/finetune", *arguments, "--json", user=user).splitlines()
    return json.loads(said[-1]) if said else None


def show(name: str) -> str:
    """A property of the unit."""
    return run("systemctl", "show", "--value", "-p", name, UNIT).strip()


def main_pid() -> int:
    return int(show("MainPID"))


def eventually(condition: Callable[[], object], what: str, timeout: float = 60) -> None:
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, f"{what} did not come about within {timeout:g} s"
        time.sleep(0.1)


def wheel(version: str) -> str:
    (found,) = WHEELS.glob(f"finetuned-{version}-*.whl")
    return str(found)


def journal(*arguments: str) -> str:
    return run("journalctl", "--no-pager", "-u", UNIT, *arguments)


# ---- the job that lives through it all -------------------------------------------------------------------


def attempt_processes(job: str) -> list[int]:
    """Worker and runner of a job, by what they carry."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            environment = (entry / "environ").read_bytes()
            command = (entry / "cmdline").read_bytes()
            if f"FINETUNED_ATTEMPT={job}/".encode() in environment or (
                b"finetuned.attempts.runner" in command and job.encode() in command
            ):
                found.append(int(entry.name))
    return sorted(found)


def steps() -> list[int]:
    """The steps of the job that lives through it all."""
    return steps_of(_job)


def steps_of(job: str) -> list[int]:
    """The steps that the log tells of."""
    said = run("/usr/local/bin/finetune", "events", job, "--json").splitlines()
    events = [json.loads(line) for line in said]
    return [each["data"]["current_step"] for each in events if each["type"] == "job.progress"]


def still_the_same_trainer() -> None:
    """Its processes are those that they were, the daemon reads its steps, and not one is missing or double."""
    assert attempt_processes(_job) == _workers, (attempt_processes(_job), _workers)
    before = len(steps())
    eventually(lambda: len(steps()) > before + 2, "news of the trainer")
    told = steps()
    assert told == list(range(1, len(told) + 1)), told


# ---- the checks ------------------------------------------------------------------------------------------


@check
def it_is_installed_by_one_command_and_comes_up_ready() -> None:
    run(PYTHON, "-m", "venv", "/opt/bootstrap")
    run("/opt/bootstrap/bin/pip", "install", "--disable-pip-version-check", wheel("0.1.0"))
    DROP_IN.parent.mkdir(parents=True)
    DROP_IN.write_text(
        f"[Service]\nEnvironment=FINETUNED_EXTRA_PLUGINS=finetuned_sdk.fake\nWatchdogSec={WATCHDOG_S}\n"
    )
    Path("/etc/finetuned").mkdir()
    Path("/etc/finetuned/config.toml").write_text("cpu_slots = 2\n")
    shown = run(
        "/opt/bootstrap/bin/finetune",
        "install-service",
        "--dry-run",
        "--python",
        PYTHON,
        "--from",
        wheel("0.1.0"),
    )
    assert "/etc/systemd/system/finetuned.service" in shown
    assert not Path("/etc/systemd/system/finetuned.service").exists()
    run(
        "/opt/bootstrap/bin/finetune",
        "install-service",
        "--yes",
        "--python",
        PYTHON,
        "--from",
        wheel("0.1.0"),
    )
    shutil.rmtree("/opt/bootstrap")
    assert show("ActiveState") == "active"
    assert show("NotifyAccess") == "main"
    eventually(lambda: show("StatusText").startswith("Ready: 0 jobs at work"), "the status line")


@check
def installing_it_again_changes_nothing() -> None:
    pid = main_pid()
    run("/usr/local/bin/finetune", "install-service", "--yes", "--python", PYTHON, "--from", wheel("0.1.0"))
    assert main_pid() == pid
    assert [each.name for each in Path("/opt/finetuned/releases").iterdir()] == ["0.1.0"]


@check
def it_runs_as_its_own_user_without_privileges() -> None:
    Path("/home/somebody").mkdir()
    status = Path(f"/proc/{main_pid()}/status").read_text()
    fields = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
    assert fields["Uid"].split()[0] == str(pwd.getpwnam("finetuned").pw_uid)
    assert int(fields["CapBnd"], 16) == int(fields["CapEff"], 16) == 0
    assert fields["NoNewPrivs"] == "1"
    assert fields["Seccomp"] == "2"  # system calls are filtered
    assert list(Path(f"/proc/{main_pid()}/root/home").iterdir()) == []
    mounts = Path(f"/proc/{main_pid()}/mountinfo").read_text().splitlines()
    options = {line.split()[4]: line.split()[5].split(",")[0] for line in mounts}  # the last one counts
    assert (options["/"], options["/var/lib/finetuned"], options["/tmp"]) == ("ro", "rw", "rw")
    assert show("ControlGroup").startswith("/finetuned.slice/")


@check
def a_member_of_the_group_may_use_it_and_a_stranger_may_not() -> None:
    run("useradd", "--create-home", "alice")
    run("usermod", "-aG", "finetuned", "alice")
    run("useradd", "--create-home", "mallory")
    job = finetune("run", "fake", "--param", "steps=1", user="alice")
    assert job["submitted_by"] == f"uid:{pwd.getpwnam('alice').pw_uid}"
    for user, what in (("alice", ("tokens", "ls")), ("mallory", ("ls",))):  # tokens are for administrators
        said = run("/usr/local/bin/finetune", *what, user=user, code=None)
        assert said == "", (user, said)
    connect = "import socket; socket.socket(socket.AF_UNIX).connect('/run/finetuned/finetuned.sock')"
    assert "PermissionError" in run(PYTHON, "-c", connect, user="mallory", code=1)


@check
def secrets_are_credentials_of_the_daemon_alone() -> None:
    assert finetune("secrets", "list")["data"] == []  # it has come up without any
    Path("/etc/finetuned/secrets/hf").write_text("hf_canary")
    run("systemctl", "restart", UNIT)
    environment = Path(f"/proc/{main_pid()}/environ").read_text()
    assert "CREDENTIALS_DIRECTORY=" in environment
    assert "hf_canary" not in environment
    assert "hf_canary" not in run("systemctl", "show", UNIT)
    directory = environment.partition("CREDENTIALS_DIRECTORY=")[2].partition("\0")[0]
    # As the daemon sees it: the directory is mounted for it.
    path = Path(f"/proc/{main_pid()}/root{directory}/secret_hf")
    assert path.read_text() == "hf_canary"
    assert finetune("secrets", "list")["data"] == [{"name": "hf", "object": "secret", "writable": False}]


@check
def a_job_is_handed_a_credential_and_masks_it() -> None:
    told = ("--param", 'tell=["HF_TOKEN"]', "--secret", "HF_TOKEN=hf")
    job = finetune("run", "fake", "--param", "steps=1", *told, user="alice")["id"]
    eventually(lambda: finetune("show", job)["state"] == "succeeded", "the job's end")
    assert finetune("show", job)["result"]["told"] == ["***"]
    assert "the secret is ***" in run("/usr/local/bin/finetune", "logs", job)


@check
def a_job_runs_and_its_trainer_is_in_the_units_cgroup() -> None:
    global _job, _workers  # noqa: PLW0603 - the checks build on each other
    _job = finetune("run", "fake", "--param", "steps=100000", "--param", "step_seconds=0.2", user="alice")[
        "id"
    ]
    eventually(lambda: finetune("show", _job)["state"] == "running", "the job's start")
    eventually(lambda: len(steps()) > 3, "some steps")
    _workers = attempt_processes(_job)
    assert len(_workers) == 2
    for pid in _workers:
        assert UNIT in Path(f"/proc/{pid}/cgroup").read_text()
        assert b"/opt/finetuned/releases/0.1.0/bin/python" in Path(f"/proc/{pid}/cmdline").read_bytes()


@check
def a_restart_costs_no_step() -> None:
    pid = main_pid()
    run("systemctl", "restart", UNIT)
    assert main_pid() != pid
    still_the_same_trainer()


@check
def nobody_is_refused_while_it_restarts() -> str:
    restart = subprocess.Popen(["systemctl", "restart", UNIT])
    answers: list[str] = []
    while restart.poll() is None or len(answers) < 100:
        answers.append(ask())
    assert restart.wait() == 0
    cut = answers.count("")  # taken by the daemon that went, which had no time for them any more
    assert set(answers) <= {"HTTP/1.1 200 OK", ""}, set(answers)
    assert cut <= 1, cut
    still_the_same_trainer()
    return f"; {len(answers)} requests, {cut} cut"


def ask() -> str:
    """The first line of an answer, however long it takes."""
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(30)
        client.connect("/run/finetuned/finetuned.sock")
        try:
            client.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
            return client.recv(4096).decode().partition("\r\n")[0]
        except (BrokenPipeError, ConnectionResetError):
            return ""


@check
def an_upgrade_costs_no_step_and_keeps_the_trainers_release() -> None:
    run("/usr/local/bin/finetune", "upgrade", "--yes", "--python", PYTHON, "--from", wheel("0.1.1"))
    assert run("/usr/local/bin/finetune", "--version").strip() == "finetune 0.1.1"
    assert b"/0.1.1/" in Path(f"/proc/{main_pid()}/cmdline").read_bytes()
    assert sorted(each.name for each in Path("/opt/finetuned/releases").iterdir()) == ["0.1.0", "0.1.1"]
    still_the_same_trainer()


@check
def a_release_that_does_not_come_up_is_taken_back() -> None:
    # 0.1.2 passes its check and dies when it is started.
    said = run(
        "/usr/local/bin/finetune", "upgrade", "--yes", "--python", PYTHON, "--from", wheel("0.1.2"), code=1
    )
    assert "0.1.1 runs again, and no job has lost a step" in said, said
    assert Path("/opt/finetuned/current").readlink() == Path("/opt/finetuned/releases/0.1.1")
    assert show("ActiveState") == "active"
    still_the_same_trainer()


@check
def a_release_that_does_not_understand_the_log_is_not_even_tried() -> None:
    # 0.1.3 knows fewer kinds of events.
    pid = main_pid()
    said = run(
        "/usr/local/bin/finetune", "upgrade", "--yes", "--python", PYTHON, "--from", wheel("0.1.3"), code=1
    )
    assert "too old for it" in said, said
    assert main_pid() == pid


@check
def a_daemon_that_hangs_is_restarted_by_the_watchdog_and_finds_its_trainer() -> None:
    pid, restarts = main_pid(), int(show("NRestarts"))
    os.kill(pid, signal.SIGSTOP)
    eventually(lambda: int(show("NRestarts")) > restarts, "the watchdog's restart", timeout=60)
    eventually(
        lambda: show("ActiveState") == "active" and show("StatusText").startswith("Ready"), "the new daemon"
    )
    assert main_pid() != pid
    said = journal("-n", "100")
    assert f"Watchdog timeout (limit {WATCHDOG_S}s)" in said
    assert "Fatal Python error: Aborted" in said  # and where it was stuck
    still_the_same_trainer()


@check
def a_daemon_that_is_killed_comes_back_and_finds_its_trainer() -> None:
    restarts = int(show("NRestarts"))
    os.kill(main_pid(), signal.SIGKILL)
    eventually(lambda: int(show("NRestarts")) > restarts and show("ActiveState") == "active", "the restart")
    still_the_same_trainer()


@check
def a_client_starts_a_daemon_that_was_stopped_and_the_trainer_ran_on_meanwhile() -> None:
    run("systemctl", "stop", UNIT)
    assert show("ActiveState") == "inactive"
    assert attempt_processes(_job) == _workers
    assert Path("/run/finetuned/finetuned.sock").is_socket()
    assert finetune("show", _job, user="alice")["state"] == "running"  # the socket has started it
    eventually(lambda: show("ActiveState") == "active", "a daemon that is ready")
    still_the_same_trainer()


@check
def systemd_can_hold_the_tcp_door_too() -> None:
    run("systemctl", "stop", UNIT)
    run("systemctl", "start", "finetuned-tcp.socket")
    ask = "import urllib.request; print(urllib.request.urlopen('http://127.0.0.1:8642/healthz', timeout=30).status)"
    assert run(PYTHON, "-c", ask).strip() == "200"
    eventually(lambda: show("ActiveState") == "active", "a daemon that is ready")
    still_the_same_trainer()


@check
def the_journal_has_what_the_daemon_says_stamped_once() -> None:
    lines = journal("-o", "cat", "-n", "500").splitlines()
    ready = [line for line in lines if "Ready after" in line]
    assert len(ready) >= 6
    assert all(line.startswith("INFO finetuned.daemon: Ready after") for line in ready), ready


@check
def stopping_the_workers_leaves_no_process() -> str:
    finetune("stop-workers", "--yes")
    assert finetune("show", _job)["state"] == "cancelled"
    assert finetune("show", _job)["attempt"] == 1
    assert attempt_processes(_job) == []
    told = steps()
    assert told == list(range(1, len(told) + 1))
    run("systemctl", "stop", "finetuned-tcp.socket", "finetuned.socket", UNIT)
    assert "finetuned.attempts" not in run("ps", "-eo", "args")
    return f"; {len(told)} steps in one attempt, none lost, none twice"


@check
def releases_that_nobody_uses_any_more_are_removed() -> None:
    run("/usr/local/bin/finetune", "upgrade", "--prune", "--yes")
    assert [each.name for each in Path("/opt/finetuned/releases").iterdir()] == ["0.1.1"]


@check
def a_user_can_have_a_service_of_their_own() -> None:
    uid = pwd.getpwnam("alice").pw_uid
    run("systemctl", "start", f"user@{uid}.service")
    own = {"XDG_RUNTIME_DIR": f"/run/user/{uid}", "HOME": "/home/alice"}

    def as_alice(*command: str, code: int = 0) -> str:
        return run(
            "env", *(f"{name}={value}" for name, value in own.items()), *command, user="alice", code=code
        )

    as_alice(
        "/usr/local/bin/finetune", "install-service", "--yes", "--python", PYTHON, "--from", wheel("0.1.0")
    )
    assert as_alice("systemctl", "--user", "is-active", UNIT).strip() == "active"
    assert as_alice("/home/alice/.local/bin/finetune", "stop-workers", "--json").strip() == "[]"
    as_alice(
        "/home/alice/.local/bin/finetune", "upgrade", "--yes", "--python", PYTHON, "--from", wheel("0.1.1")
    )
    assert as_alice("/home/alice/.local/bin/finetune", "--version").strip() == "finetune 0.1.1"
    as_alice("/home/alice/.local/bin/finetune", "uninstall-service", "--purge", "--yes")
    left = list(Path("/home/alice").rglob("*finetune*"))
    assert left == [], left
    # Without a session of alice's it would take two minutes to stop in a container.
    run("systemctl", "kill", "--signal=KILL", f"user@{uid}.service")


@check
def a_drained_service_stays_down_until_it_is_started_and_its_job_goes_on_then() -> None:
    sockets = ("finetuned.socket", "finetuned-tcp.socket")
    run("systemctl", "start", UNIT)
    job = finetune("run", "fake", "--param", "steps=100000", "--param", "step_seconds=0.15")["id"]
    eventually(lambda: len(steps_of(job)) > 3, "some steps")
    run("systemctl", "stop", *sockets, code=None)  # or the next client would start it
    run("systemctl", "restart", UNIT)  # its sockets' paths went with them: it makes its own
    eventually(lambda: finetune("show", job)["state"] == "running", "the daemon's own socket")
    run("/usr/local/bin/finetune", "drain")
    eventually(lambda: show("ActiveState") == "inactive", "the end of the service")
    assert (show("Result"), attempt_processes(job)) == ("success", [])
    run("systemctl", "start", "finetuned.socket", UNIT)
    eventually(lambda: finetune("show", job)["attempt"] == 2, "the second attempt")
    done = len(steps_of(job))
    eventually(lambda: len(steps_of(job)) > done + 3, "more steps")
    told = steps_of(job)
    assert told == list(range(1, len(told) + 1)), told
    run("/usr/local/bin/finetune", "stop-workers", "--yes")


@check
def a_job_runs_when_the_machine_is_shut_down() -> None:
    job = finetune("run", "fake", "--param", "steps=100000", "--param", "step_seconds=0.15")["id"]
    eventually(lambda: len(steps_of(job)) > 5, "some steps")
    OVER_REBOOT.write_text(job)


@check_after_reboot
def it_saved_a_checkpoint_while_the_system_stopped_and_goes_on_by_itself() -> str:
    job = OVER_REBOOT.read_text()
    eventually(lambda: finetune("show", job)["attempt"] == 2, "the second attempt")
    first, second = finetune("show", job)["attempts"][-2:]
    assert (first["outcome"], first["cause"]) == ("paused", "the system stops"), first
    assert second["resume_from"] is not None
    done = len(steps_of(job))
    eventually(lambda: len(steps_of(job)) > done + 3, "more steps")
    told = steps_of(job)
    assert told == list(range(1, len(told) + 1)), told  # none lost, none twice
    run("/usr/local/bin/finetune", "stop-workers", "--yes")
    return f"; {done} steps before and after"


@check_after_reboot
def uninstalling_removes_what_was_installed_and_keeps_the_log() -> None:
    run("systemctl", "start", UNIT)
    run("/usr/local/bin/finetune", "uninstall-service", "--yes")
    left = [
        *Path("/etc/systemd/system").glob("finetuned*"),
        Path("/opt/finetuned"),
        Path("/usr/local/bin/finetune"),
    ]
    left += [Path("/etc/sysusers.d/finetuned.conf"), Path("/etc/tmpfiles.d/finetuned.conf")]
    left = [path for path in left if path.exists() or path.is_symlink()]
    assert left == [DROP_IN.parent], left  # the operator's own
    assert (STATE / "events.sqlite").is_file()
    assert "could not be found" in run("systemctl", "status", UNIT, code=4)


def main() -> int:
    done = 0
    checks = CHECKS_AFTER_REBOOT if OVER_REBOOT.exists() else CHECKS
    with RESULTS.open("a") as results:
        for each in checks:
            began = time.monotonic()
            try:
                figure = each() or ""
            except Exception:  # noqa: BLE001 - whatever it is, it is the result
                line = f"FAILED {each.__name__}: {traceback.format_exc()}\n{journal('-n', '60')}"
            else:
                done += 1
                line = f"ok     {each.__name__} ({time.monotonic() - began:.1f} s{figure})"
            results.write(line + "\n")
            results.flush()
            if line.startswith("FAILED"):  # those after it build on it
                break
        results.write(f"DONE {done} of {len(checks)}\n")
    return 0 if done == len(checks) else 1


if __name__ == "__main__":
    sys.exit(main())
