"""``finetune``: the commands by name, and the one place where errors become sentences and exit codes.

Commands are imported when they are used, so that ``--help`` and ``--version`` need nothing but click.
"""

from __future__ import annotations

import importlib
import io
import json
import os
import signal
import sys
from typing import TYPE_CHECKING, Final

import click

from finetuned import __version__
from finetuned.cli import printable
from finetuned.domain.errors import FinetunedError

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

FAILED = 1  # this machine did not let it
DEFECT = 70  # EX_SOFTWARE of sysexits.h
INTERRUPTED = 128 + signal.SIGINT
BROKEN_PIPE = 128 + signal.SIGPIPE

#: command -> (module, what `finetune --help` says of it). A test compares the sentences with the commands' own.
COMMANDS: Final[dict[str, tuple[str, str]]] = {
    "run": ("run", "Submit a job."),
    "tune-batch": ("tune", "Find the fastest batch that fits, by a short job that trains nothing."),
    "ls": ("jobs", "List jobs, newest first."),
    "show": ("jobs", "Show a job: its timeline, attempts and result."),
    "watch": ("watch", "Watch a job until it ends."),
    "logs": ("output", "Print what a job's processes printed."),
    "metrics": ("metrics", "Draw a job's curves: loss, learning rate and what else it reports."),
    "checkpoints": ("results", "List a job's checkpoints, and whether their files are as they were saved."),
    "artifacts": ("results", "List a job's artifacts, or the files of one."),
    "export": ("results", "Bring a model or another artifact of a job to this machine."),
    "pause": ("pauses", "Have a job save a checkpoint and leave its devices, until it is resumed."),
    "resume": ("pauses", "Let a paused job go on from a checkpoint."),
    "checkpoint": ("pauses", "Have a running job save a checkpoint at its next step, without a stop."),
    "cancel": ("jobs", "Ask a job to end."),
    "retry": ("jobs", "Submit an ended job again, as a new one."),
    "delete": ("jobs", "Hide an ended job and remove its files."),
    "events": ("events", "Print the events of the log, or of one job."),
    "next": ("following", "Say what makes sense next for a job, with the commands that do it."),
    "datasets": ("datasets", "Upload, list, look into, audit and remove datasets."),
    "files": ("files", "Upload, list, download and remove files of batches and trainings."),
    "batch": ("batch", "Ask a model all prompts of a file, and look at such batches."),
    "templates": ("templates", "Keep job requests under names, and run them again."),
    "models": ("models", "List, import and remove models, and show where they come from."),
    "chat": ("chat", "Ask a MODEL: a registered one, an ft: name or an alias."),
    "kinds": ("kinds", "List job kinds, or the parameters of one."),
    "engines": (
        "engines",
        "List the engines that answer requests, and install one that needs an environment of its own.",
    ),
    "devices": ("devices", "List devices and the jobs that hold them."),
    "top": ("top", "Watch jobs and devices: what runs, what waits, who holds what. q ends it."),
    "workers": ("system", "List the live attempts and what their processes use."),
    "worker": (
        "worker",
        "Look after the processes of engines and trainers: status, restart, kill, clear-gpu, logs.",
    ),
    "system": ("system", "Show the machine: processors, memory, disk, GPUs and who is on them."),
    "tokens": ("tokens", "Make, list and revoke access tokens."),
    "secrets": ("secrets", "Store, list and remove secrets that jobs can name."),
    "webhooks": ("webhooks", "Send events to other services, and see how far that has come."),
    "log": ("log", "Verify, rebuild, archive or back up the event log."),
    "backup": (
        "backup",
        "Copy the log and what live jobs need into a new DIRECTORY, and list models and datasets.",
    ),
    "restore": (
        "backup",
        "Put a backup of `finetune backup` back into an empty state directory, while no daemon runs there.",
    ),
    "config": ("configuration", "Check the daemon's configuration, or show where each value comes from."),
    "plugins": (
        "plugins",
        "List the plugins that a daemon of this environment would find, or begin a new one.",
    ),
    "doctor": ("doctor", "Check this machine: what works, what does not, and what to do about it."),
    "completion": ("completion", "Print the script that completes commands and options in a shell."),
    "install-service": ("service", "Install the daemon as a service of systemd."),
    "uninstall-service": ("service", "Remove the service; the log and the jobs stay."),
    "drain": ("drain", "Start nothing new, have what runs save and leave, and stop the daemon."),
    "upgrade": ("service", "Put another release in the service's place; running jobs lose nothing."),
    "stop-workers": (
        "service",
        "Cancel every job that has not ended, and wait until no process of any is left.",
    ),
    "demo": ("demo", "Fine-tune a small model on this machine and show that it got better."),
}


