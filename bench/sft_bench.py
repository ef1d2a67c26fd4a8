"""What the plugin costs: our trainer against the same TRL script written by hand, in pairs, in one run.

Both train the same LoRA on the same rows with the same seed and save as often; ours also tokenizes by itself,
reports every step to a real spool and seals checkpoints. Both make batches in as many processes, by default those
that the plugin chooses: starting them at each epoch is no cost of the plugin's. The series of
losses must agree to ``TOLERANCE``, or the benchmark fails: TRL computes the head at every position on a CPU, ours where
there is a label alone, so that matrices of other heights are multiplied. Only ``Trainer.train`` is timed. Pairs alternate
in order, because the machine's other load drifts; the ratio is the median over pairs.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")

TARGET = 0.98
TOLERANCE = 1e-5  # relative, of each step's loss; so far they were the same to the last bit
CHATML = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + "
    "'<|im_end|>\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
WORDS = (
    "the",
    "app",
    "crashes",
    "when",
    "settings",
    "open",
    "on",
    "my",
    "phone",
    "since",
    "an",
    "update",
    "page",
)


@dataclass(frozen=True)
class Run:
    """One training: seconds of wall, of those in the plugin's own code, and of processor time; losses, tokens."""

    seconds: float
    own_seconds: float
    cpu_seconds: float
    losses: list[float]
    tokens: float


@dataclass(frozen=True)
class Workload:
    """What both train on."""

    model: str
    rows: Path
    steps: int
    batch: int = 4
    rank: int = 16
    rate: float = 2e-4
    length: int = 256
    seed: int = 7
    workers: int = 0  # loader processes of both


def write_rows(path: Path, count: int) -> Path:
    """Free-text reports and the JSON that they should become."""
    choose = random.Random(0)
    with path.open("w", encoding="utf-8") as file:
        for number in range(count):
            words = choose.choices(WORDS, k=60)
            row = {
                "prompt": [{"role": "user", "content": "Report as JSON: " + " ".join(words)}],
                "completion": [
                    {"role": "assistant", "content": json.dumps({"id": number, "words": words[:12]})}
                ],
            }
            file.write(json.dumps(row) + "\n")
    return path


