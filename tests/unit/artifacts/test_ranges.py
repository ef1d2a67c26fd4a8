"""Which bytes a client asks for."""

from __future__ import annotations

import pytest

from finetuned.api.ranges import Range, UnsatisfiableRangeError, matches, requested

TAG = '"abc"'


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ("bytes=0-0", (0, 1)),
        ("bytes=2-4", (2, 5)),
        ("bytes=7-", (7, 10)),
        ("bytes=-3", (7, 10)),
        ("bytes=-99", (0, 10)),
        ("bytes=4-99", (4, 10)),
        (" Bytes = 1 - 2 ", (1, 3)),
    ],
)
def test_one_range_is_understood(header: str, expected: tuple[int, int]) -> None:
    assert requested(header, None, TAG, 10) == Range(*expected, 10)


@pytest.mark.parametrize(
    "header",
    [None, "", "bytes=", "bytes=-", "bytes=0-1,3-4", "bytes=5-2", "lines=1-2", "bytes=a-b", "bytes=٣-٤"],
)
def test_what_is_no_single_range_means_everything(header: str | None) -> None:
    assert requested(header, None, TAG, 10) is None


@pytest.mark.parametrize("header", ["bytes=10-", "bytes=10-12", "bytes=-0"])
def test_a_range_behind_the_end_cannot_be_satisfied(header: str) -> None:
    with pytest.raises(UnsatisfiableRangeError):
        requested(header, None, TAG, 10)


def test_no_range_of_an_empty_file_can_be_satisfied() -> None:
    with pytest.raises(UnsatisfiableRangeError):
        requested("bytes=-5", None, TAG, 0)


@pytest.mark.parametrize(("if_range", "is_partial"), [(TAG, True), ('"old"', False), (f"W/{TAG}", False)])
def test_a_range_of_another_version_means_everything(if_range: str, is_partial: bool) -> None:
    assert (requested("bytes=0-1", if_range, TAG, 10) is not None) is is_partial


def test_a_range_says_what_it_is() -> None:
    part = Range(2, 5, 10)
    assert (part.length, part.content_range) == (3, "bytes 2-4/10")


@pytest.mark.parametrize(
    ("header", "expected"),
    [(None, False), (TAG, True), (f'"x", W/{TAG}', True), ("*", True), ('"x"', False)],
)
def test_a_known_version_need_not_be_sent(header: str | None, expected: bool) -> None:
    assert matches(header, TAG) is expected
