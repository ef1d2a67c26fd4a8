from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict, Field

from finetuned.cli import parameters
from finetuned.domain.errors import InvalidRequestError


class Item(BaseModel):
    name: str


class Params(BaseModel):
    model_config = ConfigDict(extra="forbid")

    text: str = ""
    count: int = 0
    maybe_count: int | None = None
    rate: float = 0.0
    flag: bool = False
    maybe_flag: bool | None = None
    choice: Literal["lora", "full", "none"] = "lora"
    fixed: Literal["only"] = "only"
    modules: str | list[str] | None = None
    trackers: list[str] = Field(default_factory=list)
    numbers: list[int] = Field(default_factory=list)
    items: list[Item] = Field(default_factory=list)
    extra: dict[str, Any] = Field(default_factory=dict)
    number_or_text: int | str = 0


SCHEMA = Params.model_json_schema()


def read(name: str, text: str) -> Any:
    return parameters.parse(name, text, "toy", SCHEMA)


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("text", "12", "12"),
        ("text", "null", "null"),
        ("text", "a,b", "a,b"),
        ("text", "", ""),
        ("count", "12", 12),
        ("count", "1e3", 1000),
        ("count", "-3", -3),
        ("count", "900719925474099312345", 900719925474099312345),
        ("maybe_count", "none", None),
        ("maybe_count", "7", 7),
        ("rate", "2e-4", 0.0002),
        ("rate", "1", 1.0),
        ("flag", "yes", True),
        ("flag", "0", False),
        ("maybe_flag", "null", None),
        ("choice", "none", "none"),
        ("fixed", "only", "only"),
        ("modules", "all-linear", "all-linear"),
        ("modules", "q_proj,v_proj", ["q_proj", "v_proj"]),
        ("modules", '["q_proj"]', ["q_proj"]),
        ("modules", "null", None),
        ("trackers", "wandb", ["wandb"]),
        ("trackers", "wandb, mlflow", ["wandb", "mlflow"]),
        ("numbers", "1,2,3", [1, 2, 3]),
        ("items", '[{"name": "a"}]', [{"name": "a"}]),
        ("extra", '{"a": [1]}', {"a": [1]}),
        ("number_or_text", "7", 7),
        ("number_or_text", "seven", "seven"),
    ],
)
def test_text_becomes_what_the_schema_says(name: str, text: str, value: Any) -> None:
    found = read(name, text)
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize(
    ("name", "text", "wanted"),
    [
        ("count", "ten", "a whole number"),
        ("count", "1.5", "a whole number"),
        ("maybe_count", "x", "a whole number or null"),
        ("rate", "fast", "a number"),
        ("flag", "maybe", "true or false"),
        ("choice", "lorra", "one of lora, full, none"),
        ("fixed", "other", "only"),
        ("numbers", "1,x", "values with commas between them, or a JSON list"),
        ("items", "a", "a JSON list of objects"),
        ("extra", "a=b", "a JSON object"),
    ],
)
def test_a_value_that_does_not_fit_is_refused_with_what_would(name: str, text: str, wanted: str) -> None:
    with pytest.raises(InvalidRequestError) as refused:
        read(name, text)
    assert refused.value.message == f"{name} takes {wanted}; got {text!r}."
    assert refused.value.param == f"params.{name}"


@given(st.sampled_from(sorted(Params.model_fields)), st.text(max_size=12))
def test_whatever_is_accepted_is_of_a_type_that_the_model_accepts(name: str, text: str) -> None:
    try:
        value = read(name, text)
    except InvalidRequestError:
        return
    Params.model_validate({name: value}, strict=name != "rate")


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_every_number_survives_its_own_text(value: float) -> None:
    assert read("rate", repr(value)) == value


def test_a_name_that_is_not_there_is_refused_with_the_nearest() -> None:
    with pytest.raises(InvalidRequestError) as refused:
        read("chioce", "lora")
    assert "toy has no parameter 'chioce'. Did you mean 'choice'?" in refused.value.message
    assert refused.value.stable_code == "unknown_parameter"


def test_a_kind_that_takes_anything_gets_a_guess() -> None:
    assert parameters.parse("a", "[1]", "toy", {"type": "object"}) == [1]
    assert parameters.parse("a", "b c", "toy", {}) == "b c"


