"""What every engine promises to whoever asks it."""

from __future__ import annotations

from contextlib import aclosing
from typing import Any

import anyio
import anyio.lowlevel
import pytest
from tests.contract.engines.conftest import Make

from finetuned_sdk.engines import Adapter, Engine, Request, RequestError

pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")

CHAT, COMPLETIONS = "/v1/chat/completions", "/v1/completions"
LONG = "what colour is the river and what colour is the lamp"


def chat(text: str = LONG, adapter: Adapter | None = None, **body: Any) -> Request:
    messages = [{"role": "user", "content": text}]
    return Request(
        endpoint=CHAT,
        body={"model": "tiny", "messages": messages, "temperature": 0, "max_tokens": 8, **body},
        adapter=adapter,
    )


def completion(text: str = LONG, adapter: Adapter | None = None, **body: Any) -> Request:
    return Request(
        endpoint=COMPLETIONS,
        body={"model": "tiny", "prompt": text, "temperature": 0, "max_tokens": 8, **body},
        adapter=adapter,
    )


async def whole(engine: Engine, request: Request) -> Any:
    async with aclosing(engine.answer(request)) as parts:
        (body,) = [part async for part in parts]
    return body


async def streamed(engine: Engine, request: Request) -> list[Any]:
    asked = Request(endpoint=request.endpoint, body={**request.body, "stream": True}, adapter=request.adapter)
    async with aclosing(engine.answer(asked)) as parts:
        return [part async for part in parts]


def text_of(body: Any) -> str:
    choice = body["choices"][0]
    found: str = choice["message"]["content"] if "message" in choice else choice["text"]
    return found


def text_of_chunks(chunks: list[Any]) -> str:
    choices = [choice for chunk in chunks for choice in chunk["choices"]]
    return "".join(each["delta"].get("content", "") if "delta" in each else each["text"] for each in choices)


async def refusal(engine: Engine, request: Request) -> RequestError:
    with pytest.raises(RequestError) as refused:
        await whole(engine, request)
    return refused.value


async def idle(engine: Engine) -> None:
    """Until nothing is computed."""
    with anyio.fail_after(60):
        while engine.status().running or engine.status().waiting:
            await anyio.lowlevel.checkpoint()


@pytest.mark.parametrize("request_of", [chat, completion])
async def test_an_answer_is_in_the_shape_of_openai(make: Make, request_of: Any) -> None:
    async with make() as made:
        body = await whole(made.engine, request_of())
    assert body["object"] == ("chat.completion" if request_of is chat else "text_completion")
    assert body["model"] == "tiny"
    assert body["choices"][0]["index"] == 0
    assert body["choices"][0]["finish_reason"] in {"stop", "length"}
    usage = body["usage"]
    assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"]


@pytest.mark.parametrize("request_of", [chat, completion])
async def test_chunks_are_the_whole_answer_in_parts(make: Make, request_of: Any) -> None:
    async with make() as made:
        body = await whole(made.engine, request_of())
        chunks = await streamed(made.engine, request_of())
    assert text_of_chunks(chunks) == text_of(body) != ""
    ends = [choice["finish_reason"] for chunk in chunks for choice in chunk["choices"]]
    assert ends[-1] == body["choices"][0]["finish_reason"]
    assert not any(ends[:-1])


async def test_many_at_once_each_get_their_own_answer(make: Make) -> None:
    texts = [
        f"the {thing} is number {number}" for number in range(4) for thing in ("apple", "river", "stone")
    ]
    found: dict[str, str] = {}
    async with make(at_once=4) as made:

        async def ask(text: str) -> None:
            found[text] = text_of(await whole(made.engine, completion(text)))

        alone = {text: text_of(await whole(made.engine, completion(text))) for text in texts}
        async with anyio.create_task_group() as tasks:
            for text in texts:
                tasks.start_soon(ask, text)
        await idle(made.engine)
    assert found == alone
    assert len(set(alone.values())) > 3


async def test_no_more_tokens_come_than_were_asked_for(make: Make) -> None:
    async with make() as made:
        body = await whole(made.engine, completion(max_tokens=2))
    assert body["choices"][0]["finish_reason"] == "length"


