"""Fine-tuning jobs over HTTP, asked for by OpenAI's own client."""

from __future__ import annotations

import hashlib
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import anyio
import openai
import pytest

from finetuned.domain import decisions, facts
from finetuned.domain.streams import event
from finetuned.testing import House
from finetuned_batch import plugin as batch
from finetuned_dpo import plugin as dpo
from finetuned_opd import plugin as opd
from finetuned_sft import plugin as sft

ROWS = b'{"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}\n'
RIGHT, OTHER, MISSING = "file-0123456789", "file-abcdefghjk", "file-zzzzzzzzzz"


@pytest.fixture
async def openai_client(house: House) -> AsyncIterator[openai.AsyncOpenAI]:
    """The real client over TCP, of a daemon that knows the three trainers."""
    for plugin in (sft, dpo, opd):
        plugin.finetuned_register(house.commands.registry)
    _, secret = await house.commands.tokens.create(scope="admin", name=None, actor="test")
    async with openai.AsyncOpenAI(base_url=f"{house.url}/v1", api_key=secret, max_retries=0) as found:
        yield found


@pytest.fixture
def base_model(tmp_path: Path) -> str:
    """A directory that looks like a model as far as a submission looks."""
    (tmp_path / "tiny").mkdir()
    (tmp_path / "tiny" / "config.json").write_text(json.dumps({"model_type": "llama"}), encoding="utf-8")
    return str(tmp_path / "tiny")


@pytest.fixture
async def rows(house: House, tmp_path: Path) -> str:
    """The id of a file with rows; beside it there is one with another purpose."""
    path = tmp_path / "rows.jsonl"
    path.write_bytes(ROWS)
    made = [
        facts.FileCreated(
            id=name, filename="rows.jsonl", purpose=purpose, path=str(path), bytes=len(ROWS),
            sha256=hashlib.sha256(ROWS).hexdigest(),
        )
        for name, purpose in ((RIGHT, "fine-tune"), (OTHER, "batch"))
    ]  # fmt: skip
    await house.log.append([event(f"file/{each.id}", each, "test") for each in made])
    return RIGHT


@pytest.fixture(name="ask")
def asking(openai_client: openai.AsyncOpenAI, base_model: str, rows: str) -> Any:
    """Creates a job of the model and the file, unless something else is said."""

    async def ask(**given: Any) -> Any:
        return await openai_client.fine_tuning.jobs.create(
            **{"model": base_model, "training_file": rows, **given}
        )

    return ask


async def test_a_created_job_is_a_job_of_the_daemon(
    ask: Any, openai_client: Any, house: House, base_model: str
) -> None:
    job = await ask(
        suffix="support",
        seed=5,
        metadata={"team": "a"},
        method={
            "type": "supervised",
            "supervised": {"hyperparameters": {"n_epochs": 2, "batch_size": "auto"}},
        },
    )
    assert (job.object, job.status, job.model) == ("fine_tuning.job", "validating_files", base_model)
    assert (job.training_file, job.seed, job.metadata) == (RIGHT, 5, {"team": "a"})
    assert job.hyperparameters.model_dump() == {
        "n_epochs": 2,
        "batch_size": 16,
        "learning_rate_multiplier": 1.0,
    }
    assert await openai_client.fine_tuning.jobs.retrieve(job.id) == job
    native = await house.queries.job(job.x_finetuned["job"])
    assert job.id == f"ft{native.id}"
    assert native.kind == "sft"
    assert native.params["output_name"] == f"support-{native.id.removeprefix('job-')}"
    assert native.datasets["dataset"]["name"] == RIGHT


async def test_other_methods_are_other_kinds(ask: Any, base_model: str) -> None:
    preferred = await ask(method={"type": "dpo", "dpo": {"hyperparameters": {"beta": 0.2}}})
    assert preferred.method.dpo.hyperparameters.beta == 0.2
    taught = await ask(method={"type": "distillation", "distillation": {"teacher": base_model}})
    assert taught.method.type == "distillation"
    assert taught.method.distillation["teacher"] == base_model


