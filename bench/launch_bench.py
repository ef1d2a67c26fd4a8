"""From "train this" to the first step: ``trl sft`` on the command line beside a job of the daemon, cold and warm.

``python bench/launch_bench.py --json FILE [--quick] [--model DIR] [--rounds N] [--trace]``. The same model, rows, LoRA,
batch and threads. The command's time runs from the start of its process, ours from the moment at which the job is posted
to a daemon that runs; it contains the queue, and the validation of every row before the run. *cold*: the daemon imports
anew for every attempt. *first*: the first job after the start of a daemon that keeps imports, which are made
meanwhile. *warm*: the next job. All take turns; the figures are medians. Cold and warm must have the same loss to the
last bit, or the benchmark fails.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
TARGETS = {"begin": 1 / 6, "end": 1 / 3}  # of the command's, warm
PATIENCE_S = 300.0
ROWS, BATCH, LENGTH, RANK, SEED = 64, 4, 128, 16, 7


@dataclass(frozen=True)
class Start:
    """Seconds from "train this" to the first step's begin and end, and its loss. ``events``: what the log has of it.

    ``step_cpu``: seconds of processors that the step took, which other work on the machine hardly changes.
    """

    begin: float
    end: float
    loss: float
    step_cpu: float
    events: tuple[tuple[float, str], ...] = ()


class Connection(http.client.HTTPConnection):
    """HTTP over a Unix socket."""

    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=60)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.connect(str(self._path))

    def ask(self, method: str, path: str, body: object = None) -> Any:
        """The answer. Raises ``AssertionError`` if it is a refusal."""
        content = None if body is None else json.dumps(body)
        self.request(method, path, content, {"Content-Type": "application/json"})
        answer = self.getresponse()
        data = answer.read()
        assert answer.status < 300, data
        return json.loads(data)


def environment(marks: Path, threads: int) -> dict[str, str]:
    """What both are started with."""
    return {
        **{name: value for name, value in os.environ.items() if not name.startswith("FINETUNED_")},
        "PYTHONPATH": os.pathsep.join((str(HERE / "launch_marks"), str(HERE.parent))),
        "LAUNCH_MARKS": str(marks),
        "OMP_NUM_THREADS": str(threads),
        "OMP_WAIT_POLICY": "PASSIVE",  # as the daemon sets them: spinning threads would make either look bad
        "GOMP_SPINCOUNT": "0",
        "HF_HUB_OFFLINE": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "TOKENIZERS_PARALLELISM": "false",
    }


def read(marks: Path, since: float, events: tuple[tuple[float, str], ...] = ()) -> Start:
    """What was noted of one start."""
    lines = [json.loads(line) for line in marks.read_text(encoding="utf-8").splitlines()]
    found = {line["what"]: line for line in lines}
    marks.unlink()
    return Start(
        begin=found["begin"]["at"] - since,
        end=found["end"]["at"] - since,
        loss=found["loss"]["loss"],
        step_cpu=found["end"]["cpu"] - found["begin"]["cpu"],
        events=events,
    )


# ---- the command -------------------------------------------------------------------------------------------


def command(model: str, rows: Path, scratch: Path, threads: int) -> Start:
    """One run of ``trl sft``."""
    marks = scratch / "marks"
    arguments = {
        "model_name_or_path": model,
        "dataset_name": str(rows.parent),
        "use_peft": "true",
        "lora_r": str(RANK),
        "lora_target_modules": "all-linear",
        "per_device_train_batch_size": str(BATCH),
        "gradient_accumulation_steps": "1",
        "gradient_checkpointing": "false",
        "max_length": str(LENGTH),
        "max_steps": "1",
        "logging_steps": "1",
        "learning_rate": "2e-4",
        "use_cpu": "true",
        "bf16": "false",
        "dtype": "float32",
        "report_to": "none",
        "save_strategy": "no",
        "seed": str(SEED),
        "output_dir": str(scratch / "out"),
    }
    line = [str(Path(sys.executable).with_name("trl")), "sft"]
    for name, value in arguments.items():
        line += [f"--{name}", value]
    with (scratch / "command.log").open("wb") as output:
        since = time.time()
        done = subprocess.run(
            line, env=environment(marks, threads), stdout=output, stderr=output, check=False, cwd=scratch
        )
    assert done.returncode == 0, (scratch / "command.log").read_text(encoding="utf-8")[-4000:]
    return read(marks, since)


# ---- the daemon --------------------------------------------------------------------------------------------


@contextmanager
def daemon(scratch: Path, threads: int, *, warm: bool) -> Iterator[Connection]:
    """A daemon that is ready, on a state directory of its own."""
    with tempfile.TemporaryDirectory(prefix="ftb-") as directory:
        state = Path(directory)
        (state / "config.toml").write_text(
            f"warm_start = {str(warm).lower()}\ncpu_slots = 1\n", encoding="utf-8"
        )
        line = ["--config", str(state / "config.toml"), "--state-dir", directory, "--listen", ""]
        with (scratch / "daemon.log").open("wb") as output:
            process = subprocess.Popen(
                [sys.executable, "-m", "finetuned", *line],
                env=environment(scratch / "marks", threads),
                stdout=output,
                stderr=output,
            )
        try:
            connection = Connection(state / "finetuned.sock")
            until(lambda: is_ready(connection))
            yield connection
        finally:
            connection.close()
            process.send_signal(signal.SIGTERM)
            process.wait(timeout=PATIENCE_S)


def is_ready(connection: Connection) -> bool:
    """Whether the daemon says so."""
    try:
        connection.ask("GET", "/readyz")
    except (OSError, http.client.HTTPException, AssertionError):
        connection.close()
        return False
    return True


def until(condition: Any) -> None:
    """Look until something is so."""
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline, "it takes too long"
        time.sleep(0.1)


def job(connection: Connection, model: str, rows: Path, scratch: Path) -> Start:
    """One job, from its submission."""
    params = {
        "model": model,
        "dataset": str(rows),
        "method": "lora",
        "lora_r": RANK,
        "per_device_train_batch_size": BATCH,
        "gradient_accumulation_steps": 1,
        "max_length": LENGTH,
        "max_steps": 1,
        "learning_rate": 2e-4,
        "seed": SEED,
    }
    since = time.time()
    submitted = connection.ask("POST", "/v1/jobs", {"kind": "sft", "params": params})["id"]
    ended = {"succeeded", "failed", "cancelled"}
    until(lambda: connection.ask("GET", f"/v1/jobs/{submitted}")["state"] in ended)
    found = connection.ask("GET", f"/v1/jobs/{submitted}")
    assert found["state"] == "succeeded", found
    events = connection.ask("GET", f"/v1/jobs/{submitted}/events?limit=1000")["data"]
    told = tuple((seconds(event["at"]) - since, str(event["type"])) for event in events)
    return read(scratch / "marks", since, told)


def seconds(at: str) -> float:
    """A moment of the log, since the epoch."""
    from datetime import datetime

    return datetime.fromisoformat(at).timestamp()


# ---- together ----------------------------------------------------------------------------------------------


def measure(model: str, rows: Path, scratch: Path, *, rounds: int, threads: int) -> dict[str, list[Start]]:
    """Starts by way."""
    found: dict[str, list[Start]] = {name: [] for name in ("command", "cold", "first", "warm")}
    for _ in range(rounds):
        found["command"].append(command(model, rows, scratch, threads))
        with daemon(scratch, threads, warm=False) as connection:
            found["cold"].append(job(connection, model, rows, scratch))
        with daemon(scratch, threads, warm=True) as connection:
            for way in ("first", "warm"):
                found[way].append(job(connection, model, rows, scratch))
        print(
            "  ".join(f"{way} {each[-1].begin:.2f}/{each[-1].end:.2f} s" for way, each in found.items()),
            flush=True,
        )
    return found


def check(found: dict[str, list[Start]]) -> None:
    """Raise ``AssertionError`` unless every job, however it was started, had the same loss."""
    losses = {start.loss for way in ("cold", "first", "warm") for start in found[way]}
    assert len(losses) == 1, f"losses differ: {losses}"


def table(found: dict[str, list[Start]]) -> dict[str, Any]:
    """Medians, and their share of the command's."""
    middle = {
        way: {what: statistics.median(getattr(each, what) for each in starts) for what in TARGETS}
        for way, starts in found.items()
    }
    print(f"\n{'':10}{'begin':>10}{'of the command':>16}{'end':>10}{'of the command':>16}")
    for way, each in middle.items():
        each["step_cpu"] = statistics.median(start.step_cpu for start in found[way])
        cells = "".join(
            f"{each[what]:>8.2f} s{each[what] / middle['command'][what]:>16.3f}" for what in TARGETS
        )
        print(f"{way:10}{cells}   the step {each['step_cpu']:.2f} CPU-s")
    print(f"target    {'':10}{TARGETS['begin']:>16.3f}{'':10}{TARGETS['end']:>16.3f}")
    return {
        "medians": middle,
        "ratios": {
            way: {what: each[what] / middle["command"][what] for what in TARGETS}
            for way, each in middle.items()
        },
        "targets": TARGETS,
    }


