"""What is asked, as the tokens that a completion begins after."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import Any, Final

from finetuned_sdk.engines import RequestError
from finetuned_transformers.bodies import ChatBody, CompletionBody, invalid

Json = Any

#: what a message may have; what else it has may be in the template's language, and is refused by name
_PARTS: Final = frozenset({"role", "content", "name", "reasoning_content", "refusal"})
_ROLES: Final = frozenset({"system", "developer", "user", "assistant"})


class Prompting:
    """A tokenizer and a chat template. Used by one thread at a time."""

    def __init__(self, tokenizer: Any, vocabulary: int) -> None:
        self._tokenizer = tokenizer
        self._vocabulary = vocabulary
        self._said = frozenset(inspect.signature(tokenizer.apply_chat_template).parameters)

    def chat(self, body: ChatBody, template: str | None = None) -> list[int]:
        """The tokens of a conversation, an answer's beginning last. Raises ``RequestError``."""
        import jinja2

        messages = [_message(at, each) for at, each in enumerate(body.messages)]
        self._check_told(body.chat_template_kwargs)
        if template is None and not self._tokenizer.chat_template:
            raise RequestError(
                "The model has no chat template; ask /v1/completions, or use a model that was made for conversations.",
                code="no_chat_template",
                param="messages",
            )
        try:
            found = self._tokenizer.apply_chat_template(
                messages,
                chat_template=template,
                add_generation_prompt=True,
                tokenize=True,
                return_dict=True,
                **body.chat_template_kwargs,
            )
        except (jinja2.TemplateError, TypeError, ValueError) as error:
            raise invalid("messages", f"the model's chat template refuses them: {error}") from None
        return list(found["input_ids"])

    def completions(self, body: CompletionBody) -> list[list[int]]:
        """The tokens of each prompt. Raises ``RequestError``."""
        prompts = [self._ids(each) for each in _prompts(body.prompt)]
        if not prompts or not all(prompts):
            raise invalid("prompt", "it has no tokens; give it some text")
        return prompts

    def text(self, ids: Sequence[int]) -> str:
        """A prompt as it is echoed."""
        found: str = self._tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)
        return found

    def _check_told(self, told: Mapping[str, Json]) -> None:
        """What a template is told is not to be what the library is told."""
        for name in told:
            if name in self._said:
                raise RequestError(
                    f"A chat template cannot be told {name!r}, which says how it is applied; leave it out.",
                    code="unsupported_parameter",
                    param=f"chat_template_kwargs.{name}",
                )

    def _ids(self, prompt: str | Sequence[int]) -> list[int]:
        if isinstance(prompt, str):
            return list(self._tokenizer(prompt)["input_ids"])
        if any(not 0 <= token < self._vocabulary for token in prompt):
            raise invalid("prompt", f"its tokens must be from 0 to {self._vocabulary - 1}")
        return list(prompt)


def _prompts(prompt: str | Sequence[str] | Sequence[int] | Sequence[Sequence[int]]) -> list[Any]:
    if isinstance(prompt, str) or (prompt and isinstance(prompt[0], int)):
        return [prompt]
    return list(prompt)


def _message(at: int, message: Mapping[str, Json]) -> dict[str, Json]:
    role = message.get("role")
    if role not in _ROLES:
        raise invalid(
            "messages", f"the role of message {at} is {role!r}; this engine knows {', '.join(sorted(_ROLES))}"
        )
    for name, value in message.items():
        if name not in _PARTS and value not in (None, []):
            raise RequestError(
                f"This engine does not know {name!r} of a message; leave it out.",
                code="unsupported_parameter",
                param=f"messages[{at}].{name}",
            )
    known = {name: value for name, value in message.items() if name in _PARTS and value is not None}
    return {
        **known,
        "role": "system" if role == "developer" else role,
        "content": _content(at, message.get("content")),
    }


def _content(at: int, content: Json) -> str:
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        raise invalid("messages", f"message {at} has no text as its content")
    texts = []
    for part in content:
        if not isinstance(part, dict) or part.get("type") != "text" or not isinstance(part.get("text"), str):
            kind = part.get("type") if isinstance(part, dict) else part
            raise invalid(
                "messages", f"message {at} has a part of type {kind!r}; this engine reads text alone"
            )
        texts.append(part["text"])
    return "".join(texts)
