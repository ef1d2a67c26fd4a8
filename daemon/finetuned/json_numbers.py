"""Numbers in JSON bodies, as JSON Schema has them: 3.0 is a whole number, "3" and true are none."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BeforeValidator, Strict


def _whole(value: Any) -> Any:
    return int(value) if isinstance(value, float) and value.is_integer() else value


#: a whole number; give its range by ``Field(ge=…, le=…)``
Integer = Annotated[int, Strict(), BeforeValidator(_whole)]
