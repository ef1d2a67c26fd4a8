"""Whatever a kill leaves of segments, the files made of them have exactly one line for each request."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.batch.inputs import MODEL, URL, limits, line, written

from finetuned_batch import answers, outcome, requests, segments
from finetuned_batch.outcome import Unfinished
from finetuned_batch.salvage import salvage
from finetuned_batch.segments import Results, SegmentWriter
from finetuned_sdk.engines.errors import RequestError
from finetuned_sdk.salvage import Leftovers

JOB = "job-x7k2m9qd4t"
CANCELLED = Unfinished("batch_cancelled", "It was cancelled.")


def success(custom_id: str, **usage: Any) -> bytes:
    return answers.encode(answers.answered(JOB, custom_id, {"choices": [], "usage": usage}))


def refusal(custom_id: str) -> bytes:
    return answers.encode(
        answers.refused(JOB, custom_id, RequestError("too hot", param="temperature", code="c"))
    )


def segment(attempts: Path, number: int, content: bytes) -> Path:
    path = attempts / str(number) / "work" / segments.NAME
    path.parent.mkdir(parents=True)
    path.write_bytes(content)
    return path


def lines_of(paths: tuple[Path, ...]) -> dict[str, list[dict[str, Any]]]:
    return {
        "output" if path.name.endswith("_output.jsonl") else "error": [
            json.loads(each) for each in path.read_text(encoding="utf-8").splitlines()
        ]
        for path in paths
    }


def test_the_segments_of_earlier_attempts_are_found_in_their_order(tmp_path: Path) -> None:
    paths = [segment(tmp_path, number, b"") for number in (10, 2, 1)]
    assert segments.of_attempts(tmp_path) == paths[::-1]


def test_what_was_appended_is_read_again(tmp_path: Path) -> None:
    path = tmp_path / segments.NAME
    writer = SegmentWriter(path)
    writer.append(success("a", prompt_tokens=3, completion_tokens=2))
    writer.append(refusal("b"))
    writer.close()
    results = Results([path])
    assert results.tally.figures() == {
        "completed": 1, "failed": 1, "input_tokens": 3, "cached_tokens": 0, "output_tokens": 2, "reasoning_tokens": 0,
    }  # fmt: skip


@given(st.integers(0, 2000))
def test_a_torn_last_line_counts_as_not_there(tmp_path_factory: pytest.TempPathFactory, cut: int) -> None:
    lines = [success("a"), refusal("b"), success("c")]
    whole = b"".join(lines)
    path = tmp_path_factory.mktemp("segment") / segments.NAME
    path.write_bytes(whole[:cut])
    ends = [len(b"".join(lines[: place + 1])) for place in range(3)]
    assert Results([path]).tally.done == sum(end <= cut for end in ends)


def test_garbage_in_the_middle_counts_as_not_there(tmp_path: Path) -> None:
    path = tmp_path / segments.NAME
    path.write_bytes(success("a") + b"\0" * 100 + success("b") + b'{"custom_id": 1}\n[]\n' + success("c"))
    assert set(Results([path]).places) == {requests.key_of("a"), requests.key_of("c")}


def test_of_two_results_the_first_counts(tmp_path: Path) -> None:
    paths = [segment(tmp_path, 1, success("a")), segment(tmp_path, 2, refusal("a"))]
    assert Results(paths).tally.figures()["failed"] == 0


def test_each_request_has_one_line_over_both_files_in_the_order_of_the_input(tmp_path: Path) -> None:
    found = requests.read(written(tmp_path / "in", [line(each) for each in "abcd"]), limits())
    results = Results([segment(tmp_path, 1, success("c") + refusal("b")), segment(tmp_path, 2, success("a"))])
    told = lines_of(outcome.write(tmp_path, JOB, found, results, CANCELLED))
    assert [each["custom_id"] for each in told["output"]] == ["a", "c"]
    assert [each["custom_id"] for each in told["error"]] == ["b", "d"]
    assert told["error"][0]["response"]["body"]["error"] == {
        "message": "too hot", "type": "invalid_request_error", "param": "temperature", "code": "c",
    }  # fmt: skip
    assert told["error"][1]["error"] == {"code": "batch_cancelled", "message": "It was cancelled."}


def test_a_file_without_lines_is_not_made(tmp_path: Path) -> None:
    found = requests.read(written(tmp_path / "in", [line("a")]), limits())
    (path,) = outcome.write(tmp_path, JOB, found, Results([segment(tmp_path, 1, success("a"))]))
    assert path.name == "batch_x7k2m9qd4t_output.jsonl"
    assert sorted(each.name for each in tmp_path.iterdir()) == ["1", path.name, "in"]


def test_a_result_that_is_missing_without_a_reason_is_never_passed_over(tmp_path: Path) -> None:
    found = requests.read(written(tmp_path / "in", [line("a")]), limits())
    with pytest.raises(KeyError):
        outcome.write(tmp_path, JOB, found, Results([]))


def left(tmp_path: Path, **changes: Any) -> Leftovers:
    params = {"input": "file:file-abc", "model": MODEL, "endpoint": URL}
    return Leftovers(
        **{
            "job": JOB,
            "params": params,
            "attempts": tmp_path / "attempts",
            "artifacts": tmp_path / "attempts" / "1" / "artifacts",
            "was_cancelled": True,
            "datasets": {"input": str(tmp_path / "in")},
            **changes,
        }
    )


@pytest.mark.parametrize(
    ("was_cancelled", "reason", "code"),
    [
        (True, None, "batch_cancelled"),
        (True, "batch_expired: too late", "batch_expired"),
        (False, "no engine", "batch_failed"),
    ],
)
def test_what_is_salvaged_says_why_a_request_was_not_finished(
    tmp_path: Path, was_cancelled: bool, reason: str | None, code: str
) -> None:
    written(tmp_path / "in", [line("a"), line("b")])
    segment(tmp_path / "attempts", 1, success("a"))
    made = salvage(left(tmp_path, was_cancelled=was_cancelled, reason=reason))
    told = lines_of(tuple(path for path, _ in made.artifacts))
    assert [each["custom_id"] for each in told["output"]] == ["a"]
    assert [each["error"]["code"] for each in told["error"]] == [code]
    assert made.progress["current_step"] == 1
    assert made.progress["total_steps"] == 2


def test_salvaging_twice_makes_the_same(tmp_path: Path) -> None:
    written(tmp_path / "in", [line("a"), line("b")])
    segment(tmp_path / "attempts", 1, success("a"))
    first = [(path, path.read_bytes()) for path, _ in salvage(left(tmp_path)).artifacts]
    assert [(path, path.read_bytes()) for path, _ in salvage(left(tmp_path)).artifacts] == first


def test_nothing_is_made_of_a_batch_whose_input_is_malformed(tmp_path: Path) -> None:
    written(tmp_path / "in", ["{"])
    assert salvage(left(tmp_path)).artifacts == ()
