from __future__ import annotations

import fcntl
import json
import os
import resource
import signal
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import anyio
import pytest
from anyio import to_thread

from finetuned.attempts import identity
from finetuned.attempts.launcher import LocalExecutor
from finetuned.attempts.ports import SpecUnavailableError
from finetuned.attempts.supervisor import Timing
from finetuned_sdk import checkpoints
from finetuned_sdk.bundle import STOPPED_EXIT_CODE, Bundle, Spec
from finetuned_sdk.spool import Fact

if TYPE_CHECKING:
    from tests.acceptance.attempts.conftest import House

FAMILY = {"steps": 100_000, "step_seconds": 0.05, "spawn_children": 2}


async def test_a_finished_attempt_left_its_facts_in_order_and_its_files_complete(house: House) -> None:
    entry = await house.run(params={"steps": 4, "checkpoint_every": 2, "register_as": "small"})
    assert [fact.type for fact in entry.facts if fact.type != "progress"] == [
        "hello", "phase", "checkpoint", "checkpoint", "artifact", "model", "result",
    ]  # fmt: skip
    assert [line.line for line in entry.lines] == list(range(1, len(entry.lines) + 1))
    assert entry.ending is not None
    assert (entry.ending.exit_code, entry.ending.lost, entry.ending.problem) == (0, None, None)
    # Their sum is what it ran; which of them a few milliseconds are put down to is for the kernel's clock to say.
    assert entry.ending.usage["user_s"] + entry.ending.usage["system_s"] > 0
    newest = checkpoints.newest_complete(house.bundle(entry.spec).checkpoints.iterdir())
    assert newest is not None
    assert newest.name == "checkpoint-4"
    assert house.log.alive_at_end == []


async def test_an_attempt_goes_on_from_the_checkpoint_it_is_given(house: House) -> None:
    first = await house.run(params={"steps": 2, "checkpoint_every": 2})
    saved = next(fact for fact in first.facts if fact.type == "checkpoint").data["path"]
    second = await house.run(attempt=2, params={"steps": 3}, resume_from=saved)
    assert second.facts[-1].data["values"]["first_step"] == 3


@pytest.mark.parametrize(
    ("params", "code", "retryable"),
    [
        ({"fail_at": 2}, "worker_error", True),
        ({"refuse_at": 1}, "fake_refused", False),
        ({"exhaust_memory_at": 1}, "out_of_memory", True),
        ({"steps": -1}, "invalid_params", False),
    ],
)
async def test_a_worker_that_gives_up_says_why(
    house: House, params: dict[str, int], code: str, retryable: bool
) -> None:
    entry = await house.run(params=params)
    assert entry.facts[-1].type == "error"
    assert (entry.facts[-1].data["code"], entry.facts[-1].data["retryable"]) == (code, retryable)
    assert entry.ending is not None
    assert entry.ending.exit_code == 1


async def test_the_traceback_is_in_the_output_and_not_in_the_message(house: House) -> None:
    entry = await house.run(params={"fail_at": 1})
    assert entry.facts[-1].data["message"] == "RuntimeError: failed at step 1, as asked"
    assert "Traceback" in house.bundle(entry.spec).output_path.read_text(encoding="utf-8")


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGABRT])
async def test_a_worker_that_dies_of_a_signal_ends_with_that_signal(
    house: House, number: signal.Signals
) -> None:
    entry = await house.run(params={"steps": 5, "crash_at": 3, "crash_signal": int(number)})
    assert entry.ending is not None
    assert (entry.ending.exit_code, entry.ending.signal) == (None, number)
    assert entry.ending.lost is None
    # A report that the signal came before is not written.
    assert {fact.data["current_step"] for fact in entry.facts if fact.type == "progress"} <= {0, 1, 2}


