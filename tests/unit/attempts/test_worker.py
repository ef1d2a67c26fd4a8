from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

import finetuned_sdk
from finetuned.attempts.testing import fake_spec
from finetuned_sdk import JobError, RefusedError, heartbeat, phases, worker_progress
from finetuned_sdk.bundle import RUNNER_VARIABLE, STOPPED_EXIT_CODE, Bundle
from finetuned_sdk.context import CallbackSpec
from finetuned_sdk.fake import FAKE, FakeParams, finetuned_register
from finetuned_sdk.kinds import Host
from finetuned_sdk.registry import Registry
from finetuned_sdk.spool import Fact, parse
from finetuned_sdk.testing import RecordingContext

Start = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    return Bundle(tmp_path / "jobs" / "job-1" / "attempts" / "1")


@pytest.fixture
def start(bundle: Bundle) -> Iterator[Start]:
    """Starts workers without a runner."""
    started = []

    def start(runner: int | None = None, **params: Any) -> subprocess.Popen[str]:
        bundle.create(fake_spec(params=params))
        environment = {**os.environ} | ({} if runner is None else {RUNNER_VARIABLE: str(runner)})
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", "finetuned_sdk.worker", str(bundle.path)],
            stderr=subprocess.PIPE,
            text=True,
            env=environment,
        )
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


def facts(bundle: Bundle) -> list[Fact]:
    if not bundle.spool_path.exists():
        return []
    lines, _ = parse(bundle.spool_path.read_bytes(), after=0)
    return [line for line in lines if isinstance(line, Fact)]


def until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def reported(bundle: Bundle, fact_type: str) -> bool:
    return any(fact.type == fact_type for fact in facts(bundle))


def test_a_worker_whose_runner_is_another_than_its_parent_dies_at_once(start: Start, bundle: Bundle) -> None:
    assert start(runner=1, steps=1).wait(20) == -signal.SIGKILL
    assert facts(bundle) == []


def test_a_worker_stops_after_a_checkpoint_when_control_json_says_so(start: Start, bundle: Bundle) -> None:
    process = start(runner=os.getpid(), steps=1000, step_seconds=0.02)
    until(lambda: reported(bundle, "progress"))
    bundle.request_stop("pause", checkpoint=True)
    assert process.wait(20) == STOPPED_EXIT_CODE
    assert [fact.type for fact in facts(bundle)][-1] == "checkpoint"


def test_a_control_file_that_cannot_be_read_stops_nothing(start: Start, bundle: Bundle) -> None:
    process = start(steps=3, step_seconds=0.4)
    until(lambda: reported(bundle, "phase"))
    bundle.control_path.write_text("{")
    assert process.wait(20) == 0


def test_a_hanging_worker_shows_where_it_is(start: Start, bundle: Bundle) -> None:
    process = start(steps=1, step_seconds=60)
    until(lambda: reported(bundle, "phase"))
    process.send_signal(signal.SIGUSR1)
    assert process.stderr is not None
    lines = iter(process.stderr.readline, "")
    assert any("fake.py" in line for line in lines)


def test_the_last_report_is_written_before_the_result(start: Start, bundle: Bundle) -> None:
    assert start(steps=200).wait(20) == 0
    progress = [fact.data["current_step"] for fact in facts(bundle) if fact.type == "progress"]
    assert progress[-1] == 200
    assert len(progress) < 50
    assert facts(bundle)[-1].type == "result"


def test_a_report_that_waits_is_written_while_the_work_is_busy_elsewhere(
    start: Start, bundle: Bundle, tmp_path: Path
) -> None:
    module = tmp_path / "busy.py"
    module.write_text(
        "import time\n"
        "def run(ctx, params):\n"
        "    for step in (1, 2, 3):\n"
        "        ctx.progress(current_step=step, total_steps=9)\n"
        "    time.sleep(60)\n"
    )
    bundle.create(fake_spec(entry="busy:run"))
    process = subprocess.Popen(
        [sys.executable, "-P", "-m", "finetuned_sdk.worker", str(bundle.path)],
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
    )
    try:
        until(lambda: [f.data["current_step"] for f in facts(bundle) if f.type == "progress"] == [1, 3])
    finally:
        process.kill()
        process.wait()


def test_a_worker_that_waits_for_room_for_its_result_says_that_it_does_not_hang(
    bundle: Bundle, tmp_path: Path
) -> None:
    """Or the watchdog would have it killed after ``saving_s``, and its work done again."""
    module = tmp_path / "full.py"
    module.write_text(
        "import errno, os\n"
        "def run(ctx, params):\n"
        "    write = os.write\n"
        "    def full(descriptor, data):\n"
        "        if not os.path.exists('room'):\n"
        "            raise OSError(errno.ENOSPC, 'No space left on device')\n"
        "        return write(descriptor, data)\n"
        "    os.write = full\n"
    )
    bundle.create(fake_spec(entry="full:run", heartbeat_s=0.05))

    def saving_since() -> float | None:
        beat = heartbeat.read(bundle.heartbeat_path)
        return None if beat is None or beat.phase != phases.SAVING else beat.step_at

    process = subprocess.Popen(
        [sys.executable, "-P", "-m", "finetuned_sdk.worker", str(bundle.path)],
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        cwd=tmp_path,
    )
    try:
        until(saving_since)
        began = saving_since()
        until(lambda: saving_since() != began)
        (tmp_path / "room").touch()
        assert process.wait(20) == 0
        assert reported(bundle, "result")
    finally:
        process.kill()
        process.wait()


