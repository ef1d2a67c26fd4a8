"""How a job ended, in a few lines. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from finetuned.cli import units
from finetuned.cli.timeline import figures
from finetuned.wire import Job

SUCCEEDED = 0
NOT_SUCCEEDED = 1


def exit_code(job: Job) -> int:
    """0 if the job succeeded, 1 if it failed or was cancelled."""
    return SUCCEEDED if job["state"] == "succeeded" else NOT_SUCCEEDED


def lines(job: Job) -> Iterator[str]:
    """What a user wants to know of an ended job, and what can be done next."""
    yield f"{job['id']} {job['state']}{_after(job)}"
    if job["error"]:
        yield f"  {job['error'].get('message') or job['error'].get('code')}"
        yield f"  `finetune show {job['id']}` tells the story, `finetune logs {job['id']}` what was printed,"
        yield f"  `finetune retry {job['id']}` tries again."
        return
    result = job["result"] or {}
    if text := figures(result, ("train_loss", "eval_loss")):
        yield f"  {text}"
    if result.get("model"):
        yield f"  registered as {result['model']}: `finetune models show {result['model']}`"
    if result.get("adapter_path"):
        yield f"  adapter: {result['adapter_path']}"


def _after(job: Job) -> str:
    if job["finished_at"] is None or job["created_at"] is None:
        return ""
    seconds = (units.moment(job["finished_at"]) - units.moment(job["created_at"])).total_seconds()
    return f" after {units.duration(seconds)}"
