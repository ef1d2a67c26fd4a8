"""The reference has every parameter as the code has it, and every form of rows."""

from __future__ import annotations

import json
from pathlib import Path

from finetuned_opd import prompts
from finetuned_opd.params import OPDParams
from finetuned_training.params import TrainingParams

DOCS = Path(__file__).parents[3] / "docs"


def parameter_lines() -> list[str]:
    """The table of docs/reference/opd.md: name, default and description of what differs from other trainings."""
    lines = []
    for name, field in OPDParams.model_fields.items():
        shared = TrainingParams.model_fields.get(name)
        if shared is not None and (shared.default, shared.description) == (field.default, field.description):
            continue
        default = (
            "required"
            if field.is_required()
            else f"`{json.dumps(field.get_default(call_default_factory=True))}`"
        )
        description = (field.description or "").replace("|", "\\|")
        lines.append(f"| `{name}` | {default} | {description} |")
    return lines


def test_the_reference_lists_every_parameter_of_its_own_with_default_and_description() -> None:
    reference = (DOCS / "reference" / "opd.md").read_text(encoding="utf-8")
    parameters = reference.partition("## Parameters")[2]
    assert [line for line in parameters.splitlines() if line.startswith("| `")] == parameter_lines()


def test_the_reference_names_every_form() -> None:
    rows = (DOCS / "reference" / "opd.md").read_text(encoding="utf-8").partition("## Rows")[2]
    for form in prompts.KEYS:
        assert f"`{form}`" in rows
