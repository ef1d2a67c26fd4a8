"""Answers of the embedded engine: what was asked for, in OpenAI's shapes, and nothing dropped in silence."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing, asynccontextmanager
from functools import partial
from itertools import takewhile
from pathlib import Path
from typing import Any

import anyio
import anyio.lowlevel
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from tests.acceptance.sft.tiny import make_tokenizer  # noqa: E402
from tests.unit.transformers_engine.tiny_engine import opinionated, tiny_engine  # noqa: E402

from finetuned_sdk.engines import Adapter, EngineGoneError, Request, RequestError  # noqa: E402
from finetuned_transformers import generation  # noqa: E402
from finetuned_transformers.decoder import Prompt  # noqa: E402
from finetuned_transformers.engine import TransformersEngine  # noqa: E402

pytestmark = [
    pytest.mark.torch,
    pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning"),
]

CHAT, COMPLETIONS = "/v1/chat/completions", "/v1/completions"
ASKED = [{"role": "user", "content": "what colour is the river"}]
TOKENIZER = make_tokenizer()


@asynccontextmanager
async def engine(tmp_path: Path, **params: Any) -> AsyncIterator[TransformersEngine]:
    made, _ = tiny_engine(tmp_path, **params)
    try:
        yield made
    finally:
        await made.close()


async def parts(made: TransformersEngine, endpoint: str, **body: Any) -> list[Any]:
    async with aclosing(made.answer(Request(endpoint=endpoint, body={"model": "tiny", **body}))) as found:
        return [part async for part in found]


async def chat(made: TransformersEngine, **body: Any) -> Any:
    (answer,) = await parts(made, CHAT, **{"messages": ASKED, "max_tokens": 12, **body})
    return answer


async def complete(made: TransformersEngine, **body: Any) -> Any:
    (answer,) = await parts(made, COMPLETIONS, **{"prompt": "the lamp is", "max_tokens": 12, **body})
    return answer


def until_another_waits(made: TransformersEngine) -> None:
    """Hold the thread that generates until there is something to join what it works at."""
    with made._generation._changed:
        assert made._generation._changed.wait_for(lambda: made._generation.waiting, timeout=60)


def contents(answer: Any) -> list[str]:
    return [each["message"]["content"] for each in answer["choices"]]


def decoded(ids: list[int]) -> str:
    text: str = TOKENIZER.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)
    return text


def generated(prompt: list[int], tokens: int) -> list[int]:
    ids = torch.tensor([prompt])
    out = opinionated().generate(
        input_ids=ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=tokens
    )
    found: list[int] = out[0, len(prompt) :].tolist()
    return found


@pytest.mark.parametrize("packed", [True, False])
async def test_the_likeliest_answer_is_that_of_generate(tmp_path: Path, packed: bool) -> None:
    prompt = list(
        TOKENIZER.apply_chat_template(ASKED, add_generation_prompt=True, tokenize=True, return_dict=True)[
            "input_ids"
        ]
    )
    async with engine(tmp_path, packed=packed) as made:
        answer = await chat(made, temperature=0, max_tokens=40)
    expected = generated(prompt, 40)
    assert contents(answer) == [decoded(expected)]
    assert answer["usage"]["prompt_tokens"] == len(prompt)
    assert answer["usage"]["completion_tokens"] == len(expected)


async def test_a_seed_says_what_is_drawn_whatever_is_drawn_beside_it(tmp_path: Path) -> None:
    found: dict[int, list[str]] = {}
    async with engine(tmp_path, at_once=3) as made:
        alone = [contents(await chat(made, seed=seed)) for seed in range(4)]

        async def ask(seed: int) -> None:
            found[seed] = contents(await chat(made, seed=seed))

        async with anyio.create_task_group() as tasks:
            for seed in range(4):
                tasks.start_soon(ask, seed)
                tasks.start_soon(lambda: complete(made, n=2))
    assert [found[seed] for seed in range(4)] == alone
    assert len({text for (text,) in alone}) > 1


async def test_several_answers_are_drawn_apart(tmp_path: Path) -> None:
    async with engine(tmp_path) as made:
        answer = await chat(made, seed=5, n=4)
        again = await chat(made, seed=5, n=2)
    assert [each["index"] for each in answer["choices"]] == [0, 1, 2, 3]
    assert len(set(contents(answer))) > 1
    assert contents(again) == contents(answer)[:2]


async def test_several_prompts_have_the_answers_that_each_has_alone(tmp_path: Path) -> None:
    prompts = ["the lamp is", "the river is red", TOKENIZER("the stone")["input_ids"]]
    async with engine(tmp_path) as made:
        together = await complete(made, prompt=prompts[:2], seed=1, n=2)
        alone = [await complete(made, prompt=each, seed=1, n=2) for each in prompts[:2]]
        as_tokens = await complete(made, prompt=[prompts[2]], seed=1)
        as_text = await complete(made, prompt="the stone", seed=1)
    assert [each["text"] for each in together["choices"]] == [
        each["text"] for answer in alone for each in answer["choices"]
    ]
    assert [each["index"] for each in together["choices"]] == [0, 1, 2, 3]
    assert as_tokens["choices"][0]["text"] == as_text["choices"][0]["text"]


async def test_a_stop_string_ends_an_answer_and_is_not_in_it(tmp_path: Path) -> None:
    async with engine(tmp_path) as made:
        full = (await complete(made, temperature=0, max_tokens=30))["choices"][0]["text"]
        stop = full[len(full) // 2 :][:3]
        answer = await complete(made, temperature=0, max_tokens=30, stop=["never said", stop])
        chunks = await parts(
            made, COMPLETIONS, prompt="the lamp is", temperature=0, max_tokens=30, stop=stop, stream=True
        )
    (choice,) = answer["choices"]
    assert choice["text"] == full[: full.index(stop)]
    assert choice["finish_reason"] == "stop"
    assert "".join(chunk["choices"][0]["text"] for chunk in chunks) == choice["text"]
    assert answer["usage"]["completion_tokens"] < 30


async def test_the_model_ends_its_text_unless_it_is_told_to_go_on(tmp_path: Path) -> None:
    made, _ = tiny_engine(tmp_path)
    first = generated(list(TOKENIZER("the lamp is")["input_ids"]), 1)[0]
    object.__setattr__(made._loaded, "stop_ids", frozenset({first}))
    try:
        ended = await complete(made, temperature=0)
        on = await complete(made, temperature=0, ignore_eos=True)
    finally:
        await made.close()
    assert (ended["choices"][0]["text"], ended["choices"][0]["finish_reason"]) == ("", "stop")
    assert ended["usage"]["completion_tokens"] == 1
    assert on["usage"]["completion_tokens"] == 12


async def test_log_probabilities_are_those_of_a_forward(tmp_path: Path) -> None:
    async with engine(tmp_path) as made:
        answer = await complete(made, temperature=0, max_tokens=8, logprobs=3)
        talk = await chat(made, temperature=0, max_tokens=4, logprobs=True, top_logprobs=2)
        none = await chat(made, temperature=0, max_tokens=4, logprobs=True)
    told = answer["choices"][0]["logprobs"]
    prompt = list(TOKENIZER("the lamp is")["input_ids"])
    said = generated(prompt, 8)
    with torch.no_grad():
        logits = opinionated()(torch.tensor([[*prompt, *said]])).logits[0, len(prompt) - 1 : -1]
    expected = logits.log_softmax(-1).gather(1, torch.tensor(said)[:, None])[:, 0]
    assert told["token_logprobs"] == pytest.approx(expected.tolist(), abs=1e-4)
    assert [max(each, key=each.get) for each in told["top_logprobs"]] == told["tokens"]
    assert told["text_offset"][0] == 0
    entries = talk["choices"][0]["logprobs"]["content"]
    assert [len(each["top_logprobs"]) for each in entries] == [2] * 4
    assert entries[0]["token"] == entries[0]["top_logprobs"][0]["token"]
    assert entries[0]["logprob"] == pytest.approx(entries[0]["top_logprobs"][0]["logprob"])
    assert all(each["top_logprobs"] == [] for each in none["choices"][0]["logprobs"]["content"])


async def test_chunks_have_the_log_probabilities_of_their_tokens(tmp_path: Path) -> None:
    async with engine(tmp_path) as made:
        answer = await chat(made, temperature=0, logprobs=True)
        chunks = await parts(
            made, CHAT, messages=ASKED, max_tokens=12, temperature=0, logprobs=True, stream=True
        )
    told = [each["choices"][0]["logprobs"] for each in chunks]
    entries = [entry for each in told if each for entry in each["content"]]
    expected = answer["choices"][0]["logprobs"]["content"]
    assert [each["token"] for each in entries] == [each["token"] for each in expected]
    assert [each["logprob"] for each in entries] == pytest.approx(
        [each["logprob"] for each in expected], abs=1e-4
    )


async def test_chunks_begin_with_the_role_and_end_with_the_usage(tmp_path: Path) -> None:
    async with engine(tmp_path) as made:
        chunks = await parts(
            made,
            CHAT,
            messages=ASKED,
            max_tokens=5,
            n=2,
            stream=True,
            stream_options={"include_usage": True},
        )
    assert [each["choices"][0]["delta"] for each in chunks[:2]] == [{"role": "assistant", "content": ""}] * 2
    assert [each["choices"][0]["index"] for each in chunks[:2]] == [0, 1]
    assert chunks[-1]["choices"] == []
    assert chunks[-1]["usage"]["total_tokens"] > 10
    assert all(each["usage"] is None for each in chunks[:-1])
    assert {each["object"] for each in chunks} == {"chat.completion.chunk"}
    assert len({each["id"] for each in chunks}) == 1
    json.dumps(chunks)


async def test_a_prompt_may_be_echoed(tmp_path: Path) -> None:
    async with engine(tmp_path) as made:
        answer = await complete(made, echo=True, temperature=0)
        plain = await complete(made, temperature=0)
        chunks = await parts(
            made, COMPLETIONS, prompt="the lamp is", max_tokens=12, echo=True, temperature=0, stream=True
        )
    assert answer["choices"][0]["text"] == "the lamp is" + plain["choices"][0]["text"]
    assert "".join(each["choices"][0]["text"] for each in chunks) == answer["choices"][0]["text"]


async def test_without_a_limit_an_answer_may_fill_the_context(tmp_path: Path) -> None:
    async with engine(tmp_path, max_context=64) as made:
        answer = await chat(made, temperature=0, max_tokens=None, ignore_eos=True)
        assert made.context_length == 64
    assert answer["usage"]["total_tokens"] == 64
    assert answer["choices"][0]["finish_reason"] == "length"


async def test_an_answer_that_would_not_fit_is_refused_before_it_begins(tmp_path: Path) -> None:
    async with engine(tmp_path, max_context=64) as made:
        with pytest.raises(RequestError, match="maximum context length is 64 tokens") as refused:
            await chat(made, max_tokens=60)
    assert (refused.value.code, refused.value.param) == ("context_length_exceeded", "messages")


@pytest.mark.parametrize(
    ("body", "param", "code"),
    [
        ({"tools": [{"type": "function"}]}, "tools", "unsupported_parameter"),
        ({"response_format": {"type": "json_object"}}, "response_format", "unsupported_parameter"),
        ({"presence_penalty": 0.5}, "presence_penalty", "unsupported_parameter"),
        (
            {"stream_options": {"surprise": True}, "stream": True},
            "stream_options.surprise",
            "unsupported_parameter",
        ),
        ({"temperature": -0.1}, "temperature", "invalid_value"),
        ({"temperature": "warm"}, "temperature", "invalid_value"),
        ({"top_p": -0.1}, "top_p", "invalid_value"),
        ({"n": 129}, "n", "invalid_value"),
        (
            {"chat_template_kwargs": {"tokenize": False}},
            "chat_template_kwargs.tokenize",
            "unsupported_parameter",
        ),
        ({"stop": ["a"] * 17}, "stop", "invalid_value"),
        ({"max_tokens": 0}, "max_tokens", "invalid_value"),
        ({"n": 0}, "n", "invalid_value"),
        ({"stop": ""}, "stop", "invalid_value"),
        ({"seed": 1.5}, "seed", "invalid_value"),
        ({"logprobs": True, "top_logprobs": 21}, "top_logprobs", "invalid_value"),
        ({"top_logprobs": 2}, "top_logprobs", "invalid_value"),
        ({"stream_options": {"include_usage": True}}, "stream_options", "invalid_value"),
        ({"messages": None}, "messages", "missing_required_parameter"),
        ({"messages": []}, "messages", "invalid_value"),
        ({"messages": [{"role": "wizard", "content": "x"}]}, "messages", "invalid_value"),
        ({"messages": [{"role": "user", "content": None}]}, "messages", "invalid_value"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, "messages", "invalid_value"),
        (
            {"messages": [{"role": "user", "content": "x", "tool_calls": [1]}]},
            "messages[0].tool_calls",
            "unsupported_parameter",
        ),
    ],
)
async def test_what_a_conversation_cannot_be_asked_with_is_named(
    tmp_path: Path, body: dict[str, Any], param: str, code: str
) -> None:
    async with engine(tmp_path) as made:
        with pytest.raises(RequestError) as refused:
            await chat(made, **body)
    assert (refused.value.param, refused.value.code, refused.value.status) == (param, code, 400)
    assert param.rsplit(".", maxsplit=1)[-1] in refused.value.message


@pytest.mark.parametrize(
    ("body", "param", "code"),
    [
        ({"prompt": ""}, "prompt", "invalid_value"),
        ({"prompt": []}, "prompt", "invalid_value"),
        ({"prompt": [3, 100_000]}, "prompt", "invalid_value"),
        ({"prompt": {"text": "x"}}, "prompt", "invalid_value"),
        ({"prompt": ["a"] * 1025, "n": 2}, "prompt", "invalid_value"),
        ({"prompt": [[1]] * 2049}, "prompt", "invalid_value"),
        ({"prompt": None}, "prompt", "missing_required_parameter"),
        ({"best_of": 3}, "best_of", "unsupported_parameter"),
        ({"suffix": "end"}, "suffix", "unsupported_parameter"),
        ({"echo": True, "logprobs": 1}, "echo", "unsupported_parameter"),
        ({"max_completion_tokens": 3}, "max_completion_tokens", "unsupported_parameter"),
    ],
)
async def test_what_a_completion_cannot_be_asked_with_is_named(
    tmp_path: Path, body: dict[str, Any], param: str, code: str
) -> None:
    async with engine(tmp_path) as made:
        with pytest.raises(RequestError) as refused:
            await complete(made, **body)
    assert (refused.value.param, refused.value.code) == (param, code)


async def test_what_changes_nothing_may_be_said(tmp_path: Path) -> None:
    async with engine(tmp_path) as made:
        plain = await chat(made, temperature=0)
        said = await chat(
            made,
            temperature=0,
            presence_penalty=0.0,
            frequency_penalty=0,
            logit_bias={},
            tools=[],
            response_format={"type": "text"},
            user="somebody",
            stop=None,
            n=1,
        )
    assert contents(said) == contents(plain)


async def test_parts_of_text_and_the_developers_role_are_read(tmp_path: Path) -> None:
    in_parts = [{"type": "text", "text": "what colour "}, {"type": "text", "text": "is the river"}]
    async with engine(tmp_path) as made:
        plain = await chat(made, temperature=0, messages=[{"role": "system", "content": "speak"}, *ASKED])
        said = await chat(
            made,
            temperature=0,
            messages=[{"role": "developer", "content": "speak"}, {"role": "user", "content": in_parts}],
        )
    assert contents(said) == contents(plain)


async def test_a_model_without_a_chat_template_is_asked_for_completions_alone(tmp_path: Path) -> None:
    async with engine(tmp_path) as made:
        made._loaded.tokenizer.chat_template = None
        with pytest.raises(RequestError) as refused:
            await chat(made)
        assert (await complete(made))["choices"]
    assert refused.value.code == "no_chat_template"


async def test_an_adapter_brings_its_own_chat_template(tmp_path: Path) -> None:
    made, adapter = tiny_engine(tmp_path)
    template = anyio.Path(adapter.path, "chat_template.jinja")
    await template.write_text("{{ messages[0]['content'] }}", encoding="utf-8")
    made._loaded.tokenizer.chat_template = None
    try:
        request = Request(endpoint=CHAT, body={"messages": ASKED, "max_tokens": 3}, adapter=adapter)
        async with aclosing(made.answer(request)) as found:
            (answer,) = [part async for part in found]
    finally:
        await made.close()
    assert answer["usage"]["prompt_tokens"] == len(TOKENIZER(ASKED[0]["content"])["input_ids"])


async def test_probabilities_that_are_no_numbers_end_the_request_alone(tmp_path: Path) -> None:
    async with engine(tmp_path, packed=False) as made:
        decoder: Any = made._loaded.decoder
        forward = decoder._forward
        decoder._forward = lambda *args: forward(*args) * float("nan")
        with pytest.raises(RequestError) as failed:
            await chat(made)
        decoder._forward = forward
        assert (await chat(made))["choices"]
    assert (failed.value.status, failed.value.code) == (500, "model_diverged")


@pytest.mark.parametrize("packed", [True, False])
async def test_a_failing_step_ends_the_engine_and_is_nobodys_error(tmp_path: Path, packed: bool) -> None:
    async with engine(tmp_path, packed=packed, at_once=1) as made:
        decoder: Any = made._loaded.decoder
        failed: list[Exception] = []

        def fail(_: Any) -> Any:
            with made._generation._changed:
                made._generation._changed.wait_for(lambda: made._generation.waiting)
            raise ZeroDivisionError

        async def ask() -> None:
            try:
                await chat(made, ignore_eos=True)
            except EngineGoneError as error:
                failed.append(error)

        decoder.step = fail
        async with anyio.create_task_group() as tasks:
            for _ in range(2):  # one runs, and one waits
                tasks.start_soon(ask)
        await ask()  # as one that comes too late
        with pytest.raises(EngineGoneError, match="ZeroDivisionError"):
            made.status()
        with pytest.raises(EngineGoneError):
            await made.score([[1, 2]])
    assert len(failed) == 3


@pytest.mark.parametrize("packed", [True, False])
async def test_a_step_without_memory_goes_on_with_fewer_rows(tmp_path: Path, packed: bool) -> None:
    async def said(made: TransformersEngine) -> list[str]:
        asked = [
            {"prompt": f"the {name}", "temperature": temperature, "seed": 7, "ignore_eos": True}
            for temperature, name in enumerate(("lamp", "river", "stone", "apple", "the lamp"))
        ]
        found: dict[int, Any] = {}

        async def ask(place: int) -> None:
            found[place] = await complete(made, **{**asked[place], "temperature": min(place, 1)})

        async with anyio.create_task_group() as tasks:
            for place in range(len(asked)):
                tasks.start_soon(ask, place)
        return [found[place]["choices"][0]["text"] for place in range(len(asked))]

    async with engine(tmp_path, packed=packed) as made:
        expected = await said(made)
        decoder: Any = made._loaded.decoder
        step, most = decoder.step, 0

        def fail_beside_another(tokens: Any) -> Any:
            nonlocal most
            if not most and len(tokens) == 1:
                until_another_waits(made)
            if len(tokens) > 1:
                most = max(most, len(tokens))
                raise MemoryError
            return step(tokens)

        decoder.step = fail_beside_another
        assert await said(made) == expected
    assert most > 1


async def test_a_step_that_has_no_memory_for_one_row_refuses_it(tmp_path: Path) -> None:
    async with engine(tmp_path) as made:
        decoder: Any = made._loaded.decoder
        step = decoder.step

        def fail(_: Any) -> Any:
            raise MemoryError

        decoder.step = fail
        with pytest.raises(RequestError) as refused:
            await chat(made, ignore_eos=True)
        decoder.step = step
        assert (await chat(made))["choices"]
    assert (refused.value.status, refused.value.code) == (400, "context_length_exceeded")


async def test_a_device_that_has_failed_ends_the_engine(tmp_path: Path) -> None:
    async with engine(tmp_path) as made:
        decoder: Any = made._loaded.decoder

        def fail(*_: Any) -> Any:
            raise torch.AcceleratorError("CUDA error: an illegal memory access was encountered")

        decoder.join = fail
        with pytest.raises(EngineGoneError, match="illegal memory access"):
            await chat(made)
        with pytest.raises(EngineGoneError):
            made.status()


@pytest.mark.parametrize("packed", [True, False])
async def test_what_is_asked_online_joins_at_the_next_free_row(tmp_path: Path, packed: bool) -> None:
    async with engine(tmp_path, packed=packed, at_once=1) as made:
        decoder: Any = made._loaded.decoder
        rows, step = made._generation, decoder.step
        ended: list[str] = []

        async def ask(name: str, priority: int) -> None:
            body = {"model": "tiny", "prompt": name, "max_tokens": 3, "ignore_eos": True}
            request = Request(endpoint=COMPLETIONS, body=body, priority=priority)
            async with aclosing(made.answer(request)) as found:
                assert [part async for part in found]
            ended.append(name)

        async def waiting(number: int) -> None:
            while rows.waiting < number:
                await anyio.lowlevel.checkpoint()

        def hold(tokens: Any) -> Any:
            with rows._changed:
                rows._changed.wait_for(lambda: rows.waiting == 3)
            decoder.step = step
            return step(tokens)

        decoder.step = hold
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(ask, "the lamp", -1)
            while not rows.running:
                await anyio.lowlevel.checkpoint()
            for number, name in enumerate(("a river", "a stone")):
                tasks.start_soon(ask, name, -1)
                await waiting(number + 1)
            tasks.start_soon(ask, "an apple", 0)
    assert ended == ["the lamp", "an apple", "a river", "a stone"]


@pytest.mark.parametrize("packed", [True, False])
async def test_a_long_prompt_is_computed_between_the_steps_of_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, packed: bool
) -> None:
    long = {"prompt": "the lamp is " * 20, "temperature": 0, "max_tokens": 5, "ignore_eos": True}
    async with engine(tmp_path, packed=packed) as made:
        whole = await complete(made, **long)
        length = whole["usage"]["prompt_tokens"]
        monkeypatch.setattr(generation, "_PIECE", 16)
        decoder: Any = made._loaded.decoder
        step, prepare, join = decoder.step, decoder.prepare, decoder.join
        done: list[str] = []
        counted: list[int] = []

        def hold(tokens: Any) -> Any:
            with made._generation._changed:
                made._generation._changed.wait_for(lambda: made._generation.waiting)
            decoder.step = noting_step
            return step(tokens)

        def noting_step(tokens: Any) -> Any:
            done.append("step")
            return step(tokens)

        def noting_prepare(*args: Any) -> Any:
            done.append("piece")
            counted.append(made.status().tokens)
            assert made.status().running == 2
            return prepare(*args)

        def noting_join(*args: Any) -> Any:
            done.append("join")
            return join(*args)

        found: list[Any] = []

        async def ask(**body: Any) -> None:
            found.append(await complete(made, **body))

        decoder.step = hold
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(partial(ask, prompt="river", max_tokens=60, ignore_eos=True))
            while not made._generation.running:
                await anyio.lowlevel.checkpoint()
            decoder.prepare, decoder.join = noting_prepare, noting_join
            tasks.start_soon(partial(ask, **long))
    pieces = done[: done.index("join")]
    while pieces[0] == "step":  # of the row that was there before
        del pieces[0]
    assert pieces == ["piece", "step"] * (len(pieces) // 2)
    assert 1 <= len(pieces) // 2 <= (length - 1) // 16
    assert counted == sorted(set(counted))  # it shows that it gets on
    assert whole["choices"] in [each["choices"] for each in found]


async def test_a_prompt_that_fails_in_a_piece_ends_as_one_that_cannot_begin(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with engine(tmp_path) as made:
        expected = await complete(made, prompt="the lamp is " * 20, temperature=0)
        monkeypatch.setattr(generation, "_PIECE", 16)
        decoder: Any = made._loaded.decoder

        def fail(*_: Any) -> Any:
            raise MemoryError

        decoder.prepare = fail
        assert (await complete(made, prompt="the lamp is " * 20, temperature=0))["choices"] == expected[
            "choices"
        ]
        decoder.join = fail
        with pytest.raises(RequestError) as refused:
            await complete(made, prompt="the lamp is " * 20)
    assert refused.value.status == 400


async def test_a_long_prompt_that_nobody_waits_for_is_let_go(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(generation, "_PIECE", 16)
    async with engine(tmp_path) as made:
        decoder: Any = made._loaded.decoder
        rows: Any = made._generation
        prepare = decoder.prepare

        async def ask() -> None:
            await complete(made, prompt="the lamp is " * 20)

        async with anyio.create_task_group() as tasks:

            def leave(*args: Any) -> Any:
                decoder.prepare = prepare
                rows._loop.call_soon_threadsafe(tasks.cancel_scope.cancel)
                with rows._changed:
                    rows._changed.wait_for(lambda: rows._long.ended)
                return prepare(*args)

            decoder.prepare = leave
            tasks.start_soon(ask)
        assert (await complete(made, prompt="lamp"))["choices"]
        assert made.status().running == 0


async def test_a_small_cache_lets_the_others_wait(tmp_path: Path) -> None:
    found: list[Any] = []
    async with engine(tmp_path, cache_tokens=64) as made:

        async def ask(number: int) -> None:
            found.append(await complete(made, prompt=f"the lamp {number}", max_tokens=20, ignore_eos=True))

        async with anyio.create_task_group() as tasks:
            for number in range(8):
                tasks.start_soon(ask, number)
    assert [each["usage"]["completion_tokens"] for each in found] == [20] * 8


@pytest.mark.parametrize("failure", [MemoryError(), ZeroDivisionError()])
async def test_a_request_that_cannot_begin_ends_alone(tmp_path: Path, failure: Exception) -> None:
    async with engine(tmp_path) as made:
        decoder: Any = made._loaded.decoder
        join = decoder.join
        alone = [
            await complete(made, prompt=each, temperature=0, ignore_eos=True) for each in ("lamp", "river")
        ]

        def fail_half_way(prompts: Sequence[Prompt]) -> Any:
            good = list(takewhile(lambda each: each.limit != len(each.ids) + 7, prompts))
            found = join(good) if good else None
            if len(good) < len(prompts):
                raise failure
            return found

        decoder.join = fail_half_way
        found: dict[str, Any] = {}
        begun = anyio.Event()

        async def stream() -> None:
            body = {"prompt": "lamp", "max_tokens": 12, "temperature": 0, "ignore_eos": True, "stream": True}
            chunks = []
            async with aclosing(made.answer(Request(endpoint=COMPLETIONS, body=body))) as said:
                async for chunk in said:
                    chunks.append(chunk["choices"][0]["text"])
                    begun.set()
            found["lamp"] = "".join(chunks)

        async def ask(name: str, **body: Any) -> None:
            try:
                found[name] = await complete(made, prompt=name, temperature=0, ignore_eos=True, **body)
            except (RequestError, ZeroDivisionError) as error:
                found[name] = error

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(stream)
            await begun.wait()
            tasks.start_soon(partial(ask, "too much", max_tokens=7))
            tasks.start_soon(ask, "river")
    if isinstance(failure, MemoryError):
        refused = found["too much"]
        assert (refused.status, refused.code) == (400, "context_length_exceeded")
    else:
        assert found["too much"] is failure
    assert [found["lamp"], found["river"]["choices"][0]["text"]] == [
        each["choices"][0]["text"] for each in alone
    ]


async def test_a_request_without_memory_beside_others_waits_for_their_end(tmp_path: Path) -> None:
    async with engine(tmp_path) as made:
        decoder: Any = made._loaded.decoder
        join = decoder.join
        alone = await complete(made, prompt="river", max_tokens=7, temperature=0, ignore_eos=True)
        refused: list[int] = []

        def fail_beside_others(prompts: Sequence[Prompt]) -> Any:
            if decoder._rows or len(prompts) > 1:
                refused.append(len(prompts))
                raise MemoryError
            return join(prompts)

        decoder.join = fail_beside_others
        step = decoder.step

        def held(tokens: Any) -> Any:
            until_another_waits(made)
            decoder.step = step
            return step(tokens)

        decoder.step = held
        found: list[Any] = []

        async def ask(name: str, **body: Any) -> None:
            found.append(await complete(made, prompt=name, temperature=0, ignore_eos=True, **body))

        async with anyio.create_task_group() as tasks:
            for name in ("lamp", "river", "lamp"):
                tasks.start_soon(partial(ask, name, max_tokens=7))
    assert refused
    assert [each["choices"][0]["text"] for each in found].count(alone["choices"][0]["text"]) >= 1
    assert [each["usage"]["completion_tokens"] for each in found] == [7] * 3


@pytest.mark.parametrize("packed", [True, False])
async def test_what_the_cache_can_never_hold_is_refused_at_once(tmp_path: Path, packed: bool) -> None:
    async with engine(tmp_path, packed=packed, cache_tokens=64) as made:
        with pytest.raises(RequestError) as refused:
            await complete(made, max_tokens=100)
    assert (refused.value.status, refused.value.code) == (400, "context_length_exceeded")


@pytest.mark.parametrize("packed", [True, False])
async def test_the_adapter_that_was_used_least_recently_makes_room(tmp_path: Path, packed: bool) -> None:
    made, first = tiny_engine(tmp_path, packed=packed, max_loras=2)
    adapters = [first, Adapter("second", first.path), Adapter("third", first.path)]

    async def ask(adapter: Adapter) -> str:
        body = {"messages": ASKED, "max_tokens": 3, "temperature": 0}
        async with aclosing(made.answer(Request(endpoint=CHAT, body=body, adapter=adapter))) as found:
            (answer,) = [part async for part in found]
        return contents(answer)[0]

    try:
        said = [await ask(adapters[number]) for number in (0, 1, 0, 2)]
        assert made.status().adapters == ("mine", "third")
        said.append(await ask(adapters[1]))
        assert made.status().adapters == ("third", "second")
        async with made._using(adapters[1]), made._using(adapters[2]):
            said.append(await ask(first))
            assert len(made.status().adapters) == 3
    finally:
        await made.close()
    assert len(set(said)) == 1


async def test_a_short_row_counts_as_many_columns_as_the_longest(tmp_path: Path) -> None:
    from finetuned_transformers.decoder import Prompt
    from finetuned_transformers.rows import Row

    async with engine(tmp_path, cache_tokens=128) as made:
        choice: Any = None  # nothing is drawn
        rows = [Row(Prompt([1], limit), choice, frozenset(), asyncio.Queue()) for limit in (20, 60, 20, 100)]
        made._generation._waiting.add(rows)  # it is not told, and stands still
        found = list(made._generation._joining())
        made._generation._waiting.take_all()
    assert [row.prompt.limit for row in found] == [20, 60]


async def test_too_many_completions_are_refused_with_how_many_there_may_be(tmp_path: Path) -> None:
    async with engine(tmp_path) as made:
        with pytest.raises(RequestError, match=r"1025 prompts with n=2 are 2050 completions.*at most 2048"):
            await complete(made, prompt=["a"] * 1025, n=2)


async def test_too_many_strings_are_told_as_that_and_not_as_another_type(tmp_path: Path) -> None:
    async with engine(tmp_path) as made:
        with pytest.raises(RequestError, match="at most 16 items"):
            await chat(made, stop=["a"] * 17)


@pytest.mark.parametrize("settings", [{"top_p": 0}, {"temperature": 1e-40}])
async def test_what_leaves_the_likeliest_token_alone_takes_it(
    tmp_path: Path, settings: dict[str, float]
) -> None:
    async with engine(tmp_path) as made:
        assert contents(await chat(made, **settings)) == contents(await chat(made, temperature=0))


async def test_usage_counts_the_tokens_of_the_text_however_many_were_drawn_behind_its_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A row goes on in the thread that generates until it has heard that a string ended it."""
    async with engine(tmp_path) as made:
        whole = await complete(made, temperature=0, max_tokens=24, ignore_eos=True, logprobs=0)
        tokens = whole["choices"][0]["logprobs"]["tokens"]
        before = "".join(tokens[:3])
        stop = next(each for each in tokens[3:] if each.strip() and each not in before)
        monkeypatch.setattr(made._generation, "abort", lambda _rows: None)  # heard late: at its length
        cut = await complete(made, temperature=0, max_tokens=24, ignore_eos=True, stop=stop)
    assert cut["choices"][0]["finish_reason"] == "stop"
    assert cut["usage"]["completion_tokens"] == 1 + tokens.index(stop)
