"""An on-policy distillation step: ours against TRL's DistillationTrainer, in turns, in one run.

The same student, teacher, prompts, batch, length and loss (the reverse KL over the whole vocabulary, every weight
trained). Each trainer runs in a process of its own, so that its peak memory is its own; runs alternate, because the
machine's other load drifts; the first step, which has what is done once, is not counted. Beside it the losses are compared
on the same completions: they must be the same within 1e-4, or the benchmark fails.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")

TARGET = 1.7
SUBJECTS = ("apples", "rivers", "a desk", "winter", "old maps", "bread", "the moon", "a violin")


@dataclass(frozen=True)
class Workload:
    """What both learn from."""

    student: str
    teacher: str
    prompts: str
    steps: int
    batch: int
    new_tokens: int
    rate: float = 1e-4
    seed: int = 7
    beta: float = 1.0


def write_prompts(path: Path, count: int) -> str:
    """Questions of about forty tokens with the template."""
    with path.open("w", encoding="utf-8") as file:
        for number in range(count):
            subject = SUBJECTS[number % len(SUBJECTS)]
            question = f"Write {number + 2} short lines about {subject}, for somebody who has never seen any."
            file.write(json.dumps({"prompt": [{"role": "user", "content": question}]}) + "\n")
    return str(path)


def prune(model: str, layers: int, directory: Path) -> str:
    """A student: so many layers of a model, evenly picked."""
    from torch import nn
    from transformers import AutoModelForCausalLM, AutoTokenizer

    found = AutoModelForCausalLM.from_pretrained(model, dtype="float32")
    every = found.model.layers
    picked = [round(number * (len(every) - 1) / (layers - 1)) for number in range(layers)]
    found.model.layers = nn.ModuleList(every[number] for number in picked)
    found.config.num_hidden_layers = layers
    if getattr(found.config, "layer_types", None):
        found.config.layer_types = found.config.layer_types[:layers]
    found.save_pretrained(directory)
    AutoTokenizer.from_pretrained(model).save_pretrained(directory)
    return str(directory)


def trl_trainer(work: Workload, directory: Path, given: list[dict[tuple[int, ...], list[int]]] | None) -> Any:
    """TRL's trainer as its user would set it up; ``given`` are completions that it takes for its samples."""
    from datasets import load_dataset
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from trl import DistillationConfig, DistillationTrainer

    class Given(DistillationTrainer):  # type: ignore[misc]
        def _generate_single_turn(self, prompt_ids: Any, *args: Any, **kwargs: Any) -> Any:
            if given is None:
                return super()._generate_single_turn(prompt_ids, *args, **kwargs)
            window = given.pop(0)
            return [window[tuple(ids)] for ids in prompt_ids]

        def _send_telemetry(self) -> None: ...

    return Given(
        model=AutoModelForCausalLM.from_pretrained(work.student, dtype="float32"),
        teacher_model=AutoModelForCausalLM.from_pretrained(work.teacher, dtype="float32"),
        args=DistillationConfig(
            output_dir=str(directory / "out"),
            seed=work.seed,
            max_steps=work.steps,
            per_device_train_batch_size=work.batch,
            gradient_accumulation_steps=1,
            learning_rate=work.rate,
            lr_scheduler_type="constant",
            warmup_steps=0,
            weight_decay=0.0,
            max_completion_length=work.new_tokens,
            beta=work.beta,
            top_p=1.0,
            shuffle_dataset=False,
            generation_kwargs={"min_new_tokens": work.new_tokens},
            save_strategy="no",
            logging_steps=1,
            use_cpu=True,
            bf16=False,
            activation_checkpointing=False,
            gradient_checkpointing=False,
            disable_tqdm=True,
            report_to="none",
        ),
        train_dataset=load_dataset(
            "json", data_files=work.prompts, split="train", cache_dir=str(directory / "cache")
        ),
        processing_class=AutoTokenizer.from_pretrained(work.student, padding_side="left"),
    )