def make_model(directory: Path) -> str:
    """A random Llama of about 6 million weights with a tokenizer of its own, for machines without a model."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=512,
        special_tokens=["<|endoftext|>", "<|im_start|>", "<|im_end|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator([" ".join(WORDS)], trainer)
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token="<|im_end|>", pad_token="<|endoftext|>"
    )
    fast.chat_template = CHATML
    torch.manual_seed(0)
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=8192,
            hidden_size=256,
            intermediate_size=704,
            num_hidden_layers=6,
            num_attention_heads=4,
            num_key_value_heads=2,
            tie_word_embeddings=True,
            bos_token_id=None,
            eos_token_id=fast.eos_token_id,
            pad_token_id=fast.pad_token_id,
        )
    )
    model.save_pretrained(directory)
    fast.save_pretrained(directory)
    return str(directory)


def timed_training() -> list[Run]:
    """Have every ``Trainer.train`` note what it took; the list fills as trainings end."""
    import transformers

    runs: list[Run] = []
    train = transformers.Trainer.train
    own = time_own_code()

    def timed(self: Any, *args: Any, **kwargs: Any) -> Any:
        own.clear()
        wall, cpu = time.perf_counter(), cpu_seconds()
        result = train(self, *args, **kwargs)
        wall, cpu = time.perf_counter() - wall, cpu_seconds() - cpu
        logs = [log for log in self.state.log_history if "loss" in log]
        runs.append(Run(wall, sum(own), cpu, [log["loss"] for log in logs], logs[-1]["num_tokens"]))
        return result

    transformers.Trainer.train = timed
    return runs


def time_own_code() -> list[float]:
    """Have the plugin's callback note the seconds of each of its calls."""
    from finetuned_training.reporting import Reporter

    seconds: list[float] = []

    def noted(method: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            started = time.perf_counter()
            try:
                return method(*args, **kwargs)
            finally:
                seconds.append(time.perf_counter() - started)

        return call

    for name in ("on_train_begin", "on_step_begin", "on_step_end", "on_log", "on_evaluate", "on_save"):
        setattr(Reporter, name, noted(getattr(Reporter, name)))
    return seconds


def cpu_seconds() -> float:
    """Processor time of this process and of its children that ended."""
    usages = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


def train_by_hand(work: Workload, directory: Path) -> None:
    """The script that a TRL user would write."""
    from datasets import load_dataset
    from peft import LoraConfig
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from trl import SFTConfig, SFTTrainer

    tokenizer = AutoTokenizer.from_pretrained(work.model)
    model = AutoModelForCausalLM.from_pretrained(work.model, dtype="float32")
    dataset = load_dataset(
        "json", data_files=str(work.rows), split="train", cache_dir=str(directory / "cache")
    )
    trainer = SFTTrainer(
        model=model,
        args=SFTConfig(
            output_dir=str(directory / "out"),
            seed=work.seed,
            max_steps=work.steps,
            per_device_train_batch_size=work.batch,
            gradient_accumulation_steps=1,
            learning_rate=work.rate,
            lr_scheduler_type="cosine",
            warmup_steps=0.03,
            max_length=work.length,
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
        processing_class=tokenizer,
        peft_config=LoraConfig(
            task_type="CAUSAL_LM", r=work.rank, lora_alpha=32, lora_dropout=0.05, target_modules="all-linear"
        ),
    )
    trainer.train()
    trainer.save_model(str(directory / "adapter"))


def train_as_job(work: Workload, directory: Path) -> None:
    """The same as a worker of the daemon does it, with a spool on disk."""
    from finetuned_sdk.bundle import Bundle, Spec
    from finetuned_sdk.spool import SpoolWriter
    from finetuned_sdk.worker_context import Context
    from finetuned_sft.params import SFTParams
    from finetuned_sft.trainer import train

    params = SFTParams(
        model=work.model,
        dataset=str(work.rows),
        seed=work.seed,
        max_steps=work.steps,
        per_device_train_batch_size=work.batch,
        gradient_accumulation_steps=1,
        learning_rate=work.rate,
        max_length=work.length,
        lora_r=work.rank,
        save_steps=10,
        dataloader_num_workers=work.workers,
    )
    bundle = Bundle(directory / "bundle")
    spec = Spec(
        job="bench",
        attempt=1,
        kind="sft",
        entry="finetuned_sft.trainer:train",
        params=params.model_dump(mode="json"),
        params_model="finetuned_sft.params:SFTParams",
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


def difference(hand: Run, job: Run) -> float:
    """The largest relative difference of two series of losses. Raises ``AssertionError`` above the tolerance."""
    worst = max(abs(one - other) / abs(one) for one, other in zip(hand.losses, job.losses, strict=True))
    assert worst <= TOLERANCE, f"losses differ by {worst:.2g}: {job.losses} {hand.losses}"
    assert job.tokens == hand.tokens
    return worst


def measure(work: Workload, pairs: int, scratch: Path) -> list[tuple[Run, Run]]:
    """Pairs of (by hand, as a job). Raises ``AssertionError`` if their losses differ."""
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
        difference(hand, job)
        found.append((hand, job))
        print(f"pair {number + 1}: by hand {hand.seconds:.2f} s, as a job {job.seconds:.2f} s", flush=True)
    return found


def chosen_workers() -> int:
    """The loader processes that the plugin would choose on this machine."""
    from finetuned_sft.params import SFTParams
    from finetuned_training.settings import resolve

    cpu_count = len(os.sched_getaffinity(0))
    settings = resolve(
        SFTParams(model="m", dataset="d"), cpu_count=cpu_count, gpu=False, bf16_supported=False
    )
    return settings.dataloader_num_workers


def main() -> int:
    """Measure, print and keep."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path, help="where the figures go")
    parser.add_argument("--quick", action="store_true", help="one short pair: does it work, not how fast")
    parser.add_argument("--model", help="a model directory; without it a random model is made")
    parser.add_argument("--pairs", type=int, default=6)
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument(
        "--workers", type=int, help="dataloader_num_workers of both; without it the plugin's choice"
    )
    options = parser.parse_args()
    pairs, steps = (1, 4) if options.quick else (options.pairs, options.steps)
    with tempfile.TemporaryDirectory(prefix="sft-bench-") as folder:
        scratch = Path(folder)
        work = Workload(
            model=options.model or make_model(scratch / "model"),
            rows=write_rows(scratch / "rows.jsonl", 64),
            steps=steps,
            workers=chosen_workers() if options.workers is None else options.workers,
        )
        found = measure(work, pairs, scratch)
    wall = [hand.seconds / job.seconds for hand, job in found]
    cpu = [hand.cpu_seconds / job.cpu_seconds for hand, job in found]
    own = [job.own_seconds / job.seconds for _, job in found]
    tokens = found[0][0].tokens
    figures = {
        "model": Path(options.model).name if options.model else "a random Llama",
        "steps": steps,
        "pairs": pairs,
        "workers": work.workers,
        "tokens_per_second_by_hand": statistics.median(tokens / hand.seconds for hand, _ in found),
        "tokens_per_second_as_job": statistics.median(tokens / job.seconds for _, job in found),
        "throughput_ratio": statistics.median(wall),
        "throughput_ratios": wall,
        "cpu_ratio": statistics.median(cpu),
        "own_share": statistics.median(own),
        "worst_loss_difference": max(difference(hand, job) for hand, job in found),
        "target": TARGET,
    }
    worst = figures["worst_loss_difference"]
    print(f"\n{figures['model']}, {steps} steps, {pairs} pairs; losses differ by at most {worst:.1e}")
    print(f"tokens/s by hand      {figures['tokens_per_second_by_hand']:10.1f}")
    print(f"tokens/s as a job     {figures['tokens_per_second_as_job']:10.1f}")
    print(
        f"throughput ratio      {figures['throughput_ratio']:10.3f}   (target {TARGET}; wall time, median of pairs)"
    )
    print(f"processor-time ratio  {figures['cpu_ratio']:10.3f}   (loader processes included)")
    print(f"plugin's own code     {figures['own_share']:10.2%}   of the job's time; not moved by other load")
    if options.json:
        options.json.write_text(json.dumps(figures, indent=1), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
