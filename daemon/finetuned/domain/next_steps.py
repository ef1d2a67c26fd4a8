"""What makes sense next for a job: its state, its result, its advice and its errors, read as a list of steps. Pure."""

from __future__ import annotations

import shlex
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from itertools import chain
from typing import Any

from finetuned.domain.job import Job
from finetuned.domain.states import JobState
from finetuned.domain.waits import Wait

Json = Any

OUT_OF_MEMORY = ("out-of-memory", "out of memory", "OutOfMemory")
ROSE = 1.02  # the last evaluation's loss over the best one's, from which on more training did harm
LOSS = "eval_loss"

#: error code -> what has to be done before the job is tried again
REMEDIES = {
    "bad_dataset": "Correct the rows that the message names",
    "dataset_not_found": "Put the dataset where the message says",
    "dataset_unreadable": "Repair the dataset",
    "dataset_unsupported": "Convert the dataset to a form that is read",
    "model_not_found": "Put the model there, or import it",
    "missing_dependency": "Install what the message names into the daemon's environment",
    "disk_full": "Free some disk",
    "secret_missing": "Have the secret stored with `finetune secrets set`",
    "unsupported_gguf": "Take another file of the model",
    "incomplete_gguf": "Download the file again",
}


#: kind of job -> the kinds that usually go on from it
FOLLOWING = {"sft": ("dpo", "opd"), "dpo": ("opd",)}

#: kind -> what it is called as a step, why it makes sense, and what has to be filled in
TRAININGS = {
    "dpo": (
        "prefer",
        "With pairs of answers of which one is preferred, it learns which to give and stays by what it is.",
        ("--data", "PAIRS"),
    ),
    "opd": (
        "distil",
        "A larger model of the same vocabulary can teach it on its own answers, token by token.",
        ("--param", "teacher=MODEL", "--data", "PROMPTS"),
    ),
}


@dataclass(frozen=True, slots=True)
class Step:
    """Something that makes sense now: ``command`` does it, if a command does."""

    action: str
    why: str
    command: str | None = None


def next_steps(job: Job, wait: Wait | None = None, *, kinds: Collection[str] = ()) -> list[Step]:
    """The steps, the most useful first. Never empty. Trainings that may follow are named if ``kinds`` has them."""
    match job.state:
        case JobState.SUCCEEDED:
            done = (_of_result(job), _of_training(job, kinds), _of_files(job))
            about = (_of_evaluations(job), _of_advice(job), _keep(job), _remove(job))
            return [*chain(*done, *about)]
        case JobState.FAILED:
            return [*_of_failure(job), *_of_advice(job), _look(job)]
        case JobState.CANCELLED:
            return [_retry(job, "It was cancelled"), *_remove(job)]
        case JobState.CANCELLING:
            return [Step("wait", "Its processes are being stopped.", f"finetune watch {job.id}")]
        case JobState.PAUSING:
            return [Step("wait", "It saves a checkpoint and leaves its devices.", f"finetune show {job.id}")]
        case JobState.PAUSED:
            return [*_of_interruption(job), _resume(job), _stop(job)]
    return [*_of_waiting(job, wait), *_of_advice(job), _stop(job)]


def _of_waiting(job: Job, wait: Wait | None) -> Iterator[Step]:
    why = wait.reason if wait is not None else "It is at work."
    yield Step("watch", why, f"finetune watch {job.id}")
    if job.progress is not None:
        yield Step(
            "look", "Its curves so far may tell whether it is worth going on.", f"finetune metrics {job.id}"
        )


def _of_interruption(job: Job) -> Iterator[Step]:
    error = job.attempt.error if job.attempt is not None else None
    if error is not None and error.get("pauses"):
        yield Step("repair", f"It could not go on, and will not before this is mended: {error['message']}")


def _resume(job: Job) -> Step:
    since = f"; {job.repeated_steps} steps since its checkpoint are done again" if job.repeated_steps else ""
    return Step("resume", f"It holds no device and can go on{since}.", f"finetune resume {job.id}")


def _stop(job: Job) -> Step:
    kept = "its checkpoints are kept" if job.checkpoints else "nothing of it is kept yet"
    return Step("cancel", f"If it is not wanted any more: {kept}.", f"finetune cancel {job.id}")


