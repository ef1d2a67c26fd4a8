"""Files of one job that another needs stay, and who needs what has gone is refused."""

from __future__ import annotations

import pytest
from tests.unit.domain.worlds import Scene, submission

from finetuned.domain import decisions, dependencies, facts, retention
from finetuned.domain.errors import FilesRemovedError, NotFoundError, Rejected
from finetuned.domain.streams import event, job_event

PATH = "/state/jobs/job-1/attempts/1/artifacts/model"


def scene_with_model() -> Scene:
    """``job-1`` has made the model ``base1`` in its directory."""
    scene = Scene(devices=2)
    scene.submit()
    scene.schedule()
    model = facts.AttemptModel(attempt=1, name="base1", path=PATH, kind="model", base=None)
    number = scene.start()
    scene.report("job-1", model)
    scene.report("job-1", facts.AttemptResult(attempt=number, values={}))
    scene.end()
    return scene


def test_a_job_whose_model_a_live_job_is_made_from_stays_when_the_model_has_lost_its_name() -> None:
    scene = scene_with_model()
    scene.submit("job-2", models={"model": PATH})
    scene.fold(decisions.delete_model(scene.world, "base1", actor="a"))
    assert "job-1" in dependencies.needed(scene.world)
    with pytest.raises(Rejected) as told:
        decisions.delete(scene.world, "job-1", actor="a")
    assert told.value.stable_code == "job_in_use"
    assert "finetune cancel job-2" in told.value.message
    scene.fold(decisions.cancel(scene.world, "job-2", actor="a"))
    assert "job-1" not in dependencies.needed(scene.world)
    assert decisions.delete(scene.world, "job-1", actor="a")


def test_a_job_whose_checkpoint_any_live_job_goes_on_from_stays() -> None:
    scene = scene_with_model()
    scene.fold(decisions.delete_model(scene.world, "base1", actor="a"))
    scene.submit("job-2", resume_from="/state/jobs/job-1/checkpoints/checkpoint-4")
    with pytest.raises(Rejected, match="wait for it"):
        decisions.delete(scene.world, "job-1", actor="a")


def test_an_id_that_only_begins_as_another_is_another() -> None:
    scene = scene_with_model()
    scene.fold(decisions.delete_model(scene.world, "base1", actor="a"))
    scene.submit("job-2", resume_from="/state/jobs/job-10/checkpoints/checkpoint-4")
    assert decisions.delete(scene.world, "job-1", actor="a")


def test_a_job_is_not_accepted_with_a_model_that_was_removed_since_it_was_looked_up() -> None:
    scene = scene_with_model()
    fact = submission(models={"model": PATH})
    assert decisions.submit(scene.world, "job-2", fact, actor="a")
    scene.fold(decisions.delete_model(scene.world, "base1", actor="a"))
    with pytest.raises(Rejected) as told:
        decisions.submit(scene.world, "job-2", fact, actor="a")
    assert (told.value.stable_code, told.value.param) == ("model_gone", "params.model")
    assert "name another" in told.value.message


def test_a_retry_is_not_accepted_when_the_job_whose_checkpoint_it_takes_was_deleted() -> None:
    scene = Scene()
    scene.submit()
    scene.fold(decisions.cancel(scene.world, "job-1", actor="a"))
    scene.fold(decisions.delete(scene.world, "job-1", actor="a"))
    with pytest.raises(NotFoundError, match="finetune ls"):
        decisions.submit(
            scene.world, "job-2", submission(retry_of="job-1", resume_from="/c/checkpoint-4"), actor="a"
        )
    assert decisions.submit(scene.world, "job-2", submission(retry_of="job-1"), actor="a")


def test_a_retry_is_not_accepted_when_the_files_whose_checkpoint_it_takes_were_removed_since() -> None:
    scene = Scene()
    scene.submit()
    scene.fold(decisions.cancel(scene.world, "job-1", actor="a"))
    again = submission(retry_of="job-1", resume_from="/state/jobs/job-1/attempts/1/checkpoints/checkpoint-4")
    assert decisions.submit(scene.world, "job-2", again, actor="a")
    scene.fold(retention.remove_files(scene.world, "job-1", reason="it was old", size=1, actor="retention"))
    with pytest.raises(FilesRemovedError, match="it was old"):
        decisions.submit(scene.world, "job-2", again, actor="a")
    assert decisions.submit(scene.world, "job-2", submission(retry_of="job-1"), actor="a")


def test_a_job_begins_with_a_checkpoint_while_it_is_kept_and_then_its_files_stay() -> None:
    scene = scene_with_model()
    path = "/state/jobs/job-1/attempts/1/checkpoints/checkpoint-4"
    gone = path.replace("-4", "-5")
    scene.fold([job_event("job-1", facts.CheckpointSaved(attempt=1, step=4, path=path, bytes=1), actor="a")])
    scene.fold(decisions.delete_model(scene.world, "base1", actor="a"))
    with pytest.raises(Rejected, match="removed"):
        scene.submit("job-2", models={"adapter": gone})
    scene.submit("job-2", models={"adapter": path})
    assert "job-1" in dependencies.needed(scene.world)
    with pytest.raises(Rejected, match="job-2 is made from the files of job job-1"):
        dependencies.require_free(scene.world, "job-1")


@pytest.mark.parametrize("kind", ["adapter", "model"])
def test_the_checkpoint_that_an_adapter_lies_over_stays(kind: str) -> None:
    scene = Scene()
    base = "ft:tiny:finetuned::1:ckpt-step-4"
    made = facts.ModelRegistered(name="over", path="/m", base=base, kind=kind, job=None, lineage={})
    scene.fold([event("model/over", made, "a")])
    assert ("job-1" in dependencies.needed(scene.world)) == (kind == "adapter")
    if kind == "adapter":
        with pytest.raises(Rejected, match="finetune models rm over"):
            dependencies.require_free(scene.world, "job-1")
