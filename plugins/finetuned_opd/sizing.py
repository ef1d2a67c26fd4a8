"""What a distillation will take: the student's training, and beside it the teacher and the sampler's cache. No tensor is read."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from finetuned_opd.params import OPDParams
from finetuned_sdk import Estimate, Host
from finetuned_training.estimate import FLOAT32, HALF, NF4, estimate_of, settings_on
from finetuned_training.local_path import local_path
from finetuned_training.model_shape import CONFIG, Shape, shape_of
from finetuned_training.row_lengths import longest_row
from finetuned_training.small_json import read_object

CHUNKS = 5  # of [chunk, vocabulary] float32 that the loss has at once: logits and log-probabilities of both, a gradient
CHUNK = 128


def estimate(params: OPDParams, host: Host) -> Estimate:
    """Memory and disk, in bytes. ``None`` for a model that is not on this machine's disk. Time is not known."""
    longest = longest_row(host.dataset(params.dataset))
    room = params.max_length if longest is None else min(params.max_length, longest + params.new_tokens)
    found = estimate_of(params, host, length=room)
    student = _shape(params.model, host)
    if student is None or not found.breakdown:
        return found
    gpu = host.has_gpu
    parts = {
        "teacher": teacher_bytes(params, host, gpu=gpu),
        "sampling": sampling_bytes(params, student, host, length=room, gpu=gpu),
        "logits": CHUNKS * CHUNK * student.vocabulary * FLOAT32 - found.breakdown.get("logits", 0),
    }
    more = int(sum(parts.values()))
    breakdown = dict(found.breakdown)
    for name, size in parts.items():
        breakdown[name] = breakdown.get(name, 0) + int(size)
    return replace(
        found,
        device_bytes=None if found.device_bytes is None else found.device_bytes + more,
        host_bytes=None if found.host_bytes is None else found.host_bytes + (0 if gpu else more),
        disk_bytes=None if found.disk_bytes is None else found.disk_bytes + cache_bytes(params),
        breakdown={name: size for name, size in breakdown.items() if size},
    )


def teacher_bytes(params: OPDParams, host: Host, *, gpu: bool) -> float:
    """The teacher's weights, if they are loaded beside the student's."""
    shape = None if params.teacher is None else _shape(params.teacher, host)
    if shape is None:
        return 0.0
    wide = HALF if gpu else FLOAT32
    if params.teacher_in_4bit:
        return shape.linear_weights * NF4 + (shape.weights - shape.linear_weights) * wide
    return shape.weights * wide


def sampling_bytes(params: OPDParams, shape: Shape, host: Host, *, length: int, gpu: bool) -> float:
    """Keys and values of a window's rows while they are sampled, as the configuration has them."""
    if params.precomputed_scores:
        return 0.0
    settings = settings_on(params, host)
    wide = HALF if gpu and (settings.bf16 or settings.fp16) else FLOAT32
    rows = params.rows_a_step
    return 2.0 * rows * length * shape.layers * _key_width(params, shape, host) * wide


def cache_bytes(params: OPDParams) -> int:
    """Disk that the scores may take, at most; what is there already counts, too."""
    return 0 if params.precomputed_scores else int(params.teacher_cache_gb * 1e9)


def _key_width(params: OPDParams, shape: Shape, host: Host) -> int:
    """The width of all key heads together; that of the queries' where the configuration does not tell."""
    try:
        config = read_object((host.models.get(params.model) or local_path(params.model)) / CONFIG)
        return shape.attention * int(config["num_key_value_heads"]) // int(config["num_attention_heads"])
    except (OSError, ValueError, KeyError, TypeError, ZeroDivisionError):
        return shape.attention


def _shape(name: str, host: Host) -> Shape | None:
    path: Path = host.models.get(name) or local_path(name)
    try:
        return shape_of(path)
    except (OSError, ValueError, KeyError):
        return None
