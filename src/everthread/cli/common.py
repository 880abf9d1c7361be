"""What the commands share: which store and tenant, output for people and for scripts, questions, exit statuses.

Nothing heavy is imported at the top: ``--help`` loads every command, and each command loads this.

A command is written so::

    @store_command(epilog=EXAMPLES)
    @thread_argument
    @json_option
    def rename(place: Place, thread_id: str, as_json: bool) -> None:
        output = Output(as_json=as_json)
        run(lambda store: _rename(store, place.key(thread_id), output), place)
"""

from __future__ import annotations

import functools
import os
import shlex
import sys
import time
from collections.abc import Callable, Coroutine, Generator, Iterable, Mapping, Sequence
from contextlib import AsyncExitStack, contextmanager
from datetime import timedelta
from io import TextIOWrapper
from typing import TYPE_CHECKING, Any, TypeVar, cast, overload

import click
import msgspec

from everthread._extras import import_extra
from everthread.cli.durations import duration_of
from everthread.cli.encryption import open_with_keys
from everthread.errors import EverthreadError, StoreUnavailableError, ThreadNotFoundError
from everthread.model import ThreadKey

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem
    from rich.console import Console
    from rich.text import Text

    from everthread.contract import Store

EXIT_FAILED = 1
EXIT_USAGE = 2
EXIT_NOT_FOUND = 3
EXIT_UNAVAILABLE = 4
EXIT_INTERRUPTED = 130
EXIT_STATUSES = """\b
Exit status: 0 done, 1 failed or declined, 2 wrong usage, 3 no such thread,
4 the store could not be reached (try again), 130 after Ctrl-C, 141 when nobody
reads the output any more (| head).
"""
SECONDS_BETWEEN_LINES = 10.0
"""How often progress is told where it cannot be drawn."""

T = TypeVar("T")


class Place(msgspec.Struct, frozen=True):
    """What a command works on: a store and a tenant in it. The URL may hold a password: it is never shown.

    Attributes:
        keyring: Where the keys of an encrypted store are (`everthread.cli.encryption`), or nothing.
        again: The options that name it once more, to be shown: nothing where the defaults did, or a URL with a secret.
    """

    url: str
    tenant: str = ""
    keyring: str = ""
    again: str = ""

    def __repr__(self) -> str:
        return f"Place(tenant={self.tenant!r})"

    def key(self, thread_id: str) -> ThreadKey:
        """The key of a thread here."""
        return ThreadKey(thread_id, self.tenant)


def find_place(store: str | None, tenant: str | None = None) -> Place:
    """The place that ``--store`` and ``--tenant`` name.

    Args:
        store: A URL, or ``@NAME`` for a store of the configuration; otherwise the same defaults as
            everywhere (`everthread.cli.stores.store_url`).
        tenant: Otherwise the tenant of the named store, or else the default tenant.

    Raises:
        ConfigurationError: There is no store of that name, or its secret cannot be had.
    """
    from everthread.cli.stores import store_keyring, store_tenant, store_url

    named = store_tenant(store, os.environ)
    keyring = store_keyring(store, os.environ)
    again = _named_again(store, tenant)
    return Place(store_url(store, os.environ), named if tenant is None else tenant, keyring, again)


def _named_again(store: str | None, tenant: str | None) -> str:
    from everthread.settings import mask_url

    named = [] if store is None or mask_url(store) != store else [store] if store[:1] == "@" else ["--store", store]
    return shlex.join(named + ([] if tenant is None else ["--tenant", tenant]))


# Declaring commands


class StoreCommand(click.Command):
    """A command in which ``@NAME``, where a positional argument may stand, is short for ``--store @NAME``.

    So is a URL, where the command has no arguments of its own that it could be taken for.
    """

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        index = self._store_name_at(args)
        if index is not None:
            args = ["--store", args[index], *args[:index], *args[index + 1 :]]
        return super().parse_args(ctx, args)

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        return complete_store(ctx, self, incomplete) or super().shell_complete(ctx, incomplete)

    def _store_name_at(self, args: Sequence[str]) -> int | None:
        with_value = {
            name
            for option in self.params
            if isinstance(option, click.Option) and not option.is_flag and not option.count
            for name in option.opts
        }
        takes_urls = not any(isinstance(parameter, click.Argument) for parameter in self.params)
        is_value = False
        for index, argument in enumerate(args):
            if argument == "--":
                return None
            is_store = argument.startswith("@") or (takes_urls and "://" in argument and argument[0] != "-")
            if is_store and not is_value:
                return index
            is_value = not is_value and argument in with_value
        return None


