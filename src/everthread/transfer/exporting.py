"""Write the threads of a store into a file, a folder with a file for each thread, or a stream.

An incomplete file has ``.part`` at the end of its name. A repeated run continues after the last complete thread of
that file, if the form allows it.
"""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator
from hashlib import blake2b
from io import BufferedRandom
from pathlib import Path
from typing import BinaryIO, ClassVar

from everthread._escaping import escape
from everthread.contract import Store
from everthread.errors import ConfigurationError, CorruptRecordError
from everthread.model import Message, Thread
from everthread.transfer.files import Lines, check_replaceable, continuing, finish, opened, remove_unfinished, replacing
from everthread.transfer.model import Outcome, Report, Watcher
from everthread.transfer.reading import EXPORT_START, checked_threads
from everthread.transfer.records import (
    END_START,
    LONGEST_END,
    VERSION,
    EndLine,
    ExportLine,
    ThreadLine,
    decoded,
    document_line,
    encoded,
    message_line,
    thread_line,
)
from everthread.transfer.sources import StoreSource, StoreThread


class Sink:
    """The destination of an export. Without a file it only counts.

    Attributes:
        file: The file; may change during the export.
        size: The number of bytes written.
    """

    def __init__(self, watcher: Watcher, file: BinaryIO | None = None) -> None:
        self.watcher = watcher
        self.file = file
        self.size = 0

    def write(self, data: bytes, messages: int = 0) -> None:
        """Write bytes that hold this number of messages."""
        self.size += len(data)
        if self.file is not None:
            self.file.write(data)
        self.watcher.advance(messages)


class Form(ABC):
    """The format of threads in a file.

    Attributes:
        suffix: The end of a file's name.
        before: The beginning of a file.
        after: The end of a file.
        is_known_by_opening: `opening` returns other bytes after each change of the thread. So a thread need not be
            written again if its opening is in the file already.
    """

    suffix: ClassVar[str]
    before: bytes = b""
    after: bytes = b""
    is_known_by_opening: ClassVar[bool] = False

    @abstractmethod
    async def opening(self, thread: StoreThread) -> bytes:
        """Return the beginning of a thread."""

    @abstractmethod
    def rest(self, thread: StoreThread, opening: bytes) -> AsyncIterator[tuple[bytes, int]]:
        """Yield the rest in parts of a bounded size, each with the number of messages in it.

        Reports unreadable messages to the thread.
        """


class JsonLines(Form):
    """The form that keeps everything and can be imported (`everthread.transfer.records`)."""

    suffix = ".jsonl"
    before = EXPORT_START
    is_known_by_opening = True

    async def opening(self, thread: StoreThread) -> bytes:
        return encoded(thread_line(thread.thread, await thread.document_revisions()))

    async def rest(self, thread: StoreThread, opening: bytes) -> AsyncIterator[tuple[bytes, int]]:
        digest = blake2b(opening, digest_size=16)
        messages = documents = 0
        async for page in thread.pages():
            lines = b"".join([_line(thread, message) for message in page])
            digest.update(lines)
            messages += len(page)
            yield lines, len(page)
        async for name, value in thread.documents():
            line = encoded(document_line(name, value))
            digest.update(line)
            documents += 1
            yield line, 0
        yield encoded(EndLine(messages, documents, digest.hexdigest())), 0


def _line(thread: StoreThread, message: Message) -> bytes:
    line = message_line(message)
    if isinstance(line.base64, bytes):
        # Another program stored this: not strict JSON, or no JSON at all, which `view` reports.
        thread.view(message)
    return encoded(line)


async def thread_parts(store: Store, thread: Thread, form: Form) -> AsyncIterator[bytes]:
    """Yield a file with one thread, in parts of a bounded size.

    Raises:
        CorruptRecordError: The store cannot read a record. The parts so far are no complete file.
    """
    source = StoreThread(store, thread)
    opening = await form.opening(source)
    yield form.before + opening
    async for part, _ in form.rest(source, opening):
        yield part
    yield form.after


async def export_to_stream(source: StoreSource, form: Form, stream: BinaryIO | None, watcher: Watcher) -> Report:
    """Write all threads to an open stream, or only count them."""
    sink = Sink(watcher, stream)
    sink.write(form.before)
    report = await _one_by_one(source, form, sink, set())
    sink.write(form.after)
    if stream is not None:
        stream.flush()
    report.size = sink.size
    return report


async def export_to_file(
    source: StoreSource, form: Form, path: Path, watcher: Watcher, *, dry_run: bool = False
) -> Report:
    """Write all threads into one file, which gets its name when it is complete."""
    if form.is_known_by_opening:
        form.before = encoded(ExportLine(VERSION, source.selection))
    if dry_run:
        return await export_to_stream(source, form, None, watcher)
    if not form.is_known_by_opening:
        remove_unfinished(path.parent, path.name)
        with replacing(path) as file:
            return await export_to_stream(source, form, file, watcher)
    check_replaceable(path)
    part = path.with_name(path.name + ".part")
    with continuing(part) as file:
        done = await _completed(file, source, form)
        report = await _one_by_one(source, form, Sink(watcher, file), done)
        report.size = file.tell()
        finish(file, part, path)
    return report


