"""The commands on a home directory of their own, with stand-ins for systemd and for what a release runs.

That the real ones work together is `make test-systemd`'s to show; here it is what the commands do when they do not.
"""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from socketserver import ThreadingUnixStreamServer
from typing import Any

import pytest
from tests.acceptance.daemon.process import eventually, running

from finetuned.attempts import identity
from finetuned.cli import main
from finetuned.service import readiness, sources
from finetuned.service.layout import Scope
from finetuned.service.sources import find_python, find_source
from finetuned.service.steps import StepError
from finetuned_sdk.bundle import Bundle, Spec

PYTHON = find_python(None, Scope.USER)

#: A systemctl that notes what it is asked, and lets no release start that is said to be broken.
SYSTEMCTL = """#!/bin/sh
echo "$@" >> "$HOME/asked"
case "$*" in *"start "*) [ ! -e "$HOME/.local/share/finetuned/current/broken" ] ;; esac
"""


class Machine:
    """A home with a service manager, and a daemon at the socket that is of whatever release is current."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.base = home / ".local/share/finetuned"
        self.state = home / ".local/state/finetuned"
        self.current = self.base / "current"
        self.ready = True

    def wheel(self, version: str) -> str:
        """A wheel whose release has been made already."""
        path = self.home / f"finetuned-{version}-py3-none-any.whl"
        path.write_text(version)
        release = self.base / "releases" / version
        if not release.exists():
            (release / "bin").mkdir(parents=True)
            for name in ("finetuned", "finetune"):
                (release / "bin" / name).write_text(
                    f'#!/bin/sh\necho "{version} {name} $*" >> "$HOME/asked"\n'
                )
                (release / "bin" / name).chmod(0o755)
            fingerprint = find_source(str(path)).made_with(PYTHON).fingerprint
            record = {"version": version, "fingerprint": fingerprint}
            (release / "release.json").write_text(json.dumps(record))
        return str(path)

    def asked(self) -> list[str]:
        """What was asked of systemd and of releases since the last time."""
        path = self.home / "asked"
        lines = path.read_text().splitlines() if path.exists() else []
        path.unlink(missing_ok=True)
        return lines

    def files(self) -> list[str]:
        """All there is of the service."""
        return sorted(
            str(path.relative_to(self.home))
            for path in self.home.rglob("*")
            if "releases/" not in str(path)
            and (path.is_file() or path.is_symlink())
            and path.suffix != ".whl"
        )


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Iterator[Machine]:
    # Short, for the socket.
    home = Path(tempfile.mkdtemp(prefix="ft-"))
    made = Machine(home)
    tools = home / "tools"
    tools.mkdir()
    for name, text in (("systemctl", SYSTEMCTL), ("loginctl", "#!/bin/sh\n")):
        (tools / name).write_text(text)
        (tools / name).chmod(0o755)
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.delenv("XDG_STATE_HOME", raising=False)
    monkeypatch.setenv("PATH", f"{tools}:/usr/bin:/bin")
    monkeypatch.setattr(readiness, "PAUSE_S", 0.01)
    made.state.mkdir(parents=True)
    with daemon_of(made):
        yield made
    shutil.rmtree(home)


class daemon_of:  # noqa: N801 - reads as what it is
    """Something at the socket that says which release it is."""

    def __init__(self, machine: Machine) -> None:
        class Answer(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                name = machine.current.readlink().name if machine.current.is_symlink() else "none"
                body = json.dumps({"version": name}).encode()
                self.send_response(200 if machine.ready else 503)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class's name
                pass

            def address_string(self) -> str:
                return ""

        self.server = ThreadingUnixStreamServer(str(machine.state / "finetuned.sock"), Answer)
        self.thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.01})

    def __enter__(self) -> None:
        self.thread.start()

    def __exit__(self, *error: object) -> None:
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()


def install(machine: Machine, version: str = "1.0") -> None:
    assert main.execute(["install-service", "--user", "--yes", "--from", machine.wheel(version)]) == 0
    machine.asked()


def refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str]:
    """The exit code and the error's sentence."""
    capsys.readouterr()
    code = main.execute(list(arguments))
    return code, capsys.readouterr().err


def test_a_dry_run_shows_each_step_and_does_none(
    machine: Machine, capsys: pytest.CaptureFixture[str]
) -> None:
    wheel = machine.wheel("1.0")
    before = machine.files()
    assert main.execute(["install-service", "--user", "--dry-run", "--from", wheel]) == 0
    shown = capsys.readouterr().out
    assert f"write {machine.home}/.config/systemd/user/finetuned.service" in shown
    assert "run systemctl --user start finetuned.service" in shown
    assert machine.files() == before
    assert machine.asked() == []


def test_installing_puts_it_there_and_doing_it_again_changes_nothing(machine: Machine) -> None:
    install(machine)
    there = machine.files()
    assert ".config/systemd/user/finetuned.service" in there
    assert machine.current.readlink() == machine.base / "releases" / "1.0"
    assert (machine.home / ".local/bin/finetune").readlink() == machine.current / "bin" / "finetune"
    install(machine)
    assert machine.files() == there


