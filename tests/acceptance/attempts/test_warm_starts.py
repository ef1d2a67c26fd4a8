"""Workers that are forked with their imports: what they are like, and what happens when they cannot be."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import anyio
import pytest
from anyio import to_thread
from tests.acceptance.attempts import probes
from tests.acceptance.attempts.conftest import House
from tests.acceptance.daemon.process import ROOT

from finetuned.attempts import identity
from finetuned.attempts.launcher import LocalExecutor
from finetuned.attempts.testing import Entry
from finetuned.attempts.warm import WarmStarts
from finetuned.attempts.warm_process import WarmSettings
from finetuned_sdk.bundle import Spec
from finetuned_sft.params import SFTParams
from finetuned_training.preloading import preloading


class WarmHouse(House):
    """With a zygote that can be looked at."""

    def __init__(self, path: Path, settings: WarmSettings | None = None) -> None:
        super().__init__(path)
        self.preload = ("finetuned_sdk.fake",)
        self.warm = WarmStarts(settings)
        self.executor = LocalExecutor(warm=self.warm)
        self.modules = path / "modules"
        self.modules.mkdir(parents=True)

    def module(self, name: str, text: str) -> None:
        """A module that attempts can import."""
        (self.modules / f"{name}.py").write_text(textwrap.dedent(text), encoding="utf-8")

    def probe(self, name: str, **changes: Any) -> dict[str, Any]:
        """Of a specification: work that tells of its process."""
        return {
            "entry": f"{probes.__name__}:{name}",
            "params_model": f"{probes.__name__}:ProbeParams",
            "environment": {"PYTHONPATH": f"{ROOT}:{self.modules}"},
            **changes,
        }

    def was_forked(self, entry: Entry) -> bool:
        """Whether the runner of an attempt that lives is a child of the zygote."""
        return parent(entry.runners[0].pid) == self.warm.zygote

    def clear(self) -> None:
        super().clear()
        self.warm.close()


def parent(pid: int) -> int:
    stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8")
    return int(stat.rpartition(")")[2].split()[1])


def result(entry: Entry) -> dict[str, Any]:
    """What the work told."""
    assert entry.facts[-1].type == "result", entry.facts[-1]
    return dict(entry.facts[-1].data["values"])


@pytest.fixture
def house(tmp_path: Path, no_blocking: None) -> Iterator[WarmHouse]:
    house = WarmHouse(tmp_path)
    yield house
    house.clear()


@contextlib.asynccontextmanager
async def held(house: WarmHouse, **changes: Any) -> Any:
    """An attempt that has begun and does not end before the block does."""
    entry = house.start(**{**house.held(), **changes})
    async with house.daemon():
        await house.log.until_fact(entry.spec.job, entry.spec.attempt, "progress")
        yield entry
        await to_thread.run_sync(house.gate.touch)
        await house.log.until_ended(entry.spec.job, entry.spec.attempt)


async def test_its_runner_is_forked_and_proc_tells_of_both_as_of_programs(house: WarmHouse) -> None:
    async with held(house) as entry:
        runner = entry.runners[0].pid
        (worker,) = await to_thread.run_sync(identity.descendants, runner)
        assert house.was_forked(entry)
        assert house.warm.running == {runner}
        path = str(house.bundle(entry.spec).path)
        assert command(runner) == [sys.executable, "-P", "-m", "finetuned.attempts.runner", path]
        assert command(worker) == [sys.executable, "-P", "-m", "finetuned_sdk.worker", path]
        assert await to_thread.run_sync(identity.leftovers, entry.spec.tag, None) == [worker]
    house.executor.reap()
    assert house.warm.running == frozenset()


def command(pid: int) -> list[str]:
    return Path(f"/proc/{pid}/cmdline").read_bytes().rstrip(b"\0").decode().split("\0")


async def test_a_forked_worker_differs_in_nothing_from_a_program(
    tmp_path: Path, no_blocking: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Environment, arguments, descriptors, signals, limits, streams: with secrets, which take a descriptor."""
    monkeypatch.setenv("TMPDIR", "/tmp")
    told = []
    for name in ("cold", "warm"):
        house = WarmHouse(tmp_path / name)
        house.executor = LocalExecutor(lambda names: dict.fromkeys(names, "hf_verysecret"), house.warm)
        try:
            entry = await house.run(
                **house.probe(
                    "tell_process",
                    fence="f" * 32,
                    preload=("tests.acceptance.attempts.probes",) if name == "warm" else (),
                    secrets={"HF_TOKEN": "secret:hf"},
                )
            )
            assert (house.warm.zygote is not None) == (name == "warm")
        finally:
            await to_thread.run_sync(house.clear)
        told.append(neutral(result(entry)["process"], house.modules.parent))
    assert told[0] == told[1]


