"""The root command. Each command lives in a module of its own, which is imported only when it is asked for."""

from __future__ import annotations

import os
import sys
from collections.abc import Generator
from contextlib import contextmanager
from importlib import import_module
from typing import Any, TextIO

import click

from everthread import __version__
from everthread.errors import EverthreadError

EXIT_PIPE_CLOSED = 141
"""What a shell reports of a program that SIGPIPE ended, as it ends most others."""

COMMANDS = {
    "chat": "everthread.cli.chat",
    "compact": "everthread.cli.compact",
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
    "retention": "everthread.cli.retention",
    "rewrap": "everthread.cli.rewrap",
    "new-key": "everthread.cli.new_key",
    "search": "everthread.cli.search",
    "show": "everthread.cli.show",
    "threads": "everthread.cli.threads",
    "usage": "everthread.cli.usage",
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

    def main(self, *args: Any, **options: Any) -> Any:
        try:
            return super().main(*args, **options)
        except BrokenPipeError:
            # Not even what is wrong could be said.
            sys.exit(_pipe_closed().exit_code)

    def make_context(self, *args: Any, **options: Any) -> click.Context:
        # ``--help`` and ``--version`` print here.
        with _failures_in_one_line():
            return super().make_context(*args, **options)

    def invoke(self, ctx: click.Context) -> Any:
        with _failures_in_one_line():
            return super().invoke(ctx)


@contextmanager
def _failures_in_one_line() -> Generator[None]:
    try:
        yield
        _flush(sys.stdout)
    except EverthreadError as error:
        raise click.ClickException(str(error)) from error
    except OSError as error:
        if not isinstance(error, BrokenPipeError):
            # Such as a full disk behind ``>``. What could not be written is still in the buffer.
            _discard(sys.stdout)
            raise click.ClickException(f"{error.strerror or type(error).__name__}.") from error
        raise _pipe_closed() from None
    except SystemExit as end:
        # Rich ends the program itself, with a status that would say that it failed.
        if isinstance(end.__context__, BrokenPipeError):
            raise _pipe_closed() from None
        raise


def _flush(stream: TextIO | None) -> None:
    # Python gives a program whose output was closed before its start (``>&-``) no stream at all.
    if stream is not None:
        stream.flush()


def _pipe_closed() -> click.exceptions.Exit:
    """Who reads the output (``head``, ``less``) has seen enough: the end without a word, as of other tools."""
    for stream in (sys.stdout, sys.stderr):
        _discard(stream)
    return click.exceptions.Exit(EXIT_PIPE_CLOSED)


def _discard(stream: TextIO) -> None:
    """Lets the interpreter, which flushes at its end, do so without another failure."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, stream.fileno())
    os.close(nowhere)


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