def test_alternatives_follow_references_and_lists_of_types() -> None:
    schema = {
        "properties": {"a": {"oneOf": [{"$ref": "#/$defs/N"}, {"type": ["boolean", "null"]}]}},
        "additionalProperties": False,
        "$defs": {"N": {"type": "integer"}},
    }
    assert [parameters.parse("a", text, "toy", schema) for text in ("3", "true", "null")] == [3, True, None]


@pytest.mark.parametrize("text", ["max_steps", "=1", " =1"])
def test_a_parameter_without_a_name_or_a_value_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(InvalidRequestError, match="max_steps=100"):
        parameters.split(text)


def test_only_the_first_equals_sign_divides() -> None:
    assert parameters.split("a=b=c") == ("a", "b=c")


def test_the_last_of_two_values_counts() -> None:
    assert parameters.parse_params(["count=1", "count=2"], "toy", SCHEMA) == {"count": 2}


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("checkpoint", {"name": "checkpoint", "params": {}}),
        ("validation:limit=5,metric=auto", {"name": "validation", "params": {"limit": 5, "metric": "auto"}}),
        ('validation:{"at": ["end"]}', {"name": "validation", "params": {"at": ["end"]}}),
    ],
)
def test_a_callback_has_a_name_and_parameters(text: str, value: Any) -> None:
    assert parameters.parse_callback(text) == value


@pytest.mark.parametrize("text", [":a=1", "validation:{a", "validation:a"])
def test_a_malformed_callback_is_refused(text: str) -> None:
    with pytest.raises(InvalidRequestError):
        parameters.parse_callback(text)


@pytest.fixture
def here(tmp_path: Path) -> Path:
    (tmp_path / "rows.jsonl").touch()
    (tmp_path / "folder").mkdir()
    (tmp_path / "models" / "tiny").mkdir(parents=True)
    return tmp_path


@pytest.mark.parametrize(
    ("name", "given", "relative"),
    [
        ("dataset", "rows.jsonl", "rows.jsonl"),
        ("eval_dataset", "./rows.jsonl", "rows.jsonl"),
        ("dataset", "folder", "folder"),
        ("model", "models/tiny", "models/tiny"),
        ("adapter", "./models/tiny", "models/tiny"),
        ("model", ".", "."),
    ],
)
def test_a_relative_path_becomes_absolute(here: Path, name: str, given: str, relative: str) -> None:
    found = parameters.absolute_paths({name: given}, here=here)
    assert found == {name: str((here / relative).resolve())}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("dataset", "org/rows"),
        ("dataset", "/data/rows.jsonl"),
        ("dataset", "dataset:rows.jsonl"),  # a name like a file's
        ("model", "tiny"),
        ("model", "org/tiny"),
        ("model", "folder"),  # a bare name may be a registered model's
        ("name", "rows.jsonl"),
        ("max_steps", 3),
        ("callbacks", "all"),
    ],
)
def test_what_is_no_relative_path_stays_as_it_is(here: Path, name: str, value: Any) -> None:
    assert parameters.absolute_paths({name: value}, here=here) == {name: value}


def test_the_home_directory_is_meant_by_a_tilde(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(here))
    assert parameters.absolute_paths({"file": "~/x.gguf"}, here=here) == {"file": f"{here}/x.gguf"}


def test_paths_within_callbacks_become_absolute(here: Path) -> None:
    given = {
        "callbacks": [{"name": "v", "params": {"dataset": "rows.jsonl", "limit": 1}}, "odd", {"name": "c"}]
    }
    found = parameters.absolute_paths(given, here=here)["callbacks"]
    assert found == [
        {"name": "v", "params": {"dataset": str(here / "rows.jsonl"), "limit": 1}},
        "odd",
        {"name": "c"},
    ]


def test_a_file_that_is_not_there_is_named(here: Path) -> None:
    with pytest.raises(InvalidRequestError) as refused:
        parameters.absolute_paths({"dataset": "row.jsonl"}, here=here)
    assert refused.value.param == "params.dataset"
    assert str(here) in refused.value.message


def test_dumped_values_are_json_on_one_line() -> None:
    assert json.loads(parameters.dump({"a": ["ü", None]})) == {"a": ["ü", None]}
