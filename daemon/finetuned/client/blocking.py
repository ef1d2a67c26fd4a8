"""The same client for programs without an event loop.

.. code-block:: python

    with SyncClient() as daemon:
        job = daemon.submit("sft", {"model": "smollm2", "dataset": "/data/train.jsonl"})
        for event in daemon.follow(job=job["id"]):
            print(event["type"], event["data"])

A thread runs the event loop while the client is open. Its methods may be called from any thread.
"""

from __future__ import annotations

import functools
from collections.abc import AsyncGenerator, Callable, Coroutine, Generator
from concurrent.futures import Future
from contextlib import ExitStack, aclosing
from types import GenericAlias, TracebackType
from typing import Any, Concatenate, ParamSpec, Self, TypeVar, get_args, get_type_hints

import anyio
from anyio.from_thread import BlockingPortal, start_blocking_portal
from anyio.streams.memory import MemoryObjectSendStream

from finetuned.client.client import Client
from finetuned.client.endpoint import Endpoint
from finetuned.client.transport import OnConnection

P = ParamSpec("P")
R = TypeVar("R")


def _waiting(
    call: Callable[Concatenate[Client, P], Coroutine[Any, Any, R]],
) -> Callable[Concatenate[SyncClient, P], R]:
    """``call`` as a method that returns when it is done."""

    @functools.wraps(call)
    def wait(self: SyncClient, /, *args: P.args, **kwargs: P.kwargs) -> R:
        portal, client = self._opened
        done: R = portal.call(functools.partial(call, client, *args, **kwargs))
        return done

    return wait


def _iterating(
    call: Callable[Concatenate[Client, P], AsyncGenerator[R, None]],
) -> Callable[Concatenate[SyncClient, P], Generator[R, None, None]]:
    """``call`` as a method that gives a generator; closing it closes the connection."""

    @functools.wraps(call)
    def iterate(self: SyncClient, /, *args: P.args, **kwargs: P.kwargs) -> Generator[R, None, None]:
        portal, client = self._opened
        send, receive = anyio.create_memory_object_stream[R](0)
        pump = portal.start_task_soon(_pump, call(client, *args, **kwargs), send)
        self._pumps.add(pump)
        try:
            while True:
                try:
                    item = portal.call(receive.receive)
                except anyio.EndOfStream:
                    pump.result()  # raises what ended it
                    return
                yield item
        finally:
            self._pumps.discard(pump)
            if self._portal is portal:  # a client that was closed meanwhile has ended it too
                pump.cancel()
                portal.call(receive.aclose)
            else:
                receive.close()

    item, *_ = get_args(get_type_hints(call)["return"])
    returned = GenericAlias(Generator, (item, None, None))
    iterate.__annotations__ = {**call.__annotations__, "return": returned}
    return iterate


async def _pump(source: AsyncGenerator[R, None], send: MemoryObjectSendStream[R]) -> None:
    """Hand over each item when it is asked for. A task of its own: it can be given up in the middle of one."""
    async with send, aclosing(source):
        async for item in source:
            await send.send(item)


