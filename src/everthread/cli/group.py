"""The root command. Each command lives in a module of its own, which is imported only when it is asked for."""

from __future__ import annotations

from importlib import import_module
from typing import Any

import click

from everthread import __version__
from everthread.errors import EverthreadError

COMMANDS = {
    "chat": "everthread.cli.chat",
    "copy": "everthread.cli.copy",
    "export": "everthread.cli.export",
    "import": "everthread.cli.import_:import_",
    "completion": "everthread.cli.completion",
    "config": "everthread.cli.config",
    "prune": "everthread.cli.prune",
    "summarize": "everthread.cli.summarize",
    "undo": "everthread.cli.undo",
    "fork": "everthread.cli.fork",
    "delete": "everthread.cli.delete",
    "delete-tenant": "everthread.cli.delete_tenant",
    "doctor": "everthread.cli.doctor",
    "tag": "everthread.cli.tag",
    "rename": "everthread.cli.rename",
    "rewrap": "everthread.cli.rewrap",
    "new-key": "everthread.cli.new_key",
    "search": "everthread.cli.search",
    "show": "everthread.cli.show",
    "threads": "everthread.cli.threads",
}
"""Each command's name and the module that holds it, as an object of the command's name (``-`` as ``_``),
or of the name that follows a colon.

Such a module imports nothing heavy at its top, since ``--help`` loads them all.
"""


class LazyGroup(click.Group):
    """A group whose commands are found in `COMMANDS`; errors that users can mend end as one line, not a traceback."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        place = COMMANDS.get(cmd_name)
        if place is None:
            return None
        module, _, name = place.partition(":")
        return getattr(import_module(module), name or cmd_name.replace("-", "_"))

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except EverthreadError as error:
            raise click.ClickException(str(error)) from error


@click.group(
    cls=LazyGroup,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="""\b
Examples:
  everthread chat                                   on a SQLite file in your data folder
  everthread chat --store redis://localhost:6379/0
  everthread threads @prod                          a store named with everthread config
  everthread chat --help""",
)
@click.version_option(__version__, "-V", "--version", prog_name="everthread")
def everthread() -> None:
    """Conversations of AI agents that outlive the process."""
