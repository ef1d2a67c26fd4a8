"""Writes kinds.md from the built-in plugins: ``python docs/reference/generate_kinds.py``. A test compares them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from pydantic.fields import FieldInfo

from finetuned import plugins
from finetuned_sdk import EngineKind, JobKind

PAGE = Path(__file__).parent / "kinds.md"
PAGES = ("sft", "dpo", "opd")  # kinds with a page of their own
INTRODUCTION = """\
# Kinds of jobs

What comes with the daemon; generated from the plugins' declarations by `docs/reference/generate_kinds.py`. `finetune kinds`
lists those of a running daemon, with the kinds of plugins that you have added, and `GET /v1/kinds` has them for programs.
"""


def page() -> str:
    """The whole page."""
    kinds, _ = plugins.load({})
    trained = kinds.job_kinds["sft"]
    ours = [kind for kind in kinds.job_kinds.values() if kind.entry.startswith("finetuned_")]
    return "\n".join([INTRODUCTION, *(_section(kind, trained) for kind in ours)])


def _section(kind: JobKind, trained: JobKind) -> str:
    lines = [f"## {kind.name}", "", kind.summary, *_facts(kind), ""]
    rows = kind.params.model_fields
    if kind.name in PAGES:
        return "\n".join([*lines, f"[{kind.name.upper()}]({kind.name}.md) has its parameters.", ""])
    common = set(rows) & set(trained.params.model_fields)
    if common - {"model"} and not isinstance(kind, EngineKind):
        rows = {name: field for name, field in rows.items() if name not in common}
        lines += ["It takes the parameters of [sft](sft.md#parameters), and these:", ""]
    return "\n".join([*lines, "| parameter | default | meaning |", "| --- | --- | --- |", *_rows(rows), ""])


def _facts(kind: JobKind) -> Iterator[str]:
    names = {
        "models": kind.model_params,
        "datasets": kind.dataset_params,
        "paths": tuple(name for name in kind.path_params if name not in kind.dataset_params),
    }
    told = [f"{what}: {', '.join(f'`{name}`' for name in found)}" for what, found in names.items() if found]
    yield ""
    yield f"Its parameters that name {'; '.join(told)}."
    if kind.validator is not None:
        yield "Its data are checked by an attempt of its own before it is queued."


def _rows(fields: dict[str, FieldInfo]) -> Iterator[str]:
    for name, field in fields.items():
        default = "required" if field.is_required() else f"`{_json(field)}`"
        meaning = (field.description or "").replace("|", "\\|")
        yield f"| `{name}` | {default} | {meaning} |"


def _json(field: FieldInfo) -> str:
    return json.dumps(field.get_default(call_default_factory=True))


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
