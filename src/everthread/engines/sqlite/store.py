"""`SqliteStore`: each hook of the engine is one hop to the writing thread or to a reading thread."""

from __future__ import annotations

import asyncio
import os
import time
import weakref
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Self, TypeVar

from everthread._url_options import engine_options
from everthread.capabilities import SupportsReconciling
from everthread.engines._listing import Listed
from everthread.engines._names import NameRange
from everthread.engines._search import Position, Searching
from everthread.engines._tenants import ListingTenants
from everthread.engines.base import AppendRequest, ThreadChange
from everthread.engines.sqlite.errors import translate
from everthread.engines.sqlite.files import log_of
from everthread.engines.sqlite.health import facts
from everthread.engines.sqlite.location import DatabaseFile, absolute_path, path_from_url
from everthread.engines.sqlite.read_only import ReadOnlyReader
from everthread.engines.sqlite.reader import Reader
from everthread.engines.sqlite.workers import Workers
from everthread.engines.sqlite.writer import Writer
from everthread.errors import ConfigurationError, EverthreadError, UnsupportedError
from everthread.model import (
    Appended,
    Document,
    HealthCheck,
    Inconsistency,
    MessagePage,
    Rewrite,
    SearchHit,
    Thread,
    ThreadKey,
    Truncated,
)

SYNCHRONOUS = ("full", "normal")
READERS = 4
_BETWEEN_LOOKS = 0.01

R = TypeVar("R")

# A row of SQLite holds at most a billion bytes.
_LARGEST_MESSAGE = 900_000_000


