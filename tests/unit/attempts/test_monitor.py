"""What is known of an attempt that nobody saw end."""

from __future__ import annotations

import os
import time
from dataclasses import replace
from pathlib import Path

import pytest

from finetuned.attempts import identity
from finetuned.attempts.monitor import lived_s
from finetuned_sdk.bundle import Bundle, RunnerIdentity
from finetuned_sdk.heartbeat import Heartbeat, HeartbeatFile

TICKS = os.sysconf("SC_CLK_TCK")
EARLIER = RunnerIdentity(boot_id="an earlier boot", pid=7, start_time=100 * TICKS, process_group=7)


def beat(bundle: Bundle, at: float) -> None:
    with HeartbeatFile(bundle.heartbeat_path) as file:
        file.write(Heartbeat(pid=8, beat_at=at, step_at=at))


def test_an_attempt_that_a_power_cut_ended_ran_from_its_start_to_its_last_heartbeat_of_that_boot(
    tmp_path: Path,
) -> None:
    beat(Bundle(tmp_path), 3_700.5)
    assert lived_s(Bundle(tmp_path), EARLIER) == {"wall_s": 3_600.5}


def test_a_machine_that_was_suspended_for_longer_than_it_ran_makes_no_time_negative(tmp_path: Path) -> None:
    beat(Bundle(tmp_path), 60.0)
    assert lived_s(Bundle(tmp_path), EARLIER) == {"wall_s": 0.0}


def test_an_attempt_of_this_boot_ran_from_its_start_to_its_last_heartbeat(tmp_path: Path) -> None:
    own = identity.own()
    beat(Bundle(tmp_path), time.monotonic() - 5.0)
    ran_s = identity.ran_s(own) + 60
    early = replace(own, start_time=own.start_time - 60 * TICKS)
    assert lived_s(Bundle(tmp_path), early)["wall_s"] == pytest.approx(ran_s - 5.0, abs=3.0)


@pytest.mark.parametrize("runner", [EARLIER, identity.own()])
def test_nothing_is_said_of_one_that_never_showed_a_sign_of_life(
    tmp_path: Path, runner: RunnerIdentity
) -> None:
    assert lived_s(Bundle(tmp_path), runner) == {}
