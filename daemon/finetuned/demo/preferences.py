"""Pairs of answers made from the demo's rows: the right one, and one that is wrong in a way that models are. Pure.

``python -m finetuned.demo.preferences`` writes the two files of ``data`` anew.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, Final

Json = Any
Order = dict[str, Json]

DATA: Final = Path(__file__).parent / "data"
DAYS: Final = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")
COUNTS: Final = {"train": 64, "heldout": 32}  # of the rows that there are, evenly over all of them
SEED: Final = 7


def pairs(rows: Sequence[dict[str, Json]], count: int, draw: random.Random) -> list[dict[str, Json]]:
    """``count`` rows as pairs in TRL's conversational form; each way of being wrong is as frequent as the others."""
    items = sorted({_order(row)["item"] for row in rows})
    chosen = [rows[index * len(rows) // count] for index in range(count)]
    return [
        _pair(row, WRONG[number % len(WRONG)](_order(row), items, draw)) for number, row in enumerate(chosen)
    ]


def _pair(row: dict[str, Json], wrong: str) -> dict[str, Json]:
    return {
        "prompt": row["prompt"],
        "chosen": row["completion"],
        "rejected": [{"role": "assistant", "content": wrong}],
    }


def _order(row: dict[str, Json]) -> Order:
    order: Order = json.loads(row["completion"][0]["content"])
    return order


def other_item(order: Order, items: Sequence[str], draw: random.Random) -> str:
    """Another good of the bakery, one of the same sort if there is one."""
    others = [item for item in items if item != order["item"]]
    alike = [item for item in others if item.split()[-1] == order["item"].split()[-1]]
    return json.dumps({**order, "item": draw.choice(alike or others)})


def other_quantity(order: Order, _items: Sequence[str], draw: random.Random) -> str:
    """One or two more or fewer."""
    near = [order["quantity"] + by for by in (-2, -1, 1, 2)]
    return json.dumps({**order, "quantity": draw.choice([number for number in near if number > 0])})


def other_day(order: Order, _items: Sequence[str], draw: random.Random) -> str:
    """Another weekday, or one that the order does not name."""
    return json.dumps({**order, "day": draw.choice([day for day in DAYS if day != order["day"]])})


def other_method(order: Order, _items: Sequence[str], _draw: random.Random) -> str:
    """Brought instead of fetched, or the other way round."""
    return json.dumps({**order, "method": "pickup" if order["method"] == "delivery" else "delivery"})


def field_left_out(order: Order, _items: Sequence[str], draw: random.Random) -> str:
    """An object that lacks a field."""
    lost = draw.choice(list(order))
    return json.dumps({name: value for name, value in order.items() if name != lost})


def with_words_around(order: Order, _items: Sequence[str], _draw: random.Random) -> str:
    """The right object in the midst of chatter."""
    return f"Sure! Here is the order as JSON: {json.dumps(order)}"


def prose(order: Order, _items: Sequence[str], _draw: random.Random) -> str:
    """The right order as a sentence."""
    when = f" on {order['day'].capitalize()}" if order["day"] else ""
    return f"The customer would like {order['quantity']} x {order['item']} for {order['method']}{when}."


def other_spelling(order: Order, _items: Sequence[str], _draw: random.Random) -> str:
    """The right values in another form: words for numbers, capitals."""
    return json.dumps({name: str(value).capitalize() for name, value in order.items()})


WRONG: Final[tuple[Callable[[Order, Sequence[str], random.Random], str], ...]] = (
    other_item,
    other_quantity,
    other_day,
    other_method,
    field_left_out,
    with_words_around,
    prose,
    other_spelling,
)


def content(split: str) -> str:
    """The file of a split: a pair a line."""
    text = (DATA / f"orders-{split}.jsonl").read_text(encoding="utf-8")
    rows = [json.loads(line) for line in text.splitlines()]
    return lines(pairs(rows, COUNTS[split], random.Random(SEED)))  # noqa: S311 - the same pairs each time


def lines(rows: Iterable[Json]) -> str:
    """JSON, an object a line."""
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def file(split: str) -> Path:
    """Where the pairs of a split lie."""
    return DATA / f"preferences-{split}.jsonl"


if __name__ == "__main__":
    for name in COUNTS:
        file(name).write_text(content(name), encoding="utf-8")
