"""Registers: what can be named or looked up by key. Each is a fold of its facts."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Generic, TypeVar

from finetuned.domain import facts

Json = Any
T = TypeVar("T")

KEPT_AUDITS = 20  #: newest audits that a version of a dataset shows
KEPT_ALIASED = 20  #: newest models that an alias stood for
KEPT_REQUESTS_US = 24 * 3600 * 1_000_000  #: how long an Idempotency-Key is remembered, in microseconds


class Shelf(dict[str, T], Generic[T]):
    """A register by key that knows which keys the batch in progress has changed."""

    __slots__ = ("touched",)

    def __init__(self) -> None:
        super().__init__()
        self.touched: set[str] = set()

    def put(self, key: str, value: T) -> None:
        """Add or replace an entry."""
        self[key] = value
        self.touched.add(key)

    def drop(self, key: str) -> None:
        """Remove an entry, if it is there."""
        self.pop(key, None)
        self.touched.add(key)


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """A model that can be named."""

    name: str
    path: str
    kind: str
    base: str | None
    job: str | None
    lineage: dict[str, Json]
    created_at: int


@dataclass(frozen=True, slots=True, kw_only=True)
class DatasetVersion:
    """One content of a dataset: ``version`` is its SHA-256."""

    version: str
    path: str
    bytes: int
    format: str
    source: str
    rows: int | None
    created_at: int
    created_by: str
    identity: str | None = None  # of a file that stays where it was, as datasets.file says it
    audits: tuple[dict[str, Json], ...] = ()  # of this content, the newest last: job, at, report


@dataclass(frozen=True, slots=True, kw_only=True)
class Dataset:
    """A dataset that can be named, with its versions, the newest last."""

    name: str
    versions: tuple[DatasetVersion, ...]

    @property
    def newest(self) -> DatasetVersion:
        """The version that the bare name means."""
        return self.versions[-1]


@dataclass(frozen=True, slots=True, kw_only=True)
class Template:
    """A job request that is kept under a name."""

    name: str
    version: int
    request: dict[str, Json]
    description: str | None
    saved_at: int
    saved_by: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Token:
    """A bearer token: its scope, and the hash of its secret. Times are microseconds since the epoch (UTC)."""

    id: str
    scope: str
    sha256: str
    name: str | None
    created_at: int
    expires_at: int | None = None
    last_used_at: int | None = None
    revoked_at: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class File:
    """A file of the OpenAI API. Times are microseconds since the epoch (UTC)."""

    id: str
    seq: int  # of file.created: its place among files
    filename: str
    purpose: str
    path: str
    bytes: int
    created_at: int
    created_by: str
    sha256: str | None = None
    expires_at: int | None = None
    job: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Alias:
    """A name that stands for a model, and for what before, the newest last."""

    alias: str
    model: str
    history: tuple[str, ...]
    set_at: int
    set_by: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Webhook:
    """Where events are sent to. ``since`` is the position up to which all was sent; ``disabled`` says why nothing is.

    ``turn`` is the position of the newest event by which somebody said where it goes on: what was sent before it says
    nothing about what comes after. ``tries`` failed in a row, the last at ``failed_at`` because of ``failure``.
    """

    id: str
    url: str
    types: tuple[str, ...]
    since: int
    name: str | None
    created_at: int
    turn: int
    disabled: str | None = None
    tries: int = 0
    failure: str | None = None
    failed_at: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class AcceptedRequest:
    """A request with an ``Idempotency-Key`` and what came of it."""

    fingerprint: str
    subject: str
    at: int


def fold_model(models: Shelf[Model], fact: facts.Fact, at: int) -> None:
    """A fact of the stream ``model/…``."""
    match fact:
        case facts.ModelRegistered():
            models.put(fact.name, Model(**fact.to_data(), created_at=at))
        case facts.ModelDeleted():
            models.drop(fact.name)


def fold_dataset(datasets: Shelf[Dataset], fact: facts.Fact, at: int, actor: str) -> None:
    """A fact of the stream ``dataset/…``. Registering a version again makes it the newest."""
    match fact:
        case facts.DatasetRegistered():
            data = fact.to_data()
            del data["name"]
            audits = next((each.audits for each in _contents(datasets, fact.version)), ())
            version = DatasetVersion(**data, created_at=at, created_by=actor, audits=audits)
            others = _without(datasets, fact.name, [fact.version])
            datasets.put(fact.name, Dataset(name=fact.name, versions=(*others, version)))
        case facts.DatasetDeleted():
            left = tuple(_without(datasets, fact.name, fact.versions))
            if left:
                datasets.put(fact.name, Dataset(name=fact.name, versions=left))
            else:
                datasets.drop(fact.name)


def fold_audit(datasets: Shelf[Dataset], fact: facts.DatasetAudited, job: str, at: int) -> None:
    """What a job found in content that has a name, by whatever path it read it."""
    sha256 = fact.report.get("sha256")
    if sha256 is None:
        return
    audit = {"job": job, "at": at, "report": fact.report}
    named = [each for each in datasets.values() if any(v.version == sha256 for v in each.versions)]
    for dataset in named:
        versions = tuple(
            replace(each, audits=(*each.audits, audit)[-KEPT_AUDITS:]) if each.version == sha256 else each
            for each in dataset.versions
        )
        datasets.put(dataset.name, replace(dataset, versions=versions))


def _without(datasets: Shelf[Dataset], name: str, versions: Sequence[str]) -> Iterable[DatasetVersion]:
    known = datasets[name].versions if name in datasets else ()
    return (each for each in known if each.version not in versions)


def _contents(datasets: Shelf[Dataset], version: str) -> Iterable[DatasetVersion]:
    return (each for dataset in datasets.values() for each in dataset.versions if each.version == version)


def fold_template(
    templates: Shelf[Template], versions: Shelf[int], fact: facts.Fact, at: int, actor: str
) -> None:
    """A fact of the stream ``template/…``. ``versions`` keeps the highest that a name ever had, free or not."""
    match fact:
        case facts.TemplateSaved():
            templates.put(fact.name, Template(**fact.to_data(), saved_at=at, saved_by=actor))
            versions.put(fact.name, max(fact.version, versions.get(fact.name, 0)))
        case facts.TemplateDeleted():
            templates.drop(fact.name)


def fold_file(files: Shelf[File], fact: facts.Fact, *, seq: int, at: int, actor: str) -> None:
    """A fact of the stream ``file/…``."""
    match fact:
        case facts.FileCreated():
            data = fact.to_data()
            kept_s = data.pop("expires_after_s")
            expires_at = None if kept_s is None else at + kept_s * 1_000_000
            file = File(**data, seq=seq, created_at=at, created_by=actor, expires_at=expires_at)
            files.put(fact.id, file)
        case facts.FileDeleted():
            files.drop(fact.id)


def fold_alias(aliases: Shelf[Alias], fact: facts.Fact, at: int, actor: str) -> None:
    """A fact of the stream ``alias/…``."""
    match fact:
        case facts.AliasSet():
            before = aliases.get(fact.alias)
            history = _aliased(before, fact)
            alias = Alias(alias=fact.alias, model=fact.model, history=history, set_at=at, set_by=actor)
            aliases.put(fact.alias, alias)
        case facts.AliasDeleted():
            aliases.drop(fact.alias)


def _aliased(before: Alias | None, fact: facts.AliasSet) -> tuple[str, ...]:
    """What an alias stood for before, the newest last; after a rollback, before what it went back to."""
    if before is None:
        return ()
    if fact.is_rollback and fact.model in before.history:
        newest = len(before.history) - 1 - before.history[::-1].index(fact.model)
        return before.history[:newest]
    return (*before.history, before.model)[-KEPT_ALIASED:]


def fold_webhook(webhooks: Shelf[Webhook], fact: facts.Fact, *, seq: int, at: int) -> None:
    """A fact of the stream ``webhook/…``."""
    match fact:
        case facts.WebhookCreated():
            data = {**fact.to_data(), "types": tuple(fact.types)}
            webhooks.put(fact.id, Webhook(**data, created_at=at, turn=seq))
        case facts.WebhookDelivered():
            webhooks.put(fact.id, replace(webhooks[fact.id], since=fact.upto, tries=0))
        case facts.WebhookFailed():
            failed = replace(webhooks[fact.id], since=fact.upto, tries=fact.tries)
            webhooks.put(fact.id, replace(failed, failure=fact.reason, failed_at=at))
        case facts.WebhookDisabled():
            webhooks.put(fact.id, replace(webhooks[fact.id], disabled=fact.reason))
        case facts.WebhookEnabled() | facts.WebhookReplayed():
            webhook = replace(webhooks[fact.id], disabled=None, since=fact.since, tries=0, turn=seq)
            webhooks.put(fact.id, webhook)
        case facts.WebhookDeleted():
            webhooks.drop(fact.id)


def fold_token(tokens: Shelf[Token], fact: facts.Fact, at: int) -> None:
    """A fact of the stream ``token/…``."""
    match fact:
        case facts.TokenCreated():
            tokens.put(fact.id, Token(**fact.to_data(), created_at=at))
        case facts.TokenUsed():
            tokens.put(fact.id, replace(tokens[fact.id], last_used_at=at))
        case facts.TokenRevoked():
            tokens.put(fact.id, replace(tokens[fact.id], revoked_at=at))


def fold_request(requests: Shelf[AcceptedRequest], fact: facts.Fact, at: int) -> None:
    """A fact of the stream ``request/…``. What is too old is forgotten by the log's own time."""
    if not isinstance(fact, facts.RequestAccepted):
        return
    for key in list(requests):  # oldest first
        if requests[key].at >= at - KEPT_REQUESTS_US:
            break
        requests.drop(key)
    accepted = AcceptedRequest(fingerprint=fact.fingerprint, subject=fact.subject, at=at)
    requests.pop(fact.id, None)
    requests.put(fact.id, accepted)
