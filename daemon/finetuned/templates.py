"""Templates: what may be kept as one, and how a job request is completed from one."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import Any

from pydantic import ValidationError

from finetuned.access.path_policy import PathPolicy
from finetuned.domain.errors import InvalidRequestError
from finetuned.domain.registers import Template
from finetuned.job_request import JobRequest, parse_request
from finetuned.refusals import invalid
from finetuned.secrets.scan import refuse_secrets
from finetuned.spelling import nearest
from finetuned_sdk import Registry

Json = Any

MERGED = ("params", "metadata", "secrets", "timeouts", "limits")  # fields whose keys are completed one by one
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,95}")


def check_name(name: str) -> None:
    """Raise ``InvalidRequestError`` for what is no name of a template."""
    if not _NAME.fullmatch(name):
        raise InvalidRequestError(
            f"{name[:40]!r} is no name for a template; use up to 96 letters, digits, dots, dashes and underscores,"
            " the first one a letter or a digit.",
            param="name",
        )


def check(request: JobRequest, registry: Registry) -> dict[str, Json]:
    """The request as it is kept: only what was said. It may be incomplete, what it says must fit.

    Raises ``InvalidRequestError`` with the field and the remedy.
    """
    refuse_secrets(request.params, where="request.params")
    refuse_secrets(request.metadata, where="request.metadata")
    refuse_secrets(request.name, where="request.name")
    if request.template is not None:
        raise InvalidRequestError(
            "request.template: a template cannot be made from another; write out what it says.",
            param="request.template",
        )
    kind = registry.job_kinds.get(request.kind)
    if kind is None:
        raise InvalidRequestError(
            f"There is no job kind {request.kind!r}.{nearest(request.kind, registry.job_kinds)}"
            " `finetune kinds` lists them.",
            param="request.kind",
            code="unknown_kind",
        )
    try:
        kind.params.model_validate(request.params)
    except ValidationError as error:
        wrong = [each for each in error.errors(include_url=False) if each["type"] != "missing"]
        if wrong:
            without_missing = ValidationError.from_exception_data(error.title, wrong)  # type: ignore[arg-type]
            raise invalid(without_missing, kind.params.model_fields, prefix="request.params.") from None
    return request.model_dump(mode="json", exclude_unset=True)


def check_paths(
    request: JobRequest, registry: Registry, paths: PathPolicy, models: Collection[str] = ()
) -> None:
    """Refuse paths that ``paths`` does not allow in parameters that are declared as such; ``models`` are names.

    Reads the file system. Raises ``PathNotAllowedError`` or ``UrlNotAllowedError``.
    """
    kind = registry.job_kinds[request.kind]
    where = "request.params."
    paths.check(request.params, kind.model_params, prefix=where, known=models)
    paths.check(request.params, (*kind.path_params, *kind.dataset_params), prefix=where)
    for index, each in enumerate(request.params.get("callbacks") or []):
        callback = registry.callbacks.get(each.get("name", "")) if isinstance(each, Mapping) else None
        if callback is not None:
            names = (*callback.path_params, *callback.dataset_params)
            paths.check(each.get("params") or {}, names, prefix=f"{where}callbacks.{index}.params.")


def reference(named: str) -> tuple[str, int | None]:
    """Name and version behind ``name`` or ``name@version``. Raises ``InvalidRequestError``."""
    name, at, version = named.partition("@")
    check_name(name)
    if not at:
        return name, None
    if not (version.isascii() and version.isdigit() and 0 < len(version) <= 9):
        raise InvalidRequestError(
            f"template: {version[:40]!r} is no version; write {name}@1, or {name} for the newest.",
            param="template",
        )
    return name, int(version)


def completed(request: JobRequest, template: Template) -> JobRequest:
    """The request with what the template says where the request itself says nothing.

    Of ``params``, ``metadata``, ``secrets``, ``timeouts`` and ``limits`` each key counts on its own. Raises ``InvalidRequestError``.
    """
    base = template.request
    given = request.model_dump(mode="json", exclude_unset=True)
    if given.get("kind") not in {None, "", base["kind"]}:
        raise InvalidRequestError(
            f"kind: the template {template.name!r} is for {base['kind']!r}; leave kind out, or name another template.",
            param="kind",
        )
    merged = {**base, **given, "kind": base["kind"]}
    merged |= {key: {**base.get(key, {}), **given.get(key, {})} for key in MERGED}
    del merged["template"]
    return parse_request(merged)
