"""Declaring commands: the options that they share, and the types of values.

Imports nothing heavy: ``--help`` loads every command, and each command loads this. A command is written so::

    @store_command(epilog=EXAMPLES)
    @thread_argument
    @json_option
    def rename(place: Place, thread_id: str, as_json: bool) -> None: ...
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Sequence
from datetime import datetime, time, timedelta
from typing import TYPE_CHECKING, Any, ClassVar, cast

import click
import msgspec

from everthread.cli.durations import duration_of
from everthread.cli.exit_statuses import EXIT_STATUSES
from everthread.cli.places import find_place
from everthread.errors import EverthreadError
from everthread.urls import as_url

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

MODEL_HELP = """\b
The model:
  Azure OpenAI   AOAI_ENDPOINT and AOAI_DEPLOYMENT; AOAI_API_KEY, or else your
                 Azure CLI or default credential
  OpenAI         OPENAI_API_KEY; OPENAI_BASE_URL for any compatible server;
                 --model or OPENAI_MODEL"""

Decorator = Callable[[Any], Any]


class Age(click.ParamType):  # pyright: ignore[reportMissingTypeArgument] - generic only in the newest click
    """A duration: ``30s``, ``90m``, ``24h``, ``7d``, ``2w``."""

    name = "age"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> timedelta:
        try:
            return duration_of(str(value))
        except ValueError as error:
            self.fail(str(error), param, ctx)


class When(click.ParamType):  # pyright: ignore[reportMissingTypeArgument] - generic only in the newest click
    """A time: a duration before now (``24h``), ``today``, ``yesterday``, or a date with or without a time."""

    name = "time"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> datetime:
        if isinstance(value, datetime):
            return value
        now = datetime.now().astimezone()
        days = {"today": 0, "yesterday": 1}.get(str(value))
        try:
            if days is not None:
                return datetime.combine(now.date() - timedelta(days=days), time()).astimezone()
            if str(value)[-1:].isalpha() and str(value)[-1:] != "Z":
                return now - duration_of(str(value))
            return datetime.fromisoformat(str(value)).astimezone()
        except (ValueError, OverflowError):
            examples = "24h, 7d, today, yesterday, 2026-01-31, '2026-01-31 14:30'"
            self.fail(f"{value!r} is not a time. Examples: {examples}.", param, ctx)


class Size(click.ParamType):  # pyright: ignore[reportMissingTypeArgument] - generic only in the newest click
    """A number of bytes: ``800``, ``500kB``, ``10MB``, ``2GB``."""

    name = "size"
    _units: ClassVar = {"": 1, "b": 1, "kb": 1000, "mb": 1000**2, "gb": 1000**3}

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        found = re.fullmatch(r"([0-9]{1,12})\s*([A-Za-z]*)", str(value).strip())
        unit = None if found is None else self._units.get(found[2].lower())
        if found is None or unit is None:
            self.fail(f"{value!r} is not a size. Examples: 800, 500kB, 10MB, 2GB.", param, ctx)
        return int(found[1]) * unit


class Tag(click.ParamType):  # pyright: ignore[reportMissingTypeArgument] - generic only in the newest click
    """A piece of metadata: ``KEY=TEXT``, or ``KEY:=JSON`` for a number, a boolean, a list or an object."""

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


class SuggestingGroup(click.Group):
    """A group that suggests the nearest command for a mistyped one."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        try:
            return super().resolve_command(ctx, args)
        except click.UsageError as error:
            from difflib import get_close_matches

            near = get_close_matches(args[0], self.list_commands(ctx), n=1)
            if near and "Did you mean" not in error.message:
                ctx.fail(f"{error.message} Did you mean {near[0]!r}?")
            raise


class StoreCommand(click.Command):
    """A command in which ``@NAME``, in the place of a positional argument, is short for ``--store @NAME``.

    So is a URL, if the command has no arguments of its own that it could be confused with.
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
            is_store = argument.startswith("@") or (takes_urls and argument[:1] != "-" and "://" in as_url(argument))
            if is_store and not is_value:
                return index
            is_value = not is_value and argument in with_value
        return None


def complete_store(ctx: click.Context, what: click.Command | click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Return the named stores that begin with the incomplete word."""
    from click.shell_completion import CompletionItem

    from everthread.cli.named_stores import load

    if not incomplete.startswith("@"):
        return []
    try:
        known = load().stores
    except EverthreadError:
        # The command itself reports faults of the file; completion must not.
        return []
    return [CompletionItem(f"@{name}") for name in sorted(known) if f"@{name}".startswith(incomplete)]


