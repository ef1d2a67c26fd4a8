"""Loading what is trained: whole, under a new adapter, or under an earlier one; in 4 bits if asked."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig, PreTrainedModel

from finetuned_sdk import JobError, WorkerContext
from finetuned_training.params import TrainingParams
from finetuned_training.quantized import keep_trainable
from finetuned_training.settings import Resolved, resolve

if TYPE_CHECKING:
    from peft import LoraConfig, PeftModel
    from transformers import PreTrainedTokenizerBase


def holds_gpu(ctx: WorkerContext) -> bool:
    """Whether the attempt trains on a GPU. Raises ``JobError`` if it holds one that torch cannot use."""
    gpu = any(device.startswith("gpu:") for device in ctx.device_ids)
    if gpu and not torch.cuda.is_available():
        raise JobError(
            f"The job holds {', '.join(ctx.device_ids)}, but torch {torch.__version__} cannot use it; install a CUDA "
            "build of torch that fits the driver.",
            code="gpu_unusable",
        )
    return gpu


def settled(ctx: WorkerContext, params: TrainingParams) -> tuple[Resolved, bool]:
    """What is left open in the parameters, as this machine fills it in, and whether a GPU computes.

    Raises what :func:`holds_gpu` raises.
    """
    gpu = holds_gpu(ctx)
    cpu_count = len(os.sched_getaffinity(0))
    bf16_supported = gpu and torch.cuda.is_bf16_supported()
    return resolve(params, cpu_count=cpu_count, gpu=gpu, bf16_supported=bf16_supported), gpu


def load_tokenizer(path: str, params: TrainingParams) -> PreTrainedTokenizerBase:
    """The model's tokenizer. Raises ``JobError`` if the directory or hub id has none."""
    try:
        return AutoTokenizer.from_pretrained(path, trust_remote_code=params.trust_remote_code)
    except (OSError, ValueError) as error:
        raise _cannot_load("tokenizer", params.model, error) from error


def load_model(path: str, params: TrainingParams, settings: Resolved, *, gpu: bool) -> PreTrainedModel:
    """The base model: in float32 where its weights are trained or the CPU computes, else in what the GPU likes.

    Weights that the optimizer moves stay in float32, because bfloat16 rounds small updates away; a frozen base
    needs only the precision that it computes in.
    """
    half = torch.bfloat16 if settings.bf16 else torch.float16 if settings.fp16 else torch.float32
    frozen = params.method != "full"
    quantization = None
    if params.method == "qlora":
        quantization = BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=half,
        )
    try:
        model: PreTrainedModel = AutoModelForCausalLM.from_pretrained(
            path,
            dtype=half if frozen else torch.float32,
            quantization_config=quantization,
            device_map={"": 0} if gpu and quantization else None,
            trust_remote_code=params.trust_remote_code,
        )
    except (OSError, ValueError) as error:
        raise _cannot_load("model", params.model, error) from error
    if quantization is not None:
        keep_trainable(model)
    return model


def lora_config(settings: Resolved, params: TrainingParams) -> LoraConfig:
    """A new adapter, as the parameters describe it."""
    from peft import LoraConfig

    return LoraConfig(
        task_type="CAUSAL_LM",
        r=settings.lora_r,
        lora_alpha=settings.lora_alpha,
        lora_dropout=settings.lora_dropout,
        target_modules=settings.lora_target_modules,
        use_rslora=params.use_rslora,
    )


def load_adapter(model: PreTrainedModel, path: str) -> PeftModel:
    """The model under an earlier adapter, which training goes on from."""
    from peft import PeftModel

    try:
        return PeftModel.from_pretrained(model, path, is_trainable=True)
    except (OSError, ValueError, RuntimeError) as error:
        raise _cannot_load("adapter", path, error) from error


def merge_adapter(base: str, adapter: Path, destination: Path, params: TrainingParams) -> None:
    """Write the base model with the adapter merged in, in the type that the base is stored in."""
    from peft import PeftModel

    model = AutoModelForCausalLM.from_pretrained(
        base, dtype="auto", trust_remote_code=params.trust_remote_code
    )
    PeftModel.from_pretrained(model, str(adapter)).merge_and_unload().save_pretrained(destination)


def _cannot_load(what: str, name: str, error: Exception) -> JobError:
    reason = str(error).strip().splitlines()[0]
    return JobError(
        f"The {what} of {name} cannot be loaded: {reason}. Check that the directory is complete, or that this machine "
        "may reach the hub.",
        code=f"{what}_unloadable",
    )
