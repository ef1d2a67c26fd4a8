"""The sockets that the application is served on."""

from __future__ import annotations

import errno
import os
import socket
import stat
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import anyio
import anyio.to_thread
from aiohttp import web

from finetuned.api.activation import inherited
from finetuned.api.connections import Guard, GuardedRunner
from finetuned.api.doors import FEED, STOPPING, USES
from finetuned.config import Config
from finetuned.domain.errors import StartError

BACKLOG = 2048  # a thousand clients may connect at once after a restart
SOCKET_MODE = 0o660
CLOSE_S = 0.5  # what a request in progress gets when the server closes


@dataclass(frozen=True, slots=True)
class Addresses:
    """Where the server listens. ``tcp`` is ``None`` if it does not."""

    socket: Path
    tcp: tuple[str, int] | None


@asynccontextmanager
async def serve(app: web.Application, config: Config) -> AsyncIterator[Addresses]:
    """Serve ``app`` on the Unix socket and on TCP until the block ends; then close within a second.

    Sockets that the service manager hands over take the place of those of the configuration, each kind for
    itself. Raises ``StartError`` if an address is taken.
    """
    guard = Guard.of(config)
    runner = GuardedRunner(
        app, guard, access_log=None, shutdown_timeout=CLOSE_S, keepalive_timeout=config.idle_timeout_s
    )
    async with AsyncExitStack() as stack:
        handed = inherited()
        stack.callback(handed.close)
        listening = list(handed.unix)
        if not listening:
            own = await anyio.to_thread.run_sync(bind, config.socket)
            stack.push_async_callback(_shielded, anyio.to_thread.run_sync, release, own, config.socket)
            listening = [own]
        path = Path(listening[0].getsockname())
        await runner.setup()
        stack.push_async_callback(_shielded, runner.cleanup)
        for each in (*listening, *handed.tcp):
            await web.SockSite(runner, each, backlog=BACKLOG).start()
        tcp = _address(handed.tcp[0]) if handed.tcp else await _listen(runner, config)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(app[FEED].run)
            tasks.start_soon(app[USES].run)
            tasks.start_soon(guard.run)
            try:
                yield Addresses(path, tcp)
            finally:
                app[STOPPING].set()
                app[FEED].close()
                tasks.cancel_scope.cancel()


async def _shielded(function: Callable[..., Awaitable[object]], *arguments: object) -> None:
    with anyio.CancelScope(shield=True):
        await function(*arguments)


async def _listen(runner: web.AppRunner, config: Config) -> tuple[str, int] | None:
    if config.address is None:
        return None
    host, port = config.address
    try:
        await web.TCPSite(runner, host, port, backlog=BACKLOG).start()
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise StartError(
                f"Port {port} on {host} is in use by another program; stop that, or set FINETUNED_LISTEN "
                "(`listen`) to another host:port, or to nothing for no TCP."
            ) from None
        raise StartError(
            f"{config.listen} cannot be listened on ({error.strerror}); set FINETUNED_LISTEN (`listen`) to an "
            "address of this host, or to nothing for no TCP."
        ) from None
    # The sockets of the Unix sites come first; what port 0 became is only in the last.
    bound = runner.addresses[-1]
    return str(bound[0]), int(bound[1])


def _address(listening: socket.socket) -> tuple[str, int]:
    host, port, *_ = listening.getsockname()
    return str(host), int(port)


def bind(path: Path) -> socket.socket:
    """A Unix socket at ``path``, not listening yet. A stale one there is replaced. Raises ``StartError``."""
    _clear(path)
    bound = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        bound.bind(os.fspath(path))
        path.chmod(SOCKET_MODE)  # before it listens, so that nobody slips in earlier
    except OSError as error:
        bound.close()
        raise StartError(
            f"The socket {path} cannot be made ({error.strerror}); set FINETUNED_SOCKET to a path in a directory "
            "that exists and is yours."
        ) from None
    bound.setblocking(False)
    return bound


def release(bound: socket.socket, path: Path) -> None:
    """Close the socket, and remove its path unless somebody else's is there by now."""
    bound.close()
    with suppress(OSError):
        if not _answers(path):
            path.unlink()


def _clear(path: Path) -> None:
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return
    except OSError as error:
        raise StartError(
            f"{path} cannot be looked at ({error.strerror}); set FINETUNED_SOCKET to another."
        ) from None
    if not stat.S_ISSOCK(mode):
        raise StartError(
            f"{path} exists and is no socket; move it away, or set FINETUNED_SOCKET to another path."
        )
    if _answers(path):
        raise StartError(
            f"Another daemon answers at {path}; stop it, or set FINETUNED_SOCKET and FINETUNED_STATE_DIR to others."
        )
    path.unlink()


def _answers(path: Path) -> bool:
    """Whether somebody listens on the socket at ``path``."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(1)
        try:
            probe.connect(os.fspath(path))
        except (ConnectionRefusedError, FileNotFoundError):
            return False
        except OSError:
            return True  # it is busy, or not ours: either way not stale
    return True
