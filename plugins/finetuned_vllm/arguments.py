"""vLLM's command line for an engine, as its own server would read it."""

from __future__ import annotations

from argparse import Namespace

from vllm.engine.arg_utils import AsyncEngineArgs
from vllm.entrypoints.launchers.cli_args import make_arg_parser, validate_parsed_serve_args
from vllm.utils.argparse_utils import FlexibleArgumentParser

from finetuned_vllm.params import VLLMParams


def arguments(model: str, params: VLLMParams, *, on_cpu: bool, name: str) -> Namespace:
    """The arguments, read by vLLM's own parser so that all others have its defaults."""
    args: Namespace = make_arg_parser(FlexibleArgumentParser()).parse_args(
        command_line(model, params, on_cpu=on_cpu, name=name)
    )
    if (
        args.enable_lora
        and AsyncEngineArgs.from_cli_args(args).create_model_config().runner_type == "pooling"
    ):
        args.enable_lora = False  # an adapter of ours is trained to generate
    validate_parsed_serve_args(args)
    return args


def command_line(model: str, params: VLLMParams, *, on_cpu: bool, name: str) -> list[str]:
    """The command line that says what ``params`` say."""
    dtype = "float32" if params.dtype == "auto" and on_cpu else params.dtype
    valued = {
        "--model": model,
        "--served-model-name": name,
        "--dtype": dtype,
        "--runner": params.runner,
        "--max-logprobs": params.max_logprobs,
        "--max-model-len": params.max_model_len,
        "--max-num-seqs": params.max_num_seqs,
        "--gpu-memory-utilization": params.gpu_memory_utilization,
        "--tool-call-parser": params.tool_call_parser,
    }
    line = [part for flag, value in valued.items() if value is not None for part in (flag, str(value))]
    if params.max_loras:
        line += ["--enable-lora", "--max-loras", str(params.max_loras)]
        line += ["--max-lora-rank", str(params.max_lora_rank)]
    if params.enforce_eager if params.enforce_eager is not None else on_cpu:
        line.append("--enforce-eager")
    if params.prefix_caching is not None:
        line.append("--enable-prefix-caching" if params.prefix_caching else "--no-enable-prefix-caching")
    if params.tool_call_parser is not None:
        line.append("--enable-auto-tool-choice")
    return line