class Commands(click.Group):
    """A group whose commands are imported when they are asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The names, in the order of the table."""
        del ctx
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command behind a name; ``None`` if there is none."""
        del ctx
        if cmd_name not in COMMANDS:
            return None
        module = importlib.import_module(f"finetuned.cli.{COMMANDS[cmd_name][0]}")
        command: click.Command = getattr(module, cmd_name.replace("-", "_"))
        return command

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """What can come next, without importing the commands."""
        from click.shell_completion import CompletionItem  # noqa: PLC0415 - only wanted here

        names = [
            CompletionItem(name, help=text)
            for name, (_, text) in COMMANDS.items()
            if name.startswith(incomplete)
        ]
        return [*names, *click.Command.shell_complete(self, ctx, incomplete)]

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The table of commands, without importing them."""
        del ctx
        with formatter.section("Commands"):
            formatter.write_dl([(name, help_text) for name, (_, help_text) in COMMANDS.items()])


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="finetune", message="%(prog)s %(version)s")
def finetune() -> None:
    """Talk to the fine-tune daemon.

    The daemon is found at FINETUNED_URL (with FINETUNED_TOKEN), at the socket FINETUNED_SOCKET, or at the
    socket of the configuration. Every command takes --json.
    """


def main() -> None:
    """The console script."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a character that the terminal does not have is no error
    if asked := os.environ.get("_FINETUNE_COMPLETE"):  # by the script of `finetune completion`
        from click.shell_completion import shell_complete  # noqa: PLC0415 - only wanted here

        sys.exit(shell_complete(finetune, {}, "finetune", "_FINETUNE_COMPLETE", asked))
    sys.exit(execute(sys.argv[1:]))


def execute(arguments: list[str]) -> int:
    """Run one command line and return its exit code. Nothing but ``FINETUNED_DEBUG`` shows a traceback."""
    try:
        with finetune.make_context("finetune", list(arguments)) as context:
            code = finetune.invoke(context)
    except click.exceptions.Exit as left:
        return left.exit_code
    except click.exceptions.NoArgsIsHelpError as error:
        error.show()
        return error.exit_code
    except click.ClickException as error:
        _complain(arguments, "usage", _usage(error))
        return error.exit_code
    except KeyboardInterrupt:
        if sys.stderr.isatty():
            print(file=sys.stderr)  # the terminal has written ^C, and the prompt wants a line of its own
        return INTERRUPTED
    except BrokenPipeError:
        # Python would write to the closed pipe once more when it exits.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return BROKEN_PIPE
    except FinetunedError as error:
        _trace()
        _complain(arguments, error.stable_code, error.message, error.param)
        return error.exit_code
    except OSError as error:
        _trace()
        where = f"{error.filename}: " if error.filename else ""
        _complain(arguments, "os_error", f"{where}{error.strerror or error}. Put that right and try again.")
        return FAILED
    except Exception as error:  # noqa: BLE001 - the boundary: whatever it is, the user gets a sentence
        _trace()
        _complain(
            arguments,
            "internal_error",
            f"{type(error).__name__}: {error}. This is a defect of finetune; FINETUNED_DEBUG=1 shows where.",
        )
        return DEFECT
    return code if isinstance(code, int) else 0


def _usage(error: click.ClickException) -> str:
    context = getattr(error, "ctx", None)
    hint = f" See `{context.command_path} --help`." if context is not None else ""
    message = " ".join(error.format_message().split())  # click puts choices on lines of their own
    return (message if message.endswith((".", "?")) else f"{message}.") + hint


def _complain(arguments: list[str], code: str, message: str, param: str | None = None) -> None:
    """The error on stderr: a sentence, or with ``--json`` the object that the daemon would answer."""
    if "--json" in arguments:
        print(json.dumps({"error": {"code": code, "message": message, "param": param}}), file=sys.stderr)
    else:
        print(f"Error: {printable.visible(message)}", file=sys.stderr)


def _trace() -> None:
    if os.environ.get("FINETUNED_DEBUG"):
        import traceback  # noqa: PLC0415 - only wanted here

        traceback.print_exc()


if __name__ == "__main__":
    main()
