"""Which checkpoints go, by rule and on disk: never the only one that is whole."""

from __future__ import annotations

import json
import math
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from finetuned_sdk import checkpoints
from finetuned_sdk.retention import Candidate, Retention, greater_is_better, newest_first, spare
from finetuned_sdk.testing import RecordingContext


def candidate(attempt: int, step: int, **metrics: float | None) -> Candidate:
    return Candidate(
        Path(f"/jobs/j/attempts/{attempt}/checkpoints/checkpoint-{step}"), attempt, step, metrics
    )


def kept(
    candidates: list[Candidate], rule: Retention, *, resumed: int | None = None, **kwargs: Any
) -> set[tuple[int, int]]:
    newest_attempt = max((each.attempt for each in candidates), default=1)
    ordered = newest_first(candidates, attempt=newest_attempt, resumed_step=resumed)
    gone = spare(ordered, rule, **kwargs)
    return {(each.attempt, each.step) for each in candidates if each not in gone}


LOSSES = [candidate(1, step, eval_loss=loss) for step, loss in ((10, 0.2), (20, 0.1), (30, 0.4), (40, 0.3))]


@pytest.mark.parametrize(
    ("metric", "greater"), [("eval_loss", False), ("eval_perplexity", False), ("eval_exact_match", True)]
)
def test_more_of_a_loss_is_worse_and_more_of_the_rest_is_better(metric: str, greater: bool) -> None:
    assert greater_is_better(metric) is greater
    assert Retention(metric=metric).greater is greater
    assert Retention(metric=metric, greater_is_better=not greater).greater is not greater


def test_the_best_and_the_newest_are_kept() -> None:
    assert kept(LOSSES, Retention(best=1, last=1)) == {(1, 20), (1, 40)}
    assert kept(LOSSES, Retention(best=2, last=0, greater_is_better=True)) == {(1, 30), (1, 40)}


def test_the_oldest_go_first() -> None:
    ordered = newest_first(LOSSES, attempt=1, resumed_step=None)
    assert [each.step for each in spare(ordered, Retention(last=1))] == [10, 20, 30]


def test_of_equals_the_newer_is_the_best() -> None:
    equals = [candidate(1, 1, eval_loss=0.5), candidate(1, 2, eval_loss=0.5)]
    assert kept(equals, Retention(last=0, best=1, greater_is_better=True)) == {(1, 2)}


def test_a_checkpoint_without_a_figure_is_never_the_best() -> None:
    some = [candidate(1, 1), candidate(1, 2, eval_loss=math.nan), candidate(1, 3, eval_loss=9.0)]
    assert kept(some, Retention(last=0, best=1)) == {(1, 3)}


def test_figures_that_the_manifests_lack_are_told() -> None:
    some = [candidate(1, 1), candidate(1, 2), candidate(1, 3, eval_loss=0.5)]
    assert kept(some, Retention(last=0, best=1), figures={1: 0.1, 2: 0.2}) == {(1, 1)}


def test_protected_ones_stay_beside_those_that_the_rule_keeps() -> None:
    assert kept(LOSSES, Retention(last=1), protected={LOSSES[3].path}) == {(1, 30), (1, 40)}


def test_checkpoints_of_earlier_attempts_go_as_newer_ones_come() -> None:
    old = [candidate(1, 10), candidate(1, 20)]
    assert kept([*old, candidate(2, 30)], Retention(last=2), resumed=20) == {(1, 20), (2, 30)}
    assert kept([*old, candidate(2, 30), candidate(2, 40)], Retention(last=2), resumed=20) == {
        (2, 30),
        (2, 40),
    }


def test_what_was_left_behind_by_a_job_that_was_set_back_counts_as_the_oldest() -> None:
    left_behind = [candidate(1, 80), candidate(1, 90)]
    line = [candidate(1, 10), candidate(2, 20)]
    assert kept([*left_behind, *line], Retention(last=2), resumed=10) == {(1, 10), (2, 20)}
    assert kept([*left_behind, candidate(2, 20)], Retention(last=2), resumed=10) == {(1, 90), (2, 20)}


