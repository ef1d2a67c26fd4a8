"""What makes sense next for a job."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
from tests.unit.domain.worlds import Scene

from finetuned.domain import decisions, facts, pauses
from finetuned.domain.next_steps import REMEDIES, Step, next_steps
from finetuned.domain.waits import Wait


def running(**changes: Any) -> Scene:
    scene = Scene()
    scene.submit(**changes)
    scene.schedule()
    scene.start()
    return scene


def steps(scene: Scene, wait: Wait | None = None) -> dict[str, Step]:
    return {step.action: step for step in next_steps(scene.world.jobs["job-1"], wait)}


def checkpoint(scene: Scene, step: int) -> None:
    path = f"/x/checkpoint-{step}"
    scene.report("job-1", facts.CheckpointSaved(attempt=1, step=step, path=path, bytes=1, metrics={}))


def failed(code: str, message: str = "It is broken; mend it.") -> Scene:
    scene = running()
    scene.report("job-1", facts.AttemptError(attempt=1, code=code, message=message))
    scene.end(exit_code=1)
    return scene


def test_a_job_that_waits_says_why_and_how_to_watch_it() -> None:
    scene = Scene()
    scene.submit()
    found = steps(scene, Wait("every device is held", 1))
    assert found["watch"] == Step("watch", "every device is held", "finetune watch job-1")
    assert found["cancel"].command == "finetune cancel job-1"


def test_a_job_at_work_has_curves_to_look_at_once_there_are_any() -> None:
    scene = running()
    assert "look" not in steps(scene)
    scene.report("job-1", facts.JobProgress({"current_step": 1}))
    assert steps(scene)["look"].command == "finetune metrics job-1"


def test_a_job_that_pauses_is_waited_for_and_a_paused_one_is_resumed() -> None:
    scene = running()
    scene.report("job-1", facts.JobProgress({"current_step": 12}))
    scene.fold(pauses.pause(scene.world, "job-1", actor="uid:1"))
    assert list(steps(scene)) == ["wait"]
    scene.end(exit_code=75, resume_from="/checkpoint-10", step=10)
    assert steps(scene)["resume"].command == "finetune resume job-1"
    assert "2 steps since its checkpoint" in steps(scene)["resume"].why
    assert steps(scene)["cancel"].command == "finetune cancel job-1"


def test_a_model_that_was_made_can_be_tried_trained_on_and_downloaded() -> None:
    scene = running(kind="sft", params={"model": "llama"})
    scene.report(
        "job-1", facts.ArtifactPublished(attempt=1, name="model", kind="adapter", path="/x/model", bytes=1)
    )
    scene.report(
        "job-1", facts.AttemptModel(attempt=1, name="my model", path="/x/model", kind="adapter", base="llama")
    )
    scene.report("job-1", facts.AttemptResult(attempt=1, values={}))
    scene.end()
    found = steps(scene)
    assert found["try"].command == "finetune models show 'my model'"
    assert (
        found["train_on"].command == "finetune run sft --model llama --param 'adapter=my model' --data FILE"
    )
    assert found["download"].command == "finetune export job-1"
    assert "delete" not in found


def trained(kind: str, *, base: str | None = "llama", model_kind: str = "adapter") -> Scene:
    """A job that made the model ``m``."""
    scene = running(kind=kind, params={"model": "llama"} if base else {})
    made = facts.AttemptModel(attempt=1, name="m", path="/x/model", kind=model_kind, base=base)
    scene.report("job-1", made)
    scene.report("job-1", facts.AttemptResult(attempt=1, values={"model": "m"}))
    scene.end()
    return scene


def following(scene: Scene, *kinds: str) -> dict[str, str | None]:
    job = scene.world.jobs["job-1"]
    return {step.action: step.command for step in next_steps(job, kinds=kinds)}


def test_after_a_supervised_training_come_preferences_and_distillation() -> None:
    found = following(trained("sft"), "sft", "dpo", "opd")
    assert found["train_on"] == "finetune run sft --from job-1 --data FILE"
    assert found["prefer"] == "finetune run dpo --from job-1 --data PAIRS"
    assert found["distil"] == "finetune run opd --from job-1 --param teacher=MODEL --data PROMPTS"
    assert list(found).index("prefer") < list(found).index("distil") < list(found).index("keep")


def test_after_preferences_comes_distillation() -> None:
    found = following(trained("dpo"), "sft", "dpo", "opd")
    assert found["distil"] == "finetune run opd --from job-1 --param teacher=MODEL --data PROMPTS"
    assert "prefer" not in found
    assert following(trained("opd"))["train_on"] == found["distil"]
    assert not {"prefer", "distil"} & following(trained("import-gguf", base=None), "dpo", "opd").keys()


def test_a_training_that_no_plugin_declares_is_not_suggested() -> None:
    assert not {"prefer", "distil"} & following(trained("sft"), "sft").keys()


def test_a_whole_model_that_is_not_the_jobs_result_is_named_by_itself() -> None:
    scene = running(kind="fake", params={"model": "llama"})
    scene.report("job-1", facts.AttemptModel(attempt=1, name="m", path="/x/m", kind="full", base=None))
    scene.report("job-1", facts.AttemptResult(attempt=1, values={}))
    scene.end()
    assert following(scene)["train_on"] == "finetune run fake --model m --data FILE"


def test_of_several_artifacts_each_is_named() -> None:
    scene = running()
    for name in ("model", "samples"):
        published = facts.ArtifactPublished(attempt=1, name=name, kind="x", path=f"/x/{name}", bytes=1)
        scene.report("job-1", published)
    scene.report("job-1", facts.AttemptResult(attempt=1, values={}))
    scene.end()
    commands = [step.command for step in next_steps(scene.world.jobs["job-1"]) if step.action == "download"]
    assert commands == ["finetune export job-1 --artifact model", "finetune export job-1 --artifact samples"]


def test_a_loss_that_rose_again_says_that_less_training_may_do_better() -> None:
    scene = running()
    for step, loss in ((10, 2.0), (20, 1.0), (30, 1.5)):
        scene.report("job-1", facts.EvaluationRecorded(name="eval", metrics={"eval_loss": loss}, step=step))
    scene.report("job-1", facts.AttemptResult(attempt=1, values={}))
    scene.end()
    assert "least at step 20 (1)" in steps(scene)["train_less"].why


def test_a_loss_that_fell_to_the_end_says_nothing() -> None:
    scene = running()
    for step, loss in ((10, 2.0), (20, 1.0)):
        scene.report("job-1", facts.EvaluationRecorded(name="eval", metrics={"eval_loss": loss}, step=step))
    scene.report("job-1", facts.AttemptResult(attempt=1, values={}))
    scene.end()
    assert "train_less" not in steps(scene)


def test_advice_that_the_worker_gave_is_a_step_and_the_newest_of_a_setting_counts() -> None:
    scene = running()
    scene.report("job-1", facts.JobAdvice(setting="packing", message="old"))
    scene.report("job-1", facts.JobAdvice(setting="packing", message="set it to true"))
    advised = [step.why for step in next_steps(scene.world.jobs["job-1"]) if step.action == "change_setting"]
    assert advised == ["packing: set it to true"]


@pytest.mark.parametrize("code", sorted(REMEDIES))
def test_a_failure_that_is_known_names_the_repair_before_the_retry(code: str) -> None:
    actions = [step.action for step in next_steps(failed(code).world.jobs["job-1"])]
    assert actions.index("repair") < actions.index("retry")
    assert "mend it" in steps(failed(code))["repair"].why


def test_a_failure_that_is_not_known_says_where_to_look() -> None:
    found = steps(failed("something"))
    assert "repair" not in found
    assert found["retry"].command == "finetune retry job-1"
    assert found["look"].command == "finetune logs job-1 --tail 100"


def test_out_of_memory_says_what_needs_less() -> None:
    assert "batch" in steps(failed("train_failed", "CUDA out of memory. Tried …"))["need_less_memory"].why


def test_a_retry_goes_on_from_the_newest_checkpoint() -> None:
    scene = running()
    checkpoint(scene, 5)
    checkpoint(scene, 10)
    scene.report("job-1", facts.AttemptError(attempt=1, code="x", message="no"))
    scene.end(exit_code=1)
    found = steps(scene)["retry"]
    assert found.command == "finetune retry job-1 --from-checkpoint latest"
    assert "step 10" in found.why


def test_what_was_cancelled_can_be_tried_again_or_removed() -> None:
    scene = Scene()
    scene.submit()
    scene.fold(decisions.cancel(scene.world, "job-1", actor="uid:1"))
    assert list(steps(scene)) == ["retry", "delete"]


def every_step() -> list[Step]:
    """The steps of jobs in many states."""
    scenes = [running(), failed("bad_dataset")]
    waiting, cancelled, done = Scene(), Scene(), running(kind="sft", params={"model": "llama"})
    waiting.submit()
    cancelled.submit()
    cancelled.fold(decisions.cancel(cancelled.world, "job-1", actor="uid:1"))
    done.report("job-1", facts.JobProgress({"current_step": 1}))
    scenes[0].report("job-1", facts.JobProgress({"current_step": 1}))
    checkpoint(done, 1)
    for name in ("model", "samples"):
        published = facts.ArtifactPublished(attempt=1, name=name, kind="x", path=f"/x/{name}", bytes=1)
        done.report("job-1", published)
    done.report(
        "job-1", facts.AttemptModel(attempt=1, name="m", path="/x/model", kind="adapter", base="llama")
    )
    done.report("job-1", facts.AttemptResult(attempt=1, values={}))
    done.end()
    scenes += [waiting, cancelled, done, trained("sft")]
    kinds = ("dpo", "opd")
    return [step for scene in scenes for step in next_steps(scene.world.jobs["job-1"], kinds=kinds)]


def test_each_command_is_one_that_there_is() -> None:
    reference = (Path(__file__).parents[3] / "docs" / "reference" / "cli.md").read_text()
    sections = dict(
        re.findall(r"^##+ `finetune ([^`]+)`$(.*?)(?=^##|\Z)", reference, re.MULTILINE | re.DOTALL)
    )
    commands = [shlex.split(step.command)[1:] for step in every_step() if step.command]
    assert len({words[0] for words in commands}) >= 8
    for words in commands:
        name = " ".join(words[:2]) if words[0] in {"models", "templates"} else words[0]
        assert name in sections, words
        for option in (word for word in words if word.startswith("--")):
            assert f"`{option}`" in sections[name], words
