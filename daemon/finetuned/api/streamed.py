"""Bodies that are taken as they come: whatever cuts one short is told."""

from __future__ import annotations

from collections.abc import AsyncIterator

from aiohttp import ClientPayloadError, hdrs, web
from aiohttp.http_exceptions import PayloadEncodingError

from finetuned.api.body import UnsupportedMediaTypeError
from finetuned.domain.errors import InvalidRequestError


async def chunks(request: web.Request) -> AsyncIterator[bytes]:
    """The body as it comes. Raises ``InvalidRequestError`` if it ends too early."""
    try:
        async for chunk in request.content.iter_any():
            yield chunk
    except (ConnectionError, ClientPayloadError, PayloadEncodingError) as error:
        # Told to whoever is still there: one who only closed the sending side, or sent nonsense.
        raise InvalidRequestError(
            f"The body ended before it was whole ({error}), nothing was kept; send the file again.",
            code="upload_incomplete",
        ) from None


def check_encoding(request: web.Request) -> None:
    """Refuse a compressed body. Raises ``UnsupportedMediaTypeError``."""
    if request.headers.get(hdrs.CONTENT_ENCODING, "identity").lower() != "identity":
        raise UnsupportedMediaTypeError(
            "The body is compressed (Content-Encoding); send the file as it is.",
            code="unsupported_media_type",
        )