FIGURES = st.none() | st.floats()
CANDIDATES = st.dictionaries(
    st.tuples(st.integers(1, 3), st.integers(0, 20)),
    st.dictionaries(st.just("eval_loss"), FIGURES),
    max_size=12,
).map(lambda found: [candidate(each, step, **metrics) for (each, step), metrics in found.items()])


@given(
    CANDIDATES,
    st.integers(0, 5),
    st.integers(0, 5),
    st.none() | st.booleans(),
    st.none() | st.integers(0, 20),
)
def test_something_is_always_kept_and_never_more_than_asked_for(
    candidates: list[Candidate], best: int, last: int, greater: bool | None, resumed: int | None
) -> None:
    found = kept(candidates, Retention(best=best, last=last, greater_is_better=greater), resumed=resumed)
    assert bool(found) == bool(candidates)
    assert len(found) <= max(best + last, 1)


# ---- on disk ---------------------------------------------------------------------------------------------

Damage = Literal["flip", "truncate", "unseal"]


def attempt(directory: Path, number: int, resume_from: Path | None = None) -> RecordingContext:
    return RecordingContext(directory, attempt=number, resume_from=resume_from)


def save(ctx: RecordingContext, step: int, metrics: Mapping[str, float | None] | None = None) -> Path:
    made = ctx.work_dir / f"tmp-{step}"
    made.mkdir()
    (made / "weights.bin").write_bytes(bytes([step % 256]) * 100)
    return ctx.checkpoint(made, step=step, metrics=metrics or {})


def harm(path: Path, damage: Damage) -> None:
    if damage == "flip":
        (path / "weights.bin").write_bytes(b"\xff" * 100)
    elif damage == "truncate":
        (path / "weights.bin").write_bytes(b"")
    else:
        (path / "manifest.json").unlink()


def there(directory: Path) -> set[str]:
    """Attempt and step of each whole checkpoint on disk."""
    home = directory / "jobs" / "job-test" / "attempts"
    return {
        f"{path.parents[1].name}/{path.name.removeprefix('checkpoint-')}"
        for path in home.glob("*/checkpoints/*")
        if checkpoints.is_whole(path)
    }


def test_earlier_attempts_are_cleared_of_what_newer_checkpoints_replace(tmp_path: Path) -> None:
    first = attempt(tmp_path, 1)
    paths = [save(first, step) for step in (10, 20)]
    second = attempt(tmp_path, 2, resume_from=paths[1])
    save(second, 30)
    second.retain(Retention(last=1))
    assert there(tmp_path) == {"2/30"}
    assert [fact["path"] for fact in second.of_type("checkpoint_discarded")] == [str(path) for path in paths]


def test_the_one_resumed_from_stays_while_nothing_newer_is_whole(tmp_path: Path) -> None:
    first = attempt(tmp_path, 1)
    old = save(first, 10)
    second = attempt(tmp_path, 2, resume_from=old)
    harm(save(second, 20), "flip")
    second.retain(Retention(last=1))
    assert there(tmp_path) == {"1/10"}
    assert not second.of_type("checkpoint_discarded")


def test_a_later_attempts_checkpoints_are_nobody_elses_to_judge(tmp_path: Path) -> None:
    first, second = attempt(tmp_path, 1), attempt(tmp_path, 2)
    save(second, 50)
    for step in (10, 20):
        save(first, step)
    first.retain(Retention(last=1))
    assert there(tmp_path) == {"1/20", "2/50"}


