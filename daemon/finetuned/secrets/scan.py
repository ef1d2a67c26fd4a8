"""What must not be recorded: values that look like secrets where a reference belongs.

The log forgets nothing, so a token in a job's parameters could never be taken back. This looks for names that say
so and for the forms of well-known tokens, and rather refuses too much; it cannot know every secret.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

from finetuned.domain.errors import InvalidRequestError
from finetuned_sdk.secrets import MASK, REFERENCE

#: names whose value is a secret
_NAME: Final = re.compile(
    r"(?:.*[_.-])?(?:password|passwd|passphrase|secret|api_?key|(?:access|private|secret)_?key|credentials?|bearer"
    r"|authorization)|token",
    re.IGNORECASE,
)
#: a token of a tokenizer (eos_token) is short or has brackets; one that opens a door is long and plain
_TOKEN_NAME: Final = re.compile(r".*[_.-]token", re.IGNORECASE)
_TOKEN_VALUE: Final = re.compile(r"[A-Za-z0-9_.=+/-]{16,}")
#: forms of tokens, anywhere in a text. Each begins only where a run of its characters does, and what may be long is
#: bounded, so that no text takes longer than a few looks at each of its characters
_FORMS: Final = re.compile(
    r"(?<![A-Za-z0-9_-])(?:"
    r"hf_[A-Za-z0-9]{20}"  # Hugging Face
    r"|(?:sk|rk|pk)-[A-Za-z0-9_-]{20}"  # OpenAI, Anthropic, OpenRouter
    r"|wandb_v\d_[A-Za-z0-9_-]{20}"
    r"|gh[pousr]_[A-Za-z0-9]{30}|github_pat_[A-Za-z0-9_]{20}|glpat-[A-Za-z0-9_-]{20}"
    r"|(?:AKIA|ASIA)[0-9A-Z]{16}\b"
    r"|AIza[A-Za-z0-9_-]{35}"
    r"|xox[abprs]-[A-Za-z0-9-]{10}"
    r"|whsec_[A-Za-z0-9+/=]{20}"
    r"|ft_[0-9a-z]{10}_[A-Za-z0-9_-]{40}"  # ours
    r"|eyJ[A-Za-z0-9_-]{10,2000}\.eyJ[A-Za-z0-9_-]{10}"  # a JSON Web Token
    r")[A-Za-z0-9_.+/=-]*"
    r"|-----BEGIN [A-Z ]{0,40}PRIVATE KEY-----"
    r"|(?<![A-Za-z0-9+.-])[A-Za-z][A-Za-z0-9+.-]{0,30}://[^/\s:@]{0,200}:[^/\s@]{1,500}@"  # a URL with a password
)
#: variables that decide what the worker runs or is: no secret goes by these names
_RESERVED: Final = re.compile(
    r"(?:LD|PYTHON|FINETUNED|CUDA|NVIDIA|NCCL|OMP|MKL|GLIBC|MALLOC|TORCH)_.*|PYTHON.*|PATH|HOME|SHELL|TMPDIR|IFS"
    r"|[A-Z_]*_?PROXY|HF_HOME|HF_ENDPOINT|HF_HUB_[A-Z_]*|SSL_CERT_[A-Z]+|REQUESTS_CA_BUNDLE"
)


def refuse_secrets(document: Any, *, where: str) -> None:
    """Refuse a value under a name that says secret, and a text that looks like one, anywhere in the document.

    Raises ``InvalidRequestError`` (``secret_in_params``) with the place and the remedy, never with the value.
    """
    for path, name, value in _walk(document, where, ""):
        if REFERENCE.fullmatch(value) or not value:
            continue
        is_token = _TOKEN_NAME.fullmatch(name) and _TOKEN_VALUE.fullmatch(value)
        if is_token or _NAME.fullmatch(name) or _FORMS.search(value):
            raise InvalidRequestError(
                f"{path} looks like a secret, and what is recorded is never forgotten. Store it with `finetune"
                ' secrets set NAME` and name it in the job\'s secrets, for instance {"HF_TOKEN": "secret:NAME"}.'
                " If it was a real one that others may have seen, revoke it.",
                param=path,
                code="secret_in_params",
            )


def without_tokens(data: Any) -> Any:
    """JSON-ready data with whatever has the form of a token masked, for texts that nobody wrote on purpose."""
    if isinstance(data, str):
        return _FORMS.sub(MASK, data)
    if isinstance(data, Mapping):
        return {key: without_tokens(value) for key, value in data.items()}
    if isinstance(data, (list, tuple)):
        return [without_tokens(value) for value in data]
    return data


def references(params: Any, named: Mapping[str, str]) -> dict[str, str]:
    """The secrets that a job refers to: what it names itself, and ``secret:NAME`` values of its parameters.

    Raises ``InvalidRequestError`` for a name that cannot be one and for a value that is no reference.
    """
    for name, reference in named.items():
        if not re.fullmatch(r"[A-Za-z][A-Za-z0-9_.-]{0,63}", name) or _RESERVED.fullmatch(name):
            raise InvalidRequestError(
                f"{name[:80]!r} cannot name a secret of a job: use a variable that a library reads, such as HF_TOKEN,"
                " or a name of your own in small letters.",
                param="secrets",
                code="invalid_params",
            )
        if not REFERENCE.fullmatch(reference):
            raise InvalidRequestError(
                f"secrets.{name} is not a reference; store the value with `finetune secrets set NAME` and write"
                f' {{"{name}": "secret:NAME"}}.',
                param=f"secrets.{name}",
                code="secret_in_params",
            )
    found = {value: value for _path, _name, value in _walk(params, "", "") if REFERENCE.fullmatch(value)}
    return {**named, **{value: value for value in found if value not in named.values()}}


def _walk(value: Any, path: str, name: str) -> Iterator[tuple[str, str, str]]:
    """Every text in a document: where it is, the nearest key above it, and itself. Keys are texts too."""
    if isinstance(value, str):
        yield path, name, value
    elif isinstance(value, Mapping):
        for key, each in value.items():
            if _FORMS.search(str(key)):
                yield path, "", str(key)
            yield from _walk(each, f"{path}.{key}" if path else str(key), str(key))
    elif isinstance(value, (list, tuple)):
        for index, each in enumerate(value):
            yield from _walk(each, f"{path}.{index}", name)
