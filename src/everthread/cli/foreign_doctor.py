"""``everthread doctor`` on a store of another program: report, repair and undo in place."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import click
import msgspec

from everthread.cli.exit_statuses import CommandFailed, exit_status
from everthread.cli.json_output import PlannedChange
from everthread.cli.repairing import new_backup, shown
from everthread.cli.runner import confirm, without_secrets
from everthread.errors import EverthreadError, StoreUnavailableError
from everthread.foreign_kinds import KINDS
from everthread.urls import as_url, mask_url

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine
    from typing import Any

    from everthread.cli.output import Output
    from everthread.operations.foreign import ForeignStore
    from everthread.operations.repair import Outcome

_LONGEST_RECORD = 400


class ForeignSource(msgspec.Struct, frozen=True):
    """A store of another program. The place may hold a password: never show it."""

    kind: str
    place: str
    prefix: str | None
    stopped: bool

    def __repr__(self) -> str:
        return f"ForeignSource({self.kind!r})"


def find_source(source: str, kind: str | None, prefix: str | None, *, stopped: bool) -> ForeignSource | None:
    """Return the store of another program that SOURCE is; ``None`` if it is one of everthread.

    Raises:
        ConfigurationError: The file cannot be read, or is of no known program.
    """
    from everthread.operations.foreign import POSTGRES, recognized_kind, scheme_in

    path = _path_of(source)
    # SQLAlchemy's URLs name their driver.
    place = re.sub(r"^(postgres(?:ql)?)\+\w+://", r"\1://", source) if path is None else str(path)
    if kind is None and path is not None and path.exists():
        kind = recognized_kind(path)
    if kind is None and (scheme_in(place) in POSTGRES or scheme_in(place).startswith(("redis", "unix"))):
        kind, found = _recognized(place)
        prefix = found if prefix is None else prefix
    if kind is None:
        if "://" not in as_url(source):
            why = "There is no such file or folder." if not Path(source).exists() else "Name its program with --as."
            raise click.UsageError(f"{source} is no store that is recognized. {why}")
        return None
    examined = next(each.examined for each in KINDS if each.name == kind)
    if not any(_is_at(place, path, where) for where in examined.split(", ")):
        raise click.UsageError(f"--as {kind} needs {examined}, not {mask_url(source)}.")
    return ForeignSource(kind, place, prefix, stopped)


def _recognized(place: str) -> tuple[str | None, str | None]:
    """Return the kind and prefix of the only store of another program at a URL, if everthread has none there."""
    import asyncio

    from everthread.operations.foreign.recognizing import findings_at, only_one

    try:
        found = only_one(asyncio.run(findings_at(place)))
    except StoreUnavailableError:
        # The examination reports it.
        return None, None
    except EverthreadError as error:
        raise CommandFailed(without_secrets(str(error), place), exit_status(error)) from error
    return (None, None) if found is None else (found.kind, found.prefix)


def _is_at(place: str, path: Path | None, where: str) -> bool:
    from everthread.operations.foreign import POSTGRES, scheme_in

    scheme = scheme_in(place) if path is None else ""
    return {"Redis": scheme.startswith(("redis", "unix")), "PostgreSQL": scheme in POSTGRES}.get(
        where, path is not None
    )


def run_doctor(
    source: ForeignSource,
    output: Output,
    *,
    repair: bool,
    backup: Path | None,
    undo: Path | None,
    yes: bool,
    dry_run: bool,
) -> bool:
    """Report the faults of a store, or repair them, or undo a repair; return whether none is left."""
    from everthread.operations.foreign import repair_foreign, undo_foreign

    if undo is not None:
        if not dry_run:
            confirm(f"Restore the threads in {undo}?", yes=yes)
        done = _run(source, lambda store: shown(undo_foreign(store, undo, dry_run=dry_run), output))
        return all(outcome.status in {"undone", "found"} for outcome in done)
    file = new_backup(backup) if repair else None
    found = _run(source, lambda store: shown(repair_foreign(store), output))
    repairable = [outcome for outcome in found if outcome.changes]
    if not found and not output.as_json:
        output.note("No problems were found.")
    if repair and dry_run:
        for outcome in repairable:
            _show_changes(outcome, output)
    if not repair or dry_run or not repairable:
        return all(outcome.is_well for outcome in found)
    confirm(f"Repair this? {file} will hold the present messages of {len(repairable):,} threads.", yes=yes)
    done = _run(source, lambda store: shown(repair_foreign(store, backup=file), output, found))
    if file is not None and file.exists():
        output.note(f"Backup: {file}. To undo the repair: give --undo {file} in place of --repair.")
    return all(outcome.is_well for outcome in done)


def _run(source: ForeignSource, work: Callable[[ForeignStore], Coroutine[Any, Any, list[Outcome]]]) -> list[Outcome]:
    import asyncio

    from everthread.operations.foreign import foreign_store

    async def opened() -> list[Outcome]:
        store = foreign_store(source.kind, source.place, prefix=source.prefix, is_stopped=source.stopped)
        async with store:
            return await work(store)

    try:
        return asyncio.run(opened())
    except EverthreadError as error:
        raise CommandFailed(without_secrets(str(error), source.place), exit_status(error)) from error


def _path_of(source: str) -> Path | None:
    """Return the path of a file or folder that SOURCE names; ``None`` for another URL."""
    url = as_url(source)
    scheme, separator, rest = url.partition("://")
    if not separator:
        return Path(source)
    if scheme not in {"sqlite", "file"}:
        return None
    from urllib.request import url2pathname

    path = url2pathname(rest.partition("?")[0])
    # Three slashes begin a relative path of SQLite, four an absolute one.
    return Path(path.removeprefix("/") if scheme == "sqlite" else path)


def _show_changes(outcome: Outcome, output: Output) -> None:
    for change in outcome.changes:
        old, new = [None if each is None else each.decode(errors="replace") for each in (change.old, change.new)]
        value = PlannedChange(thread_id=outcome.thread, index=change.at, row=change.row, old=old, new=new)
        for sign, text in (("-", old), ("+", new)):
            if text is not None and not output.as_json:
                output.result(f"{sign} {outcome.thread} {change.at} {text[:_LONGEST_RECORD]}", value)
        if output.as_json:
            output.result("", value)
