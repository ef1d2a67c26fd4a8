from __future__ import annotations

import pytest

from finetuned.api.activation import descriptors
from finetuned.domain.errors import StartError


def test_descriptors_count_from_three_and_have_their_names() -> None:
    environment = {"LISTEN_PID": "7", "LISTEN_FDS": "2", "LISTEN_FDNAMES": "unix:tcp"}
    assert descriptors(environment, 7) == {3: "unix", 4: "tcp"}


def test_names_may_be_missing() -> None:
    assert descriptors({"LISTEN_PID": "7", "LISTEN_FDS": "1"}, 7) == {3: ""}
    assert descriptors({"LISTEN_PID": "7", "LISTEN_FDS": "2", "LISTEN_FDNAMES": "a"}, 7) == {
        3: "a",
        4: "unknown",
    }


@pytest.mark.parametrize("environment", [{}, {"LISTEN_FDS": "1"}, {"LISTEN_PID": "8", "LISTEN_FDS": "1"}])
def test_what_is_for_nobody_or_another_is_not_taken(environment: dict[str, str]) -> None:
    assert descriptors(environment, 7) == {}


def test_a_count_that_is_no_number_is_refused_with_the_remedy() -> None:
    with pytest.raises(StartError, match=r"LISTEN_FDS is 'many'.*; start the daemon by its socket unit"):
        descriptors({"LISTEN_PID": "7", "LISTEN_FDS": "many"}, 7)
