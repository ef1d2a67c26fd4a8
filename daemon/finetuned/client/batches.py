"""Calls about batches: all requests of a file, asked of a model."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping

from finetuned.client.calls import Calls, given, part
from finetuned.wire import Batch, BatchPage

LARGEST_PAGE = 100


class BatchCalls(Calls):
    """Create, list, look, cancel."""

    async def create_batch(
        self,
        input_file_id: str,
        *,
        endpoint: str = "/v1/chat/completions",
        metadata: Mapping[str, str] | None = None,
        priority: int | None = None,
        engine: str | None = None,
        output_expires_after_s: int | None = None,
    ) -> Batch:
        """Ask all requests of a file that was sent with the purpose ``batch``.

        ``output_expires_after_s``: seconds that its output is kept; ``None`` for 30 days. It is created once, even if
        the daemon goes away in the middle and comes back.
        """
        expires = output_expires_after_s
        body = given(
            input_file_id=input_file_id,
            endpoint=endpoint,
            completion_window="24h",
            metadata=metadata,
            priority=priority,
            engine=engine,
            output_expires_after=None if expires is None else {"anchor": "created_at", "seconds": expires},
        )
        batch: Batch = await self._post("/v1/batches", body)
        return batch

    async def batch(self, batch_id: str) -> Batch:
        """One batch."""
        batch: Batch = await self._get(_path(batch_id))
        return batch

    async def batches(self, *, after: str | None = None, limit: int | None = None) -> BatchPage:
        """A page of batches, newest first."""
        page: BatchPage = await self._get("/v1/batches", after=after, limit=limit)
        return page

    async def all_batches(self) -> AsyncGenerator[Batch, None]:
        """Every batch, newest first."""
        after: str | None = None
        while True:
            page = await self.batches(after=after, limit=LARGEST_PAGE)
            for batch in page["data"]:
                yield batch
            if not page["has_more"] or not page["data"]:
                return
            after = page["data"][-1]["id"]

    async def cancel_batch(self, batch_id: str) -> Batch:
        """Ask a batch to end. What it has finished is kept."""
        batch: Batch = await self._post(f"{_path(batch_id)}/cancel")
        return batch


def _path(batch_id: str) -> str:
    return f"/v1/batches/{part(batch_id)}"