def neutral(text: str, folder: Path) -> dict[str, Any]:
    """Without what differs between any two processes."""
    text = text.replace(str(folder), "FOLDER")
    text = re.sub(r"/tmp/ft-[0-9a-f]{8}", "TMPDIR", text)
    text = re.sub(r"(pipe|socket|anon_inode):\[\d+\]", r"\1", text)
    found = json.loads(text)
    found["environment"].pop("FINETUNED_RUNNER_PID")
    # Files that are open may have other numbers; the secrets' own is named in the arguments.
    found["descriptors"] = sorted(
        target for target in found["descriptors"].values() if "/proc/" not in target
    )
    found["arguments"].pop()
    found["command"].pop()
    return dict(found)


async def test_nothing_that_is_drawn_is_drawn_by_another_fork_too(house: WarmHouse) -> None:
    drawn = []
    for attempt in (1, 2):
        entry = await house.run(**house.probe("tell_chance", preload=("numpy",), attempt=attempt))
        drawn.append(result(entry))
    assert house.warm.zygote is not None
    for name in drawn[0]:
        assert drawn[0][name] != drawn[1][name], name


async def test_what_imports_leave_to_do_at_the_end_is_done_by_the_worker_alone(house: WarmHouse) -> None:
    house.module("leaving", """
        import atexit, os, threading
        VALUE = 1
        atexit.register(lambda: open(os.environ["TOLD"], "a").write(f"{os.getpid()} "))
    """)  # fmt: skip
    told = house.modules / "told"
    probe = house.probe("tell_module", params={"module": "leaving"}, preload=("leaving",))
    probe["environment"] = {**probe["environment"], "TOLD": str(told)}
    entry = await house.run(**probe)
    assert result(entry) == {"value": 1, "was_there": True}
    hello = next(fact for fact in entry.facts if fact.type == "hello")
    assert told.read_text(encoding="utf-8").split() == [str(hello.data["pid"])]


async def test_what_changed_on_the_disk_is_imported_anew(
    house: WarmHouse, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    found = []
    for attempt, value in enumerate(("one", "another"), 1):
        house.module("changing", f"VALUE = {value!r}")
        os.utime(house.modules / "changing.py", (attempt, attempt))  # written before the imports began
        probe = house.probe("tell_module", params={"module": "changing"}, preload=("changing",))
        found.append(result(await house.run(**probe, attempt=attempt)))
    assert found == [{"value": "one", "was_there": True}, {"value": "another", "was_there": True}]
    assert "changing.py has changed since it was imported" in caplog.text


async def test_another_kind_of_job_has_its_modules_imported_as_well(house: WarmHouse) -> None:
    zygotes = set()
    for attempt, name in enumerate(("first", "second"), 1):
        house.module(name, "VALUE = 1")
        os.utime(house.modules / f"{name}.py", (1, 1))
        probe = house.probe("tell_module", params={"module": name}, preload=(name,))
        assert result(await house.run(**probe, attempt=attempt))["was_there"]
        zygotes.add(house.warm.zygote)
    assert len(zygotes) == 1


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("import torch_that_is_not_there", "cannot be imported: ModuleNotFoundError"),
        ("raise SystemExit(3)", "cannot be imported: SystemExit: 3"),
        ("import threading, time; threading.Thread(target=time.sleep, args=(60,), daemon=True, name='pool').start()",
         "the imports have started threads: pool"),
        ("held = bytearray(b'x' * (96 << 20))", "more than the 64 MiB of warm_memory_bytes"),
        ("import sys, types; sys.modules['torch'] = torch('cuda')", "the imports have initialised CUDA"),
        ("import sys, types; sys.modules['torch'] = torch('threads')", "torch would compute with 2 threads"),
        ("import sys, types; sys.modules['torch'] = torch('fork')", "a fork of it could not use CUDA"),
    ],
)  # fmt: skip
async def test_what_must_not_be_forked_is_not(
    tmp_path: Path, no_blocking: None, caplog: pytest.LogCaptureFixture, text: str, reason: str
) -> None:
    """The attempt starts as a program, and nothing is tried again for a while."""
    fake = """
        class torch:
            def __init__(self, fault):
                self.cuda = self
                self.is_initialized = lambda: fault == "cuda"
                self.get_num_threads = lambda: 2 if fault == "threads" else 1
                self._is_in_bad_fork = lambda: fault == "fork"
    """
    house = WarmHouse(tmp_path, WarmSettings(memory=64 << 20))
    house.module("bad", textwrap.dedent(fake) + text)
    try:
        for attempt in (1, 2):
            entry = await house.run(
                environment={"PYTHONPATH": str(house.modules)}, preload=("bad",), attempt=attempt
            )
            assert entry.ending is not None
            assert entry.ending.exit_code == 0
            assert house.warm.zygote is None
    finally:
        await to_thread.run_sync(house.clear)
    assert caplog.text.count("attempts are started without the process for warm starts") == 1
    assert reason in caplog.text


