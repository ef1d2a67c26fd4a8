"""``finetuned``: run the daemon in the foreground."""

from __future__ import annotations

import argparse
import faulthandler
import gc
import logging
import os
import sys
from typing import TYPE_CHECKING, Any

from finetuned import __version__

if TYPE_CHECKING:
    from finetuned.config import Config

INTERRUPTED_EXIT_CODE = 130  # 128 + SIGINT, as shells have it
LOG_EXIT_CODE = 74  # EX_IOERR: the log can no longer be trusted; a restart recovers it


def main(arguments: list[str] | None = None) -> int:
    """Parse the command line, run the daemon, and turn refusals into one sentence and an exit code."""
    gc.disable()  # until it is ready: imports make no garbage worth a tenth of the start
    parent = os.getppid()  # before the imports, which take long enough for it to die meanwhile
    options = _parser().parse_args(arguments)
    logging.basicConfig(level=options.log_level.upper(), format=_log_format(), stream=sys.stderr)
    import anyio  # noqa: PLC0415 - `finetuned --help` should not wait for it

    from finetuned import config, daemon  # noqa: PLC0415

    try:
        settings = config.load(options.config, _overrides(options))
        if options.check:
            return _check(settings)
        faulthandler.enable()  # the watchdog ends a daemon by SIGABRT: the journal then shows where it was stuck
        return anyio.run(
            lambda: daemon.run(settings, ephemeral_parent=parent if options.ephemeral else None),
            backend_options={"use_uvloop": True},
        )
    except BaseException as error:  # noqa: BLE001 - what is not ours is raised again
        return _report(error)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="finetuned", description="The fine-tune daemon.", allow_abbrev=False
    )
    parser.add_argument("--version", action="version", version=f"finetuned {__version__}")
    parser.add_argument("--config", metavar="FILE", help="configuration file (default: FINETUNED_CONFIG)")
    parser.add_argument(
        "--state-dir", metavar="DIR", help="where the log and the jobs live (FINETUNED_STATE_DIR)"
    )
    parser.add_argument("--socket", metavar="PATH", help="Unix socket to serve on (FINETUNED_SOCKET)")
    parser.add_argument(
        "--listen", metavar="HOST:PORT", help="TCP address to serve on; '' for none (FINETUNED_LISTEN)"
    )
    parser.add_argument(
        "--check", action="store_true", help="check configuration, log and plugins, and start nothing"
    )
    parser.add_argument("--ephemeral", action="store_true", help="take all running jobs along when it stops")
    parser.add_argument("--log-level", default="info", choices=("debug", "info", "warning", "error"))
    return parser


def _check(settings: Config) -> int:
    from finetuned import preflight  # noqa: PLC0415

    print(*preflight.check(settings), sep="\n")  # noqa: T201 - what was asked for
    return 0


def _overrides(options: argparse.Namespace) -> dict[str, Any]:
    named = {"state_dir": options.state_dir, "socket": options.socket, "listen": options.listen}
    return {key: value for key, value in named.items() if value is not None}


def _log_format() -> str:
    # The journal stamps its lines itself.
    stamp = "" if "JOURNAL_STREAM" in os.environ else "%(asctime)s "
    return f"{stamp}%(levelname)s %(name)s: %(message)s"


def _report(error: BaseException) -> int:
    """Say what ended the daemon in one sentence; its exit code. What is no error of ours is raised again."""
    from finetuned.domain.errors import FinetunedError  # noqa: PLC0415
    from finetuned_events import LogError  # noqa: PLC0415

    ours = error
    while isinstance(ours, BaseExceptionGroup) and len({type(each) for each in ours.exceptions}) == 1:
        ours = ours.exceptions[0]
    if isinstance(ours, KeyboardInterrupt):  # Ctrl-C before it was ready
        return INTERRUPTED_EXIT_CODE
    if not isinstance(ours, (FinetunedError, LogError)):
        raise error
    print(f"finetuned: {ours}", file=sys.stderr)  # noqa: T201 - what this program says to its user
    return ours.exit_code if isinstance(ours, FinetunedError) else LOG_EXIT_CODE


if __name__ == "__main__":
    sys.exit(main())
