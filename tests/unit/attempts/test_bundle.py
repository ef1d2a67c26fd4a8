from __future__ import annotations

import contextlib
import json
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from finetuned.attempts.testing import fake_spec
from finetuned_sdk.bundle import (
    PROTOCOL,
    Bundle,
    BundleError,
    Control,
    ExitRecord,
    Revocation,
    RunnerIdentity,
)
from finetuned_sdk.context import CallbackSpec

RUNNER = RunnerIdentity(boot_id="b", pid=1, start_time=2, process_group=1)


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    bundle = Bundle(tmp_path / "jobs" / "job-1" / "attempts" / "1")
    bundle.create(fake_spec())
    return bundle


def test_a_specification_is_read_as_it_was_written(bundle: Bundle) -> None:
    spec = fake_spec(
        params={"steps": 1},
        callbacks=(CallbackSpec("best", "m:f", {"n": 2}, "m:P"),),
        devices=("cpu:0",),
        environment={"A": "b"},
    )
    bundle.create(spec)
    assert bundle.read_spec() == spec


def test_every_name_on_the_way_to_the_specification_lasts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[Path] = []
    monkeypatch.setattr("finetuned_sdk.bundle.sync_directory", synced.append)
    path = tmp_path / "jobs" / "job-1" / "attempts" / "1"
    Bundle(path).create(fake_spec())
    assert set(synced) == {path, path.parent, tmp_path / "jobs" / "job-1", tmp_path / "jobs"}


def test_each_attempt_has_a_fence_of_its_own() -> None:
    assert fake_spec().tag != fake_spec().tag
    assert fake_spec().tag.startswith("job-1/1/")


def test_a_specification_of_a_newer_protocol_is_refused(bundle: Bundle) -> None:
    bundle.create(replace(fake_spec(), protocol=PROTOCOL + 1))
    with pytest.raises(BundleError, match=f"protocol {PROTOCOL + 1}"):
        bundle.read_spec()


def test_what_a_newer_daemon_adds_is_left_out(bundle: Bundle) -> None:
    bundle.control_path.write_text('{"state": "stop", "counter": 1, "mood": "good"}')
    assert bundle.read_control() == Control(state="stop", counter=1)


@pytest.mark.parametrize("content", ["{", "[]", "{}"])
def test_a_broken_specification_is_an_error_with_its_path(bundle: Bundle, content: str) -> None:
    bundle.spec_path.write_text(content)
    with pytest.raises(BundleError, match=r"spec\.json"):
        bundle.read_spec()


def test_a_missing_specification_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="missing"):
        Bundle(tmp_path).read_spec()


def test_a_claimed_bundle_cannot_be_claimed_or_revoked(bundle: Bundle) -> None:
    assert bundle.claim(RUNNER)
    assert not bundle.claim(replace(RUNNER, pid=3))
    assert not bundle.revoke()
    assert bundle.read_runner() == RUNNER
    assert not bundle.is_revoked


def test_a_revoked_bundle_cannot_be_claimed(bundle: Bundle) -> None:
    assert bundle.revoke()
    assert not bundle.claim(RUNNER)
    assert bundle.read_runner() is None
    assert bundle.is_revoked


def test_why_a_start_was_given_up_is_in_the_bundle(bundle: Bundle) -> None:
    assert bundle.read_revocation() is None
    why = Revocation(reason="its secret cannot be read", code="secret_unsafe")
    assert bundle.revoke(why)
    assert not bundle.revoke()
    assert bundle.read_revocation() == why


def test_a_start_that_an_older_release_gave_up_is_given_up(bundle: Bundle) -> None:
    bundle.runner_path.write_text('{"revoked": true}')
    assert bundle.read_revocation() == Revocation(reason="its start was given up", code=None)


def test_a_claim_is_no_revocation(bundle: Bundle) -> None:
    assert bundle.claim(RUNNER)
    assert bundle.read_revocation() is None


def test_of_many_claims_at_once_one_wins(bundle: Bundle) -> None:
    barrier = threading.Barrier(8)
    won: list[int] = []

    def claim(number: int) -> None:
        barrier.wait()
        if bundle.claim(replace(RUNNER, pid=number)) if number else bundle.revoke():
            won.append(number)

    for _ in range(50):
        threads = [threading.Thread(target=claim, args=(number,)) for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        (winner,) = won
        runner = bundle.read_runner()
        assert (0 if runner is None else runner.pid) == winner
        bundle.runner_path.unlink()
        won.clear()


def test_no_temporary_file_is_left(bundle: Bundle) -> None:
    bundle.claim(RUNNER)
    bundle.claim(RUNNER)
    bundle.write_exit(ExitRecord(exit_code=0, signal=None))
    assert not [path.name for path in bundle.path.iterdir() if path.name.startswith(".")]


def test_a_failed_write_leaves_the_old_content(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    bundle.request_stop("first", checkpoint=True)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("os.fsync", full)
        with pytest.raises(OSError, match="No space"):
            bundle.request_stop("second", checkpoint=False)
    assert bundle.read_control() == Control(state="stop", counter=1, reason="first", checkpoint=True)
    assert not [path.name for path in bundle.path.iterdir() if path.name.startswith(".")]


def test_each_stop_request_counts_up(bundle: Bundle) -> None:
    for _ in range(3):
        bundle.request_stop("again", checkpoint=False)
    assert bundle.read_control().counter == 3


def test_a_stop_and_a_checkpoint_that_are_asked_for_at_the_same_moment_are_both_asked_for(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    read, meeting = bundle.read_control, threading.Barrier(2)

    def read_slowly() -> Control:
        found = read()
        with contextlib.suppress(threading.BrokenBarrierError):
            meeting.wait(timeout=0.2)  # for the other one, if it may read at the same time
        return found

    monkeypatch.setattr(bundle, "read_control", read_slowly)
    stop = threading.Thread(target=bundle.request_stop, args=("paused",), kwargs={"checkpoint": True})
    save = threading.Thread(target=bundle.request_checkpoint, args=(1,))
    for thread in (stop, save):
        thread.start()
    for thread in (stop, save):
        thread.join()
    assert read() == Control(state="stop", counter=2, reason="paused", checkpoint=True, checkpoints=1)


def test_an_exit_record_is_read_as_it_was_written(bundle: Bundle) -> None:
    assert bundle.read_exit() is None
    record = ExitRecord(exit_code=None, signal=9, oom_killed=True, usage={"user_s": 0.5}, at=7)
    bundle.write_exit(record)
    assert bundle.read_exit() == record
    assert json.loads(bundle.exit_path.read_text())["signal"] == 9
