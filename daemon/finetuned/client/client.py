"""An asynchronous client of the daemon, for programs and for the command line.

.. code-block:: python

    async with Client() as daemon:
        job = await daemon.submit("sft", {"model": "smollm2", "dataset": "/data/train.jsonl"})
        async with aclosing(daemon.follow(job=job["id"])) as events:
            async for event in events:
                print(event["type"], event["data"])

Every method raises a ``FinetunedError``: the server's own refusal with its code, or ``UnreachableError`` when
nothing answers.
"""

from __future__ import annotations

from types import TracebackType
from typing import Self

from finetuned.client.administration import AdministrationCalls
from finetuned.client.batches import BatchCalls
from finetuned.client.datasets import DatasetCalls
from finetuned.client.endpoint import Endpoint, find_endpoint
from finetuned.client.events import EventCalls
from finetuned.client.files import FileCalls
from finetuned.client.inference import InferenceCalls
from finetuned.client.jobs import JobCalls
from finetuned.client.machine import MachineCalls
from finetuned.client.models import ModelCalls
from finetuned.client.output import OutputCalls
from finetuned.client.results import ResultCalls
from finetuned.client.secrets import SecretCalls
from finetuned.client.templates import TemplateCalls
from finetuned.client.transport import OnConnection, Transport
from finetuned.client.webhooks import WebhookCalls


class Client(
    JobCalls,
    EventCalls,
    OutputCalls,
    ResultCalls,
    DatasetCalls,
    FileCalls,
    BatchCalls,
    TemplateCalls,
    ModelCalls,
    InferenceCalls,
    MachineCalls,
    SecretCalls,
    WebhookCalls,
    AdministrationCalls,
):
    """A connection to one daemon. Use it as an asynchronous context manager.

    What appends to the log is sent with an ``Idempotency-Key`` and repeated for half a minute if the daemon goes away
    before it has answered: it is done once. ``on_connection`` is told the trouble each time, and ``None`` when it is
    over.
    """

    def __init__(
        self,
        endpoint: Endpoint | None = None,
        *,
        on_connection: OnConnection = lambda _trouble: None,
    ) -> None:
        self._transport = Transport(endpoint or find_endpoint(), on_connection)

    @property
    def endpoint(self) -> Endpoint:
        """Where the daemon is."""
        return self._transport.endpoint

    async def __aenter__(self) -> Self:
        self._transport.open()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._transport.close()