async def test_a_worker_killed_from_outside_takes_its_children_along(house: House) -> None:
    entry = house.start(params=FAMILY)
    async with house.daemon():
        hello = await house.log.until_fact("job-1", 1, "hello")
        await house.until_family(entry.spec, 5)
        os.kill(hello.data["pid"], signal.SIGKILL)
        ending = await house.log.until_ended("job-1", 1)
    assert ending.signal == signal.SIGKILL
    assert house.log.alive_at_end == []


async def test_a_finished_worker_leaves_no_child_behind(house: House) -> None:
    await house.run(params={"steps": 1, "step_seconds": 0.3, "spawn_children": 2, "ignore_sigterm": True})
    assert house.log.alive_at_end == []


async def test_an_attempt_that_an_earlier_daemon_asked_to_stop_says_why(house: House) -> None:
    entry = house.start(params={"steps": 100_000, "step_seconds": 0.05})
    async with house.daemon():
        await house.log.until_fact("job-1", 1, "progress")
        await to_thread.run_sync(lambda: house.bundle(entry.spec).request_stop("lunch", checkpoint=True))
        ending = await house.log.until_ended("job-1", 1)
    assert (ending.exit_code, ending.asked) == (STOPPED_EXIT_CODE, "lunch")


async def test_a_cancelled_attempt_stops_at_its_next_step_without_a_result(house: House) -> None:
    entry = house.start(params={"steps": 100_000, "step_seconds": 0.02})
    async with house.daemon() as supervision:
        await house.log.until_fact("job-1", 1, "progress")
        house.log.cancel("job-1", 1)
        supervision.notice()
        ending = await house.log.until_ended("job-1", 1)
    assert ending.exit_code == STOPPED_EXIT_CODE
    assert "result" not in {fact.type for fact in entry.facts}
    assert house.bundle(entry.spec).read_control().reason == "asked to"


async def test_a_cancelled_group_that_ignores_sigterm_is_killed_to_the_last_grandchild(house: House) -> None:
    entry = house.start(params={**FAMILY, "ignore_sigterm": True}, grace_s=0.3)
    async with house.daemon() as supervision:
        await house.until_family(entry.spec, 5)
        house.log.cancel("job-1", 1)
        supervision.notice()
        ending = await house.log.until_ended("job-1", 1)
    assert ending.signal == signal.SIGKILL
    assert not ending.oom_killed
    assert house.log.alive_at_end == []


async def test_a_cancel_request_from_before_the_restart_is_still_honoured(house: House) -> None:
    house.start(params={"steps": 100_000, "step_seconds": 0.02})
    async with house.daemon():
        await house.log.until_fact("job-1", 1, "progress")
    house.log.cancel("job-1", 1)
    async with house.daemon():
        ending = await house.log.until_ended("job-1", 1)
    assert ending.exit_code == STOPPED_EXIT_CODE


async def test_an_attempt_cancelled_before_its_start_never_starts(house: House) -> None:
    entry = house.start(params={"steps": 1})
    house.log.cancel("job-1", 1)
    async with house.daemon():
        ending = await house.log.until_ended("job-1", 1)
    assert ending.lost == "it was stopped before it started"
    assert (entry.runners, entry.lines) == ([], [])


async def test_an_attempt_whose_runner_died_is_lost_only_when_nothing_of_it_is_alive(house: House) -> None:
    entry = house.start(params={**FAMILY, "ignore_sigterm": True})
    async with house.daemon():
        await house.until_family(entry.spec, 5)
        os.kill(entry.runners[0].pid, signal.SIGKILL)
        ending = await house.log.until_ended("job-1", 1)
    assert ending.lost == "its runner died before it could say how the work ended"
    assert house.log.alive_at_end == []


async def test_a_worker_never_outlives_its_runner_even_with_no_daemon(house: House) -> None:
    entry = house.start(params={"steps": 100_000, "step_seconds": 0.05})
    async with house.daemon():
        await house.log.until_fact("job-1", 1, "progress")
    os.kill(entry.runners[0].pid, signal.SIGKILL)
    await house.until(lambda: not house.processes(entry.spec))


