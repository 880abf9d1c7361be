"""The threads of a store, as a source."""

from __future__ import annotations

import itertools
from array import array
from collections.abc import AsyncIterator, Iterator, Sequence
from fnmatch import fnmatchcase
from hashlib import blake2b
from tempfile import SpooledTemporaryFile

import msgspec

from everthread.contract import Store
from everthread.errors import ThreadNotFoundError
from everthread.model import Message, Thread, ThreadKey, check_identifier
from everthread.transfer.model import Heading, Source, SourceThread, known_times

PAGE_BYTES = 2 * 1024 * 1024
"""About how much of a thread is in memory at a time, as far as its messages are alike in size."""

MOST_A_PAGE = 1000
_WILD = frozenset("*?[")


class StoreThread(SourceThread):
    """A thread of a store, as far as it went when it was looked up.

    Attributes:
        documents_read: How many documents `documents` has given so far.
    """

    def __init__(self, store: Store, thread: Thread) -> None:
        self._store = store
        self.thread = thread
        self.documents_read = 0
        self.heading = Heading(
            thread.key,
            thread.next_seq,
            thread.title,
            thread.metadata,
            thread.expires_ms,
            known_times(thread.created_ms, thread.updated_ms),
            thread.retention,
        )

    async def pages(self) -> AsyncIterator[Sequence[Message]]:
        thread = self.thread
        average = thread.size // max(thread.count, 1) + 1
        limit = min(max(PAGE_BYTES // average, 1), MOST_A_PAGE)
        start = thread.head_seq
        while start < thread.next_seq:
            page = await self._store.read(thread.key, start=start, stop=thread.next_seq, limit=limit)
            if not page:
                return
            yield page.messages
            start = page[-1].seq + 1

    async def documents(self) -> AsyncIterator[tuple[str, bytes]]:
        for name in await self._store.list_documents(self.thread.key):
            document = await self._store.get_document(self.thread.key, name)
            if document is not None:
                self.documents_read += 1
                yield name, document.value

    async def document_revisions(self) -> dict[str, int]:
        """The revision of each document."""
        found = [
            await self._store.get_document(self.thread.key, name)
            for name in await self._store.list_documents(self.thread.key)
        ]
        return {document.name: document.revision for document in found if document is not None}


class StoreSource(Source):
    """The threads of one tenant, the least recently active first.

    A listing gives the newest first. Their names are put aside in a temporary file, so that however many
    there are, memory stays bounded. Threads with activity meanwhile come again at the end.

    Args:
        store: Where to read.
        tenant: Whose threads.
        names: Ids, or shell patterns (``trip-*``) of ids; all threads if there are none.
    """

    def __init__(self, store: Store, tenant: str = "", names: Sequence[str] = ()) -> None:
        for name in names:
            check_identifier(name, "thread_id")
        self._store = store
        self._tenant = check_identifier(tenant, "tenant", may_be_empty=True)
        self._exact = [name for name in names if not _WILD.intersection(name)]
        self._patterns = [name for name in names if _WILD.intersection(name)]
        self._lists = bool(self._patterns) or not names
        self._names = _Backward()
        self._newest_ms = 0

    @property
    def selection(self) -> str:
        """Differs for every other store, tenant and choice of threads."""
        chosen = (self._store.location, self._tenant, sorted(self._exact), sorted(self._patterns))
        return blake2b(msgspec.json.encode(chosen), digest_size=16).hexdigest()

    async def open(self) -> None:
        self.total = 0
        for name in self._exact:
            found = await self._thread(name)
            if found is None:
                raise ThreadNotFoundError(f"There is no {ThreadKey(name, self._tenant)}.")
            self.total += found.count
        if not self._lists:
            return
        async for page in self._listing(0):
            self._newest_ms = max(self._newest_ms, page[0].updated_ms)
            chosen = [thread for thread in page if self._is_chosen(thread.key.thread_id)]
            self._names.add([thread.key.thread_id for thread in chosen])
            self.total += sum(thread.count for thread in chosen)

    async def aclose(self) -> None:
        self._names.close()

    async def threads(self) -> AsyncIterator[StoreThread]:
        for name in itertools.chain(self._exact, self._names):
            found = await self._thread(name)
            if found is not None:
                yield StoreThread(self._store, found)
        async for thread in self._active_since():
            yield StoreThread(self._store, thread)

    async def _active_since(self) -> AsyncIterator[Thread]:
        if not self._lists:
            return
        active: list[str] = []
        async for page in self._listing(self._newest_ms + 1):
            active += [thread.key.thread_id for thread in page if self._is_chosen(thread.key.thread_id)]
        for name in reversed(active):
            found = await self._thread(name)
            if found is not None:
                yield found

    async def _listing(self, since_ms: int) -> AsyncIterator[Sequence[Thread]]:
        cursor = None
        while True:
            page = await self._store.list_threads(self._tenant, limit=MOST_A_PAGE, cursor=cursor)
            recent = [thread for thread in page if thread.updated_ms >= since_ms]
            if recent:
                yield recent
            cursor = page.cursor
            if cursor is None or len(recent) < len(page):
                return

    async def _thread(self, name: str) -> Thread | None:
        return await self._store.get_thread(ThreadKey(name, self._tenant))

    def _is_chosen(self, thread_id: str) -> bool:
        if not self._patterns:
            return True
        return thread_id not in self._exact and any(fnmatchcase(thread_id, pattern) for pattern in self._patterns)


class _Backward:
    """Names that are read in the opposite order; many of them lie in a file."""

    def __init__(self) -> None:
        self._file = SpooledTemporaryFile(max_size=1024 * 1024)  # noqa: SIM115 - closed by close()
        self._offsets = array("Q")

    def add(self, names: Sequence[str]) -> None:
        self._offsets.append(self._file.tell())
        self._file.write(msgspec.json.encode(names) + b"\n")

    def __iter__(self) -> Iterator[str]:
        for offset in reversed(self._offsets):
            self._file.seek(offset)
            yield from reversed(msgspec.json.decode(self._file.readline(), type=list[str]))

    def close(self) -> None:
        self._file.close()
