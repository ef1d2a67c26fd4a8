"""What a job will take, from the headers of the model's files, the longest row and the parameters. No tensor is read.

``docs/reference/estimates.md`` has the formula with its sources, ``docs/benchmarks.md`` what was measured beside it.
"""

from __future__ import annotations

from finetuned_sdk import Estimate, Host
from finetuned_sdk.retention import Retention
from finetuned_training.adapter_shape import Adapter, adapter_of
from finetuned_training.local_path import local_path
from finetuned_training.model_shape import Shape, shape_of
from finetuned_training.params import TrainingParams
from finetuned_training.row_lengths import longest_row
from finetuned_training.settings import ALL_LINEAR, Resolved, resolve

ADAM_BYTES = 8  # two float32 moments
FLOAT32, HALF, NF4 = 4.0, 2.0, 0.52  # bytes a weight; NF4 with double quantisation (arXiv 2305.14314)
GPU_BASE = 1 << 30  # CUDA's context, kernels and the allocator's slack
CPU_PROCESS = (
    600_000_000  # interpreter, torch, transformers, trl and the tokenizer: measured, torch's build for CPUs
)
GPU_PROCESS = 2_000_000_000  # the same with the libraries of CUDA
LOADER_PROCESS = 50_000_000  # what one process that makes batches has to itself: measured
HEAD_TOKENS, HEAD_WIDTH = 4096, 32_768  # TRL makes logits in tiles of so many tokens and words …
HEAD_TILES = {
    "cpu": 8.25,
    "gpu": 2.0,
}  # … and has so many of them at once: torch's operations, or its kernels
HEAP_HOLES = 1.5  # outputs of linear layers that the C library's heap keeps when they were freed: measured


def estimate(params: TrainingParams, host: Host) -> Estimate:
    """Memory and disk, in bytes. ``None`` for a model that is not on this machine's disk. Time is not known.

    A batch that the trainer finds by itself fits by being found: the largest up to the usual one that does counts.
    """
    if not params.finds_batch:
        return estimate_of(params, host)
    batches = [rows for rows in range(params.rows_a_pass, 0, -1) if params.rows_a_step % rows == 0]
    found = (estimate_of(params.with_batch(rows), host) for rows in batches)
    return next((each for each in found if fits(each, host)), estimate_of(params.with_batch(1), host))


def fits(found: Estimate, host: Host) -> bool:
    """Whether the machine has the memory at all, as far as both are known."""
    devices = [device.memory_bytes for device in host.devices if device.kind == "gpu"]
    return not (devices and (found.device_bytes or 0) > max(devices)) and not (
        host.memory_bytes and (found.host_bytes or 0) > host.memory_bytes
    )


def estimate_of(params: TrainingParams, host: Host, *, length: int | None = None) -> Estimate:
    """What :func:`estimate` says of a batch that is given, its rows of ``length`` tokens if the dataset does not tell."""
    gpu = host.has_gpu
    settings = settings_on(params, host)
    try:
        shape = shape_of(host.models.get(params.model) or local_path(params.model))
        adapter = adapter_of(params, settings, host)
    except (OSError, ValueError, KeyError):
        return Estimate()
    if length is None:
        length = row_length(params, host)
    parts = training_bytes(params, settings, shape, adapter, gpu=gpu, length=length)
    loaders = settings.dataloader_num_workers * LOADER_PROCESS
    if gpu:
        parts["base"] = GPU_BASE
        host_bytes = GPU_PROCESS + loaders + shape.weights * HALF
    else:
        parts |= {"loaders": loaders, "base": CPU_PROCESS}
        host_bytes = sum(parts.values())
    breakdown = {name: int(size) for name, size in parts.items()}
    return Estimate(
        device_bytes=sum(breakdown.values()) if gpu else None,
        host_bytes=int(host_bytes) if gpu else sum(breakdown.values()),
        disk_bytes=int(disk_bytes(params, settings, shape, adapter)),
        breakdown=breakdown,
    )


def settings_on(params: TrainingParams, host: Host) -> Resolved:
    """What is left open in the parameters, as this host fills it in."""
    return resolve(params, cpu_count=host.cpu_count, gpu=host.has_gpu, bf16_supported=host.has_gpu)


def row_length(params: TrainingParams, host: Host) -> int:
    """Tokens of the longest row of a batch: the parameter, unless all rows of a file are shorter. Packed rows are not."""
    longest = None if params.packs else longest_row(host.dataset(params.dataset), params.row_bytes)
    return params.max_length if longest is None else min(params.max_length, longest)


