"""The head of a causal language model, as its configuration describes it."""

from __future__ import annotations

from typing import Any

from finetuned_opd.chunked_loss import Head
from finetuned_sdk import JobError


def head_of(model: Any) -> Head:
    """What makes logits of the model's last hidden states, adapters in or around it left out of account.

    Scale and soft-cap are where TRL's ``DistillationTrainer`` looks for them. Raises ``JobError`` for a head that an
    adapter trains: its weight is not what makes the logits.
    """
    head = model.get_output_embeddings()
    if hasattr(head, "lora_A") or hasattr(head, "modules_to_save"):
        raise JobError(
            "The adapter trains the model's head (lm_head), which a loss in chunks cannot; leave it out of the adapter's"
            " target modules.",
            code="adapter_on_head",
        )
    config = model.config.get_text_config()
    return Head(
        weight=head.weight,
        bias=getattr(head, "bias", None),
        scale=_scale(config),
        softcap=getattr(config, "final_logit_softcapping", None),
    )


def _scale(config: Any) -> float:
    """What logits are multiplied by: each family of models has a name of its own for it."""
    for name in ("logit_scale", "output_multiplier", "lm_head_multiplier"):  # Cohere, Muse Glimmer, Falcon-H1
        factor = getattr(config, name, None)
        if factor is not None:
            return float(factor)
    factor = getattr(config, "logits_scaling", None)
    if factor is None:
        return 1.0
    return float(factor if config.model_type == "hyperclovax" else 1 / factor)  # Granite and MiniCPM3 divide
