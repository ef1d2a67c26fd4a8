"""What a webhook is to be sent: types of events by name, by family (``job.*``) or all (``*``). Pure.

Beside the daemon's own types there are those of OpenAI's webhooks, which follow from the ends of jobs.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from finetuned.domain import facts
from finetuned.domain.errors import InvalidRequestError
from finetuned.spelling import nearest

EVERYTHING: Final = "*"
FAMILY: Final = ".*"  #: the end of a name that stands for all that begin so

#: kind of job -> what OpenAI calls it
KINDS: Final = {
    "sft": "fine_tuning.job",
    "dpo": "fine_tuning.job",
    "opd": "fine_tuning.job",
    "batch": "batch",
}
#: OpenAI's types -> the event of a job that one follows from
WIRE_TYPES: Final = {
    "fine_tuning.job.succeeded": facts.JobSucceeded.type,
    "fine_tuning.job.failed": facts.JobFailed.type,
    "fine_tuning.job.cancelled": facts.JobCancelled.type,
    "batch.completed": facts.JobSucceeded.type,
    "batch.failed": facts.JobFailed.type,
    "batch.expired": facts.JobCancelled.type,
    "batch.cancelled": facts.JobCancelled.type,
}
#: families for administrators' eyes: they are sent only where they are named
GUARDED: Final = ("token.", "secret.", "request.", "webhook.")


def names() -> list[str]:
    """All types that there are."""
    return [*facts.SCHEMAS, *WIRE_TYPES]


def check(types: Iterable[str]) -> list[str]:
    """The types, each once. Raises ``InvalidRequestError`` for one that nothing can match."""
    found = list(dict.fromkeys(types))
    if not found:
        raise InvalidRequestError(
            "types is empty, so that nothing would be sent; name some types of events, or `*`.",
            param="types",
            code="invalid_params",
        )
    for each in found:
        if not matched([each]):
            raise InvalidRequestError(
                f"types: {each[:80]!r} is no type of events.{nearest(each, names())} GET /v1/events shows what happens,"
                " `job.*` names a family, `*` everything.",
                param="types",
                code="invalid_params",
            )
    return found


def matched(types: Iterable[str]) -> frozenset[str]:
    """The types that are meant, the daemon's own and OpenAI's."""
    return frozenset(name for name in names() for each in types if _means(each, name))


def _means(pattern: str, name: str) -> bool:
    if pattern == EVERYTHING:
        return name not in WIRE_TYPES and not name.startswith(GUARDED)
    if pattern.endswith(FAMILY):
        return name.startswith(pattern.removesuffix("*"))
    return name == pattern


def native(wanted: Iterable[str]) -> frozenset[str]:
    """The events of the log to be looked at for the types ``wanted``."""
    return frozenset(WIRE_TYPES.get(each, each) for each in wanted)
