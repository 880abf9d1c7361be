"""Moving threads: between stores, into files, from files, and from what other programs wrote.

    report = await copy_threads(old_store, new_store)
    report = await export_threads(store, "threads.jsonl")
    report = await import_threads(store, "threads.jsonl")

Everything here works on any engine, through the contract alone, a bounded part of a thread at a time. What
was broken off, by a kill too, is simply begun again.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO, Literal

from everthread.contract import Store
from everthread.errors import ConfigurationError
from everthread.model import ThreadKey
from everthread.transfer import exporting
from everthread.transfer.model import PROBLEMS, Outcome, Report, Source, SourceThread, Watcher
from everthread.transfer.reading import FileSource, FolderSource, is_export
from everthread.transfer.rendering import FORMS
from everthread.transfer.sources import StoreSource
from everthread.transfer.writing import transfer

__all__ = [
    "PROBLEMS",
    "Outcome",
    "Report",
    "Source",
    "SourceThread",
    "Watcher",
    "copy_threads",
    "export_threads",
    "import_threads",
    "transfer",
]


async def copy_threads(
    source: Store,
    target: Store,
    *,
    tenant: str = "",
    to_tenant: str | None = None,
    names: Sequence[str] = (),
    dry_run: bool = False,
    skip_unreadable: bool = False,
    watcher: Watcher | None = None,
) -> Report:
    """Copies a tenant's threads into another store, which may be in use, and compares what was written.

    Kept are positions, turns, times, formats, payloads byte for byte, titles, metadata, documents, expiry and a
    retention of a thread's own. A target that is no `SupportsImport` does not keep when threads were begun and
    last active (``Report.keeps_times``). Run again, it adds what the source has gained since; it never drops or
    changes a message of the target. What the source has trimmed since an earlier run, the target keeps.

    Args:
        source: Only read. Threads that change meanwhile are looked at once more at the end.
        target: Its own retention is not applied to what is copied.
        tenant: Whose threads.
        to_tenant: Whose they become; the same tenant's if not given.
        names: Ids, or shell patterns of ids; all threads if there are none.
        dry_run: Write nothing; the report says what would be.
        skip_unreadable: Leave out messages that are no JSON, which otherwise make their thread fail; the report
            says which.
        watcher: Is told how it goes.

    Raises:
        ThreadNotFoundError: There is no thread of a name without wildcards.
        StoreUnavailableError: A store cannot be reached; run it again.
    """
    there = tenant if to_tenant is None else to_tenant
    return await transfer(
        StoreSource(source, tenant, names),
        target,
        key_of=lambda key: ThreadKey(key.thread_id, there),
        dry_run=dry_run,
        skip_unreadable=skip_unreadable,
        watcher=watcher,
    )


async def export_threads(
    store: Store,
    target: str | Path | BinaryIO,
    *,
    tenant: str = "",
    names: Sequence[str] = (),
    format: Literal["jsonl", "markdown", "html", "openai"] = "jsonl",
    into_folder: bool = False,
    dry_run: bool = False,
    watcher: Watcher | None = None,
) -> Report:
    """Writes a tenant's threads into a file, or a folder with a file for each thread.

    ``jsonl`` keeps everything and can be imported; the others are for reading and for other programs. A
    file has ``.part`` at the end of its name until it is complete. In ``jsonl``, an export that was broken
    off goes on where it was when it is run again, and files in a folder whose threads did not change are
    left as they are.

    Args:
        store: Only read.
        target: A path, or an open binary stream. A file of this name is replaced.
        tenant: Whose threads.
        names: Ids, or shell patterns of ids; all threads if there are none.
        format: ``jsonl``, ``markdown``, ``html`` or ``openai`` (fine-tuning lines).
        into_folder: ``target`` is a folder.
        dry_run: Write nothing; the report says what would be. All of it is read for that.
        watcher: Is told how it goes.

    Raises:
        ThreadNotFoundError: There is no thread of a name without wildcards.
        ConfigurationError: The file cannot be written.
    """
    if format not in FORMS:
        raise ConfigurationError(f"There is no format {format!r}; there are: {', '.join(FORMS)}.")
    source, form, watcher = StoreSource(store, tenant, names), FORMS[format](), watcher or Watcher()
    if not isinstance(target, (str, Path)):
        return await exporting.export_to_stream(source, form, None if dry_run else target, watcher)
    path = Path(target)
    try:
        write = exporting.export_to_folder if into_folder else exporting.export_to_file
        return await write(source, form, path, watcher, dry_run=dry_run)
    except OSError as error:
        raise ConfigurationError(f"{path} cannot be written: {error.strerror}.") from error


async def import_threads(
    store: Store,
    source: str | Path | Source,
    *,
    tenant: str | None = None,
    dry_run: bool = False,
    skip_unreadable: bool = False,
    watcher: Watcher | None = None,
) -> Report:
    """Puts exported threads into a store; what is there already is compared and skipped.

    Args:
        store: Its own retention is not applied to what is imported.
        source: A file or folder that `export_threads` wrote (``jsonl``), or a source of
            `everthread.transfer.foreign`. A file is checked to its end before anything is written.
        tenant: Whose threads they become; as in the source if not given.
        dry_run: Write nothing; the report says what would be.
        skip_unreadable: Leave out messages that are no JSON, which otherwise make their thread fail, and what is
            damaged in files of exports, thread by thread; the report says what.
        watcher: Is told how it goes.

    Raises:
        CorruptRecordError: A file was changed or is damaged; nothing was written.
        SchemaError: It is of a newer version.
        StoreUnavailableError: The store cannot be reached; run it again.
    """
    if not isinstance(source, Source):
        source = _exported(Path(source), skip_unreadable)
    try:
        return await transfer(
            source,
            store,
            key_of=lambda key: key if tenant is None else ThreadKey(key.thread_id, tenant),
            dry_run=dry_run,
            skip_unreadable=skip_unreadable,
            watcher=watcher,
        )
    except OSError as error:
        raise ConfigurationError(f"The source cannot be read: {error.strerror}.") from error


def _exported(path: Path, skip_damaged: bool) -> Source:
    try:
        if path.is_dir():
            return FolderSource(path, skip_damaged=skip_damaged)
        if is_export(path):
            return FileSource(path, skip_damaged=skip_damaged)
    except OSError as error:
        raise ConfigurationError(f"{path} cannot be read: {error.strerror}.") from None
    raise ConfigurationError(f"{path} is not an export of everthread.")
