"""What counts as stepping, on a clock that stands still unless it is told otherwise."""

from __future__ import annotations

import pytest


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.mark.torch
def test_the_meter_counts_from_the_first_step_and_stands_while_others_work() -> None:
    from finetuned_training.metering import StepMeter

    clock = Clock()
    meter = StepMeter(clock=clock)
    clock.now = 100.0  # the model is loaded, the loader started, the first batch fetched
    meter.waited, meter.rows = 7.0, 4
    meter.begin()
    assert (meter.waited, meter.rows) == (0.0, 4)
    clock.now += 2
    meter.begin()  # later steps go on
    meter.pause()
    clock.now += 50  # another callback validates
    meter.go_on()
    clock.now += 1  # the log waits for the device
    assert meter.elapsed() == 3.0
    meter.restart()
    meter.pause()
    clock.now += 50  # evaluation
    meter.pause()
    clock.now += 50  # saving
    meter.go_on()
    clock.now += 5
    assert meter.elapsed() == 5.0
    assert meter.rows == 0
