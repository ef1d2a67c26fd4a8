"""Registers: what can be named or looked up by key. Each is a fold of its facts."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Generic, TypeVar

from finetuned.domain import facts

Json = Any
T = TypeVar("T")

KEPT_AUDITS = 20  #: newest audits that a version of a dataset shows
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
