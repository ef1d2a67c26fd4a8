"""Parameters of the import kinds. No torch here: the daemon reads this module."""

from __future__ import annotations

import re
from typing import Final, Literal

from pydantic import BaseModel, ConfigDict, Field

DType = Literal["float32", "bfloat16", "float16"]

ITEM_BYTES: Final[dict[str, int]] = {"float32": 4, "bfloat16": 2, "float16": 2}
MODEL_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,95}")


class ImportGGUFParams(BaseModel):
    """What to import, and as what."""

    model_config = ConfigDict(extra="forbid")

    file: str = Field(
        min_length=1,
        description="A GGUF file, or a wheel, zip or folder that holds one.",
    )
    name: str = Field(
        min_length=1,
        description="The name to register the model under: letters, digits, dot, dash, underscore.",
    )
    member: str | None = Field(
        default=None,
        description="Which GGUF file to take from an archive or folder that holds several, by its path inside.",
    )
    dtype: DType = Field(
        default="float32",
        description="The type to store the weights in. float32 loses nothing; bfloat16 halves the size.",
    )
    replace: bool = Field(
        default=False, description="Register the model even if its name is taken; the newer one wins."
    )


class ImportModelParams(BaseModel):
    """An existing Hugging Face directory, and the name to register it under."""

    model_config = ConfigDict(extra="forbid")

    path: str = Field(
        min_length=1,
        description="A directory with config.json (or adapter_config.json) and safetensors files.",
    )
    name: str = Field(
        min_length=1,
        description="The name to register the model under: letters, digits, dot, dash, underscore.",
    )
    replace: bool = Field(
        default=False, description="Register the model even if its name is taken; the newer one wins."
    )
