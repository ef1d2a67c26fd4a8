"""Wrong secrets by address: a burst, then one a second, in bounded memory."""

from __future__ import annotations

import pytest

from finetuned.api.failures import BURST, REMEMBERED, Failures, network


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_a_burst_is_allowed_then_one_a_second() -> None:
    clock = Clock()
    failures = Failures(clock)
    assert [failures.record("192.0.2.1") for _ in range(BURST)] == [None] * BURST
    assert failures.record("192.0.2.1") == pytest.approx(1)
    clock.now += 0.25
    assert failures.record("192.0.2.1") == pytest.approx(0.75)
    clock.now += 0.75
    assert failures.record("192.0.2.1") is None
    assert failures.record("192.0.2.1") == pytest.approx(1)
    clock.now += 3600
    assert [failures.record("192.0.2.1") for _ in range(BURST)] == [None] * BURST
    assert failures.record("192.0.2.1") is not None


def test_what_is_refused_does_not_make_the_wait_longer() -> None:
    clock = Clock()
    failures = Failures(clock)
    for _ in range(1000):
        failures.record("192.0.2.1")
    clock.now += 1
    assert failures.record("192.0.2.1") is None


def test_an_address_does_not_pay_for_another() -> None:
    failures = Failures(Clock())
    for _ in range(100):
        failures.record("192.0.2.1")
    assert failures.record("192.0.2.2") is None


def test_the_addresses_of_one_ipv6_host_count_as_one() -> None:
    failures = Failures(Clock())
    answers = [failures.record(f"2001:db8::{host:x}") for host in range(BURST + 1)]
    assert answers[-1] is not None
    assert failures.record("2001:db8:0:1::1") is None


def test_the_one_that_failed_longest_ago_is_forgotten_first() -> None:
    failures = Failures(Clock())
    for _ in range(BURST):
        failures.record("192.0.2.1")
        failures.record("192.0.2.2")
    for number in range(REMEMBERED - 1):
        failures.record(f"10.{number // 250}.{number % 250}.1")
    assert len(failures) == REMEMBERED
    assert failures.record("192.0.2.2") is not None
    assert failures.record("192.0.2.1") is None


@pytest.mark.parametrize(
    ("address", "key"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("fe80::1%eth0", "fe80::/64"),
        ("", ""),
        ("@odd", "@odd"),
    ],
)
def test_whom_an_address_stands_for(address: str, key: str) -> None:
    assert network(address) == key
