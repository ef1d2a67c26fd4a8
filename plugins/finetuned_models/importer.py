"""The work of ``import-gguf``: GGUF in, Hugging Face directory out. Runs in a worker.

transformers reads the file and dequantises it; this module spares it the repetitions, watches that no weight
is missing, and publishes the result.
"""

from __future__ import annotations

import functools
import hashlib
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from finetuned_models import source
from finetuned_models.params import ImportGGUFParams
from finetuned_sdk import JobError, WorkerContext


class _StoppedError(Exception):
    """The daemon asked the worker to stop."""


def import_gguf(ctx: WorkerContext, params: ImportGGUFParams) -> None:
    """Import ``params.file`` as a model directory in ``params.dtype`` and register it under ``params.name``.

    Raises ``JobError`` if transformers cannot read the architecture, or if the file lacks weights.
    """
    ctx.phase("unpacking")
    found = source.locate(params.file, params.member)
    gguf_file = source.unpack(found, ctx.work_dir / "gguf")
    with gguf_file.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()

    ctx.phase("loading_libraries")
    os.environ.setdefault("TQDM_DISABLE", "1")  # the log is no terminal; must be set before the import
    import transformers

    transformers.utils.logging.disable_progress_bar()
    steps = found.tensors + 2  # the tokenizer, each tensor, the saving
    ctx.progress(current_step=0, total_steps=steps)

    def converted(tensors: int) -> None:
        if ctx.stop_requested is not None:
            raise _StoppedError
        ctx.progress(current_step=1 + min(tensors, found.tensors), total_steps=steps)

    target = ctx.artifact_dir / "model"
    try:
        with _read_once(converted) as names:
            ctx.phase("converting_tokenizer")
            tokenizer = _load_tokenizer(gguf_file)
            ctx.progress(current_step=1, total_steps=steps)

            ctx.phase("converting_weights")
            model = _load_model(gguf_file, params.dtype)
    except _StoppedError:
        return

    ctx.phase("saving")
    model.config.name_or_path = params.name
    model.save_pretrained(target)
    tokenizer.save_pretrained(target)
    gguf_file.unlink()
    if tokenizer.chat_template is None:
        ctx.advice(
            "file",
            f"{found.name} carries no chat template: train it on prompt/completion or text rows, or put a "
            "chat_template.jinja into the model's directory.",
        )
    if "rope_freqs.weight" in names:
        ctx.advice(
            "file",
            f"{found.name} scales its rotary embedding (rope_freqs.weight, as Llama 3 does), which transformers "
            "does not read from a GGUF: for prompts beyond the original context import the original model "
            "with import-model.",
        )
    ctx.artifact(target, kind="model")
    parameters = sum(parameter.numel() for parameter in model.parameters())
    ctx.model(
        target,
        name=params.name,
        base=None,
        kind="full",
        source=found.name,
        source_sha256=digest,
        architecture=model.config.model_type,
        parameters=parameters,
        dtype=params.dtype,
    )
    ctx.result(
        model=params.name, parameters=parameters, architecture=model.config.model_type, source_sha256=digest
    )
    ctx.progress(current_step=steps, total_steps=steps, final=True)


def _load_tokenizer(gguf_file: Path) -> Any:
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(str(gguf_file.parent), gguf_file=gguf_file.name)
    except (ValueError, KeyError, NotImplementedError, OSError) as error:
        raise JobError(
            f"The tokenizer of {gguf_file.name} cannot be converted ({error}); import the original model's "
            "directory with import-model instead.",
            code="unsupported_gguf",
        ) from error
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def _load_model(gguf_file: Path, dtype: str) -> Any:
    import torch
    from transformers import AutoModelForCausalLM, GgufConfig

    try:
        # dequantize=True even where transformers would do it anyway: else the model counts as quantised and
        # save_pretrained refuses it.
        model, loading = AutoModelForCausalLM.from_pretrained(
            str(gguf_file.parent),
            gguf_file=gguf_file.name,
            dtype=getattr(torch, dtype),
            quantization_config=GgufConfig(dequantize=True),
            output_loading_info=True,
        )
    except (ValueError, KeyError, NotImplementedError, OSError) as error:
        raise JobError(
            f"The weights of {gguf_file.name} cannot be converted ({error}); import the original model's "
            "directory with import-model instead.",
            code="unsupported_gguf",
        ) from error
    missing = sorted([*loading["missing_keys"], *loading["mismatched_keys"]])
    if missing:  # transformers would go on with random numbers in their place
        raise JobError(
            f"{gguf_file.name} lacks {len(missing)} weights of the model ({', '.join(map(str, missing[:3]))}, …); "
            "get the file again, or another conversion of it.",
            code="incomplete_gguf",
        )
    return model


@contextmanager
def _read_once(converted: Callable[[int], None]) -> Iterator[set[str]]:
    """Let transformers parse the file and build llama.cpp's table of names once, and report each tensor.

    It parses the whole file, vocabulary included, for the tokenizer, the config and the weights, and builds
    the table anew for every module of the model. Both depend on their arguments only, so remembering them
    changes nothing but the time: 8 s instead of 21 s for a model of 135 M parameters. Yields the names of
    the file's tensors, once it was parsed.
    """
    import gguf
    import numpy as np

    tensors = 0
    names: set[str] = set()
    dequantize = gguf.dequantize

    class PlainReader(gguf.GGUFReader):
        """A reader over a plain array: numpy's memmap pays for each of the millions of small slices."""

        @property
        def data(self) -> Any:
            return self._data

        @data.setter
        def data(self, mapped: Any) -> None:
            self._data = mapped.view(np.ndarray)

    def parsed(*args: Any, **kwargs: Any) -> Any:
        reader = PlainReader(*args, **kwargs)
        names.update(tensor.name for tensor in reader.tensors)
        return reader

    def counted(*args: Any, **kwargs: Any) -> Any:
        nonlocal tensors
        tensors += 1
        converted(tensors)
        return dequantize(*args, **kwargs)

    originals = {name: getattr(gguf, name) for name in ("GGUFReader", "get_tensor_name_map", "dequantize")}
    gguf.GGUFReader = functools.lru_cache(1)(parsed)
    gguf.get_tensor_name_map = functools.lru_cache(1)(gguf.get_tensor_name_map)
    gguf.dequantize = counted
    try:
        yield names
    finally:
        for name, value in originals.items():
            setattr(gguf, name, value)
