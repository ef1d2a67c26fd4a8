"""What a request's body may say: OpenAI's parameters that this engine heeds, and no others. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Final, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from finetuned_sdk.engines import RequestError
from finetuned_transformers.row_sampling import MOST_TOP

Json = Any

MOST_COMPLETIONS: Final = 2048  # of one request: each is a row that waits
COLD: Final = 1e-5  # temperatures below it leave nothing but the likeliest token, and overflow

#: parameters that change nothing where they have these values, which clients send of themselves
_NEUTRAL: Final[Mapping[str, tuple[Json, ...]]] = {
    "presence_penalty": (0,),
    "frequency_penalty": (0,),
    "repetition_penalty": (1,),
    "min_p": (0,),
    "logit_bias": ({},),
    "best_of": (1,),
    "tools": ([],),
    "tool_choice": ("none",),
    "response_format": ({"type": "text"},),
    "modalities": (["text"],),
    "service_tier": ("auto", "default"),
    "store": (False,),
    "suffix": ("",),
}
#: parameters that say who asks: the answer has nothing to do with them
_OF_THE_ASKER: Final = frozenset({"user", "metadata", "safety_identifier", "prompt_cache_key"})

Stop = Annotated[str, Field(min_length=1, max_length=1000)]
Body = TypeVar("Body", bound="CommonBody")


class StreamOptions(BaseModel):
    """How an answer is to be streamed."""

    model_config = ConfigDict(extra="forbid", strict=True)

    include_usage: bool = Field(False, description="Whether a last chunk has the usage.")
    include_obfuscation: bool = Field(False, description="Nothing is padded here, whatever this says.")


class CommonBody(BaseModel):
    """What both endpoints take."""

    model_config = ConfigDict(extra="forbid", strict=True)

    model: str = Field("", description="The name that the answer repeats.")
    temperature: float = Field(1.0, ge=0, le=2, description="0 takes the likeliest token.")
    top_p: float = Field(
        1.0, ge=0, le=1, description="The share of probability that tokens are drawn from; 0: the likeliest."
    )
    top_k: int = Field(
        0, ge=-1, description="How many of the likeliest tokens are drawn from; 0 and -1: all."
    )
    seed: int | None = Field(None, description="What the random numbers follow from; drawn anew if not set.")
    stop: Stop | Annotated[list[Stop], Field(max_length=16)] = Field(
        default_factory=list, description="Strings that end the text and are not in it."
    )
    n: int = Field(1, ge=1, le=128, description="Completions of each prompt.")
    stream: bool = Field(False, description="Whether the answer comes in chunks.")
    stream_options: StreamOptions | None = Field(None, description="Of an answer that streams.")
    ignore_eos: bool = Field(False, description="Whether to go on after the model has ended its text.")

    @property
    def stops(self) -> list[str]:
        """The strings that end the text."""
        return [self.stop] if isinstance(self.stop, str) else self.stop

    @property
    def is_greedy(self) -> bool:
        """Whether it is always the likeliest token that comes next."""
        return self.temperature < COLD or self.top_p == 0


class ChatBody(CommonBody):
    """Of ``/v1/chat/completions``."""

    messages: list[dict[str, Json]] = Field(min_length=1, description="The conversation.")
    max_tokens: int | None = Field(
        None, ge=1, description="Tokens of a completion; as many as fit if not set."
    )
    max_completion_tokens: int | None = Field(None, ge=1, description="The newer name of max_tokens.")
    logprobs: bool = Field(False, description="Whether log-probabilities of the tokens are told.")
    top_logprobs: int = Field(
        0, ge=0, le=MOST_TOP, description="So many of the likeliest tokens with theirs."
    )
    chat_template_kwargs: dict[str, Json] = Field(
        default_factory=dict, description="What the model's chat template is told besides."
    )


class CompletionBody(CommonBody):
    """Of ``/v1/completions``."""

    prompt: str | list[str] | list[int] | list[list[int]] = Field(description="Texts, or their tokens.")
    max_tokens: int = Field(16, ge=1, description="Tokens of a completion.")
    logprobs: int | None = Field(None, ge=0, le=MOST_TOP, description="As top_logprobs of a conversation.")
    echo: bool = Field(False, description="Whether the text begins with the prompt; not with logprobs.")


def read(kind: type[Body], body: Mapping[str, Json]) -> Body:
    """The body as it is meant. Raises ``RequestError`` that names the parameter: nothing is dropped in silence."""
    given = {name: value for name, value in body.items() if not _says_nothing(name, value)}
    try:
        read_ = kind.model_validate(given)
    except ValidationError as error:
        raise _refusal(error) from None
    _check(read_)
    return read_


def _says_nothing(name: str, value: Json) -> bool:
    return value is None or name in _OF_THE_ASKER or value in _NEUTRAL.get(name, ())


def _refusal(error: ValidationError) -> RequestError:
    # Of a value that may be of more than one type: what is wrong with the type that it was meant to be.
    errors = error.errors(include_url=False)
    of_first = [each for each in errors if each["loc"][:1] == errors[0]["loc"][:1]]
    first = min(of_first, key=lambda each: (each["type"].endswith("_type"), -len(each["loc"])))
    place = [str(part) for part in first["loc"]]
    param = place[0]
    match first["type"]:
        case "extra_forbidden":
            name = ".".join(place)
            return RequestError(
                f"This engine does not know the parameter {name!r}, or not this value of it; leave it out.",
                code="unsupported_parameter",
                param=name,
            )
        case "missing":
            return RequestError(
                f"The parameter {param!r} is missing; give it.",
                code="missing_required_parameter",
                param=param,
            )
        case _:
            return invalid(param, first["msg"][:1].lower() + first["msg"][1:])


def invalid(param: str, why: str) -> RequestError:
    """A value that cannot be."""
    return RequestError(f"Invalid {param!r}: {why}.", code="invalid_value", param=param)


def _is_many(prompt: str | list[Json]) -> bool:
    return not isinstance(prompt, str) and bool(prompt) and not isinstance(prompt[0], int)


def _check(body: CommonBody) -> None:
    if body.stream_options is not None and not body.stream:
        raise invalid("stream_options", "it is for answers that stream; set stream, or leave it out")
    if isinstance(body, ChatBody) and body.top_logprobs and not body.logprobs:
        raise invalid("top_logprobs", "it goes with logprobs; set that, or leave it out")
    prompts = len(body.prompt) if isinstance(body, CompletionBody) and _is_many(body.prompt) else 1
    if prompts * body.n > MOST_COMPLETIONS:
        raise invalid(
            "n" if prompts == 1 else "prompt",
            f"{prompts} prompts with n={body.n} are {prompts * body.n} completions, and a request has at most"
            f" {MOST_COMPLETIONS}; ask for fewer at once",
        )
    if isinstance(body, CompletionBody) and body.echo and body.logprobs is not None:
        raise RequestError(
            "This engine has no log-probabilities of an echoed prompt; leave out 'echo' or 'logprobs'.",
            code="unsupported_parameter",
            param="echo",
        )
