"""The HTTP door: pure mappers from requests onto ``commands`` and ``queries``.

app, server     the aiohttp application, and the sockets that it is served on
routes          the one table of routes: method, path, handler, scope, summary
auth            who asks, and what they may do
errors          every refusal as one JSON shape
paging, body    query parameters and request bodies, checked
feed, sse       events pushed to any number of clients
jobs, events, models, kinds, devices, tokens, log_routes, health    the handlers
"""

from __future__ import annotations
