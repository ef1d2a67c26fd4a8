"""All benchmarks, one after the other: ``python -m bench --out DIR [--quick] [--only NAME …]``.

Each is a program of its own (``python bench/NAME.py --json FILE [--quick]``) that asserts the correctness of what it
measures, prints a table with the targets beside the figures, and exits non-zero when something was wrong (a missed
target is not wrong, it is printed). This runs them on a quiet machine's terms: never two at once.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

HERE = Path(__file__).parent


def benchmarks() -> list[str]:
    """The names of all benchmarks."""
    return sorted(path.stem.removesuffix("_bench") for path in HERE.glob("*_bench.py"))


def machine() -> dict[str, object]:
    """What the figures were measured on."""
    model = next(
        (
            line.partition(":")[2].strip()
            for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
            if line.startswith("model name")
        ),
        platform.processor(),
    )
    return {
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
        "cores": len(os.sched_getaffinity(0)),
        "cpu": model,
        "kernel": platform.release(),
        "python": platform.python_version(),
        "load": os.getloadavg()[0],
    }


def main() -> int:
    """Run what was asked for; the worst exit code."""
    parser = argparse.ArgumentParser(prog="python -m bench")
    parser.add_argument("--out", type=Path, default=HERE / "results", help="where the JSON goes")
    parser.add_argument("--quick", action="store_true", help="smaller numbers: does it work, not how fast")
    parser.add_argument(
        "--only", action="append", choices=benchmarks(), help="run this one (may be repeated)"
    )
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "machine.json").write_text(json.dumps(machine(), indent=1), encoding="utf-8")
    worst = 0
    for name in options.only or benchmarks():
        print(f"\n== {name} ==", flush=True)
        command = [
            sys.executable,
            str(HERE / f"{name}_bench.py"),
            "--json",
            str(options.out / f"{name}.json"),
        ]
        done = subprocess.run([*command, *(["--quick"] if options.quick else [])], check=False)
        worst = max(worst, abs(done.returncode))
    return worst


if __name__ == "__main__":
    sys.exit(main())
