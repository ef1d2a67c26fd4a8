"""What a new plugin is called: its kind of job, its distribution, its package. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final, Self

from finetuned.domain.errors import InvalidRequestError

PREFIX: Final = "finetuned-"
LONGEST: Final = 40
_NORMAL: Final = re.compile(r"[a-z][a-z0-9]*(?:-[a-z0-9]+)*")


@dataclass(frozen=True, slots=True)
class PluginName:
    """The name of a plugin, which is also that of its kind of job: lower-case words with dashes between them."""

    kind: str

    @classmethod
    def parse(cls, text: str) -> Self:
        """The name that was meant: ``Byte_LM`` and ``finetuned-byte-lm`` are ``byte-lm``, as package indexes have it.

        Raises ``InvalidRequestError`` if it cannot be the name of a distribution and of a Python package.
        """
        kind = re.sub(r"[-_.]+", "-", text.lower()).removeprefix(PREFIX)
        if len(kind) > LONGEST or not _NORMAL.fullmatch(kind):
            raise InvalidRequestError(
                f"{text!r} cannot be a plugin's name: use up to {LONGEST} letters of ASCII, digits and single dashes, "
                "beginning with a letter, such as byte-lm.",
                param="NAME",
                code="invalid_name",
            )
        return cls(kind)

    @property
    def distribution(self) -> str:
        """What is installed: ``finetuned-byte-lm``."""
        return f"{PREFIX}{self.kind}"

    @property
    def package(self) -> str:
        """What is imported: ``finetuned_byte_lm``."""
        return self.distribution.replace("-", "_")