def test_a_worker_without_a_specification_says_so(bundle: Bundle) -> None:
    bundle.path.mkdir(parents=True)
    process = subprocess.run(
        [sys.executable, "-P", "-m", "finetuned_sdk.worker", str(bundle.path)], check=False
    )
    assert process.returncode == 1
    assert facts(bundle)[-1].data["code"] == "bad_bundle"


@pytest.mark.parametrize(
    ("entry", "code"),
    [
        ("finetuned_sdk.fake:nothing", "plugin_error"),
        ("no_such_module:run", "missing_dependency"),
        ("sys:exit", "worker_error"),
    ],
)
def test_an_entry_that_cannot_be_run_is_reported(bundle: Bundle, entry: str, code: str) -> None:
    bundle.create(fake_spec(entry=entry))
    process = subprocess.run(
        [sys.executable, "-P", "-m", "finetuned_sdk.worker", str(bundle.path)],
        check=False,
        capture_output=True,
    )
    assert process.returncode == 1
    assert facts(bundle)[-1].data["code"] == code


def test_a_result_that_is_too_long_fails_the_job_with_the_reason(start: Start, bundle: Bundle) -> None:
    assert start(steps=1, result={"log": "x" * (1 << 20)}).wait(20) == 1
    assert facts(bundle)[-1].type == "error"
    assert "into an artifact" in facts(bundle)[-1].data["message"]


# ---- callbacks -------------------------------------------------------------------------------------------


def make(ctx: Any, params: Any) -> tuple[str, Any]:
    return ctx.job_id, params


def spec(name: str, **changes: Any) -> CallbackSpec:
    return CallbackSpec(**{"name": name, "entry": f"{__name__}:make", "params": {"steps": 2}} | changes)


def test_callbacks_get_validated_parameters_where_a_model_is_named(tmp_path: Path) -> None:
    callback = spec("a", params_model="finetuned_sdk.fake:FakeParams")
    ((_, params),) = RecordingContext(tmp_path, callbacks=[callback]).load_callbacks()
    assert params == FakeParams(steps=2)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"entry": "nowhere:make"}, "cannot be made"),
        ({"entry": "finetuned_sdk.fake:nothing"}, "has no nothing"),
        ({"params_model": "finetuned_sdk.fake:FakeParams", "params": {"steps": -1}}, "steps"),
    ],
)
def test_a_callback_that_cannot_be_made_is_an_error_for_the_user(
    tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(JobError, match=message):
        RecordingContext(tmp_path, callbacks=[spec("a", **changes)]).load_callbacks()


# ---- figures of the GPU ----------------------------------------------------------------------------------


def fake_torch(*, initialized: bool, utilization: Callable[[], float]) -> ModuleType:
    torch: Any = ModuleType("torch")
    torch.cuda = SimpleNamespace(
        is_initialized=lambda: initialized, memory_allocated=lambda: 2_500_000_000, utilization=utilization
    )
    made: ModuleType = torch
    return made


def no_figure() -> float:
    raise RuntimeError("NVML: not supported")


def test_gpu_figures_are_asked_for_only_once_torch_has_used_the_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "torch", raising=False)
    assert worker_progress.gpu_figures() == (None, None)
    monkeypatch.setitem(sys.modules, "torch", fake_torch(initialized=False, utilization=no_figure))
    assert worker_progress.gpu_figures() == (None, None)


def test_gpu_figures_come_from_torch_and_may_be_partial(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", fake_torch(initialized=True, utilization=lambda: 87))
    assert worker_progress.gpu_figures() == (2.5, 87.0)
    monkeypatch.setitem(sys.modules, "torch", fake_torch(initialized=True, utilization=no_figure))
    assert worker_progress.gpu_figures() == (2.5, None)


# ---- the package -----------------------------------------------------------------------------------------


def test_every_public_name_of_the_sdk_can_be_imported() -> None:
    for name in finetuned_sdk.__all__:
        assert getattr(finetuned_sdk, name) is not None
        assert name in dir(finetuned_sdk)
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        _ = finetuned_sdk.nonsense


def test_the_runner_needs_nothing_but_the_standard_library() -> None:
    code = "import sys, finetuned.attempts.runner; print(*sys.modules)"
    loaded = subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True
    ).stdout.split()
    ours = {name for name in loaded if name.split(".")[0].startswith("finetuned")}
    assert ours == {
        "finetuned", "finetuned.attempts", "finetuned.attempts.cgroup", "finetuned.attempts.identity",
        "finetuned.attempts.limits", "finetuned.attempts.memory", "finetuned.attempts.oom",
        "finetuned.attempts.output", "finetuned.attempts.runner", "finetuned.attempts.temporary",
        "finetuned_sdk", "finetuned_sdk.bundle", "finetuned_sdk.context", "finetuned_sdk.secrets",
    }  # fmt: skip
    assert not {"pydantic", "pluggy", "asyncio", "subprocess", "torch"} & set(loaded)


def test_the_worker_itself_needs_no_torch() -> None:
    code = "import sys, finetuned_sdk.worker, finetuned_sdk.fake; print(*sys.modules)"
    loaded = subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True
    ).stdout.split()
    assert not {"torch", "aiohttp", "anyio", "finetuned"} & set(loaded)


def test_the_fake_kind_declares_itself_like_any_other() -> None:
    registry = Registry()
    finetuned_register(registry)
    assert registry.job_kinds == {"fake": FAKE}
    assert FAKE.resources is not None
    assert FAKE.estimate is not None
    assert FAKE.check is not None
    assert FAKE.resources(FakeParams(devices=2), Host()).devices == 2
    assert FAKE.estimate(FakeParams(steps=4, step_seconds=0.5), Host()).duration_s == 2.0
    with pytest.raises(RefusedError):
        FAKE.check(FakeParams(refused=True), Host())
