"""A batch through the daemon beside the engine alone: how much of its throughput is left, and how soon a batch begins.

``python bench/batch_bench.py --json FILE [--quick] [--threads N] [--vllm-python PYTHON] [--only transformers|start|vllm …]``. 1,000 short
requests (greedy, each of a fixed length) to a small model of random weights, so that nothing is downloaded. Ours is a real daemon: the
file goes to ``/v1/files``, the batch to ``/v1/batches``, and the output comes from there. Beside it stands the engine without any of it, in a process of
its own that is as warm, asked all requests at once. They take turns; ratios are of medians. Every text is compared, and every
``custom_id`` must have one line. vLLM is measured where an environment has it: ``--vllm-python``, ``FINETUNED_TEST_VLLM_PYTHON``, or ``.vllm``.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from bench.batch_daemon import Daemon, Took, WrongError
from bench.batch_runs import VLLM_ENVIRONMENT, Run, Workload, check, peer, run_batch
from bench.batch_workload import AT_ONCE, CONTEXT

ROOT = Path(__file__).parents[1]
SHARE = 0.98  # of the engine's own throughput
FIRST_MS = 100.0
SECTIONS = ("transformers", "start", "vllm")
#: how OpenMP waits in the daemon's workers on a CPU; by itself it spins, which is faster where nobody else computes
AS_WORKERS = {"OMP_WAIT_POLICY": "PASSIVE", "GOMP_SPINCOUNT": "0", "CUDA_VISIBLE_DEVICES": ""}
OURS = "ours, a batch through the daemon"
BARE = "our engine alone"


def ours(took: Took) -> Run:
    """A batch of ours as a run."""
    return {"seconds": took.asking, "whole": took.whole, "texts": took.texts}


# ---- the sections ------------------------------------------------------------------------------------------


def embedded(work: Workload, rounds: int) -> Run:
    """The embedded engine: ours and the engine alone in turns; what the library has, once each."""
    options = f"at_once = {AT_ONCE}, max_context = {CONTEXT}"
    daemon = Daemon(
        work.scratch / "embedded",
        f'default_engine = "transformers"\n[engines.transformers]\noptions = {{ {options} }}\n',
        threads=work.threads,
    )
    spinning = f"{BARE}, OpenMP spinning"
    runs: dict[str, list[Run]] = {OURS: [], BARE: [], spinning: []}
    with (
        daemon.running(),
        peer("bare", work, AS_WORKERS) as alone,
        peer("bare", work, {"CUDA_VISIBLE_DEVICES": ""}) as spins,
    ):
        content = work.batch()
        daemon.run(work.batch(work.requests[:64]))  # the engine is there and warm from now on
        for _ in range(rounds):
            runs[BARE].append(alone.run(work))
            runs[OURS].append(ours(daemon.run(content)))
            runs[spinning].append(spins.run(work))
    for name, way in {
        "generate, batches of 32 whose answers are alike in length": "generate",
        "generate, batches of 32 whose prompts are alike in length": "prompts",
        "continuous batching of the library": "continuous",
    }.items():
        with peer(way, work, {"CUDA_VISIBLE_DEVICES": ""}) as other:
            runs[name] = [other.run(work)]
    return compared("the embedded engine", runs, work)


def beginning(work: Workload, times: int) -> Run:
    """From the acceptance of a batch to its first request at a warm engine."""
    note = work.scratch / "notes"
    options = f'at_once = {AT_ONCE}, max_context = {CONTEXT}, note = "{note}"'
    daemon = Daemon(
        work.scratch / "noted",
        f'default_engine = "noted"\n[engines.noted]\noptions = {{ {options} }}\n',
        threads=work.threads,
    )
    asked = [replace(each, tokens=1) for each in work.requests]
    found: dict[str, Any] = {}
    with daemon.running():
        for count in (10, len(asked)):
            content = work.batch(asked[:count])
            daemon.run(content)
            delays = [first_request(daemon, content, note) for _ in range(times)]
            found[str(count)] = {
                "answered_ms": [each[0] for each in delays],
                "posted_ms": [each[1] for each in delays],
            }
    print("\nA second batch on a warm engine: milliseconds to its first request, as it reaches the engine")
    print("| requests | since the POST was answered, median | longest | since it was sent, median | target |")
    print("| --- | --- | --- | --- | --- |")
    for asked_for, each in found.items():
        figure = median(each["answered_ms"])
        told = f"under {FIRST_MS:.0f}: {'met' if figure < FIRST_MS else '**missed**'}"
        print(
            f"| {asked_for} | {figure:.0f} | {max(each['answered_ms']):.0f} | {median(each['posted_ms']):.0f} | {told} |"
        )
    return found


def first_request(daemon: Daemon, content: bytes, note: Path) -> tuple[float, float]:
    """Milliseconds of one batch, since its acceptance was answered and since it was sent."""
    before = len(note.read_bytes().splitlines())
    took = daemon.run(content)
    notes = [int(each) / 1e9 for each in note.read_bytes().splitlines()[before:]]
    if len(notes) != len(took.texts):
        raise WrongError(f"{len(notes)} requests were asked for {len(took.texts)} results")
    return 1000 * (notes[0] - took.answered), 1000 * (notes[0] - took.posted)


def with_vllm(work: Workload, rounds: int, python: Path) -> Run:
    """The same beside ``LLM.generate``, and its ``run_batch`` as a whole process beside ours."""
    options = f"max_model_len = {CONTEXT}, max_num_seqs = {AT_ONCE}, max_loras = 0"
    daemon = Daemon(
        work.scratch / "vllm",
        f'default_engine = "vllm"\n[engines.vllm]\npython = "{python}"\noptions = {{ {options} }}\n',
        threads=work.threads,
    )
    runs: dict[str, list[Run]] = {OURS: [], "LLM.generate": []}
    content = work.batch()
    runner = run_batch(work, python)
    begun = time.monotonic()
    with daemon.running(), ExitStack() as stack:
        cold = daemon.run(content)
        cold_s = time.monotonic() - begun
        alone = stack.enter_context(peer("vllm", work, VLLM_ENVIRONMENT, str(python)))
        for _ in range(rounds):
            runs["LLM.generate"].append(alone.run(work))
            runs[OURS].append(ours(daemon.run(content)))
    with peer("vllm", work, {**VLLM_ENVIRONMENT, **AS_WORKERS}, str(python)) as waits:
        runs["LLM.generate, OpenMP not spinning, as ours"] = [waits.run(work)]
    found = compared("vLLM", runs, work)
    warm_s = median(each["whole"] for each in runs[OURS])
    peers_s = runner["seconds"]
    for texts in (cold.texts, runner["texts"]):
        check(texts, runs["LLM.generate"][0]["texts"], work)
    print("\nFrom nothing to the output, seconds")
    print("| | seconds | times run_batch |")
    print("| --- | --- | --- |")
    print(f"| vLLM's run_batch, a process each time | {peers_s:.1f} | 1 |")
    print(f"| ours, cold: start of the daemon and of its engine | {cold_s:.1f} | {cold_s / peers_s:.2f} |")
    print(f"| ours, warm: the engine stands | {warm_s:.1f} | {warm_s / peers_s:.2f} |")
    return {**found, "run_batch_s": peers_s, "cold_s": cold_s, "warm_s": warm_s}


# ---- what is told ------------------------------------------------------------------------------------------


def compared(what: str, runs: dict[str, list[Run]], work: Workload) -> Run:
    """Print who was how fast. Raises ``WrongError`` if the answers are not those of the others."""
    speeds = {name: work.tokens / median(each["seconds"] for each in found) for name, found in runs.items()}
    reference = next(name for name in runs if name != OURS)
    expected = runs[reference][0]["texts"]
    same = {name: min(check(each["texts"], expected, work) for each in found) for name, found in runs.items()}
    print(
        f"\n{len(work.requests)} requests, {work.tokens} tokens of completions, {what}, {work.threads} threads"
    )
    print("| | runs | tokens a second | share that ours has | whole s | same texts | target |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    for name, found in runs.items():
        share = speeds[OURS] / speeds[name]
        target = f"{SHARE}: {'met' if share >= SHARE else '**missed**'}" if name != OURS else ""
        whole = f"{median(each['whole'] for each in found):.1f}" if name == OURS else ""
        print(
            f"| {name} | {len(found)} | {speeds[name]:.0f} | {share:.3f} | {whole} | {same[name]} | {target} |"
        )
    return {
        "tokens": work.tokens,
        "requests": len(work.requests),
        "runs": {
            name: [{key: each[key] for key in each if key != "texts"} for each in found]
            for name, found in runs.items()
        },
        "shares": {name: speeds[OURS] / speed for name, speed in speeds.items()},
        "same_texts": same,
    }


def vllm_python(named: Path | None) -> Path | None:
    """The interpreter of an environment that has vLLM."""
    given = named or os.environ.get("FINETUNED_TEST_VLLM_PYTHON") or ROOT / ".vllm" / "bin" / "python"
    path = Path(given).absolute()
    return path if path.exists() else None


def main() -> int:
    """Measure, print, and keep the figures."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--json", type=Path)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--requests", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--vllm-python", type=Path, help="of an environment that has vLLM")
    parser.add_argument("--only", action="append", choices=SECTIONS)
    options = parser.parse_args()
    sections, rounds = options.only or SECTIONS, 1 if options.quick else options.rounds
    found: dict[str, Any] = {"load_before": os.getloadavg()[0], "threads": options.threads}
    python = vllm_python(options.vllm_python)
    try:
        with tempfile.TemporaryDirectory(prefix="ft-") as scratch:
            count = 100 if options.quick else options.requests
            work = Workload(Path(scratch), count, quick=options.quick, threads=options.threads)
            if "transformers" in sections:
                found["transformers"] = embedded(work, rounds)
            if "start" in sections:
                found["start"] = beginning(work, 3 if options.quick else 9)
            if "vllm" in sections and python is not None:
                found["vllm"] = with_vllm(work, rounds, python)
            elif "vllm" in sections:
                print("\nvLLM: not here (`make test-vllm` installs it in .vllm)")
    except WrongError as error:
        print(f"wrong: {error}")
        return 1
    print(f"\nload average: {found['load_before']:.1f} before, {os.getloadavg()[0]:.1f} after")
    if options.json:
        options.json.write_text(json.dumps(found, indent=1), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
