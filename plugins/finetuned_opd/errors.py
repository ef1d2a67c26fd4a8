"""Why a teacher could not be asked."""

from __future__ import annotations

from finetuned_sdk import JobError, PauseError

#: of a teacher that does not answer, or answers what is no score
UNAVAILABLE = "teacher_unavailable"
BAD_SCORES = "teacher_bad_scores"


class TeacherError(PauseError):
    """The teacher does not answer, or says what cannot be: the job is paused until somebody has looked at it."""

    code = UNAVAILABLE


class UnfitTeacherError(JobError):
    """The teacher cannot give what the job needs, however often it is asked."""

    code = "teacher_unfit"
