"""What a worker tells of the error that ended its work."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any, NoReturn

import pytest

from finetuned_sdk import JobError, PauseError, RefusedError, RowProblem, worker_failures
from finetuned_sdk.errors import BadDatasetError
from finetuned_sdk.spool import Fact, encode
from finetuned_sdk.worker_failures import describe


class OutOfMemoryError(RuntimeError):
    """Named as torch's."""


@pytest.mark.parametrize(
    ("error", "code", "retryable"),
    [
        (JobError("No."), "job_error", False),
        (JobError("No.", code="special"), "special", False),
        (MemoryError(), "out_of_memory", True),
        (OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB.\nmore"), "out_of_memory", True),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: 9 bytes"), "out_of_memory", True),
        (ModuleNotFoundError("No module named 'torch'"), "missing_dependency", False),
        (RuntimeError("shape mismatch\nlong text"), "worker_error", True),
        (KeyboardInterrupt(), "worker_error", True),
    ],
)
def test_each_error_becomes_one_sentence_with_a_code(
    error: BaseException, code: str, retryable: bool
) -> None:
    data = describe(error)
    assert (data["code"], data["retryable"]) == (code, retryable)
    assert "\n" not in data["message"]
    assert data["message"]


def test_a_bad_dataset_names_its_rows() -> None:
    error = BadDatasetError("d.jsonl", [RowProblem(3, "no answer")], remedy="Add one.")
    data = describe(error)
    assert data["problems"] == [{"row": 3, "reason": "no answer"}]
    assert data["total"] == 1


def test_only_what_can_go_on_later_pauses_its_job() -> None:
    data = describe(PauseError("The teacher does not answer.", code="teacher_unavailable"))
    assert (data["code"], data["retryable"], data["pauses"]) == ("teacher_unavailable", False, True)
    assert "pauses" not in describe(JobError("No."))


def test_a_refusal_names_the_parameter() -> None:
    assert describe(RefusedError("No.", param="steps"))["param"] == "steps"


@pytest.mark.parametrize(
    "error",
    [
        JobError("ä" * 1_000_000, code="c" * 10_000),
        RuntimeError("x" * 1_000_000),
        MemoryError("x" * 1_000_000),
        ImportError("x" * 1_000_000),
        RefusedError("x" * 1_000_000, param="p" * 10_000),
    ],
)
def test_an_error_is_told_in_a_few_kilobytes_however_long_it_is(error: BaseException) -> None:
    data = describe(error)
    assert len(data["message"].encode()) <= 4096
    assert "…" in data["message"]
    assert len(encode(Fact(1, "error", 1, data))) < 5000


def test_a_hundred_long_problems_of_a_dataset_fit_into_a_line() -> None:
    problems = [RowProblem(row, "x" * 100_000) for row in range(1000)]
    data = describe(BadDatasetError("d" * 10_000, problems, remedy="Mend them."))
    assert (len(data["problems"]), data["total"]) == (100, 1000)
    assert len(encode(Fact(1, "error", 1, data))) < 100_000


def test_a_message_that_is_no_text_becomes_one() -> None:
    mistake: Any = Path("/x")
    assert describe(JobError(mistake))["message"] == "/x"


# ---- memory ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("CUDA error: out of memory\nCUDA kernel errors might be reported asynchronously"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
        RuntimeError("Error out of memory at line 383 in file /src/csrc/pythonInterface.cpp"),
        RuntimeError("[enforce fail at alloc_cpu.cpp:127] . DefaultCPUAllocator: can't allocate memory"),
        RuntimeError("std::bad_alloc"),
        OSError(errno.ENOMEM, "Cannot allocate memory"),
    ],
    ids=["cuda", "cublas", "cudnn", "bitsandbytes", "cpu", "c++", "fork"],
)
def test_each_way_of_running_out_of_memory_is_told_as_such(error: Exception) -> None:
    data = describe(error)
    assert (data["code"], data["retryable"]) == ("out_of_memory", True)
    assert "Lower per_device_train_batch_size" in data["message"]


def raised(inner: Exception, *, cause: bool) -> Exception:
    """An error that hides another one, as its cause or as what was being handled."""
    outer = RuntimeError("Caught an error in replica 0")

    def hide() -> NoReturn:
        try:
            raise inner
        except Exception as error:
            if cause:
                raise outer from error
            raise outer  # noqa: B904 - that is what is tested

    with pytest.raises(RuntimeError) as caught:
        hide()
    return caught.value


@pytest.mark.parametrize("cause", [True, False])
@pytest.mark.parametrize(
    ("inner", "code"),
    [
        (OutOfMemoryError("CUDA out of memory."), "out_of_memory"),
        (OSError(errno.ENOSPC, "No space left on device"), "disk_full"),
    ],
)
def test_the_error_behind_an_error_counts(inner: Exception, code: str, *, cause: bool) -> None:
    assert describe(raised(inner, cause=cause))["code"] == code


def test_errors_that_name_each_other_in_a_circle_are_told() -> None:
    one, other = RuntimeError("one"), RuntimeError("other")
    one.__cause__, other.__cause__ = other, one
    assert describe(one)["code"] == "worker_error"


# ---- disk ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_is_told_with_what_is_free_and_what_to_do(number: int, tmp_path: Path) -> None:
    data = describe(OSError(number, os.strerror(number), str(tmp_path / "weights")), directory=Path("/"))
    assert (data["code"], data["retryable"]) == ("disk_full", True)
    assert f"MB are free at {tmp_path}" in data["message"]
    assert "Make room" in data["message"]


def test_a_full_disk_is_told_where_nobody_knows_how_full_it_is() -> None:
    gone = Path("/nowhere/at/all")
    message = describe(OSError(errno.ENOSPC, "No space left"), directory=gone)["message"]
    assert "free at" not in message
    assert "Make room" in message


def full_disk_error(write: Any) -> Exception:
    with pytest.raises(Exception) as caught:  # which one it is differs between libraries
        write()
    return caught.value


def test_what_the_libraries_raise_on_a_full_disk_is_recognised() -> None:
    """``/dev/full`` refuses every write as a full disk does."""
    pyarrow = pytest.importorskip("pyarrow")

    def arrow() -> None:
        with pyarrow.OSFile("/dev/full", "wb") as file:
            file.write(b"x" * 100)

    def python() -> None:
        with Path("/dev/full").open("w") as file:
            file.write("x")

    assert describe(full_disk_error(arrow))["code"] == "disk_full"
    assert describe(full_disk_error(python))["code"] == "disk_full"
    quoted = Exception("Error while serializing: I/O error: No space left on device (os error 28)")
    assert describe(quoted)["code"] == "disk_full"  # safetensors and tokenizers: their writers are Rust


@pytest.mark.torch
def test_torchs_own_writer_is_believed_only_if_the_disk_is_full(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch

    error = full_disk_error(lambda: torch.save(torch.zeros(100_000), "/dev/full"))
    monkeypatch.setattr(worker_failures, "_free_bytes", lambda _: 1 << 20)
    assert describe(error, directory=tmp_path)["code"] == "disk_full"
    monkeypatch.setattr(worker_failures, "_free_bytes", lambda _: 1 << 40)
    assert describe(error, directory=tmp_path)["code"] == "worker_error"
    monkeypatch.setattr(worker_failures, "_free_bytes", lambda _: None)
    assert describe(error, directory=tmp_path)["code"] == "worker_error"
