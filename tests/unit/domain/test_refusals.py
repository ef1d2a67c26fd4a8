"""What the present state does not allow: each verdict with its code, and what to do."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
from tests.unit.domain.worlds import Scene, submission

from finetuned.domain import decisions, facts
from finetuned.domain.errors import InvalidRequestError, Rejected
from finetuned.secrets.store import name_of


def refused(decide: Callable[[], object]) -> tuple[str, str]:
    with pytest.raises(Rejected) as told:
        decide()
    return told.value.stable_code, told.value.message


def test_an_id_is_given_once() -> None:
    scene = Scene()
    scene.submit()
    code, message = refused(lambda: decisions.submit(scene.world, "job-1", submission(), actor="a"))
    assert (code, "job-1" in message) == ("job_exists", True)


def test_a_job_whose_checkpoint_a_retry_goes_on_from_stays() -> None:
    scene = Scene()
    scene.submit()
    scene.fold(decisions.cancel(scene.world, "job-1", actor="a"))
    ended = scene.world.jobs["job-1"]
    scene.world.jobs["job-2"] = replace(scene.submit("job-2"), retry_of=ended.id, resume_from="/checkpoint")
    code, message = refused(lambda: decisions.delete(scene.world, "job-1", actor="a"))
    assert code == "job_in_use"
    assert "wait for that one" in message


def test_a_job_that_a_model_lives_in_stays() -> None:
    scene = Scene()
    scene.submit()
    scene.schedule()
    number = scene.start()
    model = facts.AttemptModel(attempt=number, name="bot", path="/m", kind="adapter", base=None)
    scene.report("job-1", model)
    scene.report("job-1", facts.AttemptResult(attempt=number, values={}))
    scene.end()
    code, message = refused(lambda: decisions.delete(scene.world, "job-1", actor="a"))
    assert code == "model_in_use"
    assert "finetune models rm bot" in message


def test_a_secret_is_named_and_never_given() -> None:
    with pytest.raises(InvalidRequestError, match="secret:NAME") as told:
        name_of("hf_abcdefgh")
    assert told.value.stable_code == "secret_not_a_reference"
    assert "hf_abcdefgh" not in told.value.message
