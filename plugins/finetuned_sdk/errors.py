"""Errors that a plugin raises on purpose; each carries a stable code and a sentence with the remedy."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence


class JobError(Exception):
    """The job cannot go on, and trying again would not help. The message is shown to the user as it is."""

    code = "job_error"

    def __init__(self, message: str, *, code: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        if code is not None:
            self.code = code


class PauseError(JobError):
    """The job cannot go on as long as something outside it is amiss, a server that does not answer for instance.

    It is paused with the message as the reason, frees its devices and uses up no try; resumed, it goes on from its
    newest checkpoint. While its data are being checked it fails like any :class:`JobError`.
    """

    code = "job_interrupted"


class RefusedError(JobError):
    """The job is refused at submission: ``param`` names what to change. Becomes a 400 of the API."""

    code = "invalid_params"

    def __init__(self, message: str, *, param: str | None = None, code: str | None = None) -> None:
        super().__init__(message, code=code)
        self.param = param


class PluginError(JobError):
    """A plugin's declaration is wrong: a name taken twice, or an entry that is no ``module:function``."""

    code = "plugin_error"


@dataclass(frozen=True, slots=True)
class RowProblem:
    """One thing wrong with one row: ``row`` counts from 1 (for line formats it is the line number)."""

    row: int
    reason: str


class BadDatasetError(JobError):
    """The dataset has rows that cannot be trained on; carries at most the first hundred problems."""

    code = "bad_dataset"

    SHOWN = 5

    def __init__(
        self, path: str, problems: Sequence[RowProblem], *, remedy: str, total: int | None = None
    ) -> None:
        self.path = path
        self.problems = tuple(problems[:100])
        self.total = len(problems) if total is None else total
        listed = "; ".join(f"row {p.row}: {p.reason}" for p in self.problems[: self.SHOWN])
        more = f" (and {self.total - self.SHOWN} more)" if self.total > self.SHOWN else ""
        super().__init__(f"{path}: {listed}{more}. {remedy}")
