"""What the DPO plugin costs: our trainer against the same TRL script written by hand, in pairs, in one run.

Both train the same LoRA on the same pairs with the same seed, save as often, and score the reference before the first
step. Only ``Trainer.train`` is timed. The series of losses must agree to ``TOLERANCE``, or the benchmark fails: the
reference is scored in batches of another order here, and the head is computed on CPUs where there is a label alone.
Pairs alternate in order, because the machine's other load drifts; the ratio is the median over pairs.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import sys
import tempfile
from contextlib import redirect_stdout
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from bench.sft_bench import TARGET, WORDS, Run, Workload, chosen_workers, make_model, timed_training

TOLERANCE = 1e-4  # relative, of each step's loss
RANK, RATE, BETA = 16, 1e-4, 0.1


def write_pairs(path: Path, count: int) -> Path:
    """A question of words and two answers, of which the shorter is preferred."""
    choose = random.Random(0)
    with path.open("w", encoding="utf-8") as file:
        for number in range(count):
            question = "Say in short: " + " ".join(choose.choices(WORDS, k=40))
            answers = [" ".join(choose.choices(WORDS, k=size)) for size in (8, 8 + number % 16)]
            row = {"prompt": [{"role": "user", "content": question}]} | {
                side: [{"role": "assistant", "content": text}]
                for side, text in zip(("chosen", "rejected"), answers, strict=True)
            }
            file.write(json.dumps(row) + "\n")
    return path


def train_by_hand(work: Workload, directory: Path) -> None:
    """The script that a TRL user would write."""
    from datasets import load_dataset
    from peft import LoraConfig
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from trl import DPOConfig, DPOTrainer

    dataset = load_dataset(
        "json", data_files=str(work.rows), split="train", cache_dir=str(directory / "cache")
    )
    trainer = DPOTrainer(
        model=AutoModelForCausalLM.from_pretrained(work.model, dtype="float32"),
        args=DPOConfig(
            output_dir=str(directory / "out"),
            seed=work.seed,
            max_steps=work.steps,
            per_device_train_batch_size=work.batch,
            gradient_accumulation_steps=1,
            learning_rate=work.rate,
            lr_scheduler_type="cosine",
            warmup_steps=0.03,
            max_length=work.length,
            beta=BETA,
            precompute_ref_log_probs=True,
            save_steps=10,
            save_total_limit=2,
            dataloader_num_workers=work.workers,
            dataloader_prefetch_factor=4 if work.workers else None,
            dataloader_pin_memory=False,
            logging_steps=1,
            use_cpu=True,
            bf16=False,
            activation_checkpointing=False,
            disable_tqdm=True,
            report_to="none",
        ),
        train_dataset=dataset,
        processing_class=AutoTokenizer.from_pretrained(work.model),
        peft_config=LoraConfig(
            task_type="CAUSAL_LM", r=work.rank, lora_alpha=32, lora_dropout=0.0, target_modules="all-linear"
        ),
    )
    trainer.train()
    trainer.save_model(str(directory / "adapter"))


def train_as_job(work: Workload, directory: Path) -> None:
    """The same as a worker of the daemon does it, with a spool on disk."""
    from finetuned_dpo.params import DPOParams
    from finetuned_dpo.trainer import train
    from finetuned_sdk.bundle import Bundle, Spec
    from finetuned_sdk.spool import SpoolWriter
    from finetuned_sdk.worker_context import Context

    params = DPOParams(
        model=work.model,
        dataset=str(work.rows),
        seed=work.seed,
        max_steps=work.steps,
        per_device_train_batch_size=work.batch,
        gradient_accumulation_steps=1,
        learning_rate=work.rate,
        max_length=work.length,
        beta=BETA,
        lora_r=work.rank,
        save_steps=10,
        dataloader_num_workers=work.workers,
    )
    bundle = Bundle(directory / "bundle")
    spec = Spec(
        job="bench",
        attempt=1,
        kind="dpo",
        entry="finetuned_dpo.trainer:train",
        params=params.model_dump(mode="json"),
        params_model="finetuned_dpo.params:DPOParams",
        interpreter=sys.executable,
        devices=("cpu:0",),
        metadata={},
    )
    bundle.create(spec)
    spool = SpoolWriter(bundle.spool_path)
    try:
        train(Context(bundle, spec, spool), params)
    finally:
        spool.close()


def same_losses(hand: Run, job: Run) -> float:
    """The largest relative difference of the two series. Raises ``AssertionError`` if it is above the tolerance."""
    assert len(hand.losses) == len(job.losses), "the runs have different numbers of steps"
    worst = max(abs(one - other) / abs(one) for one, other in zip(hand.losses, job.losses, strict=True))
    assert worst <= TOLERANCE, f"losses differ by {worst:.2g}: {job.losses} {hand.losses}"
    assert hand.tokens == job.tokens, "the runs have seen different tokens"
    return worst


def measure(work: Workload, pairs: int, scratch: Path) -> list[tuple[Run, Run]]:
    """Pairs of (by hand, as a job)."""
    runs = timed_training()
    found: list[tuple[Run, Run]] = []
    for number in range(pairs):
        order = [train_by_hand, train_as_job] if number % 2 == 0 else [train_as_job, train_by_hand]
        pair = {}
        for which in order:
            with tempfile.TemporaryDirectory(dir=scratch) as directory, redirect_stdout(sys.stderr):
                which(work, Path(directory))
            pair[which] = runs[-1]
        hand, job = pair[train_by_hand], pair[train_as_job]
        same_losses(hand, job)
        found.append((hand, job))
        print(f"pair {number + 1}: by hand {hand.seconds:.2f} s, as a job {job.seconds:.2f} s", flush=True)
    return found


def main() -> int:
    """Measure, print and keep."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path, help="where the figures go")
    parser.add_argument("--quick", action="store_true", help="one short pair: does it work, not how fast")
    parser.add_argument("--model", help="a model directory; without it a random model is made")
    parser.add_argument("--pairs", type=int, default=6)
    parser.add_argument("--steps", type=int, default=30)
    options = parser.parse_args()
    pairs, steps = (1, 4) if options.quick else (options.pairs, options.steps)
    with tempfile.TemporaryDirectory(prefix="dpo-bench-") as folder:
        scratch = Path(folder)
        work = Workload(
            model=options.model or make_model(scratch / "model"),
            rows=write_pairs(scratch / "pairs.jsonl", 64),
            steps=steps,
            rank=RANK,
            rate=RATE,
            workers=chosen_workers(),
        )
        found = measure(work, pairs, scratch)
    wall = [hand.seconds / job.seconds for hand, job in found]
    figures = {
        "model": Path(options.model).name if options.model else "a random Llama",
        "steps": steps,
        "pairs": pairs,
        "workers": work.workers,
        "throughput_ratio": statistics.median(wall),
        "throughput_ratios": wall,
        "cpu_ratio": statistics.median(hand.cpu_seconds / job.cpu_seconds for hand, job in found),
        "own_share": statistics.median(job.own_seconds / job.seconds for _, job in found),
        "worst_loss_difference": max(same_losses(hand, job) for hand, job in found),
        "tolerance": TOLERANCE,
        "target": TARGET,
    }
    print(
        f"\n{figures['model']}, {steps} steps, {pairs} pairs; losses differ by at most "
        f"{figures['worst_loss_difference']:.1e} (tolerance {TOLERANCE})"
    )
    print(
        f"throughput ratio      {figures['throughput_ratio']:10.3f}   (target {TARGET}; wall time, median of pairs)"
    )
    print(f"processor-time ratio  {figures['cpu_ratio']:10.3f}   (loader processes included)")
    print(f"plugin's own code     {figures['own_share']:10.2%}   of the job's time")
    if options.json:
        options.json.write_text(json.dumps(figures, indent=1), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
