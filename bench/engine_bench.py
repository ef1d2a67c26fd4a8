"""The embedded engine's ways to generate, in turns, in one run: the library's two, ours through its forward, ours with packed weights.

A model of SmolLM2-135M's shape with random weights, so that nothing is downloaded; prompts of 20 to 80 tokens, completions of
8 to 128, as uneven as requests are. Each runs in a process of its own with one thread. Beside the wall clock stands the
process's CPU time, which other work on the machine changes less. The texts must be those of ``generate``.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

LENGTHS = (8, 16, 16, 32, 32, 64, 128)
SHAPE = {
    "vocab_size": 49152,
    "hidden_size": 576,
    "intermediate_size": 1536,
    "num_hidden_layers": 30,
    "num_attention_heads": 9,
    "num_key_value_heads": 3,
    "max_position_embeddings": 2048,
    "tie_word_embeddings": True,
    "bos_token_id": None,
    "eos_token_id": None,
    "pad_token_id": 0,
}
TINY = {
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
}
ADAPTERS = ("a", "b", "c", "d")
BEGINNING = 256  # tokens that all prompts have in common where they do


@dataclass(frozen=True)
class Asked:
    """One request."""

    prompt: list[int]
    tokens: int
    adapter: str | None = None


@dataclass(frozen=True)
class Run:
    """A way to generate; ``groups`` says whether requests of one adapter come after those of another."""

    name: str
    at_once: int
    way: str
    adapters: int = 0
    groups: bool = False
    beginning: int = 0
    shares: bool = True


RUNS = (
    Run("generate, 16 at once", 16, "generate"),
    Run("continuous batching of the library", 0, "library"),
    Run("ours by the model's forward, 16 at once", 16, "forward"),
    Run("ours with packed weights, 8 at once", 8, "packed"),
    Run("ours with packed weights, 16 at once", 16, "packed"),
    Run("ours with packed weights, 32 at once", 32, "packed"),
    Run("4 adapters in one batch", 16, "packed", adapters=4),
    Run("4 adapters, one after another", 16, "packed", adapters=4, groups=True),
    Run("a common beginning, computed once", 16, "packed", beginning=BEGINNING),
    Run("a common beginning, computed each time", 16, "packed", beginning=BEGINNING, shares=False),
)


def requests(run: Run, count: int) -> list[Asked]:
    """The same each time."""
    chance = random.Random(0)
    common = [chance.randrange(5, 49_000) for _ in range(run.beginning)]
    found = []
    for number in range(count):
        prompt = common + [chance.randrange(5, 49_000) for _ in range(chance.randint(20, 80))]
        adapter = ADAPTERS[number % run.adapters] if run.adapters else None
        found.append(Asked(prompt, chance.choice(LENGTHS), adapter))
    return found


def made_model(*, quick: bool) -> Any:
    """Random weights, the same each time."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    return LlamaForCausalLM(LlamaConfig(**{**SHAPE, **(TINY if quick else {})})).eval()


def made_adapters(model: Any, directory: Path) -> None:
    """Adapters of rank 16 of all linear layers of attention."""
    import torch
    from peft import LoraConfig, get_peft_model

    for name in ADAPTERS:
        config = LoraConfig(r=16, target_modules=["q_proj", "k_proj", "v_proj", "o_proj"])
        adapted = get_peft_model(model, config)
        with torch.no_grad():
            for parameter_name, parameter in adapted.named_parameters():
                if "lora_B" in parameter_name:
                    parameter.normal_(std=0.02)
        adapted.save_pretrained(directory / name)
        model = adapted.unload()


def by_generate(model: Any, asked: Sequence[Asked], at_once: int) -> list[list[int]]:
    """Batches in their order, each as long as its longest."""
    import torch

    found = []
    for start in range(0, len(asked), at_once):
        part = asked[start : start + at_once]
        longest = max(len(each.prompt) for each in part)
        padding = [longest - len(each.prompt) for each in part]
        ids = torch.tensor([[0] * pad + each.prompt for pad, each in zip(padding, part, strict=True)])
        seen = torch.tensor([[0] * pad + [1] * (longest - pad) for pad in padding])
        out = model.generate(
            input_ids=ids,
            attention_mask=seen,
            do_sample=False,
            max_new_tokens=max(each.tokens for each in part),
            pad_token_id=0,
        )
        found += [row[: each.tokens] for row, each in zip(out[:, longest:].tolist(), part, strict=True)]
    return found


def by_library(model: Any, asked: Sequence[Asked]) -> list[list[int]]:
    """The library's own continuous batching."""
    from transformers import ContinuousBatchingConfig, GenerationConfig

    manager = model.init_continuous_batching(
        generation_config=GenerationConfig(do_sample=False, max_new_tokens=128, pad_token_id=0),
        continuous_batching_config=ContinuousBatchingConfig(
            max_batch_tokens=512, num_blocks=256, page_size=32
        ),
    )
    manager.start()
    for number, each in enumerate(asked):
        manager.add_request(each.prompt, request_id=str(number), max_new_tokens=each.tokens)
    found: dict[int, list[int]] = {}
    while len(found) < len(asked):
        result = manager.get_result(timeout=60)
        assert result is not None, "the library's manager has ended"
        if result.is_finished():
            found[int(result.request_id)] = list(result.generated_tokens)
    manager.stop(block=True)
    return [found[number] for number in range(len(asked))]


