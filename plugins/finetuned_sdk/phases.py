"""The phases of a job's work that the watchdog knows, and the limit that each of them is under.

A worker may call its phases what it likes (``ctx.phase``); the names here are those for which more than a stall is
looked at. Standard library only: the daemon reads this module too.

What a heartbeat (``finetuned_sdk.heartbeat``) says of the work:

- ``phase`` is the one entered last; ``starting`` before the job's entry is imported.
- ``step`` is the last step that this attempt *did*: ``None`` until the first. The report of step 0 (nothing is done
  yet) does not count, and the step that an attempt resumes from is not reported before another one is done.
- ``step_at`` is when the work last did anything: a step, a change of phase, a checkpoint, an evaluation, or a mere
  ``ctx.advancing()``.
"""

from __future__ import annotations

from typing import Final, Literal

STARTING: Final = "starting"  # from the worker's first instruction on
PREPARING_DATA: Final = "preparing_data"
LOADING_MODEL: Final = "loading_model"
TRAINING: Final = "training"  # up to the end of the first step (which may compile) it is still the start
EVALUATING: Final = "evaluating"  # also a validation on held-out rows
SAVING: Final = "saving"  # a checkpoint, or the final publication
SERVING: Final = "serving"  # an engine is there and answers; idle it shows signs of work all the same
WAITING_FOR_ENGINE: Final = (
    "waiting_for_engine"  # whoever asks one has none yet; it may take as long as it takes
)

Limit = Literal["start_s", "stall_s", "evaluation_s", "saving_s"]

_OWN_LIMITS: Final[dict[str | None, Limit]] = {
    EVALUATING: "evaluation_s",
    SAVING: "saving_s",
    SERVING: "stall_s",
}


def limit_of(phase: str | None, step: int | None) -> Limit:
    """Which time-out an attempt is under, given the phase and the step of its heartbeat.

    Each counts from ``step_at``: a start may take as long as it wants while it shows signs of work.
    """
    own = _OWN_LIMITS.get(phase)
    if own is not None:
        return own
    return "start_s" if step is None else "stall_s"
