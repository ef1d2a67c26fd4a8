"""Answers in OpenAI's shapes. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from finetuned_transformers.writing import Likely, Piece, Told

Json = Any


@dataclass(frozen=True, slots=True)
class Answer:
    """What the parts of an answer have in common. ``created`` is in Unix seconds; ``echoes`` are texts to begin with."""

    id: str
    created: int
    model: str
    chat: bool
    tells: bool
    counts_usage: bool = False
    echoes: Sequence[str] = ()

    def body(self, completions: Sequence[Piece], usage: Mapping[str, Json]) -> Json:
        """The whole answer at once."""
        kind = "chat.completion" if self.chat else "text_completion"
        return {**self._head(kind), "choices": [self._choice(each) for each in completions], "usage": usage}

    def opening(self, places: int) -> list[Json]:
        """Chunks before the first token."""
        if self.chat:
            deltas: list[Json] = [{"delta": {"role": "assistant", "content": ""}}] * places
        else:
            deltas = [{"text": echo} for echo in self.echoes]
        return [self._chunk([_choice(place, each, None, None)]) for place, each in enumerate(deltas)]

    def chunks(self, piece: Piece) -> list[Json]:
        """A piece as it is streamed: its text, and apart from it how it ended."""
        chunks = []
        if piece.text or piece.tokens:
            content: Json = {"delta": {"content": piece.text}} if self.chat else {"text": piece.text}
            chunks.append(self._chunk([_choice(piece.place, content, self._log_probs(piece.tokens), None)]))
        if piece.finish is not None:
            content = {"delta": {}} if self.chat else {"text": ""}
            chunks.append(self._chunk([_choice(piece.place, content, None, piece.finish)]))
        return chunks

    def closing(self, usage: Mapping[str, Json]) -> list[Json]:
        """The chunk that has the usage, if it was asked for."""
        return [{**self._chunk([]), "usage": usage}] if self.counts_usage else []

    def _head(self, kind: str) -> dict[str, Json]:
        return {"id": self.id, "object": kind, "created": self.created, "model": self.model}

    def _chunk(self, choices: Sequence[Json]) -> dict[str, Json]:
        head = self._head("chat.completion.chunk" if self.chat else "text_completion")
        return {**head, "choices": choices, **({"usage": None} if self.counts_usage else {})}

    def _choice(self, piece: Piece) -> Json:
        if self.chat:
            content: Json = {"message": {"role": "assistant", "content": piece.text, "refusal": None}}
        else:
            echo = self.echoes[piece.place] if self.echoes else ""
            content = {"text": echo + piece.text}
        return _choice(piece.place, content, self._log_probs(piece.tokens), piece.finish)

    def _log_probs(self, tokens: Sequence[Told]) -> Json:
        if not self.tells:
            return None
        if self.chat:
            entries = [
                {**_entry(each.token), "top_logprobs": [_entry(top) for top in each.top]} for each in tokens
            ]
            return {"content": entries, "refusal": None}
        return {
            "tokens": [each.token.text for each in tokens],
            "token_logprobs": [each.token.log_prob for each in tokens],
            # Tokens that are parts of characters read alike; the likeliest of them stands for all.
            "top_logprobs": [{top.text: top.log_prob for top in reversed(each.top)} for each in tokens],
            "text_offset": [each.offset for each in tokens],
        }


def usage(prompts: int, completions: int) -> dict[str, Json]:
    """Tokens that were asked and answered."""
    return {
        "prompt_tokens": prompts,
        "completion_tokens": completions,
        "total_tokens": prompts + completions,
    }


def _choice(place: int, content: Mapping[str, Json], log_probs: Json, finish: str | None) -> Json:
    return {"index": place, **content, "logprobs": log_probs, "finish_reason": finish}


def _entry(token: Likely) -> Json:
    whole = "\ufffd" not in token.text  # else its bytes are part of a character, and not known
    return {
        "token": token.text,
        "logprob": token.log_prob,
        "bytes": list(token.text.encode()) if whole else None,
    }
