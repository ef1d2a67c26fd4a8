"""Jobs whose files are gone: what is said to who asks for them."""

from __future__ import annotations

from finetuned.domain.errors import FilesRemovedError
from finetuned.domain.job import Job


def require_files(job: Job) -> None:
    """Raise ``FilesRemovedError`` if the job's files were removed."""
    gone = job.files_removed
    if gone is not None:
        raise FilesRemovedError(
            f"The files of job {job.id} were removed: {gone['reason']}. Its events are there (`finetune show {job.id}`);"
            f" `finetune retry {job.id}` makes such files again."
        )
