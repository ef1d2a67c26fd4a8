"""What an engine died of is asked alone at last, and found, whoever else asked the engine."""

from __future__ import annotations

from pathlib import Path

from finetuned_batch.suspects import NAME, Suspects, of_attempts

ONE, OTHER = b"\x01\x02", b"\x03\x04"


def test_a_request_is_suspect_that_was_twice_in_flight(tmp_path: Path) -> None:
    suspects = Suspects([], tmp_path / NAME)
    suspects.engine_died([ONE, OTHER])
    assert ONE not in suspects
    suspects.engine_died([ONE])
    assert ONE in suspects
    assert OTHER not in suspects


def test_one_that_was_found_clears_the_others(tmp_path: Path) -> None:
    suspects = Suspects([], tmp_path / NAME)
    for _ in range(2):
        suspects.engine_died([ONE, OTHER])
    suspects.found()
    assert OTHER not in suspects


def test_who_asks_beside_it_takes_more_deaths_to_be_ruled_out(tmp_path: Path) -> None:
    suspects = Suspects([], tmp_path / NAME)
    proven = []
    for _ in range(5):
        suspects.engine_died([ONE])
        proven.append(suspects.is_proven(ONE))
    assert proven == [False, False, False, False, True]


def test_one_death_with_nothing_beside_it_may_be_chance_and_two_are_not(tmp_path: Path) -> None:
    suspects = Suspects([], tmp_path / NAME)
    proven = []
    for alone in (False, False, True, True):
        suspects.engine_died([ONE], alone=alone)
        proven.append(suspects.is_proven(ONE))
    assert proven == [False, False, False, True]


def test_notes_that_do_not_say_whether_it_was_alone_are_read(tmp_path: Path) -> None:
    (tmp_path / NAME).write_text(f'{{"in_flight": ["{ONE.hex()}"]}}\n' * 2)
    assert ONE in Suspects([tmp_path / NAME], tmp_path / "new")


def test_earlier_attempts_count_also_with_a_torn_line(tmp_path: Path) -> None:
    for attempt in (1, 2):
        path = tmp_path / str(attempt) / "work" / NAME
        path.parent.mkdir(parents=True)
        Suspects([], path).engine_died([ONE])
        path.write_bytes(path.read_bytes() + b'{"in_fl')
    assert ONE in Suspects(of_attempts(tmp_path), tmp_path / NAME)
