"""A store's threads → JSON Lines, into one file or a folder with a file for each thread.

Until it is complete a file has ``.part`` at the end of its name. A run that was broken off goes on behind
the last complete thread of that file.
"""

from __future__ import annotations

import os
from hashlib import blake2b
from io import BufferedRandom
from pathlib import Path
from typing import BinaryIO

from everthread.contract import Store
from everthread.errors import ConfigurationError, CorruptRecordError
from everthread.keys import escape
from everthread.transfer.model import Outcome, Report, Watcher
from everthread.transfer.reading import EXPORT_START, checked_threads
from everthread.transfer.records import (
    END_START,
    LONGEST_END,
    VERSION,
    EndLine,
    ExportLine,
    ThreadLine,
    document_line,
    encoded,
    message_line,
)
from everthread.transfer.sources import StoreSource, StoreThread

SUFFIX = ".jsonl"


async def export_to_file(source: StoreSource, store: Store, path: Path, watcher: Watcher) -> Report:
    """Writes all threads into one file, which takes its name when it is complete."""
    report = Report()
    part = path.with_name(path.name + ".part")
    with _opened(part) as file:
        done = _completed(file, encoded(ExportLine(VERSION, source.selection)))
        async with source:
            watcher.begin(source.total)
            async for thread in source.threads():
                line = encoded(await thread_line(store, thread))
                digest = blake2b(line, digest_size=16).digest()
                if digest in done:
                    outcome = Outcome(thread.heading.key, "unchanged", present=thread.thread.count)
                    watcher.advance(thread.thread.count)
                else:
                    outcome = await write_thread(thread, line, file, watcher)
                    done.add(digest)
                report.add(outcome)
                watcher.finished(outcome)
        sync(file)
    part.replace(path)
    return report


async def export_to_stream(source: StoreSource, store: Store, stream: BinaryIO, watcher: Watcher) -> Report:
    """Writes all threads to an open stream."""
    report = Report()
    stream.write(EXPORT_START)
    async with source:
        watcher.begin(source.total)
        async for thread in source.threads():
            outcome = await write_thread(thread, encoded(await thread_line(store, thread)), stream, watcher)
            report.add(outcome)
            watcher.finished(outcome)
    stream.flush()
    return report


async def export_to_folder(source: StoreSource, store: Store, folder: Path, watcher: Watcher) -> Report:
    """Writes each thread into a file of its own; files of threads that did not change are left as they are."""
    report = Report()
    make_folder(folder)
    async with source:
        watcher.begin(source.total)
        async for thread in source.threads():
            outcome = await _export_one(store, thread, folder, watcher)
            report.add(outcome)
            watcher.finished(outcome)
    return report


async def _export_one(store: Store, thread: StoreThread, folder: Path, watcher: Watcher) -> Outcome:
    key = thread.heading.key
    path = folder / file_name(key.thread_id, SUFFIX)
    line = encoded(await thread_line(store, thread))
    if _holds(path, EXPORT_START + line):
        watcher.advance(thread.thread.count)
        return Outcome(key, "unchanged", present=thread.thread.count)
    part = path.with_name(path.name + ".part")
    with part.open("wb") as file:
        file.write(EXPORT_START)
        outcome = await write_thread(thread, line, file, watcher)
    part.replace(path)
    return outcome


def _holds(path: Path, beginning: bytes) -> bool:
    """Whether a file begins so and is complete; it may be cut short where the machine lost its power."""
    if not path.exists():
        return False
    with path.open("rb") as file:
        if file.read(len(beginning)) != beginning:
            return False
        file.seek(max(file.seek(0, os.SEEK_END) - LONGEST_END, 0))
        end = file.read()
        return END_START in end and end.endswith(b"}\n")


async def write_thread(thread: StoreThread, line: bytes, file: BinaryIO, watcher: Watcher) -> Outcome:
    """Writes the lines of one thread; its first one is given."""
    digest = blake2b(digest_size=16)
    messages = documents = 0

    def write(data: bytes) -> None:
        digest.update(data)
        file.write(data)

    write(line)
    async for page in thread.pages():
        for message in page:
            write(encoded(message_line(message)))
        messages += len(page)
        watcher.advance(len(page))
    async for name, value in thread.documents():
        write(encoded(document_line(name, value)))
        documents += 1
    file.write(encoded(EndLine(messages, documents, digest.hexdigest())))
    return Outcome(thread.heading.key, "new", messages, documents=documents)


async def thread_line(store: Store, thread: StoreThread) -> ThreadLine:
    """What an export says of a thread before its messages."""
    found = thread.thread
    revisions: dict[str, int] = {}
    for name in await store.list_documents(found.key):
        document = await store.get_document(found.key, name)
        if document is not None:
            revisions[name] = document.revision
    return ThreadLine(
        found.key.thread_id,
        found.key.tenant,
        found.head_seq,
        found.next_seq,
        found.created_ms,
        found.updated_ms,
        found.expires_ms,
        found.title,
        found.metadata,
        revisions,
    )


def file_name(thread_id: str, suffix: str) -> str:
    """A name that no other thread's file has, also where capitals do not count."""
    readable = escape(thread_id)[:80].replace(".", "_")
    return f"{readable}~{blake2b(thread_id.encode(), digest_size=8).hexdigest()}{suffix}"


def make_folder(folder: Path) -> None:
    """Makes the folder if it is not there.

    Raises:
        ConfigurationError: It cannot be made.
    """
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigurationError(f"The folder {folder} cannot be made: {error.strerror}.") from None


def private(path: Path) -> Path:
    """Makes the file, readable by its owner alone, if it is not there."""
    path.touch(mode=0o600)
    return path


def _opened(part: Path) -> BufferedRandom:
    try:
        return private(part).open("r+b")
    except OSError as error:
        raise ConfigurationError(f"{part} cannot be written: {error.strerror}.") from None


def _completed(file: BufferedRandom, beginning: bytes) -> set[bytes]:
    """The digests of the first lines of the threads that are complete; what follows them is cut off.

    A file that begins in another way is of another selection, and begun anew.
    """
    done: set[bytes] = set()
    if file.read(len(beginning)) == beginning:
        end = file.tell()
        try:
            for found in checked_threads(file, "The unfinished export"):
                done.add(blake2b(found.first_line, digest_size=16).digest())
                end = found.stop
        except CorruptRecordError:
            # It was broken off here.
            pass
        file.seek(end)
    else:
        file.seek(0)
        file.write(beginning)
    file.truncate()
    return done


def sync(file: BinaryIO) -> None:
    """Waits until the file is on the disk."""
    file.flush()
    os.fsync(file.fileno())
