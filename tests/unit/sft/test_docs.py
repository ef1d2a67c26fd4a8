"""The reference has every parameter as the code has it."""

from __future__ import annotations

import json
from pathlib import Path

from finetuned_sft.params import SFTParams
from finetuned_training import dataset, supervised_rows

DOCS = Path(__file__).parents[3] / "docs"


def parameter_lines() -> list[str]:
    """The table of docs/reference/sft.md: name, default, description."""
    lines = []
    for name, field in SFTParams.model_fields.items():
        default = (
            "required"
            if field.is_required()
            else f"`{json.dumps(field.get_default(call_default_factory=True))}`"
        )
        description = (field.description or "").replace("|", "\\|")
        lines.append(f"| `{name}` | {default} | {description} |")
    return lines


def test_the_reference_lists_every_parameter_with_its_default_and_description() -> None:
    reference = (DOCS / "reference" / "sft.md").read_text(encoding="utf-8")
    assert [line for line in reference.splitlines() if line.startswith("| `")] == parameter_lines()


def test_the_guide_to_data_names_every_form_and_kind_of_file() -> None:
    guide = (DOCS / "how-to" / "prepare-data.md").read_text(encoding="utf-8")
    for name in (*supervised_rows.FORMATS, *dataset.SUFFIXES):
        assert f"`{name}`" in guide
