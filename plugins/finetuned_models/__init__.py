"""Job kinds that bring models in: ``import-gguf`` and ``import-model``."""

from __future__ import annotations
