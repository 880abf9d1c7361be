"""`SqliteStore`: the engine's hooks, each one hop to the writing or to a reading thread."""

from __future__ import annotations

import asyncio
import os
import weakref
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, Self

from everthread.contract import SupportsDiagnosis, SupportsReconciling
from everthread.engines._base import AppendRequest, BaseEngine, ThreadChange
from everthread.engines._importing import Importing
from everthread.engines._rewriting import Rewriting
from everthread.engines._search import Position, Searching
from everthread.engines.sqlite._database import Place, translate
from everthread.engines.sqlite._diagnosis import facts
from everthread.engines.sqlite._location import absolute_path, path_from_url, url_of
from everthread.engines.sqlite._reading import Reader
from everthread.engines.sqlite._threads import Workers
from everthread.engines.sqlite._writing import Writer
from everthread.errors import ConfigurationError, EverthreadError
from everthread.model import (
    Appended,
    Document,
    Drift,
    Fact,
    MessagePage,
    Rewrite,
    SearchHit,
    Thread,
    ThreadKey,
    Truncated,
)
from everthread.settings import engine_options

SYNCHRONOUS = ("full", "normal")
READERS = 4

# A row of SQLite holds at most a billion bytes.
_LARGEST_MESSAGE = 900_000_000


class SqliteStore(Searching, Rewriting, Importing, BaseEngine, SupportsDiagnosis, SupportsReconciling):
    """Keeps threads in one SQLite file, which several processes of one machine may use at once.

    Appends that wait at the same time are committed together by one thread, with one ``fsync``;
    reads run beside them in threads of their own. The file and its folder are made at opening.

    The first `search` in a file, or `prepare_search`, makes its index of all that is there (about a second for 20,000
    messages); from then on every append keeps it up to date in its own transaction, whichever process makes it.

    Args:
        path: The file; ``~/`` and relative paths are resolved now.
        synchronous: ``"full"``: an append that returned survives a loss of power. ``"normal"``: it
            survives the end of the process, and after a loss of power the newest appends may be
            missing, each one whole.
        busy_timeout: Seconds to wait while another process writes, before `StoreUnavailableError`.
        options: What every engine takes: see `BaseEngine`.
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
        self._place = Place(absolute_path(path), _synchronous(synchronous), _busy_timeout(busy_timeout))
        self._writer = Workers("everthread-sqlite-writer", partial(Writer.open, self._place))
        self._readers = Workers("everthread-sqlite-reader", partial(Reader.open, self._place), most=READERS)
        # The threads of a store that nobody closed end when it is collected.
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
        return url_of(self._place.path)

    async def _open(self) -> None:
        try:
            await self._writer.call(Writer.check)
        except BaseException:
            self._writer.release()
            raise

    async def _close(self) -> None:
        while self._deletions:
            await asyncio.wait(self._deletions)
        # The writer last: its connection is then the only one, and leaves one file without a log behind.
        await self._readers.stop()
        await self._writer.stop()

    def _translate(self, error: Exception) -> EverthreadError | None:
        return translate(error, self._place)

    async def _append_one(self, request: AppendRequest) -> Appended:
        # Not through a coalescer in the loop: the thread finds what waits by itself, which spares a task for each.
        return await self._writer.call_together(Writer.append_many, request)

    async def _read(self, key: ThreadKey, start: int, stop: int | None, limit: int | None) -> MessagePage:
        return await self._readers.call(Reader.read, key, start, stop, limit, self._now_ms())

    async def _read_last(self, key: ThreadKey, count: int, before: int | None) -> MessagePage:
        return await self._readers.call(Reader.read_last, key, count, before, self._now_ms())

    async def _truncate(
        self, key: ThreadKey, start: int, stop: int | None, expected_seq: int | None = None
    ) -> Truncated:
        return await self._writer.call(Writer.truncate, key, start, stop, expected_seq, self._now_ms())

    async def _rewrite(self, key: ThreadKey, changes: Sequence[Rewrite]) -> int:
        return await self._writer.call(Writer.rewrite, key, changes, self._now_ms())

    async def _get_thread(self, key: ThreadKey) -> Thread | None:
        return await self._readers.call(Reader.get_thread, key, self._now_ms())

    async def _list_threads(self, tenant: str, limit: int, after: tuple[int, str] | None) -> Sequence[Thread]:
        return await self._readers.call(Reader.list_threads, tenant, limit, after, self._now_ms())

    async def _update_thread(self, key: ThreadKey, change: ThreadChange) -> Thread:
        return await self._writer.call(Writer.update_thread, key, change, self._now_ms())

    async def _restore_times(self, key: ThreadKey, created_ms: int, updated_ms: int) -> Thread:
        return await self._writer.call(Writer.restore_times, key, created_ms, updated_ms, self._now_ms())

    async def _delete_thread(self, key: ThreadKey, expected_seq: int | None = None) -> bool:
        existed = await self._writer.call(Writer.delete_thread, key, expected_seq, self._now_ms())
        await self._sweep()
        return existed

    async def _delete_tenant(self, tenant: str) -> int:
        count, more = 0, True
        with self._deletion():
            while more:
                live, more = await self._writer.call(Writer.delete_some_of_tenant, tenant, self._now_ms())
                count += live
        await self._sweep()
        return count

    @contextmanager
    def _deletion(self) -> Generator[None]:
        """Several steps that closing waits for."""
        done = asyncio.get_running_loop().create_future()
        self._deletions.add(done)
        try:
            yield
        finally:
            self._deletions.discard(done)
            done.set_result(None)

    async def _sweep(self) -> None:
        # In many short transactions, so that appends get in between. What a cancelled call or a closing leaves is
        # out of every reader's sight, and goes with later writes.
        while not self._is_closed and await self._writer.call(Writer.sweep):
            pass

    async def _get_document(self, key: ThreadKey, name: str) -> Document | None:
        return await self._readers.call(Reader.get_document, key, name, self._now_ms())

    async def _put_document(self, key: ThreadKey, name: str, value: bytes, expected_revision: int | None) -> Document:
        return await self._writer.call(Writer.put_document, key, name, value, expected_revision, self._now_ms())

    async def _delete_document(self, key: ThreadKey, name: str) -> bool:
        return await self._writer.call(Writer.delete_document, key, name, self._now_ms())

    async def _list_documents(self, key: ThreadKey) -> tuple[str, ...]:
        return await self._readers.call(Reader.list_documents, key, self._now_ms())

    async def _search(
        self, tenant: str, text: str, limit: int, after: Position | None
    ) -> Sequence[tuple[SearchHit, Position]]:
        while True:
            found = await self._readers.call(Reader.search, tenant, text, limit, after, self._now_ms())
            if found is not None:
                return found
            await self._make_index()

    async def prepare_search(self, *, advance: Callable[[int, int], None] = lambda done, total: None) -> None:
        await self._call(self._prepare_search(advance))

    async def _prepare_search(self, advance: Callable[[int, int], None]) -> None:
        if not await self._readers.call(Reader.is_indexed):
            await self._make_index(advance)

    async def _make_index(self, advance: Callable[[int, int], None] = lambda done, total: None) -> None:
        # In many short transactions, so that appends get in between; whoever is cancelled, closed or killed
        # leaves the rest to the next search.
        done = 0
        while (progress := await self._writer.call(Writer.index_some)).done:
            done += progress.done
            advance(done, done + progress.left)

    async def reconcile(self, tenant: str = "", *, mend: bool = False) -> tuple[Drift, ...]:
        """As `SupportsReconciling` says; of all tenants. Appends wait while it mends."""
        return await self._call(self._reconcile(mend))

    async def _reconcile(self, mend: bool) -> tuple[Drift, ...]:
        drifts = await self._writer.call(Writer.reconcile, mend)
        if mend:
            await self._sweep()
        return drifts

    async def diagnose(self) -> tuple[Fact, ...]:
        return await self._call(self._readers.call(facts))

    def _now_ms(self) -> int:
        return int(self._clock() * 1000)


def _synchronous(text: object) -> str:
    lowered = text.lower() if isinstance(text, str) else ""
    if lowered not in SYNCHRONOUS:
        raise ConfigurationError(f"synchronous is {' or '.join(SYNCHRONOUS)}.")
    return lowered


def _busy_timeout(seconds: object) -> float:
    if not isinstance(seconds, (int, float)) or isinstance(seconds, bool) or not 0 <= seconds < 1e6:
        raise ConfigurationError("busy_timeout is a number of seconds of at least 0.")
    return float(seconds)