async def test_jobs_are_paged_and_found_by_their_metadata_however_they_were_submitted(
    ask: Any, openai_client: Any, client: Any, base_model: str
) -> None:
    jobs = [(await ask(metadata={"n": str(n), "team": "ab"[n % 2]})).id for n in range(4)]
    body = {"kind": "sft", "params": {"model": base_model, "dataset": f"file:{RIGHT}"}}
    native = await (await client.post("/v1/jobs", json=body)).json()
    await client.post("/v1/jobs", json={"kind": "fake"})  # which is no fine-tuning
    newest_first = [f"ft{native['id']}", *reversed(jobs)]
    page = await openai_client.fine_tuning.jobs.list(limit=2)
    assert page.has_more
    assert [each.id async for each in page] == newest_first
    found = await openai_client.fine_tuning.jobs.list(metadata={"team": "a"})
    assert [each.id for each in found.data] == [jobs[2], jobs[0]]
    found = await openai_client.fine_tuning.jobs.list(metadata={"team": "a", "n": "2"})
    assert [each.id for each in found.data] == [jobs[2]]
    for query in (
        "metadata=x",
        "metadata[a=x",
        "limit[a]=1",
        "metadata[a]=1&metadata[a]=2",
        "limit=0",
        "colour=red",
        "after=ftjob-none",
    ):
        assert (await client.get(f"/v1/fine_tuning/jobs?{query}")).status == 400


async def test_a_client_that_deletes_what_it_has_paged_sees_each_job_once(
    ask: Any, openai_client: Any, client: Any
) -> None:
    jobs = [(await ask()).id for _ in range(5)]
    seen = []
    async for each in openai_client.fine_tuning.jobs.list(limit=2):
        seen.append(each.id)
        await openai_client.fine_tuning.jobs.cancel(each.id)
        assert (await client.delete(f"/v1/jobs/{each.id.removeprefix('ft')}")).status == 200
    assert seen == jobs[::-1]


async def test_a_repeated_request_makes_one_job(ask: Any, openai_client: Any) -> None:
    key = {"Idempotency-Key": "once"}
    first, again = [await ask(extra_headers=key, suffix="bot") for _ in range(2)]
    assert first.id == again.id
    assert len((await openai_client.fine_tuning.jobs.list()).data) == 1


async def test_a_job_is_cancelled_paused_and_resumed(ask: Any, openai_client: Any, house: House) -> None:
    jobs = openai_client.fine_tuning.jobs
    early = await ask()
    with pytest.raises(openai.ConflictError, match="pause it once it is queued"):
        await jobs.pause(early.id)
    cancelled = await jobs.cancel(early.id)
    assert cancelled.status == "cancelled"
    assert cancelled.finished_at is not None
    with pytest.raises(openai.ConflictError):
        await jobs.resume(early.id)
    held = await ask()
    await house.report(held.x_finetuned["job"], facts.JobQueued(reason="its data are valid"))
    assert (await jobs.pause(held.id)).status == "paused"
    assert (await jobs.resume(held.id)).status == "queued"


async def test_events_are_told_newest_first_and_paged(ask: Any, openai_client: Any, house: House) -> None:
    job = await ask()
    await house.report(job.x_finetuned["job"], facts.JobQueued(reason="its data are valid"))
    await house.progress(job.x_finetuned["job"], 1, 2, 3)
    events = await openai_client.fine_tuning.jobs.list_events(job.id, limit=2)
    assert events.has_more
    messages = [each.message async for each in events]
    assert messages == [
        "Step 3",
        "Step 2",
        "Step 1",
        "Files validated, moving job to queued state",
        f"Created fine-tuning job: {job.id}",
    ]
    newest = events.data[0]
    assert (newest.type, newest.level, newest.data["step"]) == ("metrics", "info", 3)
    with pytest.raises(openai.BadRequestError, match="there is no event"):
        await openai_client.fine_tuning.jobs.list_events(job.id, after="ftevent-x")


async def test_checkpoints_are_told_newest_first_and_paged(
    ask: Any, openai_client: Any, house: House
) -> None:
    job = await ask()
    saved = [
        facts.CheckpointSaved(
            attempt=1, step=step, path=f"/c/{step}", bytes=1, metrics={"loss": 1.0, "eval_loss": None}
        )
        for step in (5, 10, 15)
    ]
    await house.report(job.x_finetuned["job"], *saved)
    page = await openai_client.fine_tuning.jobs.checkpoints.list(job.id, limit=2)
    assert page.has_more
    found = [each async for each in page]
    assert [each.step_number for each in found] == [15, 10, 5]
    assert found[0].metrics.model_dump(exclude_none=True) == {"step": 15, "train_loss": 1.0}
    assert found[0].fine_tuned_model_checkpoint.endswith(":ckpt-step-15")
    await house.report(job.x_finetuned["job"], facts.CheckpointDiscarded(path="/c/10"))
    left = await openai_client.fine_tuning.jobs.checkpoints.list(job.id, after=found[1].id)
    assert [each.step_number for each in left.data] == [5]
    for wrong in ("none", found[1].id.replace(job.id[6:], "x"), f"{found[1].id}x"):
        with pytest.raises(openai.BadRequestError, match="after"):
            await openai_client.fine_tuning.jobs.checkpoints.list(job.id, after=wrong)


