"""The threads of a store, as a source."""

from __future__ import annotations

import itertools
from array import array
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from fnmatch import fnmatchcase
from hashlib import blake2b
from tempfile import SpooledTemporaryFile

import msgspec

from everthread._validation import check_not_reserved
from everthread.contract import Store
from everthread.errors import CorruptRecordError, EncryptionKeyError, InvalidMessageError, ThreadNotFoundError
from everthread.messages.codec import View, view
from everthread.model import Message, MessagePage, NewMessage, Thread, ThreadKey, check_identifier
from everthread.readable import Unreadable, read_around
from everthread.transfer.model import Heading, Skipped, Source, SourceThread, bounded_expiry, known_times

PAGE_BYTES = 2 * 1024 * 1024
"""About how many bytes of a thread are in memory at a time, if its messages are of similar size."""

MOST_A_PAGE = 1000
_WILD = frozenset("*?[")


def in_pages(messages: Iterable[Message]) -> Iterator[list[Message]]:
    """Yield messages in lists of a bounded number and of bounded bytes."""
    page: list[Message] = []
    size = 0
    for message in messages:
        page.append(message)
        size += len(message.payload)
        if size >= PAGE_BYTES or len(page) == MOST_A_PAGE:
            yield page
            page, size = [], 0
    if page:
        yield page


