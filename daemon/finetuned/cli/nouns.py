"""Groups of commands about one noun: ``list`` and ``ls`` are the same in each of them."""

from __future__ import annotations

from typing import Final

import click

LISTS: Final = ("list", "ls")


class Noun(click.Group):
    """A group that lists under either name; its help shows the one that it was made with."""

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command behind a name; ``None`` if there is none."""
        found = super().get_command(ctx, cmd_name)
        if found is not None or cmd_name not in LISTS:
            return found
        return next((self.commands[name] for name in LISTS if name in self.commands), None)