def complete_store(ctx: click.Context, what: click.Command | click.Parameter, incomplete: str) -> list[CompletionItem]:
    """The named stores that begin like this."""
    from click.shell_completion import CompletionItem

    from everthread.cli.named_stores import load

    if not incomplete.startswith("@"):
        return []
    try:
        known = load().stores
    except EverthreadError:
        # The command itself will say what is wrong with the file; a Tab must not.
        return []
    return [CompletionItem(f"@{name}") for name in sorted(known) if f"@{name}".startswith(incomplete)]


def store_command(name: str | None = None, *, epilog: str = "") -> Callable[[Callable[..., None]], click.Command]:
    """Declares a command that works on one store; its function gets ``place`` beside its own parameters.

    Args:
        name: The function's own, if not given.
        epilog: Examples; the meaning of exit statuses is added.
    """

    def declare(function: Callable[..., None]) -> click.Command:
        @functools.wraps(function)
        def with_place(store_option: str | None, tenant_option: str | None, **arguments: Any) -> None:
            function(place=find_place(store_option, tenant_option), **arguments)

        options = store_option(tenant_option(with_place))
        return click.command(name, cls=StoreCommand, epilog=f"{epilog}\n{EXIT_STATUSES}")(options)

    return declare


store_option = click.option(
    "--store",
    "-s",
    "store_option",
    metavar="URL|@NAME",
    shell_complete=complete_store,
    help="The store, or @NAME from the configuration. Default: EVERTHREAD_STORE, else REDIS_URL, else SQLite in your "
    "data folder. @NAME alone does too.",
)
thread_argument = click.argument("thread_id", metavar="THREAD", shell_complete=complete_store)
tenant_option = click.option("--tenant", "tenant_option", metavar="NAME", help="Whose threads. Default: the default's.")
names_option = click.option(
    "--threads",
    "names",
    metavar="PATTERN",
    multiple=True,
    help="Only this thread, or those whose ids match: 'trip-*'. Repeatable. Default: all.",
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON, one object a line.")
yes_option = click.option("--yes", "-y", is_flag=True, help="Do not ask.")
skip_option = click.option(
    "--skip-unreadable", is_flag=True, help="Leave out records that cannot be read; each is told, and the status is 1."
)
dry_run_option = click.option("--dry-run", is_flag=True, help="Only say what would be done.")


def destructive_command(name: str | None = None, *, epilog: str = "") -> Callable[[Callable[..., None]], click.Command]:
    """Declares a command that destroys something: as `store_command`, with ``--yes``, ``--dry-run`` and ``--json``."""

    def declare(function: Callable[..., None]) -> click.Command:
        # On a command, these add themselves to the end of its options.
        return json_option(dry_run_option(yes_option(store_command(name, epilog=epilog)(function))))

    return declare


class Age(click.ParamType):  # pyright: ignore[reportMissingTypeArgument] - generic only in the newest click
    """A span of time in words: ``30s``, ``90m``, ``24h``, ``7d``, ``2w``."""

    name = "age"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> timedelta:
        try:
            return duration_of(str(value))
        except ValueError as error:
            self.fail(str(error), param, ctx)


class Tag(click.ParamType):  # pyright: ignore[reportMissingTypeArgument] - generic only in the newest click
    """A piece of metadata: ``KEY=TEXT``, or ``KEY:=JSON`` for a number, a truth value, a list or an object."""

    name = "key=value"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, object]:
        if isinstance(value, tuple):
            return cast(tuple[str, object], value)
        name, equals, text = str(value).partition("=")
        if not equals or not name.removesuffix(":"):
            self.fail(f"{value!r} is not KEY=TEXT or KEY:=JSON.", param, ctx)
        if not name.endswith(":"):
            return name, text
        try:
            return name[:-1], msgspec.json.decode(text)
        except msgspec.DecodeError as error:
            self.fail(f"{value!r}: {error}", param, ctx)


# Running


