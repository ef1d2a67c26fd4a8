from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from finetuned_callbacks.params import ValidationParams
from finetuned_sdk import BadDatasetError, JobError
from finetuned_sdk.testing import RecordingContext

pytestmark = [pytest.mark.torch, pytest.mark.filterwarnings("ignore::FutureWarning")]

NOTHING: Any = None


def arguments(directory: Path, **changes: Any) -> Any:
    from transformers import TrainingArguments

    settings: dict[str, Any] = {
        "output_dir": str(directory / "out"),
        "max_steps": 4,
        "per_device_train_batch_size": 2,
        "learning_rate": 1e-2,
        "logging_steps": 1,
        "save_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
        "use_cpu": True,
        **changes,
    }
    return TrainingArguments(**settings)


def train(model: Any, tokenizer: Any, directory: Path, callbacks: list[Any], **changes: Any) -> Any:
    """Train on a few rows with dropout; the trainer, afterwards."""
    from transformers import Trainer

    texts = [f"{n} buns for {n}" for n in range(8)]
    encoded = [tokenizer(text.ljust(16, "."))["input_ids"] for text in texts]
    data = [{"input_ids": ids, "labels": ids} for ids in encoded]
    trainer = Trainer(
        model,
        arguments(directory, **changes),
        train_dataset=data,
        eval_dataset=data[:2],
        processing_class=tokenizer,
        callbacks=callbacks,
    )
    trainer.train(resume_from_checkpoint=changes.get("resume_from_checkpoint"))
    return trainer


def losses(trainer: Any) -> list[float]:
    return [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]


def callback(ctx: RecordingContext, dataset: Path, **params: Any) -> Any:
    from finetuned_callbacks import validation

    return validation.create(
        ctx, ValidationParams(dataset=str(dataset), max_new_tokens=4, batch_size=2, **params)
    )


def samples(ctx: RecordingContext) -> list[list[dict[str, Any]]]:
    return [
        [json.loads(line) for line in Path(fact["path"]).read_text().splitlines()]
        for fact in ctx.of_type("artifact")
    ]


def test_the_training_goes_the_same_way_with_and_without_validation(
    tmp_path: Path, model: Any, tokenizer: Any, held_out: Path
) -> None:
    import copy

    import torch

    twin = copy.deepcopy(model)
    ctx = RecordingContext(tmp_path)
    watched = train(model, tokenizer, tmp_path, [callback(ctx, held_out, every_steps=1)])
    alone = train(twin, tokenizer, tmp_path, [])
    assert len(ctx.of_type("evaluation")) == 5
    assert losses(watched) == losses(alone)
    for (name, mine), theirs in zip(model.state_dict().items(), twin.state_dict().values(), strict=True):
        assert torch.equal(mine, theirs), name


def test_modules_random_state_and_tokenizer_are_left_as_they_were(
    tmp_path: Path, model: Any, tokenizer: Any, held_out: Path
) -> None:
    import torch
    from transformers import TrainerState

    model.train()
    model.model.layers[0].eval()  # a frozen part, say
    modes = [module.training for module in model.modules()]
    random_state, side = torch.get_rng_state(), tokenizer.padding_side
    state = TrainerState(global_step=3)
    callback(RecordingContext(tmp_path), held_out, every_steps=3).on_step_end(
        arguments(tmp_path), state, None, model=model, processing_class=tokenizer
    )
    assert [module.training for module in model.modules()] == modes
    assert torch.equal(torch.get_rng_state(), random_state)
    assert tokenizer.padding_side == side
    assert all(parameter.grad is None for parameter in model.parameters())


