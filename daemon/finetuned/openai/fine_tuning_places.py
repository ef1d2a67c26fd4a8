"""Where a parameter of a job stands in the fine-tuning request that asked for it. Pure."""

from __future__ import annotations

from finetuned.domain.errors import FinetunedError
from finetuned.openai.hyperparameters import Method


def place_of(param: str, method: Method) -> str:
    """What a job's parameter is called in the request; a parameter of the trainer alone is in ``x_finetuned``."""
    name = param.removeprefix("params.").partition(".")[0]
    if param == "kind":
        return "method.type"
    if not param.startswith("params."):
        return param
    return places(method).get(name, f"x_finetuned.{param}")


def in_its_words(error: FinetunedError, method: Method) -> FinetunedError:
    """The refusal of a job, with the request's own name for the parameter."""
    if error.param is not None:
        place = place_of(error.param, method)
        error.message = error.message.replace(f"{error.param}:", f"{place}:")
        error.param = place
    return error


def places(method: Method) -> dict[str, str]:
    said = f"method.{method.name}.hyperparameters"
    return {
        "model": "model",
        "adapter": "model",
        "dataset": "training_file",
        "eval_dataset": "validation_file",
        "output_name": "suffix",
        "seed": "seed",
        "num_train_epochs": f"{said}.n_epochs",
        "per_device_train_batch_size": f"{said}.batch_size",
        "gradient_accumulation_steps": f"{said}.batch_size",
        "learning_rate": f"{said}.learning_rate_multiplier",
        **({} if method.beta is None else {"beta": f"{said}.beta"}),
        "teacher": "method.distillation.teacher",
        "teacher_adapter": "method.distillation.teacher",
        "teacher_endpoint": "method.distillation.teacher",
        "report_to": "integrations",
        "callbacks": "integrations",
    }
