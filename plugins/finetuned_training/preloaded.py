"""Imported in the process that trainings are forked from, after their trainer: does once what each would do anew.

bitsandbytes is hidden there. peft is asked for it now, so that it answers in a fork as it did when it was imported: else
it would import bitsandbytes in each, which takes a second, for layers that are not quantised.
"""

from __future__ import annotations

from contextlib import suppress

from peft import import_utils
from transformers import conversion_mapping

import_utils.is_bnb_available()
import_utils.is_bnb_4bit_available()

with suppress(Exception):  # a table that is built at its first use, and would be in each fork
    conversion_mapping.get_checkpoint_conversion_mapping("llama")
