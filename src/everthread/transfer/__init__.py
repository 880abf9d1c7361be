"""Move threads between stores, into files, from files, and from other programs.

    report = await copy_threads(old_store, new_store)
    report = await export_threads(store, "threads.jsonl")
    report = await import_threads(store, "threads.jsonl")

Everything here works on any engine, and has a bounded part of a thread in memory. After an interruption, run the same
call again.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO, Literal

from everthread.contract import Store
from everthread.errors import ConfigurationError
from everthread.model import ThreadKey
from everthread.transfer import exporting
from everthread.transfer.files import opened
from everthread.transfer.model import PROBLEMS, Outcome, Report, Source, SourceThread, Watcher
from everthread.transfer.reading import ExportSource, is_export
from everthread.transfer.rendering import FORMS
from everthread.transfer.sources import StoreSource
from everthread.transfer.writing import transfer

GZIP_START = b"\x1f\x8b"

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
    """Copy a tenant's threads into another store, which may be in use, and compare the copies.

    A copy has the same positions, turns, times, formats, payloads byte for byte, titles, metadata, documents, expiry
    and own retention. A target without `SupportsImport` does not keep the times of threads (`Report.keeps_times`), and
    takes no thread with gaps between its positions. A second run adds the messages that the source has gained. It never
    drops or changes a message of the target, also if the source has trimmed it.

    Args:
        source: The store to read. Threads that change during the run are copied once more at the end.
        target: The store to write to. Its own retention does not apply to copied messages.
        tenant: The owner of the threads.
        to_tenant: The owner of the copies. Default: the same tenant.
        names: IDs, or shell patterns of IDs. Empty for all threads.
        dry_run: Write nothing; report what a run would do. Both stores may be read-only. A read-only target does not
            show whether an earlier copy wrote messages that the source no longer has; the report assumes so.
        skip_unreadable: Skip messages that are not JSON; otherwise their thread fails. The report lists them.
        watcher: Receives the progress.

    Raises:
        ThreadNotFoundError: There is no thread of a name without wildcards.
        StoreUnavailableError: A store cannot be reached; run it again.
    """
    there = tenant if to_tenant is None else to_tenant
    return await transfer(
        StoreSource(source, tenant, names, skip_unreadable=skip_unreadable),
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
    format: Literal["jsonl", "markdown", "html"] = "jsonl",
    into_folder: bool = False,
    dry_run: bool = False,
    watcher: Watcher | None = None,
) -> Report:
    """Write a tenant's threads into a file, or into a folder with a file for each thread.

    ``jsonl`` has everything and can be imported; the other formats are for people. An incomplete file has ``.part`` at
    the end of its name. In ``jsonl``, a repeated run continues an interrupted one, and leaves the files of unchanged
    threads in a folder alone. The report lists unreadable records (``Report.skipped``).

    Args:
        store: The store to read.
        target: A path, or an open binary stream. An existing file is replaced. Each thread is in it once.
        tenant: The owner of the threads.
        names: IDs, or shell patterns of IDs. Empty for all threads.
        format: ``jsonl``, ``markdown`` or ``html``.
        into_folder: ``target`` is a folder.
        dry_run: Write nothing; read everything and report what a run would do.
        watcher: Receives the progress.

    Raises:
        ThreadNotFoundError: There is no thread of a name without wildcards.
        ConfigurationError: The file cannot be written.
    """
    if format not in FORMS:
        raise ConfigurationError(f"Unknown format: {format!r}. Use one of: {', '.join(FORMS)}.")
    source, form, watcher = (
        StoreSource(store, tenant, names, skip_unreadable=True, once=True),
        FORMS[format](),
        watcher or Watcher(),
    )
    if not isinstance(target, (str, Path)):
        return await exporting.export_to_stream(source, form, None if dry_run else target, watcher)
    path = Path(target)
    try:
        write = exporting.export_to_folder if into_folder else exporting.export_to_file
        return await write(source, form, path, watcher, dry_run=dry_run)
    except OSError as error:
        raise ConfigurationError(f"Cannot write {path}: {error.strerror}.") from error


async def import_threads(
    store: Store,
    source: str | Path | Source,
    *,
    tenant: str | None = None,
    dry_run: bool = False,
    skip_unreadable: bool = False,
    watcher: Watcher | None = None,
) -> Report:
    """Import threads into a store. Messages that it has already are compared and skipped.

    Args:
        store: The store to write to. Its own retention does not apply to imported messages.
        source: A file or folder that `export_threads` wrote (``jsonl``), or a source of
            `everthread.transfer.foreign`. Saved threads of Agent Framework's betas and SQLite files of the OpenAI
            Agents SDK are recognized. An export is checked to its end before anything is written.
        tenant: The owner of the imported threads. Default: as in the source.
        dry_run: Write nothing; report what a run would do. The store may be read-only.
        skip_unreadable: Skip messages that are not JSON (otherwise their thread fails), and damaged threads in files of
            exports. The report lists them. A thread with an impossible ID, position or time never stops the others.
        watcher: Receives the progress.

    Raises:
        CorruptRecordError: A file was changed or is damaged; nothing was written.
        SchemaError: It is of a newer version.
        StoreUnavailableError: The store cannot be reached; run it again.
    """
    if not isinstance(source, Source):
        source = _recognized(Path(source), skip_unreadable)
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
        raise ConfigurationError(f"Cannot read the source: {error.strerror}.") from error


def _recognized(path: Path, skip_damaged: bool) -> Source:
    """Return the source of a file or folder, recognized by its content."""
    from everthread.transfer.foreign import KINDS, foreign_source, is_store_file, recognized_kind

    try:
        if any(path.glob("*.jsonl")) if path.is_dir() else is_export(path):
            return ExportSource(path, skip_damaged=skip_damaged)
        if is_store_file(path):
            raise ConfigurationError(f"{path} is a store, not an export. Copy it: everthread copy {path} STORE.")
        kind = recognized_kind(path)
        if kind is not None:
            return foreign_source(kind, str(path))
        if path.is_dir():
            raise ConfigurationError(f"There are no exported threads in {path}.")
        with opened(path) as file:
            if file.read(2) == GZIP_START:
                raise ConfigurationError(f"{path} is compressed. Decompress it first: gunzip FILE.")
    except OSError as error:
        raise ConfigurationError(f"Cannot read {path}: {error.strerror}.") from None
    raise ConfigurationError(
        f"{path} is not an export of everthread. If another program wrote it, name the kind: {', '.join(KINDS)}."
    )
