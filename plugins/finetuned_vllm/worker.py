"""The work of an engine ``vllm``: what its process needs is settled before vLLM is imported."""

from __future__ import annotations

import os

from finetuned_sdk import JobError, WorkerContext
from finetuned_sdk.engines import Engine, serve
from finetuned_vllm.params import VLLMParams

ON_CPU = {
    # Else one core is kept free of it, which is half of two.
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
}


def run(ctx: WorkerContext, params: VLLMParams) -> None:
    """Load the model and serve it."""
    on_cpu = not any(device.startswith("gpu:") for device in ctx.device_ids)
    if on_cpu:
        os.environ.update(ON_CPU | {"VLLM_CPU_KVCACHE_SPACE": str(params.kv_cache_gib)})
    os.environ["VLLM_NO_USAGE_STATS"] = "1"

    async def load() -> Engine:
        try:
            from finetuned_vllm.engine import load_engine
        except ImportError as error:
            raise JobError(
                f"vLLM cannot be imported ({error}); install it with `finetune engines install vllm`, and name its"
                ' interpreter in the configuration: [engines.vllm] python = "…".',
                code="engine_not_installed",
            ) from error
        return await load_engine(ctx.model_path("model"), params, on_cpu=on_cpu)

    serve(ctx, load)
