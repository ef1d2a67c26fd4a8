"""How long the sequences are that a line of a preference file becomes, at a glance: without a tokenizer."""

from __future__ import annotations

import json
from typing import Final

SIDES: Final = (("chosen", "rejected"), ("preferred_output", "non_preferred_output"))


def longer_sequence(line: bytes) -> int:
    """Bytes of the prompt with the longer answer, and of what is written around them; of other lines all bytes."""
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        return len(line)
    if not isinstance(row, dict):
        return len(line)
    for sides in SIDES:
        if all(side in row for side in sides):
            return len(line) - min(len(json.dumps(row[side], ensure_ascii=False).encode()) for side in sides)
    return len(line)
