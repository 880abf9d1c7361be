"""The root command. Each command is in a module of its name, which is imported when it is needed."""

from __future__ import annotations

import keyword
import os
import sys
from collections.abc import Generator
from contextlib import contextmanager
from importlib import import_module
from typing import Any, TextIO

import click

from everthread import __version__
from everthread.cli.exit_statuses import (
    EXIT_INTERRUPTED,
    EXIT_PIPE_CLOSED,
    EXIT_STATUSES,
    CommandFailed,
    exit_status,
)
from everthread.cli.options import SuggestingGroup
from everthread.cli.plain import in_one_line
from everthread.errors import EverthreadError

TRACEBACK = "EVERTHREAD_TRACEBACK"
"""The environment variable that makes unexpected errors show their traceback."""

SECTIONS = {
    "Talk": ("chat",),
    "Look": ("threads", "show", "search", "view", "tenants", "usage", "mcp"),
    "Manage": ("rename", "tag", "retention", "fork", "undo", "delete"),
    "Move": ("copy", "export", "import"),
    "Maintain": ("prune", "summarize", "compact", "recall", "doctor", "config", "completion"),
    "Security": ("new-key", "rewrap", "delete-tenant"),
}
"""The commands, as ``--help`` groups them. It loads all their modules, so these import nothing heavy at the top."""

COMMANDS = tuple(name for names in SECTIONS.values() for name in names)


class EverthreadGroup(SuggestingGroup):
    """A group that imports its commands when they are needed, and ends expected errors as one line."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        name = cmd_name.replace("-", "_") + ("_" if keyword.iskeyword(cmd_name) else "")
        return getattr(import_module(f"everthread.cli.{name}"), name)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        width = max(map(len, COMMANDS))
        for section, names in SECTIONS.items():
            with formatter.section(section):
                formatter.write_dl([(name.ljust(width), self._summary(ctx, name)) for name in names])

    def main(self, *args: Any, **options: Any) -> Any:
        try:
            return super().main(*args, **options)
        except BrokenPipeError:
            # Not even the error could be printed.
            sys.exit(_pipe_closed().exit_code)

    def make_context(self, *args: Any, **options: Any) -> click.Context:
        # ``--help`` and ``--version`` print here.
        with _failures_in_one_line():
            return super().make_context(*args, **options)

    def invoke(self, ctx: click.Context) -> Any:
        with _failures_in_one_line():
            return super().invoke(ctx)

    def _summary(self, ctx: click.Context, name: str) -> str:
        command = self.get_command(ctx, name)
        assert command is not None, name
        return command.get_short_help_str(limit=200)


@contextmanager
def _failures_in_one_line() -> Generator[None]:
    try:
        yield
        _flush(sys.stdout)
    except click.ClickException as error:
        # pyright takes an attribute that click declares as final.
        error.message = in_one_line(error.message)  # pyright: ignore[reportAttributeAccessIssue]
        raise
    except EverthreadError as error:
        raise CommandFailed(in_one_line(str(error)), exit_status(error)) from error
    except KeyboardInterrupt:
        raise click.exceptions.Exit(EXIT_INTERRUPTED) from None
    except click.Abort as error:
        # Ctrl-C at a question; an answer of "no" has no such context.
        if isinstance(error.__context__, KeyboardInterrupt):
            raise click.exceptions.Exit(EXIT_INTERRUPTED) from None
        raise
    except BrokenPipeError:
        raise _pipe_closed() from None
    except OSError as error:
        # Such as a full disk behind ``>``. The rest of the output is still in the buffer.
        _discard(sys.stdout)
        raise click.ClickException(in_one_line(_of_file(error))) from error
    except (click.exceptions.Exit, SystemExit) as end:
        # Rich ends the program itself, with a status that means failure.
        if isinstance(end.__context__, BrokenPipeError):
            raise _pipe_closed() from None
        raise
    except Exception as error:
        if os.environ.get(TRACEBACK):
            raise
        raise click.ClickException(_unexpected(error)) from error


def _of_file(error: OSError) -> str:
    named = f"{error.filename}: " if isinstance(error.filename, str) else ""
    return f"{named}{error.strerror or type(error).__name__}."


def _unexpected(error: Exception) -> str:
    """Return a message without the error's text, which may quote a conversation."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    place = "" if trace is None else f" ({trace.tb_frame.f_globals.get('__name__', '')}, line {trace.tb_lineno})"
    return f"Unexpected {type(error).__name__}{place}: a defect of everthread. {TRACEBACK}=1 shows the traceback."


def _flush(stream: TextIO | None) -> None:
    # Python gives a program without standard output (``>&-``) no stream.
    if stream is not None:
        stream.flush()


def _pipe_closed() -> click.exceptions.Exit:
    """Return a silent end, as of other tools: the reader of the output (``head``, ``less``) ended first."""
    for stream in (sys.stdout, sys.stderr):
        _discard(stream)
    return click.exceptions.Exit(EXIT_PIPE_CLOSED)


def _discard(stream: TextIO) -> None:
    """Redirect a stream to nowhere, so that the interpreter's last flush does not fail again."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, stream.fileno())
    os.close(nowhere)


@click.group(
    cls=EverthreadGroup,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog=f"""\b
Examples:
  everthread chat                                   on a SQLite file in your data folder
  everthread chat --store redis://localhost:6379/0
  everthread threads @prod                          a store named with everthread config
  everthread chat --help

{EXIT_STATUSES}""",
)
@click.version_option(__version__, "-V", "--version", prog_name="everthread")
def everthread() -> None:
    """Store and manage the conversations of AI agents."""