async def test_a_restart_loses_no_line_and_doubles_none(house: House) -> None:
    entry = house.start(params={"steps": 60, "step_seconds": 0.03, "checkpoint_every": 5})
    for _ in range(6):
        async with house.daemon():
            seen = len(entry.lines)
            with anyio.fail_after(60):
                while entry.ending is None and len(entry.lines) < seen + 3:
                    await house.log.until_changed()
    async with house.daemon():
        ending = await house.log.until_ended("job-1", 1)
    assert ending.exit_code == 0
    assert [line.line for line in entry.lines] == list(range(1, len(entry.lines) + 1))
    assert all(isinstance(line, Fact) for line in entry.lines)
    assert [fact.data["step"] for fact in entry.facts if fact.type == "checkpoint"] == list(range(5, 61, 5))
    assert len(set(entry.runners)) == 1


async def test_an_attempt_that_ended_while_nobody_looked_is_read_to_its_end(house: House) -> None:
    entry = house.start(**house.held())
    async with house.daemon():
        await house.log.until_fact("job-1", 1, "progress")
    await to_thread.run_sync(house.gate.touch)
    await house.until(house.bundle(entry.spec).exit_path.exists)
    async with house.daemon():
        ending = await house.log.until_ended("job-1", 1)
    assert ending.exit_code == 0
    assert entry.facts[-1].type == "result"


async def test_a_bundle_without_a_runner_is_started(house: House) -> None:
    entry = house.start(params={"steps": 1})
    house.bundle(entry.spec).create(entry.spec)
    async with house.daemon():
        ending = await house.log.until_ended("job-1", 1)
    assert ending.exit_code == 0


async def test_of_two_runners_for_one_bundle_one_works(house: House) -> None:
    entry = house.start(params={"steps": 2})
    await house.executor.launch(house.bundle(entry.spec), entry.spec)
    async with house.daemon():
        ending = await house.log.until_ended("job-1", 1)
    assert ending.exit_code == 0
    assert [fact.type for fact in entry.facts].count("hello") == 1


def descriptors(pid: int) -> list[str]:
    """What a process has open."""
    found = []
    for each in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(FileNotFoundError):  # closed since it was listed
            found.append(str(each.readlink()))
    return found


def oom_score_adj(pid: int) -> int:
    return int(Path(f"/proc/{pid}/oom_score_adj").read_text(encoding="ascii"))


class SilentExecutor:
    """Starts nothing and says nothing."""

    async def launch(self, bundle: Bundle, spec: Spec) -> None:
        await to_thread.run_sync(bundle.create, spec)

    def reap(self) -> None: ...


async def test_a_runner_that_comes_too_late_starts_nothing(house: House) -> None:
    entry = house.start(params={"steps": 1})
    late, house.executor = LocalExecutor(), SilentExecutor()
    async with house.daemon(Timing(start=0.1)):
        ending = await house.log.until_ended("job-1", 1)
    assert ending.lost == "its runner did not start within 0.1 s"

    bundle = house.bundle(entry.spec)
    await late.launch(bundle, entry.spec)

    def is_reaped() -> bool:
        late.reap()
        return not late.running

    await house.until(is_reaped)
    assert bundle.is_revoked
    assert not bundle.spool_path.exists()


async def test_an_interpreter_that_is_gone_ends_the_attempt_at_once(house: House) -> None:
    entry = await house.run(interpreter="/nowhere/python")
    assert entry.ending is not None
    assert entry.ending.lost is not None
    assert "/nowhere/python" in entry.ending.lost