def test_answers_in_padded_batches_equal_answers_one_by_one(
    tmp_path: Path, model: Any, tokenizer: Any, held_out: Path
) -> None:
    import torch

    ctx = RecordingContext(tmp_path)
    train(model, tokenizer, tmp_path, [callback(ctx, held_out, at=["end"])])
    model.eval()
    for sample in samples(ctx)[0]:
        text = tokenizer.apply_chat_template(
            [{"role": "user", "content": sample["prompt"]}], tokenize=False, add_generation_prompt=True
        )
        ids = tokenizer(text, add_special_tokens=False, return_tensors="pt")["input_ids"]
        start = ids.shape[1]
        with torch.no_grad():
            for _ in range(4):
                ids = torch.cat([ids, model(ids).logits[:, -1:].argmax(-1)], dim=1)
                if ids[0, -1] == tokenizer.eos_token_id:
                    break
        assert tokenizer.decode(ids[0, start:], skip_special_tokens=True).strip() == sample["answer"]


def test_figures_from_before_and_after_become_the_result(
    tmp_path: Path, model: Any, tokenizer: Any, held_out: Path
) -> None:
    ctx = RecordingContext(tmp_path)
    train(model, tokenizer, tmp_path, [callback(ctx, held_out)])
    first, last = ctx.of_type("evaluation")
    assert (first["name"], first["step"], last["step"]) == ("validation", 0, 4)
    assert set(first["metrics"]) == {"exact_match", "field_accuracy", "valid_json", "rows", "seconds"}
    phases = [fact["phase"] for fact in ctx.of_type("phase")]
    assert phases == ["evaluating", "training", "evaluating"]
    result = ctx.results["validation"]
    assert result["rows"] == 5
    for moment, fact in (("before", first), ("after", last)):
        assert result[moment] == {name: fact["metrics"][name] for name in result[moment]}


def test_a_model_that_learned_the_answers_scores_one(tmp_path: Path, model: Any, tokenizer: Any) -> None:
    import torch
    from transformers import Trainer

    dataset = tmp_path / "held.jsonl"
    dataset.write_text('{"prompt": "say it:", "completion": "ok"}\n')
    prompt, answer = tokenizer("say it:")["input_ids"], tokenizer("ok")["input_ids"]
    ids = [*prompt, *answer, tokenizer.eos_token_id]
    row = {"input_ids": ids, "labels": [-100] * len(prompt) + ids[len(prompt) :]}
    ctx = RecordingContext(tmp_path)
    torch.manual_seed(0)
    Trainer(
        model,
        arguments(tmp_path, max_steps=30),
        train_dataset=[row] * 4,
        processing_class=tokenizer,
        callbacks=[callback(ctx, dataset)],
    ).train()
    result = ctx.results["validation"]
    assert result["before"] == {"exact_match": 0.0}
    assert result["after"] == {"exact_match": 1.0}
    assert samples(ctx)[1] == [{"prompt": "say it:", "expected": "ok", "answer": "ok", "right": True}]


def test_samples_are_an_artifact_and_no_answer_is_in_the_facts(
    tmp_path: Path, model: Any, tokenizer: Any, held_out: Path
) -> None:
    ctx = RecordingContext(tmp_path)
    train(model, tokenizer, tmp_path, [callback(ctx, held_out, samples=2)])
    before, after = samples(ctx)
    assert [sample["prompt"] for sample in before] == ["0 buns", "1 buns please"]
    assert len(after) == 2
    assert "buns" not in json.dumps([dict(fact.data) for fact in ctx.facts])


def test_a_resumed_job_still_knows_the_figures_from_before(
    tmp_path: Path, model: Any, tokenizer: Any, held_out: Path
) -> None:
    first = RecordingContext(tmp_path)
    train(
        model, tokenizer, tmp_path, [callback(first, held_out)],
        max_steps=2, save_strategy="steps", save_steps=2,
    )  # fmt: skip
    second = RecordingContext(tmp_path, attempt=2)
    train(
        model, tokenizer, tmp_path, [callback(second, held_out)],
        max_steps=4, resume_from_checkpoint=str(tmp_path / "out" / "checkpoint-2"),
    )  # fmt: skip
    assert [fact["step"] for fact in second.of_type("evaluation")] == [4]
    assert second.results["validation"]["before"] == first.results["validation"]["before"]