class StoreThread(SourceThread):
    """A thread of a store, up to its end at the time of the lookup.

    Args:
        store: The store.
        thread: The thread as the store describes it. If it has ``damage``, `left_out` reports it.
        skip_unreadable: Skip records that the store cannot read, and report them in `left_out`.

    Attributes:
        documents_read: The number of documents that `documents` has returned so far.
    """

    def __init__(self, store: Store, thread: Thread, *, skip_unreadable: bool = False) -> None:
        self._store = store
        self._skips = skip_unreadable
        self.thread = thread
        self.documents_read = 0
        self.heading = Heading(
            thread.key,
            thread.next_seq,
            thread.title,
            thread.metadata,
            bounded_expiry(thread.expires_ms),
            known_times(thread.created_ms, thread.updated_ms),
            thread.retention,
        )
        self.left_out = {}
        if thread.damage:
            self.left_out[None] = Skipped(str(thread.key), thread.damage)

    async def pages(self) -> AsyncIterator[Sequence[Message]]:
        thread = self.thread
        average = thread.size // max(thread.count, 1) + 1
        limit = min(max(PAGE_BYTES // average, 1), MOST_A_PAGE)
        start = thread.head_seq
        while start < thread.next_seq:
            page = await self._page(start, limit)
            if not page:
                return
            yield page.messages
            start = page[-1].seq + 1

    async def _page(self, start: int, limit: int) -> MessagePage:
        key, stop = self.thread.key, self.thread.next_seq
        if not self._skips:
            return await self._store.read(key, start=start, stop=stop, limit=limit)
        return await read_around(self._store, key, start=start, stop=stop, limit=limit, on_unreadable=self._leave_out)

    def _leave_out(self, unreadable: Unreadable) -> None:
        if unreadable.seq is None:
            self.left_out[None] = Skipped(str(self.thread.key), unreadable.reason)
        else:
            self._report(unreadable.seq, unreadable.reason)

    def view(self, message: Message) -> View | None:
        """Return the view of a message, or report it and return ``None`` if its record is not JSON."""
        try:
            return view(message, self.thread.key)
        except CorruptRecordError as error:
            self._report(message.seq, str(error))
            return None

    def _report(self, seq: int, reason: str) -> None:
        # A thread may be read twice.
        self.left_out[seq] = Skipped(f"{self.thread.key}, position {seq}", reason)

    async def documents(self) -> AsyncIterator[tuple[str, bytes]]:
        for name in await self._store.list_documents(self.thread.key):
            value = await self._document(name)
            if value is not None:
                self.documents_read += 1
                yield name, value

    async def _document(self, name: str) -> bytes | None:
        try:
            document = await self._store.get_document(self.thread.key, name)
            if document is not None:
                # Only JSON fits into a line of an export.
                NewMessage(document.value)
        except (CorruptRecordError, EncryptionKeyError, InvalidMessageError) as error:
            if not self._skips:
                raise
            self.left_out[name] = Skipped(f"{self.thread.key}, document {name!r}", str(error))
            return None
        return None if document is None else document.value

    async def document_revisions(self) -> dict[str, int]:
        """Return the revision of each readable document."""
        revisions: dict[str, int] = {}
        for name in await self._store.list_documents(self.thread.key):
            try:
                document = await self._store.get_document(self.thread.key, name)
            except (CorruptRecordError, EncryptionKeyError):
                # `documents` reports it.
                continue
            if document is not None:
                revisions[name] = document.revision
        return revisions


class StoreSource(Source):
    """The threads of one tenant, the least recently active first.

    A listing returns the newest first. A temporary file holds the IDs, so memory stays bounded for any number of
    threads. Threads that become active during the run come again at the end. A thread with a damaged title or
    damaged metadata comes without them if ``skip_unreadable`` is set; otherwise it is reported.

    Args:
        store: The store to read.
        tenant: The owner of the threads.
        names: IDs, or shell patterns (``trip-*``) of IDs. Empty for all threads.
        skip_unreadable: Skip records that the store cannot read; `StoreThread.left_out` reports them.
        once: Return each thread once, also if it becomes active during the run. Takes 16 bytes of memory a thread.
    """

    def __init__(
        self,
        store: Store,
        tenant: str = "",
        names: Sequence[str] = (),
        *,
        skip_unreadable: bool = False,
        once: bool = False,
    ) -> None:
        self._skips = skip_unreadable
        self._once = once
        for name in names:
            check_identifier(name, "thread_id")
        self._store = store
        self._tenant = check_identifier(tenant, "tenant", may_be_empty=True)
        check_not_reserved(tenant)
        self._exact = [name for name in names if not _WILD.intersection(name)]
        self._patterns = [name for name in names if _WILD.intersection(name)]
        self._lists = bool(self._patterns) or not names
        self._names = _Backward()
        self._newest_ms = 0
        self._damaged: dict[str, Thread] = {}

    @property
    def selection(self) -> str:
        """Return a name that differs for every other store, tenant and choice of threads."""
        chosen = (self._store.location, self._tenant, sorted(self._exact), sorted(self._patterns))
        return blake2b(msgspec.json.encode(chosen), digest_size=16).hexdigest()

    async def open(self) -> None:
        self.total = 0
        for name in self._exact:
            try:
                found = await self._thread(name)
            except (CorruptRecordError, EncryptionKeyError):
                # `threads` reports it.
                continue
            if found is None:
                raise ThreadNotFoundError(f"There is no {ThreadKey(name, self._tenant)}.")
            self.total += found.count
        if not self._lists:
            return
        async for page in self._listing(0):
            self._newest_ms = max(self._newest_ms, page[0].updated_ms)
            chosen = [thread for thread in page if self._is_chosen(thread.key.thread_id)]
            self._names.add([thread.key.thread_id for thread in chosen])
            self._damaged |= {thread.key.thread_id: thread for thread in chosen if thread.damage}
            self.total += sum(thread.count for thread in chosen)

    async def aclose(self) -> None:
        self._names.close()

    async def threads(self) -> AsyncIterator[StoreThread | Skipped]:
        given = set[bytes]()
        async for name in self._all_names():
            if self._once:
                mark = blake2b(name.encode(), digest_size=16).digest()
                if mark in given:
                    continue
                given.add(mark)
            try:
                found = await self.thread(name)
            except (CorruptRecordError, EncryptionKeyError) as error:
                found = Skipped(str(ThreadKey(name, self._tenant)), str(error))
            if found is not None:
                yield found

    async def thread(self, name: str) -> StoreThread | None:
        """Return the current state of the thread of this ID, or ``None`` if there is none.

        Raises:
            CorruptRecordError: Its title or metadata is damaged, and the listing did not have it.
        """
        try:
            found = await self._thread(name)
        except (CorruptRecordError, EncryptionKeyError):
            if not self._skips or name not in self._damaged:
                raise
            found = self._damaged[name]
        return None if found is None else StoreThread(self._store, found, skip_unreadable=self._skips)

    async def _all_names(self) -> AsyncIterator[str]:
        for name in itertools.chain(self._exact, self._names):
            yield name
        if not self._lists:
            return
        active: list[str] = []
        async for page in self._listing(self._newest_ms + 1):
            active += [thread.key.thread_id for thread in page if self._is_chosen(thread.key.thread_id)]
        for name in reversed(active):
            yield name

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
    """Names to be read in the opposite order; a file holds them if there are many."""

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
