"""Hyperparameters of fine-tuning as OpenAI names them, and the trainers' parameters that they are. Pure.

``"auto"`` is resolved here, to the values in ``METHODS``. They are given to the trainer as parameters, so that what a
job shows is what is trained, whatever the trainer's own defaults become.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

Json = Any

AUTO: Final = "auto"
ROWS_A_STEP: Final = 16  #: of a batch_size of auto: an optimizer step takes so many rows
MOST_ROWS_A_PASS: Final = 4  #: of a forward pass; further rows of a step are accumulated


@dataclass(frozen=True, slots=True, kw_only=True)
class Method:
    """A method of fine-tuning. ``epochs`` and ``beta`` are what auto means.

    ``learning_rates`` are what a ``learning_rate_multiplier`` of 1 means: of every weight, and of adapters.
    """

    name: str
    kind: str  # of the job
    epochs: int
    learning_rates: tuple[float, float]
    beta: float | None = None  # none for a method without

    def learning_rate(self, tuned: str) -> float:
        """What the multiplier multiplies, for the trainer's ``method`` full, lora or qlora."""
        return self.learning_rates[tuned != "full"]


METHODS: Final[Mapping[str, Method]] = {
    each.name: each
    for each in (
        Method(name="supervised", kind="sft", epochs=3, learning_rates=(2e-5, 2e-4)),
        Method(name="dpo", kind="dpo", epochs=1, learning_rates=(1e-6, 1e-5), beta=0.1),
        Method(name="distillation", kind="opd", epochs=1, learning_rates=(2e-5, 1e-4), beta=1.0),
    )
}
BY_KIND: Final[Mapping[str, Method]] = {each.kind: each for each in METHODS.values()}
KINDS: Final = tuple(BY_KIND)


def params(
    method: Method,
    *,
    n_epochs: int | None,
    batch_size: int | None,
    learning_rate_multiplier: float | None,
    beta: float | None = None,
    tuned: str = "lora",
) -> dict[str, Json]:
    """The trainer's parameters; ``None`` is auto.

    A batch is split into passes of the most rows that divide it, ``MOST_ROWS_A_PASS`` at most.
    """
    rows = ROWS_A_STEP if batch_size is None else batch_size
    a_pass = next(each for each in range(min(MOST_ROWS_A_PASS, rows), 0, -1) if rows % each == 0)
    multiplier = 1.0 if learning_rate_multiplier is None else learning_rate_multiplier
    found: dict[str, Json] = {
        "num_train_epochs": method.epochs if n_epochs is None else n_epochs,
        "per_device_train_batch_size": a_pass,
        "gradient_accumulation_steps": rows // a_pass,
        "learning_rate": _rounded(multiplier * method.learning_rate(tuned)),
    }
    if method.beta is not None:
        found["beta"] = method.beta if beta is None else beta
    return found


def shown(method: Method, given: Mapping[str, Json]) -> dict[str, Json]:
    """The hyperparameters behind a trainer's parameters, those that were left out as the trainer has them."""
    rows_a_pass = _number(given, "per_device_train_batch_size", MOST_ROWS_A_PASS)
    passes = _number(given, "gradient_accumulation_steps", ROWS_A_STEP // MOST_ROWS_A_PASS)
    usual = method.learning_rate(given.get("method", "lora"))
    epochs = _number(given, "num_train_epochs", method.epochs)
    found: dict[str, Json] = {
        "n_epochs": int(epochs) if epochs == int(epochs) else epochs,
        "batch_size": int(rows_a_pass * passes),
        "learning_rate_multiplier": _rounded(_number(given, "learning_rate", usual) / usual),
    }
    if method.beta is not None:
        found["beta"] = _number(given, "beta", method.beta)
    return found


def _number(given: Mapping[str, Json], name: str, otherwise: float) -> float:
    """A parameter that is a number: a log may hold what was recorded before it was read as one, or ``"auto"``."""
    value = given.get(name)
    if isinstance(value, int):
        return value
    try:
        number = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return otherwise
    return number if math.isfinite(number) else otherwise


def _rounded(value: float) -> float:
    """Without the last digits, in which 3 * 1e-5 is not 3e-5."""
    return float(f"{value:.12g}")
