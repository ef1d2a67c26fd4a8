"""The work of ``import-model``: copy a checked directory and register it."""

from __future__ import annotations

import shutil

from finetuned_models import directory
from finetuned_models.params import ImportModelParams
from finetuned_sdk import JobError, WorkerContext


def import_model(ctx: WorkerContext, params: ImportModelParams) -> None:
    """Copy the model's files into an artifact of the job and register it under ``params.name``."""
    ctx.phase("checking")
    found = directory.inspect(params.path)
    target = ctx.artifact_dir / "model"
    target.mkdir(parents=True)

    ctx.phase("copying")
    for done, file in enumerate(found.files, start=1):
        if ctx.stop_requested is not None:
            return
        try:
            shutil.copyfile(file, target / file.name)
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