async def test_a_validation_does_not_wait_for_imports_and_the_run_after_it_does(house: WarmHouse) -> None:
    house.module("slow", f"""
        import pathlib, time
        VALUE = 1
        while not pathlib.Path({str(house.gate)!r}).exists():
            time.sleep(0.01)
    """)  # fmt: skip
    common = {"environment": {"PYTHONPATH": f"{ROOT}:{house.modules}"}, "preload": ("slow",)}
    validation = await house.run(**common, attempt=1, purpose="validate")  # ends while the import stands
    assert validation.ending is not None
    assert validation.ending.exit_code == 0
    zygote = house.warm.zygote
    entry = house.start(**house.probe("tell_module", params={"module": "slow"}, preload=("slow",)), attempt=2)
    async with house.daemon():
        await house.until(house.warm._dialogue.locked)
        await to_thread.run_sync(house.gate.touch)
        await house.log.until_ended(entry.spec.job, 2)
    assert result(entry)["was_there"]
    assert house.warm.zygote == zygote


async def test_without_the_zygote_its_runners_live_on_and_the_next_attempt_gets_another(
    house: WarmHouse,
) -> None:
    async with held(house) as entry:
        first = house.warm.zygote
        assert first is not None
        os.kill(first, signal.SIGKILL)
        async with contextlib.AsyncExitStack() as stack:
            other = await stack.enter_async_context(held_beside(house, 2))
            assert house.was_forked(other)
            assert house.warm.zygote != first
    assert entry.ending is not None
    assert (entry.ending.exit_code, entry.ending.lost) == (0, None)


@contextlib.asynccontextmanager
async def held_beside(house: WarmHouse, attempt: int) -> Any:
    """Another attempt, under the daemon that is there."""
    entry = house.start(**house.held(), attempt=attempt)
    async with house.daemon():
        await house.log.until_fact(entry.spec.job, attempt, "progress")
        yield entry
        await to_thread.run_sync(house.gate.touch)
        await house.log.until_ended(entry.spec.job, attempt)


async def test_one_that_is_idle_ends_by_itself(
    tmp_path: Path, no_blocking: None, caplog: pytest.LogCaptureFixture
) -> None:
    house = WarmHouse(tmp_path, WarmSettings(idle_s=0.2))
    try:
        async with held(house) as entry:
            zygote = house.warm.zygote
            assert zygote is not None
            await house.until(lambda: is_gone(zygote))
            house.executor.reap()
            assert house.warm.zygote is None
        other = await house.run(attempt=2)
    finally:
        await to_thread.run_sync(house.clear)
    assert [each.ending.exit_code for each in (entry, other) if each.ending is not None] == [0, 0]
    assert "without the process for warm starts" not in caplog.text


def is_gone(pid: int | None) -> bool:
    """Whether a process has ended, collected or not."""
    return pid is None or identity.state(pid) in {None, "Z"}


