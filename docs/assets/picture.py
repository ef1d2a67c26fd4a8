"""README's picture of the command line: ``make picture``.

Everything on it is what the real program printed of a real run. The demo is run (some minutes), or ``--state`` names
the state directory that ``finetune demo --keep`` left; a daemon is started on it, the commands are typed into a
terminal, and what comes back is drawn as an SVG that fetches nothing.
"""

from __future__ import annotations

import argparse
import atexit
import json
import os
import pty
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from functools import cache
from pathlib import Path
from typing import Any

from rich._export_format import CONSOLE_SVG_FORMAT
from rich.console import Console
from rich.terminal_theme import TerminalTheme
from rich.text import Text

from finetuned.demo import process

PICTURE = Path(__file__).parent / "finetune.svg"
WIDTH = 104
PATIENCE_S = 30.0
FINETUNE = (sys.executable, "-m", "finetuned.cli.main")
ROWS = Path(process.__file__).parent / "data" / "orders-train.jsonl"
#: two jobs for one slot of the CPU, so that one runs and one waits
MORE = [
    ["run", "sft", "--model", "smollm2", "--data", "orders-train.jsonl", "--name", "lower rate", "--param",
     "learning_rate=5e-4"],
    ["run", "sft", "--model", "smollm2", "--data", "orders-train.jsonl", "--name", "all weights", "--param",
     "method=full"],
]  # fmt: skip
STEPS_SEEN = 3
OMITTED = "\x1b[2m(parameters and result are left out here)\x1b[0m"
FONT = "ui-monospace, 'SFMono-Regular', Menlo, Consolas, 'DejaVu Sans Mono', monospace"
THEME = TerminalTheme(
    (13, 17, 23),
    (201, 209, 217),
    [(72, 79, 88), (255, 123, 114), (86, 211, 100), (227, 179, 65), (121, 192, 255), (210, 168, 255),
     (57, 197, 207), (177, 186, 196)],
    [(110, 118, 129), (255, 161, 152), (126, 231, 135), (242, 204, 96), (165, 214, 255), (226, 197, 255),
     (86, 212, 221), (240, 246, 252)],
)  # fmt: skip


def main() -> None:
    """Draw it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--state", type=Path, help="the state directory of an earlier demo")
    parser.add_argument("--model-file", help="what `finetune demo` trains")
    arguments = parser.parse_args()
    state: Path = arguments.state or run_demo(arguments.model_file)
    with process.daemon(state) as daemon:
        wait(daemon, state)
        told = next(job for job in listed(state) if job["kind"] == "sft")["id"]
        scenes = [(command, typed(command, state)) for command in MORE]
        while not any(job["state"] == "running" and step(job) >= STEPS_SEEN for job in listed(state)):
            process.check(daemon, state)
            time.sleep(1)
        scenes += [(command, typed(command, state)) for command in (["ls"], ["workers"])]
        timeline = typed(["show", told], state).partition("\n\n")[2].partition("\n\n")[0]
        scenes.append((["show", told], f"{OMITTED}\n{timeline}"))
        curves = typed(["metrics", told, "--names", "loss"], state).partition("\n\n")[0]
        scenes.append((["metrics", told, "--names", "loss"], curves))
        draw(scenes)


def run_demo(model_file: str | None) -> Path:
    """Run the demo before the reader's eyes; the directory that it left."""
    command = [*FINETUNE, "demo", "--keep", *(["--model-file", model_file] if model_file else [])]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as demo:
        assert demo.stdout is not None
        said = ""
        for line in demo.stdout:
            sys.stdout.write(line)
            said += line
    found = re.search(r"finetuned --state-dir (\S+)", said)
    if demo.returncode or found is None:
        raise SystemExit("The demo failed; there is nothing to draw.")
    atexit.register(shutil.rmtree, found[1])
    return Path(found[1])


def environment(state: Path) -> dict[str, str]:
    """A terminal of the picture's width, without a pager, that speaks to the daemon on ``state``."""
    own = {name: value for name, value in os.environ.items() if not name.startswith("FINETUNED_")}
    terminal = {"COLUMNS": str(WIDTH), "LINES": "60", "TERM": "xterm-256color", "PAGER": "cat", "TZ": "UTC"}
    return {**own, **terminal, "FINETUNED_SOCKET": str(state / process.SOCKET_NAME)}


def wait(daemon: subprocess.Popen[bytes], state: Path) -> None:
    """Until the daemon answers."""
    deadline = time.monotonic() + PATIENCE_S
    while subprocess.run(
        [*FINETUNE, "ls"], env=environment(state), capture_output=True, check=False
    ).returncode:
        process.check(daemon, state)
        if time.monotonic() > deadline:
            raise SystemExit("The daemon does not answer.")
        time.sleep(0.1)


def listed(state: Path) -> list[dict[str, Any]]:
    """The jobs, newest first."""
    command = [*FINETUNE, "ls", "--json"]
    answer = subprocess.run(command, env=environment(state), capture_output=True, check=True, text=True)
    jobs: list[dict[str, Any]] = json.loads(answer.stdout)["data"]
    return jobs


def step(job: dict[str, Any]) -> int:
    """How far a job is."""
    return int((job["progress"] or {}).get("current_step") or 0)


def typed(command: list[str], state: Path) -> str:
    """What the command writes to a terminal."""
    ours, theirs = pty.openpty()
    program = subprocess.Popen(
        [*FINETUNE, *command],
        env=environment(state),
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        cwd=folder(),
    )
    os.close(theirs)
    written = b""
    while chunk := _read(ours):
        written += chunk
    os.close(ours)
    if program.wait():
        raise SystemExit(written.decode())
    return written.decode().replace("\r\n", "\n").rstrip()


@cache
def folder() -> Path:
    """Where the commands are typed: with the demo's rows, and a path that is nobody's."""
    here = Path(tempfile.mkdtemp(prefix="orders-"))
    atexit.register(shutil.rmtree, here)
    shutil.copy(ROWS, here)
    return here


def _read(terminal: int) -> bytes:
    try:
        return os.read(terminal, 65536)
    except OSError:  # Linux says so when the other end is closed
        return b""


def draw(scenes: list[tuple[list[str], str]]) -> None:
    """Commands and what they printed, as an SVG."""
    console = Console(record=True, width=WIDTH, file=Path(os.devnull).open("w", encoding="utf-8"))  # noqa: SIM115
    for command, printed in scenes:
        console.print(Text.assemble(("$ ", "bold green"), (f"finetune {shlex.join(command)}", "bold")))
        console.print(Text.from_ansi(printed), no_wrap=True, crop=True)
        console.print()
    style = re.sub(r"@font-face \{\{.*?\}\}\s*", "", CONSOLE_SVG_FORMAT, flags=re.DOTALL)
    style = style.replace("font-family: Fira Code, monospace", f"font-family: {FONT}")
    svg = console.export_svg(title="finetune", theme=THEME, code_format=style, unique_id="finetune")
    if re.search(r"""url\(["']?https?:|href=["']http""", svg):
        raise SystemExit("The picture would fetch something from the net.")
    PICTURE.write_text(svg, encoding="utf-8")
    sys.stdout.write(f"{PICTURE} is drawn.\n")


if __name__ == "__main__":
    main()