def test_figures_join_an_evaluation_so_that_the_best_checkpoint_can_be_judged_by_them(
    tmp_path: Path, model: Any, tokenizer: Any, held_out: Path
) -> None:
    ctx = RecordingContext(tmp_path)
    trainer = train(
        model, tokenizer, tmp_path, [callback(ctx, held_out, at=[], every_evals=1)],
        eval_strategy="steps", eval_steps=2, save_strategy="steps", save_steps=2,
        load_best_model_at_end=True, metric_for_best_model="field_accuracy",
    )  # fmt: skip
    assert [fact["step"] for fact in ctx.of_type("evaluation")] == [2, 4]
    assert trainer.state.best_metric == ctx.of_type("evaluation")[0]["metrics"]["field_accuracy"]


def test_a_resumed_job_goes_on_counting_evaluations(tmp_path: Path, held_out: Path) -> None:
    from transformers import TrainerState

    every_second = callback(RecordingContext(tmp_path), held_out, at=[], every_evals=2)
    every_second.on_evaluate(NOTHING, TrainerState(global_step=1), NOTHING)  # the first one: nothing is asked
    kept = TrainerState(global_step=1, stateful_callbacks={"ValidationCallback": every_second.state()})

    resumed = callback(RecordingContext(tmp_path, attempt=2), held_out, at=[], every_evals=2)
    resumed.on_train_begin(NOTHING, kept, NOTHING)
    asked: list[int] = []
    resumed._validate = lambda _, state, **__: asked.append(state.global_step)
    for step in (2, 3, 4):
        resumed.on_evaluate(NOTHING, TrainerState(global_step=step), NOTHING)
    assert asked == [2, 4]


def test_a_stop_request_ends_the_validation_without_figures(
    tmp_path: Path, model: Any, tokenizer: Any, held_out: Path
) -> None:
    ctx = RecordingContext(tmp_path)
    ctx.request_stop("pause", checkpoint=True)
    train(model, tokenizer, tmp_path, [callback(ctx, held_out, every_steps=1)])
    assert ctx.of_type("evaluation") == []
    assert "validation" not in ctx.results


def test_a_bad_dataset_fails_before_the_training(tmp_path: Path) -> None:
    dataset = tmp_path / "held.jsonl"
    dataset.write_text("{}\n")
    with pytest.raises(BadDatasetError, match="row 1"):
        callback(RecordingContext(tmp_path), dataset)


def test_messages_without_a_chat_template_are_refused_with_a_remedy(
    tmp_path: Path, model: Any, tokenizer: Any, held_out: Path
) -> None:
    import copy

    bare = copy.deepcopy(tokenizer)
    bare.chat_template = None
    with pytest.raises(JobError, match="text prompt"):
        train(model, bare, tmp_path, [callback(RecordingContext(tmp_path), held_out)])


def test_a_row_that_the_chat_template_refuses_is_named(
    tmp_path: Path, model: Any, tokenizer: Any, held_out: Path
) -> None:
    import copy

    strict = copy.deepcopy(tokenizer)
    strict.chat_template = "{{ raise_exception('System role not supported') }}"
    with pytest.raises(JobError, match=r"System role not supported.*Correct the row") as caught:
        train(model, strict, tmp_path, [callback(RecordingContext(tmp_path), held_out)])
    assert caught.value.code == "bad_dataset"


def test_an_adapter_answers_and_not_its_base(
    tmp_path: Path, model: Any, tokenizer: Any, held_out: Path
) -> None:
    import peft
    import torch
    from transformers import TrainerState

    adapted = peft.get_peft_model(model, peft.LoraConfig(r=2, target_modules="all-linear"))
    ctx = RecordingContext(tmp_path)
    asked = callback(ctx, held_out, every_steps=1)
    args = arguments(tmp_path)
    asked.on_step_end(args, TrainerState(global_step=1), None, model=adapted, processing_class=tokenizer)
    with torch.no_grad():
        for name, parameter in adapted.named_parameters():
            if "lora_" in name:
                parameter.normal_(generator=torch.Generator().manual_seed(1))
    asked.on_step_end(args, TrainerState(global_step=2), None, model=adapted, processing_class=tokenizer)
    base, changed = ([sample["answer"] for sample in part] for part in samples(ctx))
    assert base != changed
