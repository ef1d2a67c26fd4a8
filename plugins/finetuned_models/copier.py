"""The work of ``import-model``: copy a checked directory and register it."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from finetuned_models import directory
from finetuned_models.params import ImportModelParams
from finetuned_sdk import JobError, WorkerContext

BLOCK: Final = 8 << 20  # bytes; each is a sign of work


def import_model(ctx: WorkerContext, params: ImportModelParams) -> None:
    """Copy the model's files into an artifact of the job and register it under ``params.name``."""
    ctx.phase("checking")
    found = directory.inspect(params.path)
    target = ctx.artifact_dir / "model"
    target.mkdir(parents=True)

    ctx.phase("copying")
    for done, file in enumerate(found.files, start=1):
        try:
            if not _copy(ctx, file, target / file.name):
                return
        except OSError as error:
            raise JobError(f"{file} cannot be copied ({error.strerror}); check the disk.") from error
        ctx.progress(current_step=done, total_steps=len(found.files), final=done == len(found.files))

    ctx.phase("saving")
    ctx.artifact(target, kind="model")
    ctx.model(
        target,
        name=params.name,
        base=found.base,
        kind=found.kind,
        source=found.path.name,
        architecture=found.architecture,
    )
    ctx.result(model=params.name)


def _copy(ctx: WorkerContext, source: Path, target: Path) -> bool:
    """Copy a file; ``False`` if the job was asked to stop meanwhile. Raises ``OSError``."""
    with source.open("rb") as read, target.open("wb") as written:
        while ctx.stop_requested is None:
            block = read.read(BLOCK)
            if not block:
                return True
            written.write(block)
            ctx.advancing()
    return False
