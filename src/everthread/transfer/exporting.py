"""A store's threads → a file, a folder with a file for each thread, or a stream, in whichever form.

Until it is complete a file has ``.part`` at the end of its name. A run that was broken off goes on behind
the last complete thread of that file, where the form allows it.
"""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator
from hashlib import blake2b
from io import BufferedRandom
from pathlib import Path
from typing import BinaryIO, ClassVar

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
    document_line,
    encoded,
    message_line,
    thread_line,
)
from everthread.transfer.sources import StoreSource, StoreThread


class Sink:
    """Where an export goes, and who is told; without a file it only counts.

    Attributes:
        file: May be changed in the course of it.
        size: How many bytes went there.
    """

    def __init__(self, watcher: Watcher, file: BinaryIO | None = None) -> None:
        self.watcher = watcher
        self.file = file
        self.size = 0

    def write(self, data: bytes, messages: int = 0) -> None:
        """Takes in bytes that hold so many messages."""
        self.size += len(data)
        if self.file is not None:
            self.file.write(data)
        self.watcher.advance(messages)


class Form(ABC):
    """How threads look in a file.

    Attributes:
        suffix: How a file's name ends.
        before: What a file begins with.
        after: What it ends with.
        is_known_by_opening: What `opening` gives is another whenever the thread has changed. So what a file
            has of it already need not be written again.
    """

    suffix: ClassVar[str]
    before: bytes = b""
    after: bytes = b""
    is_known_by_opening: ClassVar[bool] = False

    @abstractmethod
    async def opening(self, thread: StoreThread) -> bytes:
        """What a thread begins with."""

    @abstractmethod
    def rest(self, thread: StoreThread, opening: bytes) -> AsyncIterator[tuple[bytes, int]]:
        """All that follows, in parts of a bounded size: each with how many messages it holds."""


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
            lines = b"".join([encoded(message_line(message)) for message in page])
            digest.update(lines)
            messages += len(page)
            yield lines, len(page)
        async for name, value in thread.documents():
            line = encoded(document_line(name, value))
            digest.update(line)
            documents += 1
            yield line, 0
        yield encoded(EndLine(messages, documents, digest.hexdigest())), 0


async def export_to_stream(source: StoreSource, form: Form, stream: BinaryIO | None, watcher: Watcher) -> Report:
    """Writes all threads to an open stream, or nowhere, to see how much it would be."""
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
    """Writes all threads into one file, which takes its name when it is complete."""
    if form.is_known_by_opening:
        form.before = encoded(ExportLine(VERSION, source.selection))
    if dry_run:
        return await export_to_stream(source, form, None, watcher)
    part = path.with_name(path.name + ".part")
    with _opened(part) as file:
        if form.is_known_by_opening:
            done = _completed(file, form.before)
            report = await _one_by_one(source, form, Sink(watcher, file), done)
            report.size = file.tell()
        else:
            file.truncate()
            report = await export_to_stream(source, form, file, watcher)
        _sync(file)
    part.replace(path)
    return report


async def export_to_folder(
    source: StoreSource, form: Form, folder: Path, watcher: Watcher, *, dry_run: bool = False
) -> Report:
    """Writes each thread into a file of its own; files that are known to hold it already are left as they are."""
    report, sink = Report(), Sink(watcher)
    if not dry_run:
        _make_folder(folder)
    async with source:
        watcher.begin(source.total)
        async for thread in source.threads():
            path = folder / file_name(thread.heading.key.thread_id, form.suffix)
            opening = await form.opening(thread)
            if form.is_known_by_opening and _holds(path, form.before + opening):
                outcome = _unchanged(thread, sink)
            else:
                report.files += 1
                write = _whole(thread, form, opening, sink) if dry_run else _file(thread, form, opening, path, sink)
                outcome = await write
            _told(outcome, report, watcher)
    report.size = sink.size
    return report


async def _one_by_one(source: StoreSource, form: Form, sink: Sink, done: set[bytes]) -> Report:
    """Writes one thread after the other, without those whose openings have a digest in ``done``."""
    report = Report(files=1)
    async with source:
        sink.watcher.begin(source.total)
        async for thread in source.threads():
            opening = await form.opening(thread)
            mark = blake2b(opening, digest_size=16).digest()
            if mark in done:
                outcome = _unchanged(thread, sink)
            else:
                outcome = await _written(thread, form, opening, sink)
            if form.is_known_by_opening:
                done.add(mark)
            _told(outcome, report, sink.watcher)
    return report


async def _file(thread: StoreThread, form: Form, opening: bytes, path: Path, sink: Sink) -> Outcome:
    """Writes a thread's own file."""
    part = path.with_name(path.name + ".part")
    with part.open("wb") as sink.file:
        outcome = await _whole(thread, form, opening, sink)
    part.replace(path)
    return outcome


async def _whole(thread: StoreThread, form: Form, opening: bytes, sink: Sink) -> Outcome:
    sink.write(form.before)
    outcome = await _written(thread, form, opening, sink)
    sink.write(form.after)
    return outcome


async def _written(thread: StoreThread, form: Form, opening: bytes, sink: Sink) -> Outcome:
    sink.write(opening)
    async for part, messages in form.rest(thread, opening):
        sink.write(part, messages)
    return Outcome(thread.heading.key, "new", thread.thread.count, documents=thread.documents_read)


def _unchanged(thread: StoreThread, sink: Sink) -> Outcome:
    sink.watcher.advance(thread.thread.count)
    return Outcome(thread.heading.key, "unchanged", present=thread.thread.count)


def _told(outcome: Outcome, report: Report, watcher: Watcher) -> None:
    report.add(outcome)
    watcher.finished(outcome)


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


def file_name(thread_id: str, suffix: str) -> str:
    """A name that no other thread's file has, also where capitals do not count."""
    readable = escape(thread_id)[:80].replace(".", "_")
    return f"{readable}~{blake2b(thread_id.encode(), digest_size=8).hexdigest()}{suffix}"


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigurationError(f"The folder {folder} cannot be made: {error.strerror}.") from None


def _opened(part: Path) -> BufferedRandom:
    """The file, readable by its owner alone, made if it is not there."""
    try:
        part.touch(mode=0o600)
        return part.open("r+b")
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


def _sync(file: BinaryIO) -> None:
    """Waits until the file is on the disk."""
    file.flush()
    os.fsync(file.fileno())
