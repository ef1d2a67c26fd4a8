"""Writes the reference pages that follow from the code: ``python docs/reference/generate.py``.

A test compares the pages with what this would write, so that they cannot rot.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path

from finetuned.domain import facts, states
from finetuned_sdk.context import Progress

HERE = Path(__file__).parent
FIELD_NOTE = re.compile(r"^    (\w+): .*?#: ?(.*)$")
PROGRESS_NOTE = re.compile(r"^    (\w+): (.*?)(?:  # (.*))?$")
MEMBER = re.compile(r'^    \w+ = "(\w+)"  #: ?(.*)$')


def events_page() -> str:
    """Every event type with its meaning and fields."""
    lines = [
        "# Events",
        "",
        "Everything that the daemon records, by stream. Generated from `finetuned.domain.facts` by",
        "`docs/reference/generate.py`. Every event has `seq` (its place in the log), `stream`, `version` (its place in",
        "the stream), `type`, `at` (RFC 3339, UTC), `actor` and `data`; the tables show `data`. Durations are seconds,",
        "sizes bytes.",
        "",
    ]
    for fact in facts.FACTS.values():
        lines += [f"## {fact.type}", "", *_prose(fact), ""]
        if fact is facts.JobProgress:
            lines += [*_progress_table(), ""]
        elif rows := list(_field_rows(fact)):
            lines += ["| field | type | |", "| --- | --- | --- |", *rows, ""]
    return "\n".join(lines)


def states_page() -> str:
    """The states of a job and the table of transitions."""
    lines = [
        "# States of a job",
        "",
        "Generated from `finetuned.domain.states` by `docs/reference/generate.py`.",
        "",
        "| state | |",
        "| --- | --- |",
    ]
    for line in inspect.getsource(states.JobState).splitlines():
        if match := MEMBER.match(line):
            terminal = " Terminal." if states.JobState(match[1]) in states.TERMINAL else ""
            lines.append(f"| `{match[1]}` | {match[2]}.{terminal} |")
    lines += ["", "## Transitions", "", "A fact that is not listed for a state cannot happen in it.", ""]
    lines += ["| fact | from | to |", "| --- | --- | --- |"]
    lines += [
        f"| `{fact}` | `{before}` | `{after}` |" for (fact, before), after in states.TRANSITIONS.items()
    ]
    return "\n".join([*lines, ""])


PAGES = {"events.md": events_page, "states.md": states_page}


def _prose(fact: type[facts.Fact]) -> list[str]:
    return inspect.cleandoc(fact.__doc__ or "").splitlines()


def _field_rows(fact: type[facts.Fact]) -> Iterator[str]:
    source = inspect.getsource(fact).splitlines()
    notes = {match[1]: match[2] for line in source if (match := FIELD_NOTE.match(line))}
    for each in fields(fact):
        kind = str(each.type).replace("|", "\\|").replace("Json", "any")
        yield f"| `{each.name}` | `{kind}` | {notes.get(each.name, '')} |"


def _progress_table() -> Iterator[str]:
    yield "| field | type | |"
    yield "| --- | --- | --- |"
    for line in inspect.getsource(Progress).splitlines():
        if match := PROGRESS_NOTE.match(line):
            kind = match[2].replace("|", "\\|")
            yield f"| `{match[1]}` | `{kind}` | {match[3] or ''} |"
    yield "| … | `any` | whatever else the trainer logs |"


def main() -> None:
    """Write all pages."""
    for name, page in PAGES.items():
        (HERE / name).write_text(page(), encoding="utf-8")


if __name__ == "__main__":
    main()