async def test_an_artifact_that_changed_after_it_was_published_spoils_the_success(
    house: House, tmp_path: Path
) -> None:
    module = tmp_path / "spoiler.py"
    module.write_text(
        "def run(ctx, params):\n"
        "    path = ctx.artifact_dir / 'weights'\n"
        "    path.write_bytes(b'good')\n"
        "    ctx.artifact(path, kind='adapter')\n"
        "    path.write_bytes(b'evil')\n"
    )
    entry = await house.run(entry="spoiler:run", environment={"PYTHONPATH": str(tmp_path)})
    assert entry.ending is not None
    assert entry.ending.exit_code == 0
    assert entry.ending.problem is not None
    assert "weights has changed since its manifest was written" in entry.ending.problem


async def test_an_attempt_from_before_a_reboot_is_lost_without_a_search(house: House) -> None:
    entry = house.start(params={"steps": 1})
    bundle = house.bundle(entry.spec)
    bundle.create(entry.spec)
    data = {"boot_id": "another-boot", "pid": os.getpid(), "start_time": 1, "process_group": 1}
    bundle.runner_path.write_text(json.dumps(data), encoding="utf-8")
    async with house.daemon():
        ending = await house.log.until_ended("job-1", 1)
    bundle.runner_path.unlink()
    assert ending.lost == "the machine was restarted while it ran"


async def test_a_pid_that_was_used_again_is_not_taken_for_the_runner(house: House) -> None:
    entry = house.start(params={"steps": 1})
    bundle = house.bundle(entry.spec)
    bundle.create(entry.spec)
    me = await to_thread.run_sync(identity.own)
    data = {"boot_id": me.boot_id, "pid": me.pid, "start_time": me.start_time - 1, "process_group": me.pid}
    bundle.runner_path.write_text(json.dumps(data), encoding="utf-8")
    async with house.daemon():
        ending = await house.log.until_ended("job-1", 1)
    bundle.runner_path.unlink()
    assert ending.lost is not None


async def test_kill_all_takes_every_attempt_along(house: House) -> None:
    entries = [house.start(job=f"job-{n}", params=FAMILY) for n in range(3)]
    async with house.daemon() as supervision:
        for entry in entries:
            await house.until_family(entry.spec, 5)
        await supervision.kill_all()
        assert supervision.supervised == frozenset()
    assert all(entry.ending is not None for entry in entries)
    assert house.log.alive_at_end == []


async def test_a_bundle_that_the_log_does_not_know_is_reported_and_left_alone(house: House) -> None:
    entry = house.start(params={"steps": 100_000, "step_seconds": 0.05}, devices=("cpu:1",))
    async with house.daemon():
        await house.log.until_fact("job-1", 1, "progress")
    house.log.entries.clear()
    async with house.daemon() as supervision:
        await house.until(lambda: supervision.strays)
    (stray,) = supervision.strays
    assert (stray.job, stray.attempt, stray.devices) == ("job-1", 1, ("cpu:1",))
    assert await to_thread.run_sync(house.processes, entry.spec)