@pytest.mark.parametrize(
    ("given", "param", "code"),
    [
        ({"training_file": MISSING}, "training_file", None),
        ({"validation_file": MISSING}, "validation_file", None),
        ({"training_file": OTHER}, "training_file", "wrong_purpose"),
        ({"training_file": "rows.jsonl"}, "training_file", None),
        ({"model": "no-such-model"}, "model", "model_not_found"),
        ({"suffix": "a b"}, "suffix", "invalid_params"),
        ({"extra_body": {"colour": "red"}}, "colour", "unknown_parameter"),
        ({"method": {"type": "reinforcement"}}, "method.type", "invalid_params"),
        ({"integrations": [{"type": "wandb", "wandb": {"project": "p"}}]}, "integrations", None),
        ({"extra_body": {"x_finetuned": {"params": {"lora_r": 0}}}}, "x_finetuned.params.lora_r", None),
        (
            {"method": {"type": "supervised", "supervised": {"hyperparameters": {"n_epochs": 99}}}},
            "method.supervised.hyperparameters.n_epochs",
            "invalid_params",
        ),
    ],
)
async def test_what_cannot_be_is_refused_in_openais_shape_by_the_name_it_was_given(
    ask: Any, given: dict[str, Any], param: str, code: str | None
) -> None:
    with pytest.raises(openai.APIStatusError) as refused:
        await ask(**given)
    assert refused.value.status_code in {400, 404}
    assert refused.value.type == "invalid_request_error"
    assert refused.value.param == param, refused.value.message
    if code is not None:
        assert refused.value.code == code
    assert "params.dataset" not in refused.value.message


async def test_what_is_no_fine_tuning_job_is_not_found(openai_client: Any, client: Any) -> None:
    other = await (await client.post("/v1/jobs", json={"kind": "fake"})).json()
    for wrong in (f"ft{other['id']}", other["id"], "ftjob-none"):
        with pytest.raises(openai.NotFoundError) as refused:
            await openai_client.fine_tuning.jobs.retrieve(wrong)
        assert refused.value.param == "fine_tuning_job_id"


async def test_a_checkpoint_that_is_kept_can_be_asked(
    ask: Any, openai_client: Any, house: House, tmp_path: Path
) -> None:
    job = await ask(suffix="bot")
    saved = tmp_path / "checkpoint-5"
    saved.mkdir()
    (saved / "adapter_config.json").write_text("{}", encoding="utf-8")
    kept = facts.CheckpointSaved(attempt=1, step=5, path=str(saved), bytes=2)
    await house.report(job.x_finetuned["job"], kept)
    (checkpoint,) = (await openai_client.fine_tuning.jobs.checkpoints.list(job.id)).data

    async def answer(model: str) -> str:
        messages = [{"role": "user", "content": "hello"}]
        told = await openai_client.chat.completions.create(model=model, messages=messages)
        found: str = told.choices[0].message.content
        return found

    name = checkpoint.fine_tuned_model_checkpoint
    assert (await answer(name)).startswith("checkpoint-5-")  # the fake engine begins with its adapter's name
    for wrong in (
        name.replace("step-5", "step-6"),
        name.replace("bot", "cat"),
        name.replace(job.id[6:], "x"),
    ):
        with pytest.raises(openai.NotFoundError) as refused:
            await answer(wrong)
        assert refused.value.code == "model_not_found"
    (saved / "adapter_config.json").unlink()
    saved.rmdir()
    with pytest.raises(openai.NotFoundError, match="not kept any more"):
        await answer(name)


