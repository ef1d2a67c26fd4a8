"""The client's lists are whole, however many pages they come on."""

from __future__ import annotations

from typing import Any

from finetuned.client.models import ModelCalls
from finetuned.client.transport import ANSWER_TIMEOUT


class Pages:
    """A daemon that has five models and gives two at a time."""

    def __init__(self) -> None:
        self.asked: list[dict[str, str]] = []

    async def request(self, method: str, path: str, *, query: dict[str, str], timeout: float) -> Any:
        assert timeout == ANSWER_TIMEOUT
        assert (method, path) == ("GET", "/v1/models")
        self.asked.append(query)
        first = int(query.get("after", "0"))
        ids = list(range(first + 1, min(first + 2, 5) + 1))
        data = [{"id": str(each)} for each in ids]
        return {"data": data, "has_more": ids[-1] < 5, "next_after": str(ids[-1])}


async def test_a_list_is_asked_for_page_after_page() -> None:
    calls, pages = ModelCalls(), Pages()
    calls._transport = pages  # type: ignore[assignment]
    assert [each["id"] for each in await calls.models()] == ["1", "2", "3", "4", "5"]
    assert pages.asked == [{}, {"after": "2"}, {"after": "4"}]
