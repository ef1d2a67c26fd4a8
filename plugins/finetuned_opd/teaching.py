"""Who teaches a job, as its parameters say it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from finetuned_opd import local_teacher, prepared, vocabulary
from finetuned_opd.chunked_loss import Head
from finetuned_opd.endpoint_teacher import EndpointTeacher
from finetuned_opd.head import head_of
from finetuned_opd.local_teacher import LocalTeacher, SelfTeacher
from finetuned_opd.params import OPDParams
from finetuned_opd.precomputed_teacher import PrecomputedTeacher
from finetuned_opd.score_cache import CachedTeacher, ScoreCache
from finetuned_opd.scores import Teacher
from finetuned_opd.vocabulary import Vocabulary
from finetuned_sdk import WorkerContext
from finetuned_training.model_hash import hash_of

DIRECTORY = "teacher-scores"


def teacher_of(
    ctx: WorkerContext, params: OPDParams, student: Any, tokenizer: Any, *, gpu: bool
) -> tuple[Teacher, Head | None]:
    """The job's teacher, behind the cache if there is one, and its head if it can give hidden states.

    ``student`` is asked itself where it teaches itself. A server is asked what it calls some of the ``tokenizer``'s tokens.
    Raises ``JobError`` if the teacher cannot be loaded or has another vocabulary, ``TeacherError`` if it cannot be asked.
    """
    if params.precomputed_scores:
        return PrecomputedTeacher(
            prepared.scored_file(ctx.dataset_path("dataset"), params.dataset_split)
        ), None
    if params.teacher_endpoint is not None:
        size = student.config.get_text_config().vocab_size
        server = endpoint(ctx, params, params.teacher_endpoint, size)
        probe = vocabulary.probe(tokenizer)
        vocabulary.require_texts(tokenizer, probe, server.texts(probe))
        return cached(ctx, params, server), None
    local = in_process(ctx, params, student, gpu=gpu)
    # A model that was not on disk when the job was checked is seen only now.
    logits = (Vocabulary(len(head.weight), None) for head in (head_of(student), local.head))
    vocabulary.require_same(*logits, full=params.compares_all)
    return cached(ctx, params, local), local.head


@contextmanager
def closed_after(teacher: Teacher) -> Iterator[None]:
    """Close the teacher's file in the end, if it has one."""
    try:
        yield
    finally:
        if isinstance(teacher, PrecomputedTeacher):
            teacher.close()


def in_process(
    ctx: WorkerContext, params: OPDParams, student: Any, *, gpu: bool
) -> LocalTeacher | SelfTeacher:
    """The model that is the teacher, or the student without its adapter."""
    if params.self_distillation:
        path = Path(ctx.model_path("model"))
        weights = hash_of([path], advancing=ctx.advancing) if path.is_dir() else None
        made_from = (weights, str(student.dtype), params.method)
        identity = None if made_from[0] is None else hashlib.sha256(repr(made_from).encode()).hexdigest()
        return SelfTeacher(student, identity=identity)
    return local_teacher.load(
        ctx.model_path("teacher"),
        gpu=gpu,
        adapter=None if params.teacher_adapter is None else ctx.model_path("teacher_adapter"),
        four_bit=params.teacher_in_4bit,
        trust_remote_code=params.trust_remote_code,
        advancing=ctx.advancing,
    )


def endpoint(ctx: WorkerContext, params: OPDParams, url: str, vocabulary_size: int) -> EndpointTeacher:
    """The server that is the teacher."""
    return EndpointTeacher(
        url,
        params.teacher_model or "",
        secret=None if params.teacher_api_key is None else ctx.secret(params.teacher_api_key),
        vocab_size=vocabulary_size,
        revision=params.teacher_revision,
        timeout_s=params.teacher_timeout_s,
        is_stopped=lambda: ctx.stop_requested is not None,
        advancing=ctx.advancing,
    )


def cached(ctx: WorkerContext, params: OPDParams, teacher: Teacher) -> Teacher:
    """The teacher behind the cache that all jobs share, unless the job wants none."""
    limit = int(params.teacher_cache_gb * 1e9)
    return CachedTeacher(teacher, ScoreCache(ctx.cache_dir / DIRECTORY, limit)) if limit else teacher