def trained_weights(shape: Shape, adapter: Adapter | None) -> int:
    """Weights that the optimizer moves."""
    if adapter is None:
        return shape.weights
    widths = shape.adapted(adapter.targets)
    return adapter.rank * (widths.inputs + widths.outputs)


def disk_bytes(params: TrainingParams, settings: Resolved, shape: Shape, adapter: Adapter | None) -> float:
    """Checkpoints that are kept, one being written, and what is published; merged, it has the type that is stored."""
    trained = trained_weights(shape, adapter)
    kept = checkpoints_kept(params, settings) + 1 + settings.load_best_model_at_end
    merged = shape.stored_bytes if params.merge_adapter else 0
    return kept * trained * (FLOAT32 + ADAM_BYTES) + trained * FLOAT32 + merged


def checkpoints_kept(params: TrainingParams, settings: Resolved) -> int:
    """How many checkpoints lie there at most, beside the one to go back to: by limit, or as the callback keeps them."""
    if settings.save_total_limit is not None:
        return settings.save_total_limit
    rule = next((callback.params for callback in params.callbacks if callback.name == "checkpoint"), {})
    asked = [rule.get("last", Retention().last), rule.get("best", Retention().best)]
    return max(1, sum(count for count in asked if isinstance(count, int)))


def training_bytes(
    params: TrainingParams,
    settings: Resolved,
    shape: Shape,
    adapter: Adapter | None,
    *,
    gpu: bool,
    length: int,
) -> dict[str, float]:
    """Bytes by part at the highest point of a step, with every row of the batch ``length`` tokens long.

    That is either in the backward pass, when it begins (activations and logits are there, gradients are not) or when
    it ends (the other way round): each part counts as it is then.
    """
    wide = HALF if gpu and (settings.bf16 or settings.fp16) else FLOAT32
    tokens = params.rows_a_pass * params.sequences_a_row * length
    trained = trained_weights(shape, adapter)
    activations = tokens * wide * kept_a_token(settings, shape, adapter, length, gpu=gpu)
    tiles = HEAD_TILES["gpu" if gpu else "cpu"]
    logits = tiles * wide * min(tokens, HEAD_TOKENS) * min(shape.vocabulary, HEAD_WIDTH)
    gradients = trained * FLOAT32
    if adapter is None:  # of the head and of the embedding, which a batch's first word makes whole
        early = min(gradients, 2 * FLOAT32 * shape.vocabulary * shape.hidden)
        if gradients > early + activations + logits:
            activations = logits = 0.0
        else:
            gradients = early
    return {
        "weights": weight_bytes(params, shape, trained, wide),
        "gradients": gradients,
        "optimizer": trained * (2 if "8bit" in settings.optim else ADAM_BYTES),
        "activations": activations,
        "logits": logits,
    }


def weight_bytes(params: TrainingParams, shape: Shape, trained: int, wide: float) -> float:
    """The model and its adapter, as they are loaded, and the model that it is compared with if that is kept beside it."""
    if params.method == "full":
        return shape.weights * FLOAT32 * (2 if params.keeps_reference else 1)
    if params.method == "qlora":
        quantised = shape.linear_weights * NF4 + (shape.weights - shape.linear_weights) * wide
        return quantised + trained * FLOAT32
    return shape.weights * wide + trained * FLOAT32


def kept_a_token(
    settings: Resolved, shape: Shape, adapter: Adapter | None, length: int, *, gpu: bool
) -> float:
    """Numbers that all layers together keep of one token for the backward pass.

    The attention's and the MLP's inputs, their normed forms, the heads' queries, keys, values and outputs, and four
    of the MLP's width; adapters with dropout keep what they dropped of each input, and the mask. On a CPU outputs
    that were freed leave holes between what is kept, where layers have adapters or are computed again.
    """
    layer = (7.0 if adapter is None else 5.0) * shape.hidden + 3 * shape.attention + 4 * shape.inner + length
    kept = shape.layers * layer
    adapted = None if adapter is None else shape.adapted(adapter.targets)
    if adapter is not None and adapted is not None and adapter.dropout > 0:
        kept += 1.5 * adapted.inputs
    freed = shape.adapted(ALL_LINEAR) if settings.gradient_checkpointing else adapted
    holes = 0.0 if gpu or freed is None else HEAP_HOLES * freed.outputs
    if settings.gradient_checkpointing:
        return shape.layers * shape.hidden + kept / shape.layers + holes
    return kept + holes
