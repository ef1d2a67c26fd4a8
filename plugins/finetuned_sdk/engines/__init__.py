"""Engines: processes that hold a model and answer requests, and how to ask them.

An engine's plugin makes an :class:`Engine` and hands it to :func:`serve`; whoever asks opens an :class:`EngineClient`
on the engine's Unix socket. Requests and answers are the OpenAI API's own bodies.
"""

from __future__ import annotations

from finetuned_sdk.engines.client import EngineClient, connect
from finetuned_sdk.engines.engine import Adapter, Engine, EngineStatus, Request
from finetuned_sdk.engines.errors import EngineGoneError, RequestError
from finetuned_sdk.engines.host import serve
from finetuned_sdk.engines.state import EngineState
from finetuned_sdk.engines.waiting import engine_of

__all__ = (
    "Adapter",
    "Engine",
    "EngineClient",
    "EngineGoneError",
    "EngineState",
    "EngineStatus",
    "Request",
    "RequestError",
    "connect",
    "engine_of",
    "serve",
)
