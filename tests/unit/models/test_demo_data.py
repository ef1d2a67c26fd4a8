"""The demo's rows: well-formed, varied, and nothing of the held-out rows is in the training rows."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

import finetuned
from finetuned.demo import preferences

DATA = Path(finetuned.__file__).parent / "demo" / "data"
ROWS = {"train": 300, "heldout": 48}
DAYS = {"monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday"}
ITEMS = {
    "sesame bagel", "plain bagel", "butter croissant", "almond croissant", "sourdough loaf", "rye loaf", "baguette",
    "cinnamon roll", "blueberry muffin", "cheese scone", "fruit scone", "pretzel", "apple pie", "cherry pie",
    "carrot cake", "lemon tart", "brownie", "oat cookie", "ham quiche", "spinach quiche",
}  # fmt: skip


def load(split: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (DATA / f"orders-{split}.jsonl").read_text().splitlines()]


def text(row: dict[str, Any]) -> str:
    """The order, so that rows which differ in case, spaces or punctuation only are the same."""
    return "".join(character for character in row["prompt"][1]["content"].lower() if character.isalnum())


def answer(row: dict[str, Any]) -> dict[str, Any]:
    parsed: dict[str, Any] = json.loads(row["completion"][0]["content"])
    return parsed


@pytest.mark.parametrize("split", ROWS)
def test_each_row_has_the_one_form(split: str) -> None:
    rows = load(split)
    assert len(rows) == ROWS[split]
    systems = set()
    for row in rows:
        assert row.keys() == {"prompt", "completion"}
        assert [message["role"] for message in row["prompt"]] == ["system", "user"]
        assert [message["role"] for message in row["completion"]] == ["assistant"]
        assert 10 < len(row["prompt"][1]["content"]) < 120
        systems.add(row["prompt"][0]["content"])
    assert len(systems) == 1


@pytest.mark.parametrize("split", ROWS)
def test_each_answer_is_canonical_and_its_values_are_allowed(split: str) -> None:
    for row in load(split):
        order = answer(row)
        assert row["completion"][0]["content"] == json.dumps(order)
        assert list(order) == ["item", "quantity", "day", "method"]
        assert order["item"] in ITEMS
        assert type(order["quantity"]) is int
        assert 1 <= order["quantity"] <= 50
        assert order["day"] is None or order["day"] in DAYS
        assert order["method"] in {"pickup", "delivery"}


def test_a_day_is_in_the_answer_if_and_only_if_the_order_names_it() -> None:
    beginnings = {day[:3]: day for day in DAYS} | {"wen": "wednesday", "fir": "friday"}  # two are misspelt
    for row in load("train") + load("heldout"):
        order = row["prompt"][1]["content"].lower()
        words = "".join(character if character.isalnum() else " " for character in order).split()
        short = {word for word in words if len(word) <= 5} - {"fire"}
        named = {word[:3] for word in words if word.endswith("day") or word in short}
        assert {beginnings[part] for part in named if part in beginnings} == {answer(row)["day"]} - {None}, (
            order
        )


def test_no_text_and_no_combination_of_fields_is_there_twice() -> None:
    rows = load("train") + load("heldout")
    assert Counter(map(text, rows)).most_common(1)[0][1] == 1
    combinations = Counter(tuple(answer(row).values()) for row in rows)
    assert combinations.most_common(1)[0][1] == 1


def test_the_values_are_spread_so_that_no_constant_answer_scores_well() -> None:
    for split in ROWS:
        orders = [answer(row) for row in load(split)]
        for field in ("item", "quantity", "day"):
            assert Counter(order[field] for order in orders).most_common(1)[0][1] < len(orders) / 4, (
                split,
                field,
            )
        deliveries = sum(order["method"] == "delivery" for order in orders)
        assert 0.3 < deliveries / len(orders) < 0.7
    assert {answer(row)["item"] for row in load("train")} == ITEMS


def test_the_recipe_is_good_for_the_declared_parameters() -> None:
    from finetuned_callbacks.params import ValidationParams
    from finetuned_dpo.params import DPOParams
    from finetuned_opd.params import OPDParams
    from finetuned_sft.params import SFTParams

    recipe = json.loads((DATA / "recipe.json").read_text())
    assert recipe.keys() == {"sft", "dpo", "opd", "validation"}
    OPDParams(model="m", teacher="t", dataset="d", eval_dataset="e", **recipe["opd"])
    DPOParams(model="m", dataset="d", eval_dataset="e", **recipe["dpo"])
    SFTParams(model="m", dataset="d", **recipe["sft"])
    ValidationParams(dataset="d", **recipe["validation"])


@pytest.mark.parametrize("split", preferences.COUNTS)
def test_the_pairs_are_what_the_script_makes_of_the_rows(split: str) -> None:
    assert preferences.file(split).read_text(encoding="utf-8") == preferences.content(split)


@pytest.mark.parametrize("split", preferences.COUNTS)
def test_each_pair_has_the_right_answer_and_one_that_is_not_that_text(split: str) -> None:
    rows = {text(row): row for row in load(split)}
    pairs = [json.loads(line) for line in preferences.file(split).read_text(encoding="utf-8").splitlines()]
    assert len(pairs) == preferences.COUNTS[split]
    for pair in pairs:
        row = rows[text(pair)]
        assert pair.keys() == {"prompt", "chosen", "rejected"}
        assert pair["chosen"] == row["completion"]
        assert pair["rejected"] != row["completion"]
    longer = sum(len(pair["rejected"][0]["content"]) > len(pair["chosen"][0]["content"]) for pair in pairs)
    assert 0.2 < longer / len(pairs) < 0.8  # length alone does not tell which is right