@pytest.fixture(name="checkpoint")
def kept_checkpoint(ask: Any, openai_client: Any, house: House, tmp_path: Path) -> Any:
    """Makes a job with a checkpoint that is kept: its name and directory."""

    async def made(marker: str = "adapter_config.json") -> tuple[str, Path]:
        job = await ask(suffix="bot")
        saved = house.jobs_dir / job.x_finetuned["job"] / "attempts" / "1" / "checkpoints" / "checkpoint-5"
        await anyio.Path(saved).mkdir(parents=True)
        await anyio.Path(saved / marker).write_text(
            '{"model_type": "llama", "peft_type": "LORA", "r": 8, "lora_alpha": 16, "target_modules": ["q_proj"]}'
        )
        fact = facts.CheckpointSaved(attempt=1, step=5, path=str(saved), bytes=2)
        await house.report(job.x_finetuned["job"], fact)
        (checkpoint,) = (await openai_client.fine_tuning.jobs.checkpoints.list(job.id)).data
        return checkpoint.fine_tuned_model_checkpoint, saved

    return made


async def test_a_new_job_begins_with_a_checkpoint(
    ask: Any, checkpoint: Any, house: House, openai_client: Any, client: Any, base_model: str
) -> None:
    name, saved = await checkpoint()
    job = await ask(model=name)
    assert job.model == name
    for each in (
        job.id.removeprefix("ft"),
        await natively(client, model=name),
        await natively(client, model=base_model, adapter=name),
    ):
        native = await house.queries.job(each)
        assert (native.params["model"], native.params["adapter"]) == (base_model, name)
        assert native.models["adapter"] == str(saved)
    gone = name.replace("step-5", "step-6")
    with pytest.raises(openai.NotFoundError) as refused:
        await ask(model=gone)
    assert (refused.value.param, refused.value.code) == ("model", "model_not_found")


async def test_a_new_job_begins_with_a_checkpoint_of_every_weight(
    ask: Any, checkpoint: Any, house: House
) -> None:
    name, saved = await checkpoint("config.json")
    native = await house.queries.job((await ask(model=name)).id.removeprefix("ft"))
    assert (native.params["model"], native.params.get("adapter")) == (name, None)
    assert native.models["model"] == str(saved)


async def test_a_job_submitted_by_an_alias_goes_on_from_what_it_stands_for_now(
    checkpoint: Any, openai_client: Any, house: House, client: Any, base_model: str
) -> None:
    _, saved = await checkpoint()
    fact = facts.ModelRegistered(
        name="tuned", path=str(saved), base=base_model, kind="adapter", job="job-0123456789", lineage={}
    )
    await house.log.append([event("model/tuned", fact, "test")])
    await house.commands.aliases.promote("bot@live", "tuned", actor="test")
    for name in ("bot@live", "ft:tiny:finetuned:tuned:0123456789"):
        native = await house.queries.job(await natively(client, model=name))
        assert (native.params["model"], native.params["adapter"]) == (base_model, "tuned")


async def test_a_batch_asks_a_checkpoint_and_an_alias(
    checkpoint: Any, openai_client: Any, house: House
) -> None:
    batch.finetuned_register(house.commands.registry)
    name, saved = await checkpoint()
    line = {"custom_id": "a", "method": "POST", "url": "/v1/chat/completions"}
    body = {"model": name, "messages": [{"role": "user", "content": "hi"}]}
    file = await openai_client.files.create(file=json.dumps({**line, "body": body}).encode(), purpose="batch")
    made = await openai_client.batches.create(
        input_file_id=file.id,
        endpoint="/v1/chat/completions",
        completion_window="24h",
        extra_body={"engine": "fake-engine"},
    )
    native = await house.queries.job(made.id.replace("batch_", "job-"))
    assert native.params["model"] == name
    assert native.engine is not None
    assert native.engine["adapter"]["path"] == str(saved)


async def test_a_client_that_deletes_what_it_has_paged_sees_each_batch_once(
    openai_client: Any, house: House, client: Any
) -> None:
    batch.finetuned_register(house.commands.registry)
    body = {"model": "org/tiny", "messages": [{"role": "user", "content": "hi"}]}
    line = {"custom_id": "a", "method": "POST", "url": "/v1/chat/completions", "body": body}
    file = await openai_client.files.create(file=json.dumps(line).encode(), purpose="batch")
    asked = {"endpoint": "/v1/chat/completions", "completion_window": "24h"}
    made = [
        (
            await openai_client.batches.create(
                input_file_id=file.id, **asked, extra_body={"engine": "fake-engine"}
            )
        ).id
        for _ in range(3)
    ]
    seen = []
    async for each in openai_client.batches.list(limit=1):
        seen.append(each.id)
        ended = await openai_client.batches.cancel(each.id)
        await openai_client.files.delete(ended.error_file_id)
        assert (await client.delete(f"/v1/jobs/{each.id.replace('batch_', 'job-')}")).status == 200
    assert seen == made[::-1]