async def test_an_answer_that_nobody_reads_on_takes_no_more_time(make: Make) -> None:
    async with make() as made:
        async with aclosing(made.engine.answer(completion(LONG * 5, max_tokens=200, stream=True))) as parts:
            await anext(parts)
        await idle(made.engine)


async def test_a_cancelled_request_takes_no_more_time(make: Make) -> None:
    async with make(at_once=1) as made:
        async with anyio.create_task_group() as tasks:
            for _ in range(3):
                tasks.start_soon(whole, made.engine, completion(LONG * 5, max_tokens=200))
            with anyio.fail_after(60):
                while not made.engine.status().running:
                    await anyio.lowlevel.checkpoint()
            tasks.cancel_scope.cancel()
        await idle(made.engine)


async def test_adapters_come_with_the_request_and_stay(make: Make) -> None:
    async with make() as made:
        plain = text_of(await whole(made.engine, completion()))
        adapted = text_of(await whole(made.engine, completion(adapter=made.adapter)))
        assert made.engine.status().adapters == ("mine",)
        assert text_of(await whole(made.engine, completion(adapter=made.adapter))) == adapted != plain
        assert text_of(await whole(made.engine, completion())) == plain


async def test_a_dropped_adapter_is_gone_and_comes_again(make: Make) -> None:
    async with make() as made:
        await made.engine.add_adapter(made.adapter)
        await made.engine.add_adapter(made.adapter)
        adapted = text_of(await whole(made.engine, completion(adapter=made.adapter)))
        await made.engine.drop_adapter("mine")
        await made.engine.drop_adapter("mine")
        assert made.engine.status().adapters == ()
        assert text_of(await whole(made.engine, completion(adapter=made.adapter))) == adapted


async def test_scores_are_log_probabilities_of_all_tokens_but_the_first(make: Make) -> None:
    async with make() as made:
        scores = await made.engine.score([[5, 6, 7, 8], [9, 5], [7]])
        again = await made.engine.score([[9, 5]], made.adapter)
    assert [len(each) for each in scores] == [3, 1, 0]
    assert all(value <= 0 for each in (*scores, *again) for value in each)


async def test_a_sequence_that_is_too_long_is_not_scored(make: Make) -> None:
    async with make() as made:
        with pytest.raises(RequestError) as refused:
            await made.engine.score([[5] * (made.engine.context_length + 1)])
    assert refused.value.code == "context_length_exceeded"


async def test_its_status_counts_what_it_does(make: Make) -> None:
    async with make() as made:
        before = made.engine.status()
        await whole(made.engine, completion())
        await idle(made.engine)
        after = made.engine.status()
    assert (before.running, before.waiting) == (0, 0)
    assert after.tokens > before.tokens
    assert after.kv_used is None or 0 <= after.kv_used <= 1


async def test_an_unknown_parameter_is_named(make: Make) -> None:
    async with make() as made:
        refused = await refusal(made.engine, chat(surprise=1))
    assert (refused.code, refused.param, refused.status) == ("unsupported_parameter", "surprise", 400)
    assert "surprise" in refused.message


async def test_a_value_out_of_range_is_refused(make: Make) -> None:
    async with make() as made:
        refused = await refusal(made.engine, completion(temperature=3))
    assert (refused.code, refused.param) == ("invalid_value", "temperature")


async def test_a_prompt_that_is_too_long_is_refused(make: Make) -> None:
    async with make() as made:
        refused = await refusal(made.engine, chat("lamp " * 2000))
    assert (refused.code, refused.param) == ("context_length_exceeded", "messages")


async def test_an_endpoint_that_it_has_not_is_refused(make: Make) -> None:
    async with make() as made:
        refused = await refusal(made.engine, Request(endpoint="/v1/surprises", body={"model": "tiny"}))
    assert refused.code == "unknown_endpoint"


async def test_closing_ends_what_runs(make: Make) -> None:
    running = completion(LONG * 5, max_tokens=200, stream=True)
    async with make() as made, aclosing(made.engine.answer(running)) as parts:
        await anext(parts)
        await made.engine.close()
