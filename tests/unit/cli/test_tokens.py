"""How long a token is good, as it is written at the command line."""

from __future__ import annotations

import click
import pytest

from finetuned.cli.tokens import SCOPES, Life
from finetuned.domain import tokens


@pytest.mark.parametrize(
    ("written", "seconds"),
    [("90s", 90), ("30m", 1800), ("12h", 43_200), ("30d", 2_592_000), ("4w", 2_419_200)],
)
def test_a_life_is_a_number_and_a_unit(written: str, seconds: int) -> None:
    assert Life().convert(written, None, None) == seconds


@pytest.mark.parametrize(
    "written", ["", "30", "d", "-1d", "1.5h", "0d", "30 d", "30D", "1y", "9999999999d", "٣d"]
)
def test_what_is_no_life_is_refused_with_an_example(written: str) -> None:
    with pytest.raises(click.BadParameter, match="write 12h, 30d or 4w"):
        Life().convert(written, None, None)


def test_the_scopes_are_the_daemons() -> None:
    assert SCOPES == tokens.SCOPES