@overload
def run(work: Callable[[Store], Coroutine[Any, Any, T]], place: Place, /) -> T: ...
@overload
def run(work: Callable[[Store, Store], Coroutine[Any, Any, T]], first: Place, second: Place, /) -> T: ...
def run(work: Callable[..., Coroutine[Any, Any, T]], *places: Place) -> T:
    """Opens the stores, passes them to ``work``, closes them, and gives what it gave.

    Errors become one line without secrets, with an exit status that tells scripts what happened.
    """
    # Here, because --help loads this module and would take twice as long.
    import asyncio

    try:
        return asyncio.run(_with_stores(work, places))
    except EverthreadError as error:
        raise failure(error, *places) from error
    except (KeyboardInterrupt, asyncio.CancelledError):
        click.echo("Interrupted.", err=True)
        raise click.exceptions.Exit(EXIT_INTERRUPTED) from None


async def _with_stores(work: Callable[..., Coroutine[Any, Any, T]], places: Sequence[Place]) -> T:
    async with AsyncExitStack() as stack:
        opened = (open_with_keys(place.url, place.keyring) for place in places)
        stores: list[Store] = [await stack.enter_async_context(store) for store in opened]
        return await work(*stores)


class CommandFailed(click.ClickException):
    """Ends the command with one line on standard error and an exit status."""

    def __init__(self, message: str, status: int = EXIT_FAILED) -> None:
        super().__init__(message)
        self.exit_code = status  # pyright: ignore[reportAttributeAccessIssue] - click documents it as the instance's


def failure(error: EverthreadError, *places: Place) -> click.ClickException:
    """The error as the command line ends with it: one line, no secrets, and its exit status."""
    from everthread.cli.stores import without_secrets

    text = str(error)
    for place in places:
        text = without_secrets(text, place.url)
    return CommandFailed(text, exit_status(error))


def exit_status(error: EverthreadError) -> int:
    """The exit status that stands for an error."""
    if isinstance(error, ThreadNotFoundError):
        return EXIT_NOT_FOUND
    return EXIT_UNAVAILABLE if isinstance(error, StoreUnavailableError) else EXIT_FAILED


