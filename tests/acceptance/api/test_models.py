"""Models by all their names, and aliases that are promoted and rolled back; by OpenAI's own client where it can."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import openai
import pytest

from finetuned.domain import facts
from finetuned.domain.streams import event
from finetuned.testing import House


async def register(house: House, name: str, path: Path, **changes: Any) -> None:
    given: dict[str, Any] = {"kind": "model", "base": None, "job": None}
    fact = facts.ModelRegistered(name=name, path=str(path), **{**given, **changes})
    await house.log.append([event(f"model/{name}", fact, "test")])


@pytest.fixture
async def asker(house: House, tmp_path: Path) -> AsyncIterator[openai.AsyncOpenAI]:
    """OpenAI's client at a daemon with two models; the second is an adapter that a job trained over the first."""
    (tmp_path / "small").mkdir()
    over = tmp_path / "bot"
    over.mkdir()
    (over / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": "small"}))
    await register(house, "small", tmp_path / "small")
    await register(house, "bot", over, kind="adapter", base="small", job="job-x7k2m9qd4t")
    _, secret = await house.commands.tokens.create(scope="operate", name=None, actor="test")
    async with openai.AsyncOpenAI(base_url=f"{house.url}/v1", api_key=secret, max_retries=0) as client:
        yield client


FT = "ft:small:finetuned:bot:x7k2m9qd4t"
ALIAS = "support-bot@production"


async def promote(client: aiohttp.ClientSession, model: str, alias: str = ALIAS) -> dict[str, Any]:
    async with client.put(f"/v1/aliases/{alias}", json={"model": model}) as answer:
        found: dict[str, Any] = await answer.json()
        assert answer.status == 200, found
        return found


async def test_every_name_of_a_model_is_listed(
    asker: openai.AsyncOpenAI, client: aiohttp.ClientSession
) -> None:
    await promote(client, "bot")
    listed = [each async for each in asker.models.list()]
    assert [each.id for each in listed] == ["bot", "small", FT, ALIAS]
    extra = [each.model_dump()["stands_for"] for each in listed]
    assert extra == [None, None, "bot", "bot"]


async def test_a_list_without_a_limit_has_all_since_openais_client_asks_once(
    asker: openai.AsyncOpenAI, house: House, tmp_path: Path
) -> None:
    registered = [
        facts.ModelRegistered(name=f"m-{n}", path=str(tmp_path), kind="model", base=None, job=None)
        for n in range(1001)
    ]
    await house.log.append([event(f"model/{each.name}", each, "test") for each in registered])
    listed = [each.id async for each in asker.models.list()]
    assert len(listed) > 1001
    page = await asker.get("/models", cast_to=object, options={"params": {"limit": 2}})
    assert isinstance(page, dict)
    assert (len(page["data"]), page["has_more"]) == (2, True)


@pytest.mark.parametrize("name", ["bot", FT, ALIAS])
async def test_a_model_is_retrieved_by_any_of_its_names(
    asker: openai.AsyncOpenAI, client: aiohttp.ClientSession, name: str
) -> None:
    await promote(client, "bot")
    model = await asker.models.retrieve(name)
    assert model.id == name
    shown = model.model_dump()
    assert (shown["job"], shown["aliases"], shown["fine_tuned_model"]) == ("job-x7k2m9qd4t", [ALIAS], FT)


async def test_a_name_with_a_slash_is_found_written_either_way(
    house: House, client: aiohttp.ClientSession, tmp_path: Path
) -> None:
    await register(house, "team/orders", tmp_path)
    for written in ("team/orders", "team%2Forders"):
        async with client.get(f"/v1/models/{written}") as answer:
            assert (await answer.json())["id"] == "team/orders"
    async with client.get("/v1/models/team%2Forders/lineage") as answer:
        assert answer.status == 200


async def test_a_model_that_there_is_not_is_told_with_the_nearest(asker: openai.AsyncOpenAI) -> None:
    with pytest.raises(openai.NotFoundError, match="'small'"):
        await asker.models.retrieve("smal")


async def test_a_fine_tuned_model_is_deleted_by_its_ft_name(asker: openai.AsyncOpenAI) -> None:
    assert (await asker.models.delete(FT)).deleted
    assert [each.id async for each in asker.models.list()] == ["small"]


async def test_a_model_that_an_alias_names_is_not_deleted(
    asker: openai.AsyncOpenAI, client: aiohttp.ClientSession
) -> None:
    await promote(client, "bot")
    with pytest.raises(openai.ConflictError) as refused:
        await asker.models.delete("bot")
    assert refused.value.code == "model_aliased"


@pytest.mark.parametrize("name", ["bot", FT, ALIAS])
async def test_an_adapter_answers_at_once_over_its_base_by_any_name(
    house: House, asker: openai.AsyncOpenAI, client: aiohttp.ClientSession, name: str
) -> None:
    await promote(client, "bot")
    answer = await asker.chat.completions.create(model=name, messages=[{"role": "user", "content": "hi"}])
    adapter, said = (answer.choices[0].message.content or "").split()
    assert adapter.startswith("bot-")
    assert said == "hi"
    assert answer.model == name


async def test_an_alias_is_promoted_rolled_back_and_freed(
    house: House, asker: openai.AsyncOpenAI, client: aiohttp.ClientSession
) -> None:
    await promote(client, "small")
    promoted = await promote(client, FT)
    assert (promoted["model"], promoted["history"]) == ("bot", ["small"])
    async with client.post(f"/v1/aliases/{ALIAS}/rollback") as answer:
        back = await answer.json()
    assert (back["model"], back["history"]) == ("small", [])
    async with client.get("/v1/aliases") as answer:
        assert (await answer.json())["data"] == [back]
    async with client.get(f"/v1/aliases/{ALIAS}") as answer:
        assert await answer.json() == back
    async with client.post(f"/v1/aliases/{ALIAS}/rollback") as answer:
        assert answer.status == 409
    async with client.delete(f"/v1/aliases/{ALIAS}") as answer:
        assert (await answer.json())["deleted"]
    async with client.get(f"/v1/aliases/{ALIAS}") as answer:
        assert answer.status == 404
    types = [each.type for each in await house.log.read(stream=f"alias/{ALIAS}")]
    assert types == ["alias.set", "alias.set", "alias.set", "alias.deleted"]


async def test_a_rollback_with_a_key_is_done_once(
    asker: openai.AsyncOpenAI, client: aiohttp.ClientSession, tmp_path: Path, house: House
) -> None:
    await register(house, "other", tmp_path)
    for model in ("small", "bot", "other"):
        await promote(client, model)
    for _ in range(2):
        async with client.post(
            f"/v1/aliases/{ALIAS}/rollback", headers={"Idempotency-Key": "once"}
        ) as answer:
            assert (await answer.json())["model"] == "bot"


async def test_what_an_alias_stood_for_is_seen_in_the_past(
    house: House, asker: openai.AsyncOpenAI, client: aiohttp.ClientSession
) -> None:
    await promote(client, "small")
    then = house.log.head
    await promote(client, "bot")
    async with client.get("/v1/models", params={"at": then}) as answer:
        listed = (await answer.json())["data"]
    assert {each["id"]: each["stands_for"] for each in listed}[ALIAS] == "small"
