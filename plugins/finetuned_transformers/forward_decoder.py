"""Any decoder-only model, on any device, through its own forward and the library's cache, for rows that come and go.

All rows are at the last column: a shorter one begins at a later column, and what is before it is masked. So a row joins by
having its cache padded on the left, and one step is one forward for all.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812 - its usual name

from finetuned_sdk.engines import Adapter
from finetuned_transformers.decoder import Prompt
from finetuned_transformers.lora_files import check_plain, unfit

_BASE: Final = "__base__"  # peft's name for no adapter
_PORTION: Final = 8192  # tokens of prompts, padded, that are computed at once


@dataclass(slots=True)
class _Begun:
    """A prompt of which a part was computed."""

    ids: list[int]
    adapter: str | None
    cache: Any

    def is_of(self, prompt: Prompt) -> bool:
        return self.adapter == prompt.adapter and list(prompt.ids[: len(self.ids)]) == self.ids


class ForwardDecoder:
    """See :class:`finetuned_transformers.decoder.Decoder`."""

    def __init__(self, model: Any) -> None:
        self._model = model
        self._device = model.get_input_embeddings().weight.device
        self._cache: Any = None
        self._begun: _Begun | None = None
        self._lengths: list[int] = []
        self._used: list[str | None] = []
        self._adapters: set[str] = set()
        takes = inspect.signature(model.forward).parameters
        self._last = {"logits_to_keep": 1} if "logits_to_keep" in takes else {}

    def join(self, prompts: Sequence[Prompt]) -> Tensor:
        begun, self._begun = self._begun, None
        if begun is not None and len(prompts) == 1 and begun.is_of(prompts[0]):
            return self._gone_on(begun, prompts[0])
        return torch.cat([self._joined(each) for each in _portions(prompts)])

    def prepare(self, prompt: Prompt, tokens: int) -> int:
        from transformers import DynamicCache

        begun, self._begun = self._begun, None  # what fails half way is of no use
        if begun is None or not begun.is_of(prompt):
            begun = _Begun([], prompt.adapter, DynamicCache())
        end = min(len(begun.ids) + tokens, len(prompt.ids) - 1)
        self._extend(begun, prompt.ids[:end])
        self._begun = begun
        return end

    def step(self, tokens: Tensor) -> Tensor:
        lengths = torch.tensor(self._lengths, device=self._device)
        self._lengths = [length + 1 for length in self._lengths]
        return self._forward(
            tokens[:, None].to(self._device), lengths[:, None], self._lengths, self._cache, self._used
        )

    def keep(self, rows: Sequence[int]) -> None:
        self._lengths = [self._lengths[row] for row in rows]
        self._used = [self._used[row] for row in rows]
        if not rows:
            self._cache = None
            return
        chosen = torch.tensor(rows, device=self._device)
        columns = max(self._lengths)
        for layer in self._cache.layers:
            layer.keys, layer.values = (
                each[chosen, :, -columns:].contiguous() for each in (layer.keys, layer.values)
            )

    def score(self, ids: Sequence[int], adapter: str | None) -> Tensor:
        tokens = torch.tensor([ids], device=self._device)
        logits = self._model(input_ids=tokens, use_cache=False, **self._names([adapter])).logits[0, :-1]
        # In parts: in float32 all logits of a long sequence are large.
        targets = tokens[0, 1:, None].split(256)
        parts = zip(logits.split(256), targets, strict=True)
        return torch.cat([part.float().log_softmax(-1).gather(1, each)[:, 0] for part, each in parts]).cpu()

    def add_adapter(self, adapter: Adapter) -> None:
        from pathlib import Path

        from peft import PeftModel

        if adapter.name in self._adapters:
            return
        check_plain(Path(adapter.path))
        try:
            if isinstance(self._model, PeftModel):
                self._model.load_adapter(adapter.path, adapter.name)
            else:
                self._model = PeftModel.from_pretrained(self._model, adapter.path, adapter.name)
        except (OSError, ValueError, RuntimeError, KeyError) as error:
            self._undo(adapter.name)
            raise unfit((str(error).strip().splitlines() or [type(error).__name__])[0]) from None
        self._model.eval()
        self._adapters.add(adapter.name)

    def drop_adapter(self, name: str) -> None:
        if name in self._adapters:
            self._adapters.discard(name)
            if self._adapters:  # peft has an active one, whatever each row uses: it must not be this
                self._model.set_adapter(next(iter(self._adapters)))
            self._model.delete_adapter(name)
            if not self._adapters:
                self._model = self._model.unload()

    def _undo(self, name: str) -> None:
        """Take out what peft has put into the model before it failed: the layers it has changed are everybody's."""
        from peft import PeftModel
        from peft.tuners.tuners_utils import BaseTunerLayer

        if isinstance(self._model, PeftModel):
            if name in self._model.peft_config:
                self._model.delete_adapter(name)
            return
        for path, module in list(self._model.named_modules()):
            if isinstance(module, BaseTunerLayer):
                self._model.set_submodule(path, module.get_base_layer())
        if hasattr(self._model, "peft_config"):
            del self._model.peft_config

    def free(self) -> None:
        self._cache = self._begun = None
        self._model = None
        if self._device.type == "cuda":
            torch.cuda.empty_cache()

    def _extend(self, begun: _Begun, ids: Sequence[int]) -> Tensor:
        """Compute what is missing up to the last of these tokens; the logits that follow it. [1, V]."""
        start = len(begun.ids)
        logits = self._forward(
            torch.tensor([list(ids[start:])], device=self._device),
            torch.arange(start, len(ids), device=self._device)[None],
            [len(ids)],
            begun.cache,
            [begun.adapter],
        )
        begun.ids = list(ids)
        return logits

    def _gone_on(self, begun: _Begun, prompt: Prompt) -> Tensor:
        """Compute the rest of a prompt, and put it beside the rows that there are."""
        logits = self._extend(begun, prompt.ids)
        self._put_beside(begun.cache, [len(prompt.ids)], [prompt.adapter])
        return logits

    def _joined(self, prompts: Sequence[Prompt]) -> Tensor:
        """Compute prompts in a cache of their own, and put that beside the rows that there are."""
        from transformers import DynamicCache

        lengths = [len(each.ids) for each in prompts]
        used = [each.adapter for each in prompts]
        columns = max(lengths)
        padded = [[0] * (columns - len(each.ids)) + list(each.ids) for each in prompts]
        positions = torch.arange(columns)[None] - (columns - torch.tensor(lengths))[:, None]
        cache = DynamicCache()
        logits = self._forward(
            torch.tensor(padded, device=self._device),
            positions.clamp(min=0).to(self._device),
            lengths,
            cache,
            used,
        )
        self._put_beside(cache, lengths, used)
        return logits

    def _put_beside(self, cache: Any, lengths: Sequence[int], used: Sequence[str | None]) -> None:
        if self._lengths:
            self._append(cache, max(lengths))
        else:
            self._cache = cache
        self._lengths += lengths
        self._used += used

    def _append(self, cache: Any, columns: int) -> None:
        most = max(*self._lengths, columns)
        for layer, new in zip(self._cache.layers, cache.layers, strict=True):
            layer.keys, layer.values = (
                torch.cat([F.pad(each, (0, 0, most - each.shape[2], 0)) for each in pair])
                for pair in ((layer.keys, new.keys), (layer.values, new.values))
            )

    def _forward(
        self, ids: Tensor, positions: Tensor, lengths: Sequence[int], cache: Any, used: Sequence[str | None]
    ) -> Tensor:
        columns = torch.arange(max(lengths), device=self._device)
        first = max(lengths) - torch.tensor(lengths, device=self._device)
        out = self._model(
            input_ids=ids,
            attention_mask=(columns >= first[:, None]).long(),
            position_ids=positions,
            past_key_values=cache,
            use_cache=True,
            **self._last,
            **self._names(used),
        )
        logits: Tensor = out.logits[:, -1]
        return logits

    def _names(self, used: Sequence[str | None]) -> dict[str, list[str]]:
        return {"adapter_names": [each or _BASE for each in used]} if self._adapters else {}


def _portions(prompts: Sequence[Prompt]) -> list[list[Prompt]]:
    """In their order, as many at once as stay within ``_PORTION`` tokens when they are padded, at least one."""
    portions: list[list[Prompt]] = []
    longest = 0
    for prompt in prompts:
        longest = max(longest, len(prompt.ids))
        if not portions or (len(portions[-1]) + 1) * longest > _PORTION:
            portions.append([])
            longest = len(prompt.ids)
        portions[-1].append(prompt)
    return portions