def our_params(work: Workload) -> dict[str, Any]:
    """The same as parameters of a job."""
    return {
        "model": work.student,
        "teacher": work.teacher,
        "dataset": work.prompts,
        "method": "full",
        "seed": work.seed,
        "max_steps": work.steps,
        "per_device_train_batch_size": work.batch,
        "gradient_accumulation_steps": 1,
        "learning_rate": work.rate,
        "lr_scheduler_type": "constant",
        "warmup_steps": 0,
        "max_length": 256 + work.new_tokens,
        "max_completion_length": work.new_tokens,
        "beta": work.beta,
        "teacher_cache_gb": 0,  # every step's completions are new: there is nothing to find again
        "save_steps": 10_000,
        "dataloader_num_workers": 0,
    }


def run_ours(work: Workload, directory: Path) -> list[Mapping[str, Any]]:
    """Train as a worker of the daemon does; what was reported of each step."""
    from finetuned_opd import sampling
    from finetuned_opd.params import OPDParams
    from finetuned_opd.trainer import train
    from finetuned_sdk.testing import RecordingContext

    no_stop(sampling)
    params = OPDParams.model_validate(our_params(work))
    ctx = RecordingContext(
        directory,
        params=params.model_dump(mode="json"),
        kind="opd",
        models={"model": work.student, "teacher": work.teacher},
    )
    train(ctx, params)
    return [fact for fact in ctx.of_type("progress") if fact["loss"] is not None]


def no_stop(sampling: Any) -> None:
    """Have every completion be as long as it may, as ``min_new_tokens`` does for TRL."""
    sample = sampling.Sampler.__init__

    def endless(self: Any, model: Any, how: Any, *args: Any, **kwargs: Any) -> None:
        sample(
            self,
            model,
            sampling.Sampling(max_new_tokens=how.max_new_tokens, stop_ids=frozenset()),
            *args,
            **kwargs,
        )

    sampling.Sampler.__init__ = endless


def stamp_steps() -> list[float]:
    """Have every trainer note when a step ended; the list fills."""
    from transformers.trainer_callback import CallbackHandler

    stamps: list[float] = []
    on_step_end = CallbackHandler.on_step_end

    def stamped(*args: Any, **kwargs: Any) -> Any:
        stamps.append(time.perf_counter())
        return on_step_end(*args, **kwargs)

    CallbackHandler.on_step_end = stamped
    return stamps


def child(which: str, work: Workload, directory: Path) -> dict[str, Any]:
    """One run: seconds of each step, losses, peak memory in bytes, and medians of a step's parts if it tells them."""
    stamps = stamp_steps()
    parts: dict[str, float] = {}
    if which == "trl":
        trainer = trl_trainer(work, directory, None)
        trainer.train()
        losses = [log["loss"] for log in trainer.state.log_history if "loss" in log]
    else:
        told = run_ours(work, directory)
        losses = [each["loss"] for each in told]
        names = ("seconds_generate", "seconds_teacher", "seconds_loss", "seconds_update")
        parts = {name: statistics.median(each[name] for each in told[1:]) for name in names}
    return {
        "steps": [after - before for before, after in pairwise(stamps)],
        "losses": losses,
        "peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        "parts": parts,
    }


def compare(work: Workload, directory: Path) -> float:
    """The largest difference between the losses of both on the completions that ours sampled."""
    import finetuned_opd.distillation_trainer as module
    from finetuned_opd.rollouts import draft

    windows: list[dict[tuple[int, ...], list[int]]] = []
    order: list[str] = []
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(work.student)
    by_ids = {}
    for line in Path(work.prompts).read_text(encoding="utf-8").splitlines():
        ids = tokenizer.apply_chat_template(json.loads(line)["prompt"], add_generation_prompt=True)[
            "input_ids"
        ]
        by_ids[tuple(ids)] = line

    def noted(questions: Any, *args: Any, **kwargs: Any) -> Any:
        drafts = draft(questions, *args, **kwargs)
        windows.append({each.row.prompt: list(each.row.completion) for each in drafts})
        order.extend(by_ids[each.row.prompt] for each in drafts)
        return drafts

    vars(module)["draft"] = noted
    ours = [each["loss"] for each in run_ours(work, directory / "ours")]
    ordered = directory / "ordered.jsonl"
    ordered.write_text("\n".join(order) + "\n", encoding="utf-8")
    trainer = trl_trainer(Workload(**{**asdict(work), "prompts": str(ordered)}), directory / "trl", windows)
    trainer.train()
    theirs = [log["loss"] for log in trainer.state.log_history if "loss" in log]
    return float(max(abs(one - other) for one, other in zip(ours, theirs, strict=True)))


