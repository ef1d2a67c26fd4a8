"""A worker in another environment works for a daemon whose SDK its own has, and tells others what to do."""

from __future__ import annotations

import pytest

from finetuned_sdk.versions import problem


@pytest.mark.parametrize(
    ("wanted", "present"), [(None, "1.0"), ("1.0", "1.0"), ("1.0", "1.7"), ("2.3", "2.10")]
)
def test_the_same_major_version_and_no_older_minor_one_fits(wanted: str | None, present: str) -> None:
    assert problem(wanted, present) is None


@pytest.mark.parametrize(("wanted", "present"), [("1.1", "1.0"), ("2.0", "1.9"), ("1.0", "2.0")])
def test_another_major_version_or_an_older_minor_one_does_not(wanted: str, present: str) -> None:
    told = problem(wanted, present)
    assert told is not None
    assert wanted in told
    assert present in told
    assert "finetune engines install" in told