def _of_result(job: Job) -> Iterator[Step]:
    for model in _models(job):
        name = model["name"]
        yield Step(
            "try",
            f"{name} is registered; this says where it lies and how it was made.",
            _command("models", "show", name),
        )
        kind = job.kind if "model" in job.params else "sft"
        yield Step(
            "train_on",
            f"A next job can go on from {name}.",
            _command("run", kind, *_beginning_with(job, model), *_to_fill_in(kind)),
        )


def _to_fill_in(kind: str) -> tuple[str, ...]:
    return TRAININGS[kind][2] if kind in TRAININGS else ("--data", "FILE")


def _beginning_with(job: Job, model: dict[str, Json]) -> list[str]:
    """The options by which a job begins with a model: a job's own result by ``--from``, another adapter over its base."""
    if (job.result or {}).get("model") == model["name"]:
        return ["--from", job.id]
    if model["kind"] == "adapter":
        return ["--model", model["base"] or "BASE", "--param", f"adapter={model['name']}"]
    return ["--model", model["name"]]


def _of_training(job: Job, kinds: Collection[str]) -> Iterator[Step]:
    """The trainings that usually follow this one."""
    if not isinstance((job.result or {}).get("model"), str):
        return
    for kind in FOLLOWING.get(job.kind, ()):
        if kind in kinds:
            action, why, options = TRAININGS[kind]
            yield Step(action, why, _command("run", kind, "--from", job.id, *options))


def _of_files(job: Job) -> Iterator[Step]:
    names = list(dict.fromkeys(each["name"] for each in job.artifacts))
    for name in names:
        which = [] if len(names) == 1 else ["--artifact", name]
        yield Step(
            "download", f"The files of {name} can be taken elsewhere.", _command("export", job.id, *which)
        )


def _models(job: Job) -> list[dict[str, Json]]:
    return (job.attempt.models or []) if job.attempt is not None else []


def _of_evaluations(job: Job) -> Iterator[Step]:
    losses = [
        (each["step"], each["metrics"][LOSS])
        for each in job.evaluations
        if each["step"] is not None and isinstance(each["metrics"].get(LOSS), (int, float))
    ]
    if len(losses) < 2:
        return
    best_step, best = min(losses, key=lambda pair: pair[1])
    last_step, last = losses[-1]
    if best_step < last_step and last > best * ROSE:
        yield Step(
            "train_less",
            f"{LOSS} was least at step {best_step} ({best:.4g}) and rose to {last:.4g} at step {last_step}:"
            " fewer epochs or a smaller learning rate may do better.",
        )


def _of_advice(job: Job) -> Iterator[Step]:
    newest = {each["setting"]: each for each in job.advice}
    for each in newest.values():
        yield Step("change_setting", f"{each['setting']}: {each['message']}")


def _of_failure(job: Job) -> Iterator[Step]:
    error = job.error or {"code": "unknown", "message": "It failed."}
    causes = " ".join([error["message"], *(each.cause or "" for each in job.attempts)])
    if any(sign in causes for sign in OUT_OF_MEMORY):
        yield Step(
            "need_less_memory",
            "It ran out of memory: a smaller batch with more gradient accumulation, a shorter max_length or a smaller"
            " model needs less.",
        )
    remedy = REMEDIES.get(error["code"])
    if remedy is not None:
        yield Step("repair", f"{remedy}. It said: {error['message']}")
    yield _retry(job, f"It failed ({error['code']})" if remedy is None else "Once that is done")


def _retry(job: Job, why: str) -> Step:
    if not job.checkpoints:
        return Step("retry", f"{why}; it has no checkpoint and begins anew.", f"finetune retry {job.id}")
    newest = max(each["step"] for each in job.checkpoints)
    return Step(
        "retry",
        f"{why}; it can go on from step {newest}.",
        f"finetune retry {job.id} --from-checkpoint latest",
    )


def _look(job: Job) -> Step:
    return Step("look", "What it printed last often says more.", f"finetune logs {job.id} --tail 100")


def _keep(job: Job) -> Iterator[Step]:
    if job.template is None:
        yield Step(
            "keep",
            "Its request can be kept as a template, to run it again with other data.",
            _command("templates", "save", "NAME", "--job", job.id),
        )


def _remove(job: Job) -> Iterator[Step]:
    if _models(job):
        return  # its files are the model's
    yield Step(
        "delete", "If its files are not wanted any more: that frees their disk.", f"finetune delete {job.id}"
    )


def _command(*words: str) -> str:
    return shlex.join(["finetune", *words])