def in_process_of_its_own(which: str, work: Workload, threads: int) -> Any:
    """What a child says of its run."""
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads), "PYTHONWARNINGS": "ignore"}
    with tempfile.TemporaryDirectory(prefix="opd-bench-run-") as directory:
        out = Path(directory) / "out.json"
        command = [
            sys.executable,
            "-m",
            "bench.opd_bench",
            "--child",
            which,
            "--work",
            json.dumps(asdict(work)),
        ]
        done = subprocess.run(
            [*command, "--json", str(out), "--scratch", directory],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        if done.returncode:
            raise RuntimeError(f"{which} ended with {done.returncode}:\n{done.stdout[-4000:]}")
        return json.loads(out.read_text(encoding="utf-8"))


def main() -> int:
    """Measure, print and keep."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path, help="where the figures go")
    parser.add_argument("--quick", action="store_true", help="one short pair: does it work, not how fast")
    parser.add_argument("--model", help="the teacher's directory; without it a random model is made")
    parser.add_argument("--layers", type=int, default=8, help="of the teacher, in the student")
    parser.add_argument("--pairs", type=int, default=3)
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--new-tokens", type=int, default=96)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--child", help=argparse.SUPPRESS)
    parser.add_argument("--work", help=argparse.SUPPRESS)
    parser.add_argument("--scratch", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        work = Workload(**json.loads(options.work))
        found: Any = (
            compare(work, options.scratch)
            if options.child == "compare"
            else child(options.child, work, options.scratch)
        )
        options.json.write_text(json.dumps(found), encoding="utf-8")
        return 0
    return measure(options)


def measure(options: argparse.Namespace) -> int:
    """Alternate, compare, and print the table."""
    from bench.sft_bench import make_model

    pairs, steps, tokens = (1, 2, 8) if options.quick else (options.pairs, options.steps, options.new_tokens)
    with tempfile.TemporaryDirectory(prefix="opd-bench-") as folder:
        scratch = Path(folder)
        teacher = options.model or make_model(scratch / "teacher")
        work = Workload(
            student=prune(teacher, options.layers if options.model else 3, scratch / "student"),
            teacher=teacher,
            prompts=write_prompts(scratch / "prompts.jsonl", options.batch * (steps + 1)),
            steps=steps,
            batch=options.batch,
            new_tokens=tokens,
        )
        # Adam divides a gradient by its own size, so at a usual rate rounding alone moves weights the other way.
        short = Workload(**{**asdict(work), "steps": 2, "new_tokens": min(tokens, 16), "rate": 1e-6})
        differs = in_process_of_its_own("compare", short, options.threads)
        assert differs <= 1e-4, f"losses on the same completions differ by {differs}"
        runs: dict[str, list[Any]] = {"trl": [], "ours": []}
        for number in range(pairs):
            for which in ("trl", "ours") if number % 2 == 0 else ("ours", "trl"):
                runs[which].append(in_process_of_its_own(which, work, options.threads))
                seconds = statistics.median(runs[which][-1]["steps"])
                print(f"{which}: {options.batch * tokens / seconds:.1f} tokens/s", flush=True)
    speed = {
        which: options.batch * tokens / statistics.median(step for run in found for step in run["steps"])
        for which, found in runs.items()
    }
    peak = {which: max(run["peak"] for run in found) for which, found in runs.items()}
    ratio = speed["ours"] / speed["trl"]
    figures = {
        "model": Path(options.model).name if options.model else "a random Llama",
        "batch": options.batch,
        "new_tokens": tokens,
        "threads": options.threads,
        "steps": steps,
        "pairs": pairs,
        "loss_difference": differs,
        "tokens_per_second": speed,
        "ratio": ratio,
        "target": TARGET,
        "peak_bytes": peak,
        "parts_s": {
            name: statistics.median(run["parts"][name] for run in runs["ours"])
            for name in runs["ours"][0]["parts"]
        },
    }
    print(json.dumps(figures, indent=1))
    if options.json:
        options.json.write_text(json.dumps(figures, indent=1), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