async def test_a_log_that_fails_for_a_moment_does_not_end_the_attempt(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    entry = house.start(params={"steps": 3})
    record, failures = house.log.record, iter([OSError("the disk is full")])

    async def fail_once(job: str, attempt: int, lines: list[Fact], *, last: bool) -> None:
        for failure in failures:
            raise failure
        await record(job, attempt, lines, last=last)

    monkeypatch.setattr(house.log, "record", fail_once)
    async with house.daemon():
        ending = await house.log.until_ended("job-1", 1)
    assert ending.exit_code == 0
    assert [line.line for line in entry.lines] == list(range(1, len(entry.lines) + 1))


async def test_the_runner_inherits_nothing_of_the_daemon(house: House) -> None:
    house.start(params={"steps": 100_000, "step_seconds": 0.05})
    async with house.daemon():
        hello = await house.log.until_fact("job-1", 1, "hello")
    runner = house.log.entries["job-1", 1].runners[0]
    kinds = descriptors(runner.pid)
    bundle = house.bundle(house.log.entries["job-1", 1].spec)
    own = str(
        await to_thread.run_sync(bundle.temporary.readlink)
    )  # it holds a lock on its worker's directory
    outside = [kind for kind in kinds if not kind.startswith(("pipe:", "/dev/null", str(house.jobs), own))]
    assert outside == []
    assert runner.process_group == runner.pid != os.getpgid(0)
    # The runner writes it after the worker's start, which may have come further by then.
    await house.until(lambda: oom_score_adj(hello.data["pid"]) == 500)


async def test_secrets_reach_the_worker_and_nothing_that_it_leaves_behind(
    house: House, tmp_path: Path
) -> None:
    module = tmp_path / "leak.py"
    module.write_text(
        "import os, sys, pathlib\n"
        "def run(ctx, params):\n"
        "    token = os.environ['HF_TOKEN']\n"
        "    assert token == ctx.secret('HF_TOKEN') == ctx.secret('secret:hf')\n"
        "    assert ctx.secret('quiet') == 'value-of-quiet' and 'quiet' not in os.environ\n"
        "    print('token', token)\n"
        "    sys.stderr.write('[' + token[:4])\n"
        "    sys.stderr.flush()\n"
        "    sys.stderr.write(token[4:] + ']')\n"
        "    for pid in (os.getpid(), os.getppid()):\n"
        "        for file in ('environ', 'cmdline'):\n"
        "            assert token.encode() not in pathlib.Path(f'/proc/{pid}/{file}').read_bytes()\n"
        "    ctx.progress(current_step=1, total_steps=1, note=f'with {token}', final=True)\n"
        "    ctx.result(length=len(token), said={token: [f'it is {token}']})\n"
    )
    values = {"HF_TOKEN": "hf_verysecret", "quiet": "value-of-quiet"}
    house.executor = LocalExecutor(lambda names: {name: values[name] for name in names})
    entry = await house.run(
        entry="leak:run",
        environment={"PYTHONPATH": str(tmp_path)},
        secrets={"HF_TOKEN": "secret:hf", "quiet": "secret:quiet"},
    )
    assert entry.facts[-1].data["values"] == {"length": 13, "said": {"***": ["it is ***"]}}
    bundle = house.bundle(entry.spec)
    assert bundle.output_path.read_text(encoding="utf-8") == "token ***\n[***]"
    assert bundle.read_spec().secrets == {"HF_TOKEN": "secret:hf", "quiet": "secret:quiet"}
    assert not [
        path for path in bundle.path.rglob("*") if path.is_file() and b"verysecret" in path.read_bytes()
    ]


async def test_a_worker_that_crashes_leaves_no_core_dump_with_its_secrets(
    house: House, tmp_path: Path
) -> None:
    (tmp_path / "crash.py").write_text(
        "import os, resource, signal\n"
        "def run(ctx, params):\n"
        "    kept = ctx.secret('HF_TOKEN')\n"
        "    print('limit', resource.getrlimit(resource.RLIMIT_CORE))\n"
        "    os.kill(os.getpid(), signal.SIGSEGV)\n"
    )
    house.executor = LocalExecutor(lambda names: dict.fromkeys(names, "hf_verysecret"))
    before = resource.getrlimit(resource.RLIMIT_CORE)
    resource.setrlimit(resource.RLIMIT_CORE, (before[1], before[1]))
    try:
        entry = await house.run(
            entry="crash:run", environment={"PYTHONPATH": str(tmp_path)}, secrets={"HF_TOKEN": "secret:hf"}
        )
    finally:
        resource.setrlimit(resource.RLIMIT_CORE, before)
    assert entry.ending is not None
    assert entry.ending.signal == signal.SIGSEGV
    bundle = house.bundle(entry.spec)
    files = [path for path in bundle.path.rglob("*") if path.is_file()]
    assert not [path for path in files if b"verysecret" in path.read_bytes()]
    # One byte: less than any dump, and for Linux also no dump to a program.
    limit = min(1, before[1]) if before[1] >= 0 else 1  # where none is allowed anyway, none
    assert f"limit ({limit}, {limit})" in bundle.output_path.read_text(encoding="utf-8")


async def test_an_error_that_quotes_a_secret_is_masked_in_what_is_recorded(
    house: House, tmp_path: Path
) -> None:
    module = tmp_path / "failing.py"
    module.write_text(
        "def run(ctx, params):\n"
        "    raise RuntimeError('401 for https://hub/?token=' + ctx.secret('HF_TOKEN'))\n"
    )
    house.executor = LocalExecutor(lambda names: dict.fromkeys(names, "hf_verysecret"))
    entry = await house.run(
        entry="failing:run", environment={"PYTHONPATH": str(tmp_path)}, secrets={"HF_TOKEN": "secret:hf"}
    )
    assert entry.facts[-1].data["message"] == "RuntimeError: 401 for https://hub/?token=***"
    assert b"verysecret" not in house.bundle(entry.spec).output_path.read_bytes()


async def test_an_attempt_whose_secret_is_gone_is_given_up_with_the_reason(house: House) -> None:
    def gone(_names: Mapping[str, str]) -> Mapping[str, str]:
        raise SpecUnavailableError("There is no secret 'hf'")

    house.executor = LocalExecutor(gone)
    entry = await house.run(secrets={"HF_TOKEN": "secret:hf"})
    assert entry.ending is not None
    assert entry.ending.lost == "There is no secret 'hf'"
    assert not house.bundle(entry.spec).spec_path.exists()


async def test_no_line_of_output_is_lost_in_a_flood(house: House) -> None:
    entry = await house.run(params={"steps": 3, "output_lines": 20_000, "artifact_bytes": None})
    lines = house.bundle(entry.spec).output_path.read_text(encoding="utf-8").splitlines()
    assert lines == [f"step {step} line {line}" for step in (1, 2, 3) for line in range(20_000)]


async def test_a_worker_that_cannot_be_started_is_a_problem_and_not_a_loss(house: House) -> None:
    entry = house.start()
    bundle = house.bundle(entry.spec)
    bundle.create(replace(entry.spec, interpreter="/nowhere/python"))
    await LocalExecutor().launch(bundle, entry.spec)  # the runner starts, its worker does not
    await house.until(bundle.exit_path.exists)
    async with house.daemon():
        ending = await house.log.until_ended("job-1", 1)
    assert (ending.exit_code, ending.signal, ending.lost) == (None, None, None)
    assert ending.problem == "The worker cannot be started with /nowhere/python: No such file or directory."


async def test_a_disk_that_is_full_for_a_while_costs_no_checkpoint_fact(house: House, tmp_path: Path) -> None:
    """The limit on file sizes stands for a full disk: writes come back short, then fail."""
    module = tmp_path / "full.py"
    module.write_text(
        "import resource\n"
        "def limit(size):\n"
        "    resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))\n"
        "def run(ctx, params):\n"
        "    limit(2000)\n"
        "    for step in range(30):\n"
        "        made = ctx.work_dir / str(step)\n"
        "        made.mkdir()\n"
        "        (made / 'w').write_text('x')\n"
        "        ctx.checkpoint(made, step=step, metrics={'loss': 1.0})\n"
        "    limit(resource.RLIM_INFINITY)\n"
        "    ctx.result(done=True)\n"
    )
    entry = await house.run(entry="full:run", environment={"PYTHONPATH": str(tmp_path)})
    assert [fact.data["step"] for fact in entry.facts if fact.type == "checkpoint"] == list(range(30))
    assert all(isinstance(line, Fact) for line in entry.lines)
    assert entry.ending is not None
    assert entry.ending.exit_code == 0


async def test_an_exit_record_that_cannot_be_read_is_a_loss_that_says_so(house: House) -> None:
    entry = house.start(params={"steps": 100_000, "step_seconds": 0.05})
    async with house.daemon():
        hello = await house.log.until_fact("job-1", 1, "hello")
    os.kill(hello.data["pid"], signal.SIGKILL)
    bundle = house.bundle(entry.spec)
    await house.until(bundle.exit_path.exists)
    await house.until(lambda: not identity.is_alive(entry.runners[0]))
    bundle.exit_path.write_text("{", encoding="utf-8")
    bundle.spec_path.unlink()
    async with house.daemon():
        ending = await house.log.until_ended("job-1", 1)
    assert ending.lost is not None
    assert "exit.json is not JSON" in ending.lost


async def test_facts_beyond_the_cap_are_skipped_and_counted_in_the_usage(
    house: House, tmp_path: Path
) -> None:
    module = tmp_path / "flood.py"
    module.write_text(
        "def run(ctx, params):\n"
        "    for step in range(3000):\n"
        "        ctx.progress(current_step=step, total_steps=None, final=True)\n"
    )
    entry = await house.run(entry="flood:run", environment={"PYTHONPATH": str(tmp_path)})
    assert entry.ending is not None
    recorded = sum(fact.type == "progress" for fact in entry.facts)
    assert recorded + entry.ending.usage["skipped_progress"] == 3000
    assert entry.facts[-1].type == "result"


LISTENER = """
import os, stat, tempfile
from multiprocessing import connection, util
def run(ctx, params):
    with connection.Listener(family="AF_UNIX") as listener:  # as torch's loader processes do
        address = listener.address
        with connection.Client(address), listener.accept():
            pass
    directory = tempfile.gettempdir()
    open(os.path.join(directory, "left"), "w").close()
    ctx.result(directory=directory, address=address, mode=stat.S_IMODE(os.stat(directory).st_mode))
"""


async def test_sockets_of_the_work_fit_however_deep_the_state_directory_lies(
    house: House, tmp_path: Path
) -> None:
    (tmp_path / "listening.py").write_text(LISTENER)
    house.jobs = tmp_path / ("deep" * 20) / "jobs"
    house.jobs.mkdir(parents=True)
    entry = await house.run(entry="listening:run", environment={"PYTHONPATH": str(tmp_path)})
    assert entry.ending is not None
    assert entry.ending.exit_code == 0, entry.facts[-1]
    values = entry.facts[-1].data["values"]
    assert len(values["directory"]) <= 60
    assert values["address"].startswith(values["directory"])
    assert values["mode"] == 0o700
    assert not await to_thread.run_sync(Path(values["directory"]).exists)
    assert not await to_thread.run_sync(os.path.lexists, house.bundle(entry.spec).temporary)


def is_locked(directory: Path) -> bool:
    """Whether systemd-tmpfiles would find an exclusive lock on it, and pass over it."""
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


async def test_nobody_tidies_up_temporary_files_while_the_attempt_lives(house: House) -> None:
    entry = house.start(params={"steps": 100_000, "step_seconds": 0.05})
    async with house.daemon() as supervision:
        await house.log.until_fact("job-1", 1, "progress")
        directory = await to_thread.run_sync(house.bundle(entry.spec).temporary.readlink)
        assert await to_thread.run_sync(is_locked, directory)
        await supervision.kill_all()
    assert not await to_thread.run_sync(directory.exists)


async def test_temporary_files_of_a_killed_runner_are_removed(house: House) -> None:
    entry = house.start(params={"steps": 100_000, "step_seconds": 0.05})
    temporary = house.bundle(entry.spec).temporary
    async with house.daemon():
        await house.log.until_fact("job-1", 1, "progress")
        directory = await to_thread.run_sync(temporary.readlink)
        assert await to_thread.run_sync(directory.is_dir)
        os.kill(entry.runners[0].pid, signal.SIGKILL)
        await house.log.until_ended("job-1", 1)
    assert not await to_thread.run_sync(directory.exists)
    assert not await to_thread.run_sync(os.path.lexists, temporary)