DAEMON = """
import sys
from pathlib import Path
import anyio
from finetuned.attempts.launcher import LocalExecutor
from finetuned.attempts.warm import WarmStarts
from finetuned_sdk.bundle import Bundle

async def main():
    warm = WarmStarts()
    bundle = Bundle(sys.argv[1])
    await LocalExecutor(warm=warm).launch(bundle, bundle.read_spec())
    print(warm.zygote, flush=True)
    await anyio.sleep_forever()

anyio.run(main)
"""


async def test_it_ends_with_its_daemon_and_its_runners_do_not(house: WarmHouse) -> None:
    entry = house.start(**house.held())
    bundle = house.bundle(entry.spec)
    await to_thread.run_sync(bundle.create, entry.spec)
    async with await anyio.open_process(
        [sys.executable, "-c", DAEMON, str(bundle.path)], stderr=None
    ) as daemon:
        assert daemon.stdout is not None
        zygote = int(await daemon.stdout.receive())
        await house.until(lambda: bundle.read_runner() is not None)
        daemon.kill()
    await house.until(lambda: is_gone(zygote))
    async with house.daemon():  # the next one finds the runner
        await to_thread.run_sync(house.gate.touch)
        ending = await house.log.until_ended("job-1", 1)
    assert (ending.exit_code, ending.lost) == (0, None)
    assert len(set(entry.runners)) == 1


@pytest.mark.parametrize(
    "changes",
    [
        lambda spec: {"preload": ()},
        lambda spec: {"environment": {"OMP_WAIT_POLICY": "ACTIVE"}},
    ],
)
async def test_some_are_started_as_programs(
    house: WarmHouse, changes: Callable[[Spec | None], dict[str, Any]]
) -> None:
    entry = await house.run(**changes(None))
    assert entry.ending is not None
    assert entry.ending.exit_code == 0
    assert house.warm.zygote is None


async def test_an_environment_that_imports_may_see_has_a_zygote_of_its_own(house: WarmHouse) -> None:
    zygotes = []
    for attempt, environment in enumerate(({"A": "1"}, {"A": "1", "OMP_NUM_THREADS": "2"}, {"A": "2"}), 1):
        await house.run(attempt=attempt, environment=environment)
        zygotes.append(house.warm.zygote)
    assert zygotes[0] == zygotes[1] != zygotes[2]


@pytest.mark.torch
async def test_torch_computes_with_as_many_threads_as_it_is_told_and_seeds_of_its_own(
    house: WarmHouse,
) -> None:
    """A pool that existed before the fork would hang here."""
    probe = house.probe("tell_torch", preload=("torch",))
    probe["environment"] = {**probe["environment"], "OMP_NUM_THREADS": "2", "CUDA_VISIBLE_DEVICES": ""}
    told = [result(await house.run(**probe, attempt=attempt)) for attempt in (1, 2)]
    assert house.warm.zygote is not None
    assert [(each["threads"], each["initialised"]) for each in told] == [(2, False)] * 2
    assert told[0]["seed"] != told[1]["seed"]


async def test_bitsandbytes_is_hidden_from_imports_and_not_from_the_work(house: WarmHouse) -> None:
    house.module("bitsandbytes", "VALUE = 1")
    house.module("optional", """
        from importlib.util import find_spec
        VALUE = find_spec("bitsandbytes") is None
    """)  # fmt: skip
    for attempt, name in enumerate(("optional", "bitsandbytes"), 1):
        probe = house.probe("tell_module", params={"module": name}, preload=("optional",))
        entry = await house.run(**probe, attempt=attempt)
        assert result(entry)["value"] == 1
        assert house.warm.zygote is not None


@pytest.mark.torch
async def test_trainers_can_be_forked_and_peft_is_of_one_mind_about_bitsandbytes(house: WarmHouse) -> None:
    preload = preloading("finetuned_sft.trainer", "finetuned_dpo.trainer")(
        SFTParams(model="/nowhere/a-model", dataset="rows.jsonl")
    )
    entry = await house.run(**house.probe("tell_libraries", preload=preload))
    assert house.warm.zygote is not None
    assert result(entry) == {"trainer": True, "asked": False, "bitsandbytes": False}
