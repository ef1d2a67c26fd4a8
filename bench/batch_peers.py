"""What a batch is measured beside, each in a process of its own: the engine called bare, and libraries by themselves.

``PYTHON bench/batch_peers.py WAY --model DIR --asked FILE``. It loads the model, answers some requests so that it is warm, writes
``ready``; then, for each line that it reads, it answers all requests at once and writes the seconds and texts as JSON. ``vllm``
runs in vLLM's own environment, so nothing of ours but the workload is imported there.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from bench.batch_workload import AT_ONCE, CONTEXT, ENDPOINT, Asked, body, read_asked, text_of

WARM = 64  # requests
Answer = Callable[[Sequence[Asked]], list[str]]


@contextmanager
def bare(model: str) -> Iterator[Answer]:
    """Our engine without daemon, batch and socket: a task for each request."""
    from types import SimpleNamespace

    from finetuned_sdk.engines import Request
    from finetuned_transformers.engine import TransformersEngine
    from finetuned_transformers.loading import load
    from finetuned_transformers.params import TransformersParams

    context: Any = SimpleNamespace(allow_remote_code=False, device_ids=(), model_path=lambda _: model)
    params = TransformersParams(model=model, at_once=AT_ONCE, max_context=CONTEXT)

    @asynccontextmanager
    async def standing() -> AsyncIterator[TransformersEngine]:
        engine = TransformersEngine(load(context, params))
        try:
            yield engine
        finally:
            await engine.close()

    async def answered(engine: TransformersEngine, asked: Asked) -> str:
        request = Request(endpoint=ENDPOINT, body=body(asked, model))
        (answer,) = [part async for part in engine.answer(request)]
        return text_of(answer)

    async def all_of(engine: TransformersEngine, asked: Sequence[Asked]) -> list[str]:
        return await asyncio.gather(*(answered(engine, each) for each in asked))

    with asyncio.Runner() as runner:
        context_manager = standing()
        engine = runner.run(context_manager.__aenter__())
        try:
            yield lambda asked: runner.run(all_of(engine, asked))
        finally:
            runner.run(context_manager.__aexit__(None, None, None))


@contextmanager
def library(model: str, *, continuous: bool = False, answers_known: bool = True) -> Iterator[Answer]:
    """``generate`` over batches of requests alike in length, or the library's continuous batching.

    Alike in the length of their answers where those are known, as they are here and hardly elsewhere; of their prompts otherwise.
    """
    import torch
    from bench import engine_bench
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(model)
    loaded = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32).eval()
    loaded.generation_config.eos_token_id = None

    def answer(asked: Sequence[Asked]) -> list[str]:
        prompts = tokenizer([each.prompt for each in asked]).input_ids
        answers = [each.tokens if answers_known else 0 for each in asked]
        order = sorted(range(len(asked)), key=lambda at: (-answers[at], -len(prompts[at])))
        rows = [engine_bench.Asked(prompts[at], asked[at].tokens) for at in order]
        with torch.inference_mode():
            if continuous:
                found = engine_bench.by_library(loaded, rows)
            else:
                found = engine_bench.by_generate(loaded, rows, AT_ONCE)
        texts = dict(zip(order, tokenizer.batch_decode(found), strict=True))
        return [texts[at] for at in range(len(asked))]

    yield answer


@contextmanager
def vllm(model: str) -> Iterator[Answer]:
    """``LLM.generate``, as its user calls it, with the options that our engine gives it on CPUs."""
    from vllm import LLM, SamplingParams

    engine = LLM(
        model=model, dtype="float32", enforce_eager=True, max_model_len=CONTEXT, max_num_seqs=AT_ONCE
    )

    def answer(asked: Sequence[Asked]) -> list[str]:
        sampling = [SamplingParams(temperature=0, max_tokens=each.tokens, ignore_eos=True) for each in asked]
        found = engine.generate([each.prompt for each in asked], sampling, use_tqdm=False)
        return [each.outputs[0].text for each in found]

    yield answer


WAYS: dict[str, Callable[[str], Any]] = {
    "bare": bare,
    "generate": library,
    "prompts": lambda model: library(model, answers_known=False),
    "continuous": lambda model: library(model, continuous=True),
    "vllm": vllm,
}


def main() -> int:
    """Serve."""
    parser = argparse.ArgumentParser()
    parser.add_argument("way", choices=WAYS)
    parser.add_argument("--model", required=True)
    parser.add_argument("--asked", type=Path, required=True)
    options = parser.parse_args()
    told = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # libraries write where they like
    asked = read_asked(options.asked)
    with WAYS[options.way](options.model) as answer:
        answer(asked[:WARM])
        print("ready", file=told, flush=True)
        for _ in sys.stdin:
            begun, cpu = time.perf_counter(), time.process_time()
            texts = answer(asked)
            seconds, cpu_seconds = time.perf_counter() - begun, time.process_time() - cpu
            found = {"seconds": seconds, "cpu_seconds": cpu_seconds, "texts": texts}
            print(json.dumps(found), file=told, flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
