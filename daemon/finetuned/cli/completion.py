"""``completion``: commands and options by the tab key."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

from finetuned.cli import console
from finetuned.cli.session import json_option
from finetuned.cli.shapes import Script

SHELLS = ("bash", "zsh", "fish")
VARIABLE = "_FINETUNE_COMPLETE"  # set by the script when it asks what could come next

WHERE = {
    "bash": 'eval "$(finetune completion bash)"   in ~/.bashrc',
    "zsh": 'eval "$(finetune completion zsh)"   in ~/.zshrc',
    "fish": "finetune completion fish > ~/.config/fish/completions/finetune.fish",
}


@click.command
@click.argument("shell", type=click.Choice(SHELLS))
@json_option(shape=Script)
@click.pass_context
def completion(context: click.Context, *, shell: str, as_json: bool) -> None:
    """Print the script that completes commands and options in a shell."""
    kind = get_completion_class(shell)
    assert kind is not None
    script = kind(context.find_root().command, {}, "finetune", VARIABLE).source()
    if as_json:
        console.emit({"shell": shell, "script": script})
        return
    click.echo(script, nl=False)
    if console.stdout().is_terminal:
        console.note(f"To have it always: {WHERE[shell]}")