async def by_ours(decoder: Any, groups: Sequence[Sequence[Asked]], at_once: int) -> list[list[int]]:
    """Our rows: those of a group are submitted at once, the next group's when all of them have ended."""
    from finetuned_transformers.generation import Generation

    generation = Generation(decoder, at_once=at_once, most_tokens=200_000)
    found = [texts for group in groups for texts in await generated(generation, group)]
    await generation.close()
    return found


async def generated(generation: Any, asked: Sequence[Asked]) -> list[list[int]]:
    """The likeliest tokens of each."""
    from finetuned_decoding.token_choice import Sampling
    from finetuned_transformers.decoder import Prompt
    from finetuned_transformers.row_sampling import Choice, Drawn
    from finetuned_transformers.rows import Event, Row

    likeliest = Choice(sampling=Sampling(max_new_tokens=1, stop_ids=frozenset(), temperature=0))
    events: asyncio.Queue[tuple[int, Event]] = asyncio.Queue()
    generation.submit(
        [
            Row(
                Prompt(each.prompt, len(each.prompt) + each.tokens, each.adapter),
                likeliest,
                frozenset(),
                events,
                place,
            )
            for place, each in enumerate(asked)
        ]
    )
    found: list[list[int]] = [[] for _ in asked]
    going = len(asked)
    while going:
        place, event = await events.get()
        if isinstance(event, Drawn):
            found[place].append(event.id)
        else:
            assert event == "length", event
            going -= 1
    return found


def way_of(run: Run, model: Any, directory: Path) -> Callable[[Sequence[Asked]], list[list[int]]]:
    """What is measured, once it is set up."""
    from finetuned_sdk.engines import Adapter
    from finetuned_transformers import packed_decoder
    from finetuned_transformers.forward_decoder import ForwardDecoder

    match run.way:
        case "generate":
            return lambda asked: by_generate(model, asked, run.at_once)
        case "library":
            return lambda asked: by_library(model, asked)
        case "forward":
            decoder: Any = ForwardDecoder(model)
        case _:
            decoder = packed_decoder.packed_decoder(model, length=2048, most_tokens=200_000)
    if not run.shares:
        packed_decoder._SHARED = 1 << 30  # type: ignore[misc]  # noqa: SLF001
    for name in ADAPTERS[: run.adapters]:
        decoder.add_adapter(Adapter(name, str(directory / name)))
    return lambda asked: asyncio.run(by_ours(decoder, grouped(run, asked), run.at_once))


def grouped(run: Run, asked: Sequence[Asked]) -> list[list[Asked]]:
    """All of them, or those of one adapter after those of another."""
    if not run.groups:
        return [list(asked)]
    return [[each for each in asked if each.adapter == name] for name in ADAPTERS[: run.adapters]]


def child(run: Run, count: int, directory: Path, *, quick: bool) -> dict[str, Any]:
    """One run: seconds, CPU seconds, tokens, and the texts."""
    import torch

    asked = requests(run, count)
    generate = way_of(run, made_model(quick=quick), directory)
    wall, cpu = time.perf_counter(), time.process_time()
    with torch.inference_mode():
        texts = generate(asked)
    return {
        "seconds": time.perf_counter() - wall,
        "cpu_seconds": time.process_time() - cpu,
        "tokens": sum(map(len, texts)),
        "texts": texts,
    }


def measured(run: Run, count: int, directory: Path, *, quick: bool) -> dict[str, Any]:
    """A run in a process of its own."""
    command = [sys.executable, __file__, "--child", json.dumps(asdict(run)), "--dir", str(directory)]
    done = subprocess.run(
        [*command, "--requests", str(count), *(["--quick"] if quick else [])],
        check=True,
        stdout=subprocess.PIPE,
        env={**os.environ, "OMP_NUM_THREADS": "1", "TRANSFORMERS_VERBOSITY": "error"},
    )
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def rows(found: dict[str, dict[str, Any]]) -> Iterator[str]:
    """The table."""
    yield "| | tokens a second | tokens a CPU second | texts of generate |"
    yield "| --- | --- | --- | --- |"
    expected = found[RUNS[0].name]["texts"]
    for run in RUNS:
        each = found[run.name]
        comparable = not (run.adapters or run.beginning)
        same = sum(one == other for one, other in zip(each["texts"], expected, strict=True))
        yield (
            f"| {run.name} | {each['tokens'] / each['seconds']:.0f} | {each['tokens'] / each['cpu_seconds']:.0f} | "
            f"{f'{same} of {len(expected)}' if comparable else ''} |"
        )


def main() -> int:
    """Measure, print, and keep the figures."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--json", type=Path)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--requests", type=int, default=48)
    parser.add_argument("--child")
    parser.add_argument("--dir", type=Path)
    options = parser.parse_args()
    if options.child:
        run = Run(**json.loads(options.child))
        print(json.dumps(child(run, options.requests, options.dir, quick=options.quick)))
        return 0
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        made_adapters(made_model(quick=options.quick), directory)
        found = {run.name: measured(run, options.requests, directory, quick=options.quick) for run in RUNS}
    print("\n".join(rows(found)))
    figures = {name: {key: each[key] for key in each if key != "texts"} for name, each in found.items()}
    if options.json:
        options.json.write_text(json.dumps(figures, indent=1), encoding="utf-8")
    alike = [run for run in RUNS if not (run.adapters or run.beginning)]
    texts = [found[run.name]["texts"] for run in alike]
    if not all(len(one) == len(other) for each in texts for one, other in zip(each, texts[0], strict=True)):
        print("wrong: a completion is not as long as it was asked for")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
