"""How a worker tells what ended its work: a stable code, a sentence with the remedy, and whether a retry may help."""

from __future__ import annotations

import errno
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from finetuned_sdk.errors import BadDatasetError, JobError, PauseError, RefusedError
from finetuned_sdk.fields import NAME_LIMIT, short

LINE_LIMIT: Final = 3500  # bytes of an error's first line; with what is said around it about 4 KiB
REASON_LIMIT: Final = 500  # bytes of what is wrong with a row
CHAIN: Final = 20  # errors behind an error that are looked at

#: how libraries say that memory ran out: torch on a GPU and on the CPU, CUDA's libraries, bitsandbytes, the kernel
_NO_MEMORY: Final = re.compile(
    r"CUDA out of memory|CUDA error: out of memory|cudaErrorMemoryAllocation|CUDA_ERROR_OUT_OF_MEMORY"
    r"|HIP out of memory|XPU out of memory|MPS backend out of memory"
    r"|CU(BLAS|DNN|SPARSE|SOLVER|FFT)_(STATUS_)?ALLOC_FAILED|Error out of memory at line"
    r"|can't allocate memory|not enough memory: you tried to allocate|std::bad_alloc"
)
#: how libraries that are not Python say that the disk is full: safetensors, tokenizers and pyarrow quote the system
_NO_SPACE: Final = re.compile(
    r"No space left on device|Disk quota exceeded|os error (28|122)\b|\[errno (28|122)\]"
)
#: torch's own writer of files says only that it failed; it is the disk's fault if the disk is full
_TORCH_WRITER: Final = re.compile(
    r"PytorchStreamWriter failed|inline_container\.cc|unexpected pos \d+ vs \d+"
)
_FULL_BELOW: Final = 64 << 20  # bytes free


def describe(error: BaseException, *, directory: Path | None = None) -> dict[str, Any]:
    """The data of an error fact. ``directory`` is where the worker writes: a full disk is told with its free bytes.

    Texts are cut at a few KiB: an error may quote a whole file.
    """
    name = type(error).__name__
    if isinstance(error, JobError):
        return {
            "code": short(str(error.code), NAME_LIMIT),
            "message": short(str(error.message)),
            "retryable": False,
            **_details(error),
        }
    if is_disk_full(error, directory=directory):
        return {
            "code": "disk_full",
            "message": f"The disk is full ({name}: {_first_line(error)}){_free(error, directory)}. Make room, or"
            " keep fewer checkpoints (save_total_limit); the job goes on from its newest one.",
            "retryable": True,
        }
    if is_out_of_memory(error):
        return {
            "code": "out_of_memory",
            "message": f"Out of memory ({name}: {_first_line(error)}). Lower per_device_train_batch_size or"
            " max_length, or raise gradient_accumulation_steps instead of the batch size.",
            "retryable": True,
        }
    if isinstance(error, ImportError):
        return {
            "code": "missing_dependency",
            "message": f"{_first_line(error)}. Install what the job kind needs into the worker's environment"
            " (for the trainers: pip install 'finetuned[train]').",
            "retryable": False,
        }
    return {
        "code": "worker_error",
        "message": f"{name}: {_first_line(error)}" if str(error) else f"{name} without a message",
        "retryable": True,
    }


def is_out_of_memory(error: BaseException) -> bool:
    """Whether memory ran out, of a device or of the host, also behind another error."""
    return any(
        isinstance(each, MemoryError)
        or type(each).__name__ == "OutOfMemoryError"
        or (isinstance(each, OSError) and each.errno == errno.ENOMEM)
        or (isinstance(each, RuntimeError) and _NO_MEMORY.search(str(each)) is not None)
        for each in _behind(error)
    )


def is_disk_full(error: BaseException, *, directory: Path | None = None) -> bool:
    """Whether there was no room for what was written (or no quota), also behind another error."""
    for each in _behind(error):
        if isinstance(each, OSError) and each.errno in {errno.ENOSPC, errno.EDQUOT}:
            return True
        if _NO_SPACE.search(str(each)):
            return True
        if _TORCH_WRITER.search(str(each)) and directory is not None:
            free = _free_bytes(directory)
            return free is not None and free < _FULL_BELOW
    return False


def _behind(error: BaseException) -> Iterator[BaseException]:
    """The error and those that it was raised from or in the handling of."""
    each: BaseException | None = error
    for _ in range(CHAIN):
        if each is None:
            return
        yield each
        each = each.__cause__ or (None if each.__suppress_context__ else each.__context__)


def _free(error: BaseException, directory: Path | None) -> str:
    """How much is free where the error came from, as far as that is known."""
    names = [each.filename for each in _behind(error) if isinstance(each, OSError) and each.filename]
    for place in [
        *(Path(os.fsdecode(name)).parent for name in names if not isinstance(name, int)),
        directory,
    ]:
        free = None if place is None else _free_bytes(place)
        if free is not None:
            return f"; {free / 1e6:,.1f} MB are free at {place}"
    return ""


def _free_bytes(directory: Path) -> int | None:
    try:
        return shutil.disk_usage(directory).free
    except OSError:
        return None


def _details(error: JobError) -> dict[str, Any]:
    if isinstance(error, BadDatasetError):
        problems = [
            {"row": problem.row, "reason": short(str(problem.reason), REASON_LIMIT)}
            for problem in error.problems
        ]
        return {"path": short(str(error.path)), "problems": problems, "total": error.total}
    if isinstance(error, PauseError):
        return {"pauses": True}
    if isinstance(error, RefusedError):
        return {"param": None if error.param is None else short(str(error.param), NAME_LIMIT)}
    return {}


def _first_line(error: BaseException) -> str:
    return short(next(iter(str(error).strip().splitlines()), ""), LINE_LIMIT)