def test_nobody_is_asked_who_is_not_there(machine: Machine, capsys: pytest.CaptureFixture[str]) -> None:
    code, said = refused(capsys, "install-service", "--user", "--from", machine.wheel("1.0"))
    assert code == 2
    assert "say --yes, or look first with --dry-run" in said
    assert not machine.current.is_symlink()


@pytest.mark.parametrize(("answer", "done"), [("y\n", True), ("n\n", False)])
def test_somebody_at_a_terminal_is_asked(
    machine: Machine, monkeypatch: pytest.MonkeyPatch, answer: str, done: bool
) -> None:
    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    monkeypatch.setattr("click.termui.visible_prompt_func", lambda _prompt: answer.strip())
    code = main.execute(["install-service", "--user", "--from", machine.wheel("1.0")])
    assert (code == 0) is done
    assert machine.current.is_symlink() is done


def test_another_release_is_left_to_the_upgrade(machine: Machine, capsys: pytest.CaptureFixture[str]) -> None:
    install(machine)
    code, said = refused(capsys, "install-service", "--user", "--yes", "--from", machine.wheel("1.1"))
    assert code == 4
    assert "1.0 is installed; `finetune upgrade`" in said


def test_another_interpreter_makes_another_release(
    machine: Machine, capsys: pytest.CaptureFixture[str]
) -> None:
    install(machine)
    wheel = machine.wheel("1.0")
    assert main.execute(["upgrade", "--user", "--dry-run", "--from", wheel, "--python", "/bin/sh"]) == 0
    assert f"into {machine.base}/releases/1.0-2, with /bin/sh" in capsys.readouterr().out


def test_an_upgrade_checks_then_switches_then_waits(machine: Machine) -> None:
    install(machine)
    assert main.execute(["upgrade", "--user", "--yes", "--from", machine.wheel("1.1")]) == 0
    assert machine.current.readlink().name == "1.1"
    assert machine.asked() == [
        "1.1 finetuned --check",
        "1.1 finetune install-service --user --units-only --yes",
        "--user restart finetuned.service",
    ]


def test_an_upgrade_removes_releases_that_no_running_job_uses(machine: Machine) -> None:
    install(machine)
    for version in ("1.1", "1.2", "1.3"):
        assert main.execute(["upgrade", "--user", "--yes", "--from", machine.wheel(version)]) == 0
    # The one before is kept: it may be needed again.
    assert sorted(path.name for path in (machine.base / "releases").iterdir()) == ["1.2", "1.3"]
    attempt(machine, "1.2")
    assert main.execute(["upgrade", "--user", "--prune", "--yes"]) == 0
    assert sorted(path.name for path in (machine.base / "releases").iterdir()) == ["1.2", "1.3"]
    shutil.rmtree(machine.state / "jobs")
    assert main.execute(["upgrade", "--user", "--prune", "--yes"]) == 0
    assert [path.name for path in (machine.base / "releases").iterdir()] == ["1.3"]
    assert main.execute(["upgrade", "--user", "--prune"]) == 0  # nothing to do, nothing to ask


def test_a_release_that_fails_its_check_is_not_switched_to(
    machine: Machine, capsys: pytest.CaptureFixture[str]
) -> None:
    install(machine)
    wheel = machine.wheel("1.1")
    (machine.base / "releases/1.1/bin/finetuned").write_text("#!/bin/sh\necho 'The log is newer.'\nexit 69\n")
    code, said = refused(capsys, "upgrade", "--user", "--yes", "--from", wheel)
    assert code == 1
    assert "ended with 69:\nThe log is newer.\nMend that and do this again" in said
    assert machine.current.readlink().name == "1.0"
    assert not [each for each in machine.asked() if "restart" in each]


def test_a_release_that_does_not_start_is_taken_back(
    machine: Machine, capsys: pytest.CaptureFixture[str]
) -> None:
    install(machine)
    wheel = machine.wheel("1.1")
    (machine.base / "releases/1.1/broken").touch()
    code, said = refused(capsys, "upgrade", "--user", "--yes", "--from", wheel)
    assert code == 1
    assert "The new release did not come up; 1.0 runs again, and no job has lost a step." in said
    assert machine.current.readlink().name == "1.0"
    assert machine.asked()[-2:] == [
        "1.0 finetune install-service --user --units-only --yes",
        "--user restart finetuned.service",
    ]


def test_when_neither_release_starts_it_is_said(machine: Machine, capsys: pytest.CaptureFixture[str]) -> None:
    install(machine)
    wheel = machine.wheel("1.1")
    for version in ("1.0", "1.1"):
        (machine.base / "releases" / version / "broken").touch()
    code, said = refused(capsys, "upgrade", "--user", "--yes", "--from", wheel)
    assert code == 1
    assert "neither did 1.0 again" in said
    assert "The jobs run on; start the daemon as soon as you can." in said


