"""The declarations of ``import-gguf`` and ``import-model``. The daemon imports this module: no torch."""

from __future__ import annotations

from typing import Final

from finetuned_models import directory, source
from finetuned_models.params import ITEM_BYTES, MODEL_NAME, ImportGGUFParams, ImportModelParams
from finetuned_sdk import Estimate, Host, JobKind, RefusedError, Registry, Resources, hookimpl

# Quantised files hold four bits a weight and more, so this is the most that unpacking can grow them.
LEAST_BITS_A_WEIGHT: Final = 4
LIBRARIES_BYTES: Final = 600 << 20  # resident size of torch and transformers once imported


def check_gguf(params: ImportGGUFParams, host: Host) -> None:
    """Refuse a bad name, a file that is no GGUF, and a disk too small for the result."""
    _check_name(params.name, host, replace=params.replace)
    found = source.locate(params.file, params.member)
    _check_disk(host, _unpacked_bytes(params, found))


def check_model(params: ImportModelParams, host: Host) -> None:
    """Refuse a bad name, a directory that holds no whole model, and a disk too small for the copy."""
    _check_name(params.name, host, replace=params.replace)
    _check_disk(host, directory.inspect(params.path).size)


def estimate_gguf(params: ImportGGUFParams, host: Host) -> Estimate:
    """Upper bounds for disk and memory, from the file's size."""
    del host
    found = source.locate(params.file, params.member)
    unpacked = _unpacked_bytes(params, found)
    return Estimate(disk_bytes=unpacked, host_bytes=2 * unpacked + LIBRARIES_BYTES)


def estimate_model(params: ImportModelParams, host: Host) -> Estimate:
    """The size of the copy."""
    del host
    return Estimate(disk_bytes=directory.inspect(params.path).size)


def _no_device(params: ImportGGUFParams | ImportModelParams, host: Host) -> Resources:
    del params, host
    return Resources(devices=0)


def _unpacked_bytes(params: ImportGGUFParams, found: source.GGUFSource) -> int:
    weights = found.size * 8 // LEAST_BITS_A_WEIGHT
    copy = found.size if found.member else 0
    return weights * ITEM_BYTES[params.dtype] + copy


def _check_name(name: str, host: Host, *, replace: bool) -> None:
    if not MODEL_NAME.fullmatch(name):
        raise RefusedError(
            f"{name!r} cannot be a model's name: use up to 96 letters, digits, dots, dashes and underscores, "
            "beginning with a letter or digit.",
            param="name",
        )
    if name in host.models and not replace:
        raise RefusedError(
            f"A model named {name!r} is registered already; choose another name, or set replace=true.",
            param="name",
            code="name_taken",
        )


def _check_disk(host: Host, needed: int) -> None:
    if host.disk_free_bytes and host.disk_free_bytes < needed:
        raise RefusedError(
            f"The import may need {needed / 1e9:.1f} GB of disk and {host.disk_free_bytes / 1e9:.1f} GB are free; "
            "make room, or store a GGUF with dtype=bfloat16.",
            code="disk_full",
        )


@hookimpl
def finetuned_register(register: Registry) -> None:
    """Declare both kinds."""
    register.job_kind(
        JobKind(
            name="import-gguf",
            summary="Turn a GGUF file into a Hugging Face model directory and register it.",
            params=ImportGGUFParams,
            entry="finetuned_models.importer:import_gguf",
            check=check_gguf,
            path_params=("file",),
            resources=_no_device,
            estimate=estimate_gguf,
        )
    )
    register.job_kind(
        JobKind(
            name="import-model",
            summary="Copy a Hugging Face model or adapter directory and register it.",
            params=ImportModelParams,
            entry="finetuned_models.copier:import_model",
            check=check_model,
            path_params=("path",),
            resources=_no_device,
            estimate=estimate_model,
        )
    )
