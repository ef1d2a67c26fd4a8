"""Break everything, at random, and count what was lost: ``python -m tests.chaos.run [--only NAME] [--scale X] [--seed N]``.

Each scenario drives real daemons in processes of their own and is a row of the table that is printed at the end. The
exit code is 1 if any figure is not as it has to be. The same seed makes the same decisions; the moments at which the
machine carries them out are its own.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import signal
import sys
import tempfile
from functools import partial
from pathlib import Path

from tests.chaos import (
    batch_kills,
    cut_clients,
    daemon_kills,
    full_disk,
    kill_orders,
    mixed,
    reattach,
    runner_kills,
    start_races,
    trainer_kills,
)
from tests.chaos.disk import enter_namespace
from tests.chaos.report import Row, Table
from tests.chaos.scenario import Scenario, side_by_side
from tests.chaos.server import OPEN

#: in this order; what stands together is done side by side: it waits more than it computes
PLAN: tuple[tuple[Scenario, ...], ...] = (
    (daemon_kills.SCENARIO,),
    (trainer_kills.SCENARIO,),
    (runner_kills.SCENARIO,),
    (start_races.SCENARIO,),
    (reattach.SCENARIO,),
    (batch_kills.SCENARIO,),
    (cut_clients.SCENARIO, full_disk.SCENARIO, mixed.SCENARIO),
    (kill_orders.SCENARIO,),
)
SCENARIOS: tuple[Scenario, ...] = tuple(scenario for group in PLAN for scenario in group)


SCRATCH: list[Path] = []  # what to remove, also when the run is ended


def main(arguments: list[str] | None = None) -> int:
    """Carry out what is asked for; print the table."""
    options = _options(arguments)
    scratch = Path(tempfile.mkdtemp(prefix="chaos-"))
    SCRATCH.append(scratch)
    rows: list[Row] = []

    def carry_out(scenario: Scenario) -> Row:
        row = scenario.carry_out(scale=options.scale, seed=options.seed, scratch=scratch)
        say(Table([row], options.seed, options.scale).text())
        return row

    try:
        for group in PLAN:
            chosen = [each for each in group if not options.only or each.name in options.only]
            if chosen:
                rows += side_by_side([partial(carry_out, scenario) for scenario in chosen])
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    table = Table(rows, options.seed, options.scale)
    if len(rows) > 1:
        say(f"\n{table.text()}")
    if options.markdown:
        say(f"\n{table.markdown()}")
    if options.json is not None:
        options.json.write_text(table.json() + "\n", encoding="utf-8")
    say(table.verdict)
    return 0 if table.holds else 1


def _leave(number: int, _frame: object) -> None:
    """End at once, with everything that was started: threads that wait for a daemon would not hear of it."""
    for server in tuple(OPEN):
        server.abandon()
    for directory in SCRATCH:
        shutil.rmtree(directory, ignore_errors=True)
    os._exit(128 + number)


def say(text: str) -> None:
    """Print, at once."""
    print(text, flush=True)  # noqa: T201 - a program's output


def _options(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    names = [each.name for each in SCENARIOS]
    parser.add_argument("--only", action="append", choices=names, help="this scenario; may be given again")
    parser.add_argument("--scale", type=float, default=1.0, help="how much of the full number is done")
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1_000_000))
    parser.add_argument(
        "--markdown", action="store_true", help="print the table for docs/reliability.md, too"
    )
    parser.add_argument("--json", type=Path, help="write the table to this file, too")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    for ending in (signal.SIGTERM, signal.SIGINT):
        signal.signal(ending, _leave)
    enter_namespace([sys.executable, "-m", "tests.chaos.run", *sys.argv[1:]])
    sys.exit(main())