class SyncClient:
    """A connection to one daemon. Use it as a context manager. Its methods are :class:`Client`'s."""

    def __init__(
        self,
        endpoint: Endpoint | None = None,
        *,
        on_connection: OnConnection = lambda _trouble: None,
    ) -> None:
        self._client = Client(endpoint, on_connection=on_connection)
        self._exit = ExitStack()
        self._portal: BlockingPortal | None = None
        self._pumps: set[Future[None]] = set()  # iterations that go on

    @property
    def endpoint(self) -> Endpoint:
        """Where the daemon is."""
        return self._client.endpoint

    @property
    def _opened(self) -> tuple[BlockingPortal, Client]:
        if self._portal is None:
            raise RuntimeError("the client is used outside of its `with`")
        return self._portal, self._client

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            portal = stack.enter_context(start_blocking_portal())
            stack.enter_context(portal.wrap_async_context_manager(self._client))
            self._exit = stack.pop_all()
        self._portal = portal
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._portal = None
        for pump in list(self._pumps):
            pump.cancel()
        self._exit.__exit__(kind, error, trace)

    submit = _waiting(Client.submit)
    job = _waiting(Client.job)
    jobs = _waiting(Client.jobs)
    all_jobs = _iterating(Client.all_jobs)
    cancel = _waiting(Client.cancel)
    dry_run = _waiting(Client.dry_run)
    pause = _waiting(Client.pause)
    resume = _waiting(Client.resume)
    checkpoint = _waiting(Client.checkpoint)
    retry = _waiting(Client.retry)
    next_steps = _waiting(Client.next_steps)
    delete = _waiting(Client.delete)
    kinds = _waiting(Client.kinds)
    kind = _waiting(Client.kind)

    events = _waiting(Client.events)
    all_events = _iterating(Client.all_events)
    follow = _iterating(Client.follow)
    logs = _iterating(Client.logs)
    follow_logs = _iterating(Client.follow_logs)
    search_logs = _waiting(Client.search_logs)
    all_log_lines = _iterating(Client.all_log_lines)
    log_counts = _waiting(Client.log_counts)

    metrics = _waiting(Client.metrics)
    checkpoints = _waiting(Client.checkpoints)
    artifacts = _waiting(Client.artifacts)
    artifact = _waiting(Client.artifact)
    artifact_files = _iterating(Client.artifact_files)
    download_file = _waiting(Client.download_file)
    download_archive = _waiting(Client.download_archive)

    datasets = _waiting(Client.datasets)
    all_datasets = _iterating(Client.all_datasets)
    dataset = _waiting(Client.dataset)
    upload_dataset = _waiting(Client.upload_dataset)
    register_dataset = _waiting(Client.register_dataset)
    preview_dataset = _waiting(Client.preview_dataset)
    dataset_audits = _waiting(Client.dataset_audits)
    audit_dataset = _waiting(Client.audit_dataset)
    download_dataset = _waiting(Client.download_dataset)
    delete_dataset = _waiting(Client.delete_dataset)

    files = _waiting(Client.files)
    all_files = _iterating(Client.all_files)
    file = _waiting(Client.file)
    upload_file = _waiting(Client.upload_file)
    download_file_content = _waiting(Client.download_file_content)
    delete_file = _waiting(Client.delete_file)

    create_batch = _waiting(Client.create_batch)
    batch = _waiting(Client.batch)
    batches = _waiting(Client.batches)
    all_batches = _iterating(Client.all_batches)
    cancel_batch = _waiting(Client.cancel_batch)

    templates = _waiting(Client.templates)
    all_templates = _iterating(Client.all_templates)
    template = _waiting(Client.template)
    template_versions = _waiting(Client.template_versions)
    create_template = _waiting(Client.create_template)
    save_template = _waiting(Client.save_template)
    delete_template = _waiting(Client.delete_template)

    models = _waiting(Client.models)
    model = _waiting(Client.model)
    lineage = _waiting(Client.lineage)
    delete_model = _waiting(Client.delete_model)
    chat = _waiting(Client.chat)
    chat_chunks = _iterating(Client.chat_chunks)
    alias = _waiting(Client.alias)
    aliases = _waiting(Client.aliases)
    promote = _waiting(Client.promote)
    roll_back = _waiting(Client.roll_back)
    delete_alias = _waiting(Client.delete_alias)

    devices = _waiting(Client.devices)
    system = _waiting(Client.system)
    system_history = _waiting(Client.system_history)
    workers = _waiting(Client.workers)
    restart_worker = _waiting(Client.restart_worker)
    kill_worker = _waiting(Client.kill_worker)
    clear_gpu = _waiting(Client.clear_gpu)
    prometheus = _waiting(Client.prometheus)
    alive = _waiting(Client.alive)
    ready = _waiting(Client.ready)

    tokens = _waiting(Client.tokens)
    create_token = _waiting(Client.create_token)
    revoke_token = _waiting(Client.revoke_token)
    secrets = _waiting(Client.secrets)
    set_secret = _waiting(Client.set_secret)
    delete_secret = _waiting(Client.delete_secret)
    webhooks = _waiting(Client.webhooks)
    webhook = _waiting(Client.webhook)
    create_webhook = _waiting(Client.create_webhook)
    enable_webhook = _waiting(Client.enable_webhook)
    rotate_webhook = _waiting(Client.rotate_webhook)
    test_webhook = _waiting(Client.test_webhook)
    replay_webhook = _waiting(Client.replay_webhook)
    delete_webhook = _waiting(Client.delete_webhook)
    log_state = _waiting(Client.log_state)
    drain = _waiting(Client.drain)
    drained = _iterating(Client.drained)
    drain_state = _waiting(Client.drain_state)
    take_drain_back = _waiting(Client.take_drain_back)
    verify_log = _waiting(Client.verify_log)
    rebuild_log = _waiting(Client.rebuild_log)
    backup_log = _waiting(Client.backup_log)
    archive_log = _waiting(Client.archive_log)