async def natively(client: Any, **params: Any) -> str:
    """The id of a job that was submitted by the daemon's own route."""
    body = {"kind": "sft", "params": {"dataset": f"file:{RIGHT}", "method": "lora", **params}}
    response = await client.post("/v1/jobs", json=body)
    told = await response.json()
    assert response.status == 201, told
    return str(told["id"])


async def test_events_are_pushed_as_they_happen_until_the_job_has_ended(
    ask: Any, house: House, client: Any
) -> None:
    job = await ask()
    path = f"/v1/fine_tuning/jobs/{job.id}/events"
    headers = {"Accept": "text/event-stream"}
    async with client.get(path, headers=headers) as response:
        assert response.content_type == "text/event-stream"
        told = b""
        while b"Created fine-tuning job" not in told:
            told += await response.content.readany()
        await house.report(job.x_finetuned["job"], facts.JobFailed(code="crash", message="It fell over."))
        told += await response.content.read()
    frames = [frame.split("\n") for frame in told.decode().split("\n\n") if "data:" in frame]
    events = [json.loads(lines[2].removeprefix("data: ")) for lines in frames]
    assert [each["message"] for each in events] == [f"Created fine-tuning job: {job.id}", "It fell over."]
    assert [each["id"] for each in events] == [f"ftevent-{lines[0].removeprefix('id: ')}" for lines in frames]
    seen = {"Last-Event-ID": frames[0][0].removeprefix("id: ")}
    again = await (await client.get(path, headers=headers | seen)).text()
    assert "It fell over." in again
    assert "Created" not in again
    seen = {"Last-Event-ID": frames[1][0].removeprefix("id: ")}
    assert (await client.get(path, headers=headers | seen)).status == 204
    assert (await client.get(f"{path}?after=none", headers=headers)).status == 400


async def test_a_client_that_knows_another_log_is_told_and_follows_from_here(
    ask: Any, house: House, client: Any
) -> None:
    job = await ask()
    headers = {"Accept": "text/event-stream", "Last-Event-ID": str(house.log.head + 1000)}
    async with client.get(f"/v1/fine_tuning/jobs/{job.id}/events", headers=headers) as response:
        told = b""
        while b"cursor_beyond_head" not in told:
            told += await response.content.readany()
        await house.report(job.x_finetuned["job"], facts.JobFailed(code="crash", message="It fell over."))
        told += await response.content.read()
    assert b"It fell over." in told


async def test_a_file_whose_content_is_gone_is_refused_by_the_requests_own_name(
    ask: Any, house: House, openai_client: Any
) -> None:
    made = await openai_client.files.create(file=("rows.jsonl", b'{"messages": []}\n'), purpose="fine-tune")
    await anyio.Path(house.config.state_dir / "files" / made.id / "data.jsonl").unlink()
    with pytest.raises(openai.APIStatusError, match="upload it again") as refused:
        await ask(training_file=made.id)
    assert (refused.value.status_code, refused.value.code) == (409, "file_unreadable")
    assert refused.value.response.headers["X-Should-Retry"] == "false"  # it would be no use


async def test_a_stream_of_a_job_that_does_nothing_shows_that_it_lives(
    open_house: Any, open_client: Any
) -> None:
    async with open_house(sse_heartbeat_s=0.01) as house, open_client(house) as session:
        fact = facts.JobSubmitted(
            kind="sft", name=None, params={"model": "org/tiny", "dataset": f"file:{RIGHT}"}, priority=0, metadata={},
            devices=1, validates=False, max_attempts=3, models={}, callbacks=[], estimate=None, retry_of=None,
            resume_from=None,
        )  # fmt: skip
        await house.log.execute(lambda world: decisions.submit(world, "job-1", fact, actor="test"))
        path = "/v1/fine_tuning/jobs/ftjob-1/events"
        async with session.get(path, headers={"Accept": "text/event-stream"}) as response:
            told = b""
            while b":\nid: " not in told:
                told += await response.content.readany()
