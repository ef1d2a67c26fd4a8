"""The figures of each step as a table, under the names that OpenAI's results files give them."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping

from finetuned_sdk import WorkerContext

NAME = "step_metrics.csv"
KIND = "file:fine-tune-results"
#: columns, and what the trainer's log calls them
COLUMNS = {
    "train_loss": "loss",
    "train_accuracy": "mean_token_accuracy",
    "valid_loss": "eval_loss",
    "valid_mean_token_accuracy": "eval_mean_token_accuracy",
}


def publish(ctx: WorkerContext, log_history: Iterable[Mapping[str, float]]) -> None:
    """Write the table and publish it: it becomes a file of the daemon when the job ends."""
    path = ctx.artifact_dir / NAME
    path.write_text(table(log_history), encoding="utf-8")
    ctx.artifact(path, kind=KIND)


def table(log_history: Iterable[Mapping[str, float]]) -> str:
    """CSV with a row for each step of which something is known; what nobody measured is empty."""
    steps: dict[int, dict[str, float]] = {}
    for log in log_history:
        known = {column: log[name] for column, name in COLUMNS.items() if name in log}
        if known:
            steps.setdefault(int(log["step"]), {}).update(known)
    written = io.StringIO()
    writer = csv.DictWriter(written, ["step", *COLUMNS], lineterminator="\n")
    writer.writeheader()
    writer.writerows({"step": step, **figures} for step, figures in sorted(steps.items()))
    return written.getvalue()
