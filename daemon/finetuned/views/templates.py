"""Templates as the API shows them."""

from __future__ import annotations

from finetuned import wire
from finetuned.domain.registers import Template
from finetuned.views import time


def template(each: Template) -> wire.Template:
    """A template as it is shown."""
    return {
        "id": each.name,
        "object": "template",
        "name": each.name,
        "version": each.version,
        "description": each.description,
        "request": each.request,
        "saved_at": time(each.saved_at),
        "saved_by": each.saved_by,
    }