async def export_to_folder(
    source: StoreSource, form: Form, folder: Path, watcher: Watcher, *, dry_run: bool = False
) -> Report:
    """Write each thread into a separate file. Files of unchanged threads stay."""
    report, sink = Report(), Sink(watcher)
    if not dry_run:
        _make_folder(folder)
        remove_unfinished(folder)
    async with source:
        watcher.begin(source.total)
        async for thread in _readable(source, report):
            path = folder / file_name(thread.heading.key.thread_id, form.suffix)
            opening = await form.opening(thread)
            if form.is_known_by_opening and _holds(path, form.before + opening):
                outcome = _unchanged(thread, sink)
            else:
                report.files += 1
                write = _whole(thread, form, opening, sink) if dry_run else _file(thread, form, opening, path, sink)
                outcome = await write
            _add(outcome, report, watcher)
    report.size = sink.size
    return report


async def _one_by_one(source: StoreSource, form: Form, sink: Sink, done: set[bytes]) -> Report:
    """Write each thread unless ``done`` has the digest of its opening."""
    report = Report(files=1)
    async with source:
        sink.watcher.begin(source.total)
        async for thread in _readable(source, report):
            opening = await form.opening(thread)
            mark = blake2b(opening, digest_size=16).digest()
            if mark in done:
                outcome = _unchanged(thread, sink)
            else:
                outcome = await _written(thread, form, opening, sink)
            _add(outcome, report, sink.watcher)
    return report


async def _file(thread: StoreThread, form: Form, opening: bytes, path: Path, sink: Sink) -> Outcome:
    """Write a file with one thread."""
    with replacing(path) as sink.file:
        return await _whole(thread, form, opening, sink)


async def _whole(thread: StoreThread, form: Form, opening: bytes, sink: Sink) -> Outcome:
    sink.write(form.before)
    outcome = await _written(thread, form, opening, sink)
    sink.write(form.after)
    return outcome


async def _readable(source: StoreSource, report: Report) -> AsyncIterator[StoreThread]:
    async for thread in source.threads():
        if isinstance(thread, StoreThread):
            yield thread
        else:
            report.skipped.append(thread)


async def _written(thread: StoreThread, form: Form, opening: bytes, sink: Sink) -> Outcome:
    sink.write(opening)
    written = 0
    async for part, messages in form.rest(thread, opening):
        sink.write(part, messages)
        written += messages
    skipped = tuple(thread.left_out.values())
    return Outcome(thread.heading.key, "new", written, documents=thread.documents_read, skipped=skipped)


def _unchanged(thread: StoreThread, sink: Sink) -> Outcome:
    sink.watcher.advance(thread.thread.count)
    return Outcome(thread.heading.key, "unchanged", present=thread.thread.count)


def _add(outcome: Outcome, report: Report, watcher: Watcher) -> None:
    report.add(outcome)
    watcher.finished(outcome)


def _holds(path: Path, beginning: bytes) -> bool:
    """Return whether a file begins like this and is complete: a machine that lost power may have cut it short."""
    try:
        file = opened(path)
    except ConfigurationError:
        return False
    with file:
        if file.read(len(beginning)) != beginning:
            return False
        file.seek(max(file.seek(0, os.SEEK_END) - LONGEST_END, 0))
        end = file.read()
        return END_START in end and end.endswith(b"}\n")


def file_name(thread_id: str, suffix: str) -> str:
    """Return a file name that is unique to the thread, also if the file system ignores case."""
    readable = escape(thread_id)[:80].replace(".", "_")
    return f"{readable}~{blake2b(thread_id.encode(), digest_size=8).hexdigest()}{suffix}"


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigurationError(f"Cannot create the folder {folder}: {error.strerror}.") from None


async def _completed(file: BufferedRandom, source: StoreSource, form: Form) -> set[bytes]:
    """Return the digests of the openings of complete, unchanged threads, and cut off everything after these.

    Threads that have changed are usually the last of the file, so no thread is in it twice. A file with another
    beginning is of another selection, and starts again.
    """
    done: set[bytes] = set()
    beginning = form.before
    if file.read(len(beginning)) == beginning:
        end = file.tell()
        try:
            for found in checked_threads(Lines(file, "The unfinished export")):
                thread = await source.thread(decoded(found.first_line, "The unfinished export", ThreadLine).thread_id)
                if thread is None or await form.opening(thread) != found.first_line:
                    break
                done.add(blake2b(found.first_line, digest_size=16).digest())
                end = found.stop
        except CorruptRecordError:
            # The interrupted run ended here.
            pass
        file.seek(end)
    else:
        file.seek(0)
        file.write(beginning)
    file.truncate()
    return done
