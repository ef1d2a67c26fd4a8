"""A job request, checked against the kinds that plugins declare and the machine that it is to run on."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from finetuned.access.path_policy import NOWHERE, PathPolicy
from finetuned.datasets.used import UsedDatasets
from finetuned.domain import facts, model_names, timeouts
from finetuned.domain.engines import ACTOR as ENGINES
from finetuned.domain.engines import key_of
from finetuned.domain.errors import InvalidRequestError
from finetuned.domain.files import NONE, Known
from finetuned.domain.job import Job
from finetuned.domain.registers import Dataset
from finetuned.engines.defaults import EngineDefaults
from finetuned.engines.target import NO_NAMES, Names
from finetuned.estimates import checks
from finetuned.estimates.fixes import Fix, fixes
from finetuned.job_request import DEFAULT_MAX_ATTEMPTS, JobRequest
from finetuned.openai import starting_point
from finetuned.refusals import invalid
from finetuned.secrets.scan import references, refuse_secrets
from finetuned.secrets.store import SecretMissingError, SecretStore, SecretUnsafeError, name_of
from finetuned.spelling import nearest
from finetuned_sdk import EngineKind, Estimate, Host, JobError, JobKind, RefusedError, Registry

Json = Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """A request that could be accepted: what would be recorded, and what it was made and judged from."""

    fact: facts.JobSubmitted
    kind: JobKind
    params: BaseModel
    host: Host  # with the files of its datasets
    estimate: Estimate
    checks: list[checks.Check]

    def fixes(self) -> list[Fix]:
        """What could be changed so that it fits."""
        return fixes(self.kind, self.params, self.host, self.fact.limits)


def resolve(request: JobRequest, registry: Registry, host: Host, **known: Any) -> facts.JobSubmitted:
    """The submission that a request becomes: :func:`prepare`, and :func:`require_fit`."""
    prepared = prepare(request, registry, host, **known)
    require_fit(prepared)
    return prepared.fact


def require_fit(prepared: Prepared) -> None:
    """Raise ``InvalidRequestError`` for a job that clearly cannot fit, naming what would."""
    if not prepared.fact.ignores_estimate and checks.worst(prepared.checks) == checks.REFUSED:
        checks.refuse(prepared.checks, map(str, prepared.fixes()))


def refuse_engine(kind: str | None, registry: Registry, *, actor: str) -> None:
    """Refuse an engine that a person submits: it would end at once, as nobody asks it. Raises ``InvalidRequestError``."""
    if actor != ENGINES and isinstance(registry.job_kinds.get(kind or ""), EngineKind):
        raise InvalidRequestError(
            f"{kind!r} is an engine, which starts by itself when it is asked; `finetune chat` and `finetune batch run` ask it,"
            " the latter with --engine.",
            param="kind",
            code="engine_kind",
        )


def prepare(
    request: JobRequest,
    registry: Registry,
    host: Host,
    *,
    paths: PathPolicy = NOWHERE,
    secrets: SecretStore | None = None,
    datasets: Mapping[str, Dataset] | None = None,
    files: Known = NONE,
    names: Names = NO_NAMES,
    engines: EngineDefaults = EngineDefaults(),  # noqa: B008 - frozen
    default_max_attempts: int = DEFAULT_MAX_ATTEMPTS,
    retry_of: Job | None = None,
    resume_from: str | None = None,
) -> Prepared:
    """Check everything about a request that can be checked without reading data, but whether it fits.

    ``paths`` says which paths on the server its caller may name, ``secrets`` which secrets there are,
    ``datasets`` which datasets and ``files`` which files, ``names`` what names of models stand for. ``engines`` says
    which engine answers where the job does not.
    Reads the file system (is the model there?), so call it off the event loop. Raises ``InvalidRequestError``,
    ``PermissionDeniedError`` or ``NotFoundError`` with the parameter and the remedy.
    """
    # First of all: no later refusal may quote a secret.
    refuse_secrets(request.params, where="params")
    refuse_secrets(request.metadata, where="metadata")
    refuse_secrets(request.name, where="name")
    if not request.kind:
        raise InvalidRequestError("kind is missing; give it a value.", param="kind", code="missing_parameter")
    kind = registry.job_kinds.get(request.kind)
    if kind is None:
        raise InvalidRequestError(
            f"There is no job kind {request.kind!r}.{nearest(request.kind, registry.job_kinds)} `finetune kinds` lists them.",
            param="kind",
            code="unknown_kind",
        )
    request = starting_point.plain(request, kind, names)
    params = _params(kind, request.params)
    # Before anything is opened or looked for: whether a file is there is nobody's business either.
    host = replace(
        host, models={**{name: path for name, (path, _) in names.checkpoints.items()}, **host.models}
    )
    known = {*host.models, *model_names.known(names.models, names.aliases)}
    _check_paths(params, kind.model_params, paths, prefix="params.", known=known)
    _check_paths(params, (*kind.path_params, *kind.dataset_params), paths, prefix="params.")
    used = UsedDatasets(datasets or {}, retry_of.datasets if retry_of else {}, paths.roots, files)
    used.take(params, kind.dataset_params, key="", where="params.")
    host = replace(host, datasets=used.files)  # which the callbacks add to
    callbacks = _callbacks(params, registry, host, paths, used)
    try:
        if kind.check is not None:
            kind.check(params, host)
        devices = kind.resources(params, host).devices if kind.resources else 1
        estimate = kind.estimate(params, host) if kind.estimate else None
        need = kind.engine(params, host) if kind.engine else None
    except JobError as refused:
        param = f"params.{refused.param}" if isinstance(refused, RefusedError) and refused.param else None
        raise InvalidRequestError(refused.message, param=param, code=refused.code) from None
    fact = facts.JobSubmitted(
        kind=kind.name,
        name=request.name,
        params=recorded(kind, params, request.params),
        priority=request.priority,
        metadata=request.metadata,
        devices=devices,
        validates=kind.validator is not None,
        max_attempts=default_max_attempts if request.max_attempts is None else request.max_attempts,
        models=_models(kind, params, host.models),
        callbacks=callbacks,
        estimate=None if estimate is None else asdict(estimate),
        retry_of=retry_of.id if retry_of else None,
        resume_from=resume_from,
        datasets=used.found,
        secrets=_secrets(request, secrets),
        timeouts=timeouts.resolved(kind.timeouts, request.timeouts.model_dump(exclude_none=True)),
        limits=request.limits.model_dump(exclude_none=True),
        preemptible=request.preemptible,
        reduces_batch=request.reduces_batch,
        ignores_estimate=request.ignores_estimate,
        engine=None if need is None else engines.resolved(need, registry, names),
        serves=key_of(kind.name, request.params) if isinstance(kind, EngineKind) else None,
        overrides=dict(retry_of.overrides) if retry_of is not None and request.reduces_batch else {},
    )
    foretold = Estimate() if estimate is None else estimate
    return Prepared(
        fact=fact,
        kind=kind,
        params=params,
        host=host,
        estimate=foretold,
        checks=checks.examine(foretold, host, fact.limits),
    )


def _secrets(request: JobRequest, store: SecretStore | None) -> dict[str, str]:
    """The references of a job, all of which can be read from the store now."""
    found = references(request.params, request.secrets)
    for name, reference in found.items():
        _require(store, name_of(reference), param=f"secrets.{name}")
    return found


def _require(store: SecretStore | None, name: str, *, param: str) -> None:
    """Refuse a secret that is not there, or that no attempt could read."""
    missing = SecretMissingError(
        f"There is no secret {name!r}; an administrator stores it with `finetune secrets set {name}`.",
        param=param,
    )
    if store is None:
        raise missing
    try:
        store.read(name)
    except SecretMissingError:
        raise missing from None
    except SecretUnsafeError as error:
        raise SecretUnsafeError(error.message, param=param) from None


def _check_paths(
    params: BaseModel, names: Iterable[str], paths: PathPolicy, *, prefix: str, known: Collection[str] = ()
) -> None:
    given = {name: getattr(params, name, None) for name in names}
    paths.check(given, given, prefix=prefix, known=known)


def _params(kind: JobKind, given: Mapping[str, Json]) -> BaseModel:
    try:
        return kind.params.model_validate(given)
    except ValidationError as error:
        raise invalid(error, kind.params.model_fields, prefix="params.") from None


def recorded(kind: JobKind, params: BaseModel, given: Mapping[str, Json]) -> dict[str, Json]:
    """What was given, in the types that it was taken for: whoever reads the log need not know that "5" was let pass.

    Those of an engine stay as they are, because they are what it is known by.
    """
    if isinstance(kind, EngineKind):
        return dict(given)
    try:
        taken = params.model_dump(mode="json", exclude_unset=True, warnings=False)
        typed = {name: taken.get(name, value) for name, value in given.items()}
        is_the_same = kind.params.model_validate(typed) == params
    except ValueError:  # a plugin's own type that is not read as it is written, or not written at all
        return dict(given)
    return typed if is_the_same else dict(given)


def _models(kind: JobKind, params: BaseModel, registered: Mapping[str, Path]) -> dict[str, str]:
    named: dict[str, str | None] = {param: getattr(params, param, None) for param in kind.model_params}
    return {param: str(registered[name]) for param, name in named.items() if name and name in registered}


def _callbacks(
    params: BaseModel, registry: Registry, host: Host, paths: PathPolicy, used: UsedDatasets
) -> list[dict[str, Json]]:
    resolved = []
    for index, item in enumerate(getattr(params, "callbacks", None) or []):
        listed = item.model_dump() if isinstance(item, BaseModel) else dict(item)
        where = f"params.callbacks.{index}"
        callback = registry.callbacks.get(listed.get("name", ""))
        if callback is None:
            raise InvalidRequestError(
                f"There is no callback {listed.get('name')!r}.{nearest(str(listed.get('name')), registry.callbacks)}",
                param=f"{where}.name",
                code="unknown_callback",
            )
        try:
            checked = callback.params.model_validate(listed.get("params") or {})
        except ValidationError as error:
            raise invalid(error, callback.params.model_fields, prefix=f"{where}.params.") from None
        _check_paths(
            checked, (*callback.path_params, *callback.dataset_params), paths, prefix=f"{where}.params."
        )
        used.take(checked, callback.dataset_params, key=f"callbacks.{index}.", where=f"{where}.params.")
        if callback.check is not None:
            try:
                callback.check(checked, host)
            except JobError as refused:
                raise InvalidRequestError(
                    refused.message, param=f"{where}.params", code=refused.code
                ) from None
        resolved.append(
            {
                "name": callback.name,
                "entry": callback.entry,
                "params": checked.model_dump(mode="json") | _files(checked, callback.dataset_params, host),
                "params_model": f"{callback.params.__module__}:{callback.params.__qualname__}",
            }
        )
    return resolved


def _files(params: BaseModel, names: Iterable[str], host: Host) -> dict[str, Json]:
    """The files behind references to datasets, by parameter."""
    given = {name: getattr(params, name, None) for name in names}
    return {
        name: host.dataset(value)
        for name, value in given.items()
        if isinstance(value, str) and value in host.datasets
    }
