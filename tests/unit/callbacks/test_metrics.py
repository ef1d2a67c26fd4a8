from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from finetuned_callbacks import metrics

OBJECTS = st.dictionaries(
    st.text(max_size=5), st.none() | st.booleans() | st.integers() | st.text(max_size=5), max_size=4
)


def test_auto_takes_json_fields_only_if_every_expected_answer_is_an_object() -> None:
    assert metrics.choose(['{"a": 1}', "{}"]) == "json_fields"
    assert metrics.choose(['{"a": 1}', "[1]"]) == "exact_match"
    assert metrics.choose(['{"a": 1}', "a"]) == "exact_match"


def test_an_exact_match_ignores_white_space_around_the_answer_only() -> None:
    assert metrics.score(["yes", "no"], [" yes\n", "n o"], "exact_match") == {"exact_match": 0.5}


def test_json_answers_are_compared_as_values_not_as_text() -> None:
    scores = metrics.score(['{"a": 1, "b": 2}'], ['{"b":2,"a":1}'], "json_fields")
    assert scores == {"exact_match": 1.0, "field_accuracy": 1.0, "valid_json": 1.0}


@pytest.mark.parametrize(
    ("answer", "fields", "valid"),
    [
        ('{"a": 1, "b": "x", "c": null}', 1.0, 1.0),  # a field too many: right fields, no match
        ('{"a": true, "b": "x"}', 0.5, 1.0),  # True is not 1
        ('{"a": 1}', 0.5, 1.0),
        ('Sure! {"a": 1, "b": "x"}', 0.0, 0.0),  # the answer must be the object and nothing else
        ('[{"a": 1}]', 0.0, 0.0),
        ('{"a": 1, "b": ', 0.0, 0.0),
        ("", 0.0, 0.0),
    ],
)
def test_a_wrong_json_answer_counts_its_right_fields(answer: str, fields: float, valid: float) -> None:
    scores = metrics.score(['{"a": 1, "b": "x"}'], [answer], "json_fields")
    assert scores == {"exact_match": 0.0, "field_accuracy": fields, "valid_json": valid}


def test_fields_are_counted_over_all_rows_together() -> None:
    scores = metrics.score(['{"a": 1}', '{"a": 1, "b": 2, "c": 3}'], ['{"a": 1}', "{}"], "json_fields")
    assert scores["field_accuracy"] == 0.25


@given(st.lists(OBJECTS, min_size=1, max_size=5))
def test_the_expected_answers_themselves_score_one(expected: list[dict[str, object]]) -> None:
    texts = [json.dumps(value) for value in expected]
    assert set(metrics.score(texts, texts, "json_fields").values()) == {1.0}


@given(st.lists(st.tuples(OBJECTS, OBJECTS | st.text()), min_size=1, max_size=5))
def test_shares_stay_between_zero_and_one_and_a_match_has_all_fields(
    pairs: list[tuple[object, object]],
) -> None:
    expected = [json.dumps(e) for e, _ in pairs]
    answers = [json.dumps(a) for _, a in pairs]
    scores = metrics.score(expected, answers, "json_fields")
    assert all(0 <= value <= 1 for value in scores.values())
    assert scores["exact_match"] <= scores["valid_json"]
    if scores["exact_match"] == 1:
        assert scores["field_accuracy"] == 1
