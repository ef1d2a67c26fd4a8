"""The walk of docs/tutorial/kill-the-daemon.md: ``make walk``.

Everything on the page between its marks is what the real programs printed of a real run: a job is started and watched,
its daemon is killed by SIGKILL, another is started, and the watching goes on. Only the path of the scratch directory is
left out. It takes some minutes, most of them for the import of the model.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from finetuned.demo import process

PAGE = Path(__file__).parents[1] / "tutorial" / "kill-the-daemon.md"
BEGIN, END = "<!-- recorded by docs/assets/walk.py -->", "<!-- end of the recording -->"
FINETUNE = (sys.executable, "-m", "finetuned.cli.main")
ROWS = Path(process.__file__).parent / "data" / "orders-train.jsonl"
PATIENCE_S = 300.0
STEPS = 60
#: small ones, so that there is something to see
STEP = ("per_device_train_batch_size=1", "gradient_accumulation_steps=1", "max_length=128", "save_steps=20")
WIDTH = 100


def main() -> None:
    """Walk, and write the page anew."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model-file", required=True, help="a GGUF file of SmolLM2-135M-Instruct")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="walk-") as scratch:
        walk = Walk(Path(scratch))
        try:
            recorded = walk.record(arguments.model_file)
        finally:
            walk.clean_up()
    before, _, rest = PAGE.read_text(encoding="utf-8").partition(BEGIN)
    after = rest.partition(END)[2]
    PAGE.write_text(f"{before}{BEGIN}\n\n{recorded}\n{END}{after}", encoding="utf-8")
    sys.stdout.write(f"{PAGE} is written.\n")


class Walk:
    """A daemon, a job, and what they print."""

    def __init__(self, state: Path) -> None:
        self.state = state
        self.environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("FINETUNED_")},
            "FINETUNED_SOCKET": str(state / "s"),
            "COLUMNS": str(WIDTH),
            "NO_COLOR": "1",
        }
        self.daemon: subprocess.Popen[bytes] | None = None

    def record(self, model_file: str) -> str:
        """The page's middle."""
        self.start()
        self.say("models", "import-gguf", model_file, "--name", "smollm2", "--watch")
        command = ["run", "sft", "--model", "smollm2", "--data", str(ROWS), "--name", "walk"]
        command += [word for each in (f"max_steps={STEPS}", *STEP) for word in ("--param", each)] + ["--json"]
        job = json.loads(self.say(*command).splitlines()[-1])["id"]
        watched = self.state / "watched"
        with watched.open("wb") as output:
            watching = subprocess.Popen(
                [*FINETUNE, "watch", job], env=self.environment, stdout=output, stderr=output
            )
            self.until(lambda: self.step(job) >= STEPS // 3)
            trainer = next(each["pid"] for each in self.job(job)["attempts"] if each["ended_at"] is None)
            assert self.daemon is not None
            self.daemon.send_signal(signal.SIGKILL)
            self.daemon.wait()
            died_at = len(watched.read_text())
            away = subprocess.run(
                [*FINETUNE, "ls"], env=self.environment, capture_output=True, text=True, check=False
            ).stderr
            alive = subprocess.run(
                ["ps", "-o", "pid,etimes,args", "--ppid", str(trainer)],
                capture_output=True,
                text=True,
                check=False,
            ).stdout
            began = time.monotonic()
            self.start()
            ready_s = time.monotonic() - began
            watching.wait(PATIENCE_S)
        said = watched.read_text()
        steps = [each["data"]["current_step"] for each in self.events(job) if each["type"] == "job.progress"]
        assert steps == sorted(set(steps)), steps
        runs = [each for each in self.job(job)["attempts"] if each["purpose"] == "run"]
        assert len(runs) == 1, runs
        return _page(
            job,
            _clean(said[:died_at], self.state),
            _clean(away, self.state),
            _clean(alive, self.state),
            _clean(said[died_at:], self.state),
            f"The second daemon answered after {ready_s:.1f} s. The log has {len(steps)} reports of steps, from"
            f" {steps[0]} to {steps[-1]}, each step at most once, all of attempt 1."
            f" ({time.strftime('%Y-%m-%d', time.gmtime())}, {platform.machine()}, {os.cpu_count()} cores,"
            f" load {os.getloadavg()[0]:.0f}, no GPU)",
        )

    def start(self) -> None:
        """Start a daemon and wait for it."""
        with (self.state / "daemon.log").open("ab") as output:
            self.daemon = subprocess.Popen(
                [sys.executable, "-m", "finetuned", "--state-dir", str(self.state), "--socket",
                 str(self.state / "s"), "--listen", ""],
                env=self.environment, stdout=output, stderr=output,
            )  # fmt: skip
        self.until(lambda: not self.run("ls").returncode)

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """A command of the command line."""
        return subprocess.run(
            [*FINETUNE, *arguments], env=self.environment, capture_output=True, text=True, check=False
        )

    def say(self, *arguments: str) -> str:
        """What a command that must succeed prints."""
        done = self.run(*arguments)
        if done.returncode:
            raise SystemExit(done.stdout + done.stderr)
        return done.stdout

    def job(self, job: str) -> Any:
        """The job."""
        return json.loads(self.say("show", job, "--json"))

    def events(self, job: str) -> list[Any]:
        """Its events."""
        return [json.loads(line) for line in self.say("events", job, "--json").splitlines()]

    def step(self, job: str) -> int:
        """How far it is."""
        return int((self.job(job)["progress"] or {}).get("current_step") or 0)

    def until(self, condition: Any) -> None:
        """Wait."""
        deadline = time.monotonic() + PATIENCE_S
        while not condition():
            if time.monotonic() > deadline:
                raise SystemExit((self.state / "daemon.log").read_text())
            time.sleep(0.2)

    def clean_up(self) -> None:
        """Leave nothing running."""
        if self.daemon is not None and self.daemon.poll() is None:
            self.run("stop-workers", "--yes")
            self.daemon.terminate()
            self.daemon.wait()


def _clean(text: str, state: Path) -> str:
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text.replace("\r", "\n"))
    text = text.replace(str(state), "STATE").replace(sys.executable, "python")
    return "\n".join(line.rstrip() for line in text.splitlines() if line.strip())


def _page(job: str, before: str, away: str, alive: str, after: str, figures: str) -> str:
    return (
        f"```console\n$ finetune watch {job}\n{before}\n```\n\n"
        "Now, in another terminal, the worst that can happen to the daemon:\n\n"
        f"```console\n$ kill -9 $(pgrep -x finetuned)\n$ finetune ls\n{away}\n```\n\n"
        "The trainer does not notice; it is the child of its runner, not of the daemon:\n\n"
        f"```console\n$ ps --ppid RUNNER\n{alive}\n```\n\n"
        "Start the daemon again (systemd does that by itself), and the first terminal goes on:\n\n"
        f"```console\n$ finetuned &\n```\n\n```console\n{after}\n```\n\n{figures}\n"
    )


if __name__ == "__main__":
    main()
