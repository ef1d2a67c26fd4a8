"""How long the sequences of a pair are, at a glance at its line: the estimate of memory goes by it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from finetuned_dpo import formats, row_bytes
from finetuned_dpo.params import DPOParams
from finetuned_sdk import Host
from finetuned_training.estimate import row_length

TURN = [{"role": "assistant", "content": "b" * 700}]


@pytest.mark.parametrize(
    "row",
    [
        {"prompt": "a" * 100, "chosen": "b" * 700, "rejected": "c" * 500},
        {"prompt": "a" * 100, "chosen": "c" * 500, "rejected": "b" * 700},
        {"chosen": "b" * 800, "rejected": "b" * 799},
        {
            "input": {"messages": [{"role": "user", "content": "a" * 100}]},
            "preferred_output": TURN,
            "non_preferred_output": TURN,
        },
    ],
)
def test_of_two_answers_the_longer_one_counts(row: dict[str, Any]) -> None:
    assert 800 < row_bytes.longer_sequence(json.dumps(row).encode()) < 1000


@pytest.mark.parametrize("line", [b"", b"no json", b"[1, 2]", b'{"prompt": "a"}', b"[" * 100_000])
def test_of_what_is_no_pair_all_bytes_count(line: bytes) -> None:
    assert row_bytes.longer_sequence(line) == len(line)


def test_the_sides_are_those_of_the_forms() -> None:
    assert set(row_bytes.SIDES) == set(formats.SIDES.values())


def test_the_estimate_takes_the_longest_sequence_not_the_longest_line(tmp_path: Path) -> None:
    pairs = tmp_path / "pairs.jsonl"
    rows = [{"prompt": "a", "chosen": "b" * size, "rejected": "c" * size} for size in (100, 700, 350)]
    pairs.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert 200 < row_length(DPOParams(model="m", dataset=str(pairs)), Host()) < 230  # tokens of 3.5 bytes