def test_a_checkpoint_that_cannot_be_deleted_does_not_end_the_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ctx = attempt(tmp_path, 1)
    paths = [save(ctx, step) for step in (1, 2, 3)]
    discard = checkpoints.discard

    def refuse_the_first(path: Path) -> None:
        if path == paths[0]:
            raise PermissionError(13, "Permission denied", str(path))
        discard(path)

    monkeypatch.setattr(checkpoints, "discard", refuse_the_first)
    ctx.retain(Retention(last=1))
    assert there(tmp_path) == {"1/1", "1/3"}
    assert [fact["path"] for fact in ctx.of_type("checkpoint_discarded")] == [str(paths[1])]


def test_scratch_and_unfinished_checkpoints_of_dead_attempts_are_cleared(tmp_path: Path) -> None:
    first = attempt(tmp_path, 1)
    whole = save(first, 10)
    harm(save(first, 20), "unseal")
    (first.work_dir / "train.arrow").write_bytes(b"x")
    (first.work_dir / "checkpoint-30").mkdir()
    second = attempt(tmp_path, 2)
    (second.work_dir / "train.arrow").write_bytes(b"x")
    checkpoints.clear_leftovers(second.work_dir.parent)
    assert list(first.work_dir.iterdir()) == []
    assert list(whole.parent.iterdir()) == [whole]
    assert [path.name for path in second.work_dir.iterdir()] == ["train.arrow"]


STEPS = st.lists(
    st.tuples(
        st.integers(1, 3),  # the attempt
        st.sampled_from(["save", "save", "flip", "truncate", "unseal", "retain", "discard"]),
        st.integers(0, 10),  # which one is harmed or discarded
        st.integers(0, 2),  # last
        st.integers(0, 2),  # best
    ),
    max_size=25,
)


@settings(deadline=None, max_examples=60)  # files are synced
@given(STEPS)
def test_whatever_is_damaged_retention_never_deletes_the_last_whole_checkpoint(
    steps: list[tuple[int, Any, int, int, int]],
) -> None:
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        contexts = {number: attempt(directory, number) for number in (1, 2, 3)}
        now = 0
        for step, (number, action, which, last, best) in enumerate(sorted(steps, key=lambda each: each[0])):
            now = max(now, number)
            ctx = contexts[number]
            paths = sorted(directory.glob("jobs/*/attempts/*/checkpoints/*"))
            before = there(directory)
            if action == "save":
                save(ctx, step, {"eval_loss": (which * 7 % 11) / 10})
                continue
            if action == "retain":
                ctx.retain(Retention(last=last, best=best))
            elif action == "discard":
                own = sorted(path for path in paths if path.parents[1].name == str(number))
                if own:
                    ctx.discard_checkpoint(own[which % len(own)])
            elif paths and (paths[which % len(paths)] / "manifest.json").exists():
                harm(paths[which % len(paths)], action)
                continue
            assert bool(there(directory)) == bool(before), action
            assert there(directory) <= before


def test_a_bundle_by_itself_has_no_attempts_before_it(tmp_path: Path) -> None:
    """Whoever runs a worker by hand may put its bundle anywhere, beside anything."""
    strange = attempt(tmp_path, 1)
    save(strange, 10)
    (tmp_path / "0").mkdir()
    (tmp_path / "0" / "work").mkdir()
    (tmp_path / "0" / "work" / "mine.txt").write_text("keep")
    alone = strange.work_dir.parent.rename(tmp_path / "bundle")
    (found,) = checkpoints.of_job(alone, 1)
    assert (found.attempt, found.step) == (1, 10)
    checkpoints.clear_leftovers(alone)
    assert (tmp_path / "0" / "work" / "mine.txt").exists()


def test_metrics_that_are_no_numbers_are_left_out(tmp_path: Path) -> None:
    ctx = attempt(tmp_path, 1)
    path = save(ctx, 1, {"eval_loss": 0.5})
    content = json.loads((path / "manifest.json").read_text())
    content["about"]["metrics"]["note"] = "text"
    (path / "manifest.json").write_text(json.dumps(content))
    (found,) = checkpoints.of_job(ctx.work_dir.parent, 1)
    assert (found.attempt, found.step, found.metrics) == (1, 1, {"eval_loss": 0.5})