def test_a_daemon_that_is_never_ready_or_another_is_named(tmp_path: Path, machine: Machine) -> None:
    socket = machine.state / "finetuned.sock"
    with pytest.raises(StepError, match=r"finetuned none answers at .* instead of 1\.0; `journalctl"):
        readiness.AwaitReady(socket, "1.0", timeout_s=0).run()
    machine.ready = False
    with pytest.raises(StepError, match="is not ready"):
        readiness.AwaitReady(socket, "1.0", timeout_s=0).run()
    with pytest.raises(StepError, match=r"Nothing answers at .*gone"):
        readiness.AwaitReady(tmp_path / "gone", "1.0", timeout_s=0).run()


def test_the_release_that_runs_the_command_is_no_upgrade_to_itself(
    machine: Machine, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    install(machine)
    monkeypatch.setattr(sys, "prefix", str(machine.base / "releases/1.0"))
    code, said = refused(capsys, "upgrade", "--user", "--yes")
    assert code == 2
    assert "1.0 runs this command; name another release with --from." in said


@pytest.mark.parametrize("command", ["upgrade", "uninstall-service"])
def test_without_a_service_there_is_nothing_to_do(
    machine: Machine, capsys: pytest.CaptureFixture[str], command: str
) -> None:
    code, said = refused(capsys, command, "--user", "--yes")
    assert code == 3
    assert "No service is installed" in said
    assert "`finetune install-service`" in said


def test_a_damaged_list_of_what_was_installed_is_no_traceback(
    machine: Machine, capsys: pytest.CaptureFixture[str]
) -> None:
    install(machine)
    (machine.base / "installed.json").write_text("{")
    code, said = refused(capsys, "uninstall-service", "--user", "--yes")
    assert code == 3
    assert "cannot be read" in said


def test_removing_it_leaves_the_log_and_what_others_put_there(machine: Machine) -> None:
    before = machine.files()
    install(machine)
    (machine.state / "events.sqlite").touch()
    assert main.execute(["uninstall-service", "--user", "--yes", "--json"]) == 0
    asked = machine.asked()
    assert asked == ["--user disable --now finetuned.service", "--user daemon-reload"]
    assert machine.files() == sorted([*before, ".local/state/finetuned/events.sqlite"])


def test_it_is_not_removed_under_running_jobs(machine: Machine, capsys: pytest.CaptureFixture[str]) -> None:
    install(machine)
    attempt(machine, "1.0")
    code, said = refused(capsys, "uninstall-service", "--user", "--yes")
    assert code == 4
    assert "`finetune stop-workers`" in said
    assert machine.current.is_symlink()


def test_an_image_is_filled_and_emptied_without_a_service_manager(
    machine: Machine, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    wheel = machine.wheel("1.0")
    shutil.copytree(machine.base / "releases", tmp_path / "opt/finetuned/releases")
    monkeypatch.setattr(sources, "_PRIVATE", ())  # this test's Python may be in a home
    image = ["--system", "--root", str(tmp_path), "--yes", "--json"]
    assert main.execute(["install-service", *image, "--from", wheel]) == 0
    steps = json.loads(capsys.readouterr().out)
    assert f"write {tmp_path}/etc/systemd/system/finetuned.socket" in steps
    assert (tmp_path / "etc/tmpfiles.d/finetuned.conf").is_file()
    assert (tmp_path / "usr/local/bin/finetune").is_symlink()
    assert main.execute(["uninstall-service", *image]) == 0
    assert [path for path in tmp_path.rglob("*") if not path.is_dir()] == []
    assert machine.asked() == []


def test_the_units_alone_can_be_written(machine: Machine) -> None:
    assert main.execute(["install-service", "--user", "--units-only", "--yes"]) == 0
    assert machine.asked() == ["--user daemon-reload"]
    assert not machine.current.is_symlink()


def attempt(machine: Machine, release: str) -> None:
    """An attempt that lives, and was started from a release."""
    bundle = Bundle(machine.state / "jobs/job-1/attempts/1")
    python = str(machine.base / "releases" / release / "bin" / "python")
    spec = Spec(
        job="job-1", attempt=1, kind="k", entry="a:b", params={}, params_model="a:C", interpreter=python
    )
    bundle.create(spec)
    bundle.claim(identity.own())


def test_stopping_the_workers_cancels_everything_and_waits_until_nothing_runs(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with running() as daemon:
        monkeypatch.setenv("FINETUNED_SOCKET", str(daemon.socket))
        jobs = [daemon.submit(steps=1000, step_seconds=0.05) for _ in range(3)]
        eventually(lambda: any(daemon.job(job)["state"] == "running" for job in jobs), what="a running job")
        assert refused(capsys, "stop-workers")[0] == 2  # nobody can be asked
        assert main.execute(["stop-workers", "--yes", "--json"]) == 0
        assert sorted(json.loads(capsys.readouterr().out)) == sorted(jobs)
        for job in jobs:
            assert daemon.job(job)["state"] == "cancelled"
            assert not daemon.attempt_processes(job)
        assert main.execute(["stop-workers"]) == 0
        assert "No job is live" in capsys.readouterr().err
