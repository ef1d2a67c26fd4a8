"""Loading a model, and how much of it fits."""

from __future__ import annotations

from typing import Any, Final

import psutil
import torch
from safetensors import SafetensorError
from transformers import AutoModelForCausalLM, AutoTokenizer
from transformers.utils import logging as libraries_log

from finetuned_sdk import JobError, WorkerContext
from finetuned_training.model import holds_gpu
from finetuned_transformers.decoder import Decoder
from finetuned_transformers.engine import Loaded
from finetuned_transformers.forward_decoder import ForwardDecoder
from finetuned_transformers.packed_decoder import packed_decoder
from finetuned_transformers.params import TransformersParams

_OF_HOST, _OF_GPU = 0.25, 0.8  # shares of the free memory that the cache may fill
_LONGEST: Final = 8192  # tokens of a context where neither the model nor anybody else says


def load(ctx: WorkerContext, params: TransformersParams) -> Loaded:
    """Raises ``JobError`` for what cannot be loaded."""
    if params.trust_remote_code and not ctx.allow_remote_code:
        raise JobError(
            "This daemon does not run code from model repositories; ask its operator to set trust_remote_code in "
            "its configuration, or drop it from the engine's options.",
            code="remote_code_not_allowed",
        )
    libraries_log.disable_progress_bar()  # the log is for lines
    gpu = holds_gpu(ctx)
    path = ctx.model_path("model")
    return loaded(_model(path, params, gpu=gpu), _tokenizer(path, params), params)


def loaded(model: Any, tokenizer: Any, params: TransformersParams) -> Loaded:
    """A model and its tokenizer, ready to generate. The model is the decoder's from now on."""
    if getattr(model, "_is_stateful", False) or model.config.is_encoder_decoder:
        raise JobError(
            f"The engine transformers cannot compute a {type(model).__name__}, which keeps a state of its own in place of "
            "keys and values; ask another engine.",
            code="architecture_unsupported",
        )
    model.eval()
    stop_ids = _stop_ids(model, tokenizer)
    length = _length(model, params)
    most_tokens = params.cache_tokens or max(16, min(_tokens_that_fit(model), params.at_once * length))
    length = min(length, most_tokens)
    vocabulary = model.get_input_embeddings().weight.shape[0]
    decoder: Decoder | None = None
    if params.packed:
        decoder = packed_decoder(model, length=length, most_tokens=most_tokens)
    return Loaded(
        decoder=decoder or ForwardDecoder(model),
        tokenizer=tokenizer,
        vocabulary=vocabulary,
        stop_ids=stop_ids,
        length=length,
        most_tokens=most_tokens,
        at_once=params.at_once,
        max_loras=params.max_loras,
    )


def _model(path: str, params: TransformersParams, *, gpu: bool) -> Any:
    half = torch.bfloat16 if gpu and torch.cuda.is_bf16_supported() else torch.float32
    dtype = half if params.dtype == "auto" else getattr(torch, params.dtype)
    try:
        model = AutoModelForCausalLM.from_pretrained(
            path, dtype=dtype, trust_remote_code=params.trust_remote_code
        )
    except (
        OSError,
        ValueError,
        RuntimeError,
        SafetensorError,
    ) as error:  # RuntimeError: other shapes than config.json
        raise _cannot_load("model", params, error) from error
    return model.to("cuda") if gpu else model


def _tokenizer(path: str, params: TransformersParams) -> Any:
    try:
        return AutoTokenizer.from_pretrained(path, trust_remote_code=params.trust_remote_code)
    except (OSError, ValueError) as error:
        raise _cannot_load("tokenizer", params, error) from error


def _cannot_load(what: str, params: TransformersParams, error: Exception) -> JobError:
    reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
    return JobError(
        f"The {what} of {params.model} cannot be loaded: {reason}. Check that the directory is complete, or that this "
        "machine may reach the hub.",
        code=f"{what}_unloadable",
    )


def _stop_ids(model: Any, tokenizer: Any) -> frozenset[int]:
    """Tokens that end a text, by whoever says so: the model for its generation, or its tokenizer."""
    said = [getattr(model.generation_config, "eos_token_id", None), tokenizer.eos_token_id]
    lists = [each if isinstance(each, list) else [each] for each in said]
    return frozenset(token for each in lists for token in each if token is not None)


def _length(model: Any, params: TransformersParams) -> int:
    own = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    limits = [each for each in (own, params.max_context) if each]
    return min(limits) if limits else _LONGEST


def _tokens_that_fit(model: Any) -> int:
    device = model.get_input_embeddings().weight.device
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        return int(free * _OF_GPU) // _token_bytes(model)
    return int(psutil.virtual_memory().available * _OF_HOST) // _token_bytes(model)


def _token_bytes(model: Any) -> int:
    """What the keys and values of a token take."""
    config = model.config.get_text_config()
    heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
    head_dim = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    element: int = torch.finfo(model.dtype).bits // 8
    return 2 * int(config.num_hidden_layers) * int(heads) * int(head_dim) * element