class SqliteStore(Searching, ListingTenants, SupportsReconciling):
    """Store threads in one SQLite file, which several processes of one machine can share.

    One thread commits concurrent appends together, with one ``fsync``; other threads read at the same time.
    Opening creates the file and its folder.

    The first `search` in a file, or `prepare_search`, indexes all messages (about a second for 20,000). From then on,
    every append of every process updates the index in its own transaction.

    Args:
        path: The file. ``~/`` and relative paths are resolved by the constructor.
        synchronous: With ``"full"``, an append that returned survives a power failure. With ``"normal"``, it survives
            the end of the process; after a power failure the newest appends may be missing, but none is partial.
        busy_timeout: Seconds to wait for another process's lock before `StoreUnavailableError`.
        options: Options of every engine: see `Engine`.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        synchronous: str = "full",
        busy_timeout: float = 10.0,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        if self.max_message_bytes > _LARGEST_MESSAGE:
            raise ConfigurationError(f"max_message_bytes is at most {_LARGEST_MESSAGE:,} on SQLite.")
        how = _synchronous(synchronous), _busy_timeout(busy_timeout), self.read_only
        self._file = DatabaseFile(absolute_path(path), *how)
        self._writer = Workers("everthread-sqlite-writer", partial(Writer.open, self._file))
        reader = ReadOnlyReader if self.read_only else Reader
        self._readers = Workers("everthread-sqlite-reader", partial(reader.open, self._file), most=READERS)
        # The threads of a store that was never closed end when it is collected.
        weakref.finalize(self, self._writer.release).atexit = False
        weakref.finalize(self, self._readers.release).atexit = False
        self._deletions: set[asyncio.Future[None]] = set()

    @classmethod
    def from_url(cls, url: str, **options: Any) -> Self:
        own = {"synchronous": _synchronous, "busy_timeout": float}
        rest, settings = engine_options(url, options, own)
        return cls(path_from_url(rest), **settings)

    @property
    def location(self) -> str:
        return self._file.url

    async def _open(self) -> None:
        try:
            await (self._look(Reader.check) if self.read_only else self._writer.call(Writer.check))
        except BaseException:
            self._readers.release()
            self._writer.release()
            raise

    async def _close(self) -> None:
        while self._deletions:
            await asyncio.wait(self._deletions)
        # The writer last: its connection is then the only one, so SQLite deletes the log.
        await self._readers.stop()
        await self._writer.stop()

    def _release(self) -> None:
        self._readers.release()
        self._writer.release()

    def _translate(self, error: Exception) -> EverthreadError | None:
        return translate(error, self._file)

    async def _look(self, function: Callable[..., R], *args: object) -> R:
        return await self._readers.call(_look, function, *args)

    async def _look_now(self, function: Callable[..., R], *args: object) -> R:
        return await self._readers.call(_look, function, self._now_ms(), *args)

    async def _change(self, function: Callable[..., R | EverthreadError], *args: object) -> R:
        # Without a coalescer in the loop: the thread collects waiting changes itself, which saves a task for each.
        return await self._writer.call_together(Writer.change_many, (function, self._now_ms(), args))

    async def _append(self, request: AppendRequest) -> Appended:
        return await self._change(Writer.append, request)

    async def _read(self, key: ThreadKey, start: int, stop: int | None, limit: int | None) -> MessagePage:
        return await self._look_now(Reader.read, key, start, stop, limit)

    async def _read_last(self, key: ThreadKey, count: int, before: int | None) -> MessagePage:
        return await self._look_now(Reader.read_last, key, count, before)

    async def _truncate(self, key: ThreadKey, start: int, stop: int | None, expected_seq: int | None) -> Truncated:
        return await self._change(Writer.truncate, key, start, stop, expected_seq)

    async def _rewrite(self, key: ThreadKey, changes: Sequence[Rewrite]) -> int:
        return await self._change(Writer.rewrite, key, changes)

    async def _get_thread(self, key: ThreadKey) -> Thread | None:
        return await self._look_now(Reader.get_thread, key)

    async def _list_tenants(self, after: str, limit: int) -> list[str]:
        return await self._look(Reader.list_tenants, after, limit)

    async def _list_threads(self, tenant: str, limit: int, after: tuple[int, str] | None) -> Listed:
        return await self._look_now(Reader.list_threads, tenant, limit, after)

    async def _update_thread(self, key: ThreadKey, change: ThreadChange) -> Thread:
        return await self._change(Writer.update_thread, key, change)

    async def _restore_position(self, key: ThreadKey, next_seq: int, expected_seq: int, expire_ms: int | None) -> None:
        await self._change(Writer.restore_position, key, next_seq, expected_seq, expire_ms)

    async def _restore_times(self, key: ThreadKey, created_ms: int, updated_ms: int) -> Thread:
        return await self._change(Writer.restore_times, key, created_ms, updated_ms)

    async def _get_document(self, key: ThreadKey, name: str) -> Document | None:
        return await self._look_now(Reader.get_document, key, name)

    async def _put_document(self, key: ThreadKey, name: str, value: bytes, expected_revision: int | None) -> Document:
        return await self._change(Writer.put_document, key, name, value, expected_revision)

    async def _delete_document(self, key: ThreadKey, name: str) -> bool:
        return await self._change(Writer.delete_document, key, name)

    async def _list_documents(self, key: ThreadKey, names: NameRange) -> tuple[str, ...]:
        return await self._look_now(Reader.list_documents, key, names)

    async def _delete_thread(self, key: ThreadKey, expected_seq: int | None = None) -> bool:
        existed = await self._change(Writer.delete_thread, key, expected_seq)
        await self._sweep()
        return existed

    async def _delete_tenant(self, tenant: str) -> int:
        count, more = 0, True
        # Closing waits for all steps.
        done = asyncio.get_running_loop().create_future()
        self._deletions.add(done)
        try:
            while more:
                live, more = await self._change(Writer.delete_some_of_tenant, tenant)
                count += live
        finally:
            self._deletions.discard(done)
            done.set_result(None)
        await self._erase_remains(0.0)
        return count

    async def erase_remains(self) -> tuple[str, ...]:
        """Remove deleted words from the index and empty the write-ahead log, as `Store` describes.

        Takes seconds for each 100 MB of index. Appends run in between.
        """
        return await self._call_to_write(self._erase_remains, self._file.busy_timeout)

    async def _erase_remains(self, patience: float) -> tuple[str, ...]:
        await self._sweep()
        is_first = True
        while not self._is_closed and await self._writer.call(Writer.erase_some, is_first):
            is_first = False
        deadline = time.monotonic() + patience
        while not self._is_closed:
            if await self._writer.call(Writer.empty_log):
                return ()
            if time.monotonic() >= deadline:
                break
            await asyncio.sleep(_BETWEEN_LOOKS)
        log = log_of(self._file.path)
        why = "Erase again when no other process reads, or close all stores."
        return (f"{log} holds earlier data. {why}",)

    async def _sweep(self) -> None:
        # In many short transactions, so that appends run in between. Later writes remove the rest after a cancellation
        # or a close; readers do not see it.
        while not self._is_closed and await self._writer.call(Writer.sweep):
            pass

    async def _search(
        self, tenant: str, text: str, limit: int, after: Position | None
    ) -> Sequence[tuple[SearchHit, Position]]:
        while True:
            found = await self._look_now(Reader.search, tenant, text, limit, after)
            if found is not None:
                return found
            if self.read_only:
                raise UnsupportedError(
                    f"{self.location} has no search index yet, and is opened read-only. Search it once opened for "
                    "writing, or read the messages one by one (scan=True)."
                )
            await self._make_index()

    async def prepare_search(self, *, advance: Callable[[int, int], None] = lambda done, total: None) -> None:
        await self._call(self._prepare_search, advance)

    async def _prepare_search(self, advance: Callable[[int, int], None]) -> None:
        if not await self._look(Reader.is_indexed):
            self._check_writable()
            await self._make_index(advance)

    async def _make_index(self, advance: Callable[[int, int], None] = lambda done, total: None) -> None:
        # In many short transactions, so that appends run in between. After a cancellation, a close or a kill, the next
        # search does the rest.
        done, (more, left) = 0, await self._writer.call(Writer.index_some)
        while more:
            done += more
            advance(done, done + left)
            more, left = await self._writer.call(Writer.index_some)

    async def reconcile(self, tenant: str = "", *, repair: bool = False) -> tuple[Inconsistency, ...]:
        """Check all tenants, as `SupportsReconciling` describes. Appends wait during a repair."""
        if not repair:
            return await self._call(self._look, Reader.reconcile)
        return await self._call_to_write(self._repair)

    async def _repair(self) -> tuple[Inconsistency, ...]:
        drifts = await self._writer.call(Writer.repair)
        await self._sweep()
        return drifts

    async def diagnose(self) -> tuple[HealthCheck, ...]:
        return await self._call(self._look, facts)

    def _now_ms(self) -> int:
        return int(self._clock() * 1000)


def _look(reader: Reader, function: Callable[..., R], *args: object) -> R:
    return reader.look(function, *args)


def _synchronous(text: object) -> str:
    lowered = text.lower() if isinstance(text, str) else ""
    if lowered not in SYNCHRONOUS:
        raise ConfigurationError(f"synchronous is {' or '.join(SYNCHRONOUS)}.")
    return lowered


def _busy_timeout(seconds: object) -> float:
    if not isinstance(seconds, (int, float)) or isinstance(seconds, bool) or not 0 <= seconds < 1e6:
        raise ConfigurationError("busy_timeout is a number of seconds of at least 0.")
    return float(seconds)