def store_command(
    name: str | None = None,
    *,
    epilog: str = "",
    read_only: bool = False,
    may_create: bool = False,
) -> Callable[[Callable[..., None]], click.Command]:
    """Declare a command that works on one store; its function gets ``place`` beside its own parameters.

    With ``--dry-run``, where the command has it, the store is opened read-only.

    Args:
        name: Default: the function's name.
        epilog: Examples and details; the exit statuses are added.
        read_only: Open the store read-only.
        may_create: Create a store that does not exist.
    """

    def declare(function: Callable[..., None]) -> click.Command:
        @functools.wraps(function)
        def with_place(store_option: str | None, tenant_option: str | None, **arguments: Any) -> None:
            place = find_place(store_option, tenant_option)
            place = place.to_begin() if may_create else place
            is_reading = read_only or arguments.get("dry_run", False)
            function(place=place.to_read() if is_reading else place, **arguments)

        options = store_option(tenant_option(with_place))
        return click.command(name, cls=StoreCommand, epilog=f"{epilog}\n{EXIT_STATUSES}")(options)

    return declare


def destructive_command(name: str | None = None, *, epilog: str = "") -> Callable[[Callable[..., None]], click.Command]:
    """Declare a command that destroys something: as `store_command`, with ``--yes``, ``--dry-run`` and ``--json``."""

    def declare(function: Callable[..., None]) -> click.Command:
        command = store_command(name, epilog=epilog)(function)
        # On a command, these add themselves to the end of its options.
        return json_option(dry_run_option(yes_option(command)))

    return declare


store_option = click.option(
    "--store",
    "-s",
    "store_option",
    metavar="URL|@NAME",
    shell_complete=complete_store,
    help="Store to use: a URL, or @NAME from the configuration; the option can be left out before @NAME. "
    "(default: EVERTHREAD_STORE, else REDIS_URL, else SQLite in your data folder)",
)
thread_argument = click.argument("thread_id", metavar="THREAD", shell_complete=complete_store)
optional_thread_argument = click.argument(
    "thread_id", metavar="[THREAD]", required=False, shell_complete=complete_store
)
tenant_option = click.option(
    "--tenant", "tenant_option", metavar="NAME", help="Tenant to operate on. (default: the default tenant)"
)
names_option = click.option(
    "--threads",
    "names",
    metavar="PATTERN",
    multiple=True,
    help="Threads to include: an ID, or a pattern such as 'trip-*'. Repeatable. (default: all)",
)


def since_option(*names: str) -> Decorator:
    """Declare the option of the earliest time, with older names of it."""
    help = "Time from which on: 24h (before now), 7d, today, yesterday, 2026-01-31, '2026-01-31 14:30'."
    return click.option("--since", *names, "since", type=When(), metavar="TIME", help=help)


def until_option(*names: str) -> Decorator:
    """Declare the option of the latest time, with older names of it."""
    return click.option("--until", *names, "until", type=When(), metavar="TIME", help="Time before which, as --since.")


def flag_option(*names: str, help: str) -> Decorator:
    """Declare an option without a value."""
    return click.option(*names, is_flag=True, help=help)


class WholeNumber(click.IntRange):
    """A whole number; its name stands in the error of other text."""

    name = "whole number"


class Seconds(click.FloatRange):
    """A number of seconds; its name stands in the error of other text."""

    name = "number of seconds"


def number_option(
    *names: str,
    help: str,
    least: int = 0,
    default: int | None = None,
    metavar: str = "N",
) -> Decorator:
    """Declare an option that is a whole number; the default is added to the help."""
    shown = help if default is None else f"{help} (default: {default:,})"
    return click.option(*names, type=WholeNumber(min=least), metavar=metavar, default=default, help=shown)


def age_option(*names: str, help: str) -> Decorator:
    """Declare an option that is a duration."""
    return click.option(*names, type=Age(), metavar="AGE", help=help)


tags_option = click.option(
    "--tag", "tags", type=Tag(), multiple=True, help="Threads with this metadata. Repeatable: all apply."
)
roles_option = click.option(
    "--role", "roles", metavar="ROLE", multiple=True, help="Messages of this role: user, assistant, tool. Repeatable."
)
json_option = flag_option("--json", "as_json", help="Print JSON, one object a line.")
yes_option = flag_option("--yes", "-y", help="Skip the question before something is destroyed.")
skip_option = flag_option(
    "--skip-unreadable", help="Skip unreadable records and report each; the exit status is then 1."
)
dry_run_option = flag_option("--dry-run", help="Print what would be done; change nothing.")
