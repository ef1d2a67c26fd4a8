"""The reference has every parameter as the code has it."""

from __future__ import annotations

import json
from pathlib import Path

from finetuned_dpo import formats
from finetuned_dpo.params import DPOParams

DOCS = Path(__file__).parents[3] / "docs"


def parameter_lines() -> list[str]:
    """The table of docs/reference/dpo.md: name, default, description."""
    lines = []
    for name, field in DPOParams.model_fields.items():
        default = (
            "required"
            if field.is_required()
            else f"`{json.dumps(field.get_default(call_default_factory=True))}`"
        )
        description = (field.description or "").replace("|", "\\|")
        lines.append(f"| `{name}` | {default} | {description} |")
    return lines


def test_the_reference_lists_every_parameter_with_its_default_and_description() -> None:
    reference = (DOCS / "reference" / "dpo.md").read_text(encoding="utf-8")
    parameters = reference.partition("## Parameters")[2]
    assert [line for line in parameters.splitlines() if line.startswith("| `")] == parameter_lines()


def test_the_reference_names_every_form() -> None:
    reference = (DOCS / "reference" / "dpo.md").read_text(encoding="utf-8")
    for form, (first, second) in formats.SIDES.items():
        assert f"| `{form}` |" in reference
        assert f'"{first}"' in reference
        assert f'"{second}"' in reference
