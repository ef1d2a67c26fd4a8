from __future__ import annotations

import json
from pathlib import Path
from typing import Any, cast

import pytest

from finetuned.demo import stages, story
from finetuned.wire import Job


def validation(**metrics: float) -> dict[str, Any]:
    return {"name": "validation", "metrics": metrics, "step": 0}


def job(**parts: Any) -> Job:
    return cast("Job", {"evaluations": [], "artifacts": [], **parts})


def test_the_first_and_the_last_validation_are_compared() -> None:
    found = story.of_validations(
        job(
            evaluations=[
                validation(exact_match=0.0, valid_json=0.1, rows=48),
                {"name": "loss", "metrics": {"exact_match": 9.0}, "step": 3},
                validation(exact_match=0.5, valid_json=0.5),
                validation(exact_match=0.9, valid_json=1.0, rows=48),
            ]
        )
    )
    assert [(change.before, change.after) for change in found] == [(0.0, 0.9), (0.1, 1.0)]


def test_one_validation_alone_shows_no_change() -> None:
    assert story.of_validations(job(evaluations=[validation(exact_match=1.0)])) == []


@pytest.fixture
def answers(tmp_path: Path) -> Job:
    """Samples of two validations: row 0 was right before, rows 2 and 4 became right."""
    for step, right in ((0, {0}), (60, {0, 2, 4})):
        rows = [
            {"prompt": f"q{row}", "expected": "e", "answer": f"a{row}@{step}", "right": row in right}
            for row in range(6)
        ]
        (tmp_path / f"{step:03d}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    paths = sorted(tmp_path.glob("*.jsonl"))
    artifacts = [{"kind": "validation_samples", "path": str(path)} for path in paths]
    return job(artifacts=[{"kind": "adapter", "path": "/nowhere"}, *artifacts])


def test_samples_are_rows_that_became_right(answers: Job) -> None:
    found = story.samples(answers, count=2)
    assert [(sample.prompt, sample.before, sample.after) for sample in found] == [
        ("q2", "a2@0", "a2@60"),
        ("q4", "a4@0", "a4@60"),
    ]


def test_without_two_sets_of_answers_there_are_no_samples(answers: Job) -> None:
    answers["artifacts"].pop()
    assert story.samples(answers, count=2) == []


def test_a_choice_is_spread_over_all() -> None:
    assert story.spread(list(range(10)), 2) == [0, 5]
    assert story.spread([1], 2) == [1]


def test_the_recipe_trains_on_one_file_and_validates_on_the_other() -> None:
    parameters = stages.of_supervised({})
    (callback,) = parameters["callbacks"]
    assert callback["name"] == "validation"
    assert Path(parameters["dataset"]).is_file()
    assert Path(callback["params"]["dataset"]).is_file()
    assert parameters["dataset"] != callback["params"]["dataset"]


def pair_figures(accuracy: float, margin: float) -> dict[str, Any]:
    metrics = {"eval_rewards/accuracies": accuracy, "eval_rewards/margins": margin, "eval_loss": 0.5}
    return {"name": "eval", "metrics": metrics, "step": 0}


def test_held_out_pairs_are_compared_and_a_margin_is_no_share() -> None:
    found = story.of_held_out_pairs(
        job(evaluations=[pair_figures(0, 0), validation(exact_match=1), pair_figures(1, 2)])
    )
    assert [(each.before, each.after, each.is_share) for each in found] == [(0, 1, True), (0, 2, False)]


@pytest.mark.parametrize(
    ("figures", "lesson"),
    [
        ([(0.0, 0.0), (0.9, 1.5)], None),
        ([(0.0, 0.0), (0.5, 1.5)], "did not learn to prefer: 50%"),
        ([(0.0, 0.5), (0.9, 0.4)], "the margin went from 0.50 to 0.40"),
        ([(0.0, 0.0)], "recorded no figures"),
    ],
)
def test_preferences_are_learned_if_more_than_chance_gained_and_the_margin_grew(
    figures: list[tuple[float, float]], lesson: str | None
) -> None:
    found = story.of_held_out_pairs(job(evaluations=[pair_figures(*each) for each in figures]))
    said = story.lesson_of_held_out_pairs(found)
    assert said is None if lesson is None else lesson in (said or "")


def test_preferences_go_on_from_the_supervised_adapter_with_other_pairs_held_out() -> None:
    parameters = stages.of_preferences({"sft": job(result={"model": "taught"})})
    assert (parameters["model"], parameters["adapter"]) == ("smollm2", "taught")
    assert Path(parameters["dataset"]).is_file()
    assert Path(parameters["eval_dataset"]).is_file()
    assert parameters["dataset"] != parameters["eval_dataset"]


def teacher_figures(kl: float, agreement: float) -> dict[str, Any]:
    return {"name": "eval", "metrics": {"eval_kl_reverse": kl, "eval_token_agreement": agreement}, "step": 0}


@pytest.mark.parametrize(
    ("figures", "lesson"),
    [
        ([(2.0, 0.3), (0.5, 0.9)], None),
        ([(2.0, 0.3), (2.5, 0.9)], "reverse KL, nats a token) went from 2.00 to 2.50"),
        ([(2.0, 0.3), (0.5, 0.2)], "find the likeliest went from 0.30 to 0.20"),
        ([(2.0, 0.3)], "recorded no figures"),
    ],
)
def test_a_student_has_learned_if_it_is_nearer_to_its_teacher_and_agrees_more(
    figures: list[tuple[float, float]], lesson: str | None
) -> None:
    found = story.of_the_teacher(job(evaluations=[teacher_figures(*each) for each in figures]))
    said = story.lesson_of_the_teacher(found)
    assert said is None if lesson is None else lesson in (said or "")


def test_a_distance_is_better_when_it_is_less_and_no_share() -> None:
    distance, agreement = story.of_the_teacher(
        job(evaluations=[teacher_figures(2.0, 0.3), teacher_figures(0.5, 0.9)])
    )
    assert (distance.is_share, distance.is_better) == (False, True)
    assert (agreement.is_share, agreement.is_better) == (True, True)


def test_the_student_of_the_demo_is_the_untrained_model_under_the_trained_adapters_eye() -> None:
    parameters = stages.of_teacher({"sft": job(result={"model": "taught"})})
    assert (parameters["model"], parameters["teacher"], parameters["teacher_adapter"]) == (
        "smollm2",
        "smollm2",
        "taught",
    )
    assert Path(parameters["dataset"]).is_file()
    assert parameters["dataset"] != parameters["eval_dataset"]