def counted(count: int, noun: str) -> str:
    """A number of things in words: ``1 message``, ``2,000 messages``."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def confirm(question: str, *, yes: bool) -> None:
    """Asks before something is destroyed; ends the command unless the answer is yes.

    Where nobody can be asked (standard input is not a terminal), ``--yes`` must be given.
    """
    if yes:
        return
    if not sys.stdin.isatty():
        raise click.UsageError("This destroys data, and nobody can be asked here: give --yes.")
    click.confirm(question, abort=True, err=True)


# Output


class Output:
    """Results on standard output: a table for people, tab-separated lines in a pipe, or JSON Lines.

    What is stored is not trusted: control characters in it reach neither the terminal nor the columns.
    """

    def __init__(self, *, as_json: bool = False) -> None:
        import_extra("rich", "cli")
        from rich.console import Console

        for stream in (sys.stdout, sys.stderr):
            # Text that a legacy encoding lacks becomes a question mark, not a crash.
            if isinstance(stream, TextIOWrapper):
                stream.reconfigure(errors="replace")
        self.as_json = as_json
        self._out = Console(highlight=False, markup=False, emoji=False)
        self._headed: set[tuple[str, ...]] = set()

    @property
    def is_terminal(self) -> bool:
        """Whether a person reads along."""
        return self._out.is_terminal and not self.as_json

    @property
    def width(self) -> int | None:
        """Columns for text; ``None`` where lines are not to be broken."""
        return max(self._out.width - 1, 20) if self._out.is_terminal else None

    def rows(self, columns: Sequence[str], rows: Iterable[tuple[Sequence[str], Mapping[str, object]]]) -> None:
        """Prints a part of a list: each row as cells for people, and as an object for ``--json``.

        May be called again for the next part; a table's heading is printed once.
        """
        if self.as_json:
            for _, value in rows:
                self._write_json(value)
        elif self._out.is_terminal:
            cells = [row for row, _ in rows]
            if cells:
                self._table(columns, cells)
        else:
            for cells, _ in rows:
                click.echo("\t".join(_flat(cell) for cell in cells))

    def result(self, text: str, value: Mapping[str, object]) -> None:
        """Prints the outcome of a command: a sentence, or the object with ``--json``."""
        if self.as_json:
            self._write_json(value)
        else:
            self.show(text)

    def show(self, *lines: Text | str) -> None:
        """Prints lines; rendered ones (`everthread.cli.rendering`) with their colours on a terminal."""
        from everthread.cli.rendering import sanitise

        for line in lines:
            self._out.print(sanitise(line) if isinstance(line, str) else line, soft_wrap=True)

    def note(self, text: str) -> None:
        """Says something beside the results, on standard error."""
        from everthread.cli.rendering import sanitise

        click.echo(sanitise(text), err=True)

    def _write_json(self, value: Mapping[str, object]) -> None:
        click.echo(msgspec.json.encode(value).decode())

    def _table(self, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        from rich.table import Table
        from rich.text import Text

        heading = tuple(columns)
        lines = [[Text(_flat(cell)) for cell in cells] for cells in rows]
        widths = _widths([[Text(column) for column in columns], *lines], columns, self._out.width)
        if _total(widths) > self._out.width:
            # An id must stay whole, to be copied.
            for cells in rows:
                self._out.print(Text(_record(columns, [_flat(cell) for cell in cells])), soft_wrap=True)
            return
        table = Table(box=None, pad_edge=False, show_header=heading not in self._headed, header_style="bold")
        self._headed.add(heading)
        for column, width in zip(columns, widths, strict=True):
            justify = "right" if column in NUMBERS else "left"
            table.add_column(column, justify=justify, no_wrap=True, overflow="ellipsis", width=width)
        for line in lines:
            table.add_row(*line)
        self._out.print(table)


COUNTS = frozenset({"messages", "threads"})
"""Columns of this name are numbers of such things."""

NUMBERS = COUNTS | {"#", "size", "position"}
"""Columns of this name are aligned to the right."""


FLEXIBLE = frozenset({"title", "what goes", "text"})
"""Columns of this name are cut where a table is wider than the terminal."""

SHORTEST = 10
"""Columns of text that a flexible column keeps at least."""


def _widths(lines: Sequence[Sequence[Text]], columns: Sequence[str], most: int) -> list[int]:
    widths = [max(cell.cell_len for cell in column) for column in zip(*lines, strict=True)]
    for index, column in enumerate(columns):
        if column in FLEXIBLE:
            too_wide = max(_total(widths) - most, 0)
            widths[index] -= min(too_wide, max(widths[index] - SHORTEST, 0))
    return widths


def _record(columns: Sequence[str], cells: Sequence[str]) -> str:
    """A row in two lines, for where a table is too wide: its name, and below it the rest in words."""
    named = 2 if columns[0] == "#" else 1
    rest = zip(columns[named:], cells[named:], strict=True)
    told = [f"{cell} {column[:-1] if cell == '1' else column}" if column in COUNTS else cell for column, cell in rest]
    margin = " " * (len(cells[0]) + 2 if named == 2 else 2)
    return f"{'  '.join(cells[:named])}\n{margin}{', '.join(filter(None, told))}"


def _total(widths: Sequence[int]) -> int:
    # Two spaces stand between columns.
    return sum(widths) + 2 * (len(widths) - 1)


def _flat(cell: str) -> str:
    from everthread.cli.rendering import one_line

    return one_line(cell, 2000)


# Progress


@contextmanager
def progress(what: str, total: int | None = None, *, unit: str = "messages") -> Generator[Callable[[int], None]]:
    """Gives a function that is told how many more are done: a bar on a terminal, now and then a line elsewhere.

    It goes to standard error, so that results can be piped.
    """
    import_extra("rich", "cli")
    from rich.console import Console

    console = Console(stderr=True, highlight=False, markup=False)
    shown = _bar(console, what, total, unit) if console.is_terminal else _lines(what, total, unit)
    with shown as advance:
        yield advance


@contextmanager
def _bar(console: Console, what: str, total: int | None, unit: str) -> Generator[Callable[[int], None]]:
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn
    from rich.text import Text

    class Rate(ProgressColumn):
        def render(self, task: Task) -> Text:
            speed = task.finished_speed or task.speed
            return Text(unit if speed is None else f"{unit}, {speed:,.0f}/s")

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), Rate())
    # Results that go to a file or a pipe must not be drawn above the bar instead.
    with Progress(*columns, console=console, redirect_stdout=sys.stdout.isatty()) as bar:
        task = bar.add_task(what, total=total)
        yield lambda count: bar.update(task, advance=count)


@contextmanager
def _lines(what: str, total: int | None, unit: str) -> Generator[Callable[[int], None]]:
    done, began = 0, time.monotonic()
    last = began

    def advance(count: int) -> None:
        nonlocal done, last
        done += count
        now = time.monotonic()
        if now - last >= SECONDS_BETWEEN_LINES:
            last = now
            of = "" if total is None else f" of {total:,}"
            click.echo(f"{what}: {done:,}{of} {unit}, {done / (now - began):,.0f}/s", err=True)

    yield advance