def trace(start: Start) -> None:
    """When what was recorded of one start."""
    for at, kind in [
        *start.events,
        (start.begin, "— the first step begins"),
        (start.end, "— the first step ends"),
    ]:
        print(f"{at:8.3f}  {kind}")


def main() -> int:
    """Measure, print and keep."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path, help="where the figures go")
    parser.add_argument("--quick", action="store_true", help="one round on a random model: does it work")
    parser.add_argument("--model", help="a model directory; without it a random model is made")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--trace", action="store_true", help="print the log's times of the last warm start")
    options = parser.parse_args()
    sys.path.insert(0, str(HERE.parent))
    from bench.sft_bench import make_model, write_rows

    with tempfile.TemporaryDirectory(prefix="launch-bench-") as directory:
        scratch = Path(directory)
        (scratch / "rows").mkdir()
        rows = write_rows(scratch / "rows" / "train.jsonl", ROWS)
        model = options.model or make_model(scratch / "model")
        rounds = 1 if options.quick else options.rounds
        found = measure(model, rows, scratch, rounds=rounds, threads=options.threads)
    check(found)
    figures = {
        "model": Path(model).name if options.model else "a random Llama",
        "threads": options.threads,
        "load": os.getloadavg()[0],
        **table(found),
        "starts": {way: [asdict(start) for start in starts] for way, starts in found.items()},
    }
    if options.trace:
        trace(found["warm"][-1])
    if options.json:
        options.json.write_text(json.dumps(figures, indent=1), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
