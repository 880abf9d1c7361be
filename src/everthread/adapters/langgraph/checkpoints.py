"""Checkpoints as records of a thread: the storage behind the saver, in the serializer's bytes."""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from typing import NamedTuple, TypeVar
from weakref import WeakKeyDictionary

import msgspec

from everthread.adapters.langgraph import names
from everthread.adapters.retrying import retried
from everthread.contract import Store
from everthread.engines.batching import Coalescer
from everthread.errors import CorruptRecordError, EverthreadError
from everthread.model import ThreadKey
from everthread.operations.records import change_record, delete_record, get_record, put_record

S = TypeVar("S")
T = TypeVar("T")

_PAGE = 1000
_AT_ONCE = 16
_INLINE_BYTES = 1024
_MOST_KNOWN = 20_000
_ORPHAN_MS = 3600 * 1000


class Typed(msgspec.Struct, frozen=True, array_like=True):
    """A value as the serializer gives it; JSON holds its bytes as base64."""

    kind: str
    data: bytes


class StoredCheckpoint(msgspec.Struct, frozen=True, omit_defaults=True):
    """A checkpoint without the values of its blobs.

    Attributes:
        blobs: The names of the records with the values of channels.
        small: Values that lie in the checkpoint itself; one of a channel in ``blobs`` too takes precedence.
        run: The ID of the run that made it.
        delta: The channels with values that may need the writes of older checkpoints.
    """

    namespace: str
    id: str
    checkpoint: Typed
    metadata: Typed
    parent: str | None = None
    blobs: dict[str, str] = {}
    small: dict[str, Typed] = {}
    run: str | None = None
    delta: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """The name of its record."""
        return names.checkpoint_name(self.namespace, self.id)

    @property
    def channels(self) -> set[str]:
        """The channels that have a value."""
        return {*self.blobs, *self.small}


class StoredWrite(msgspec.Struct, frozen=True, omit_defaults=True):
    """A pending write. A large value lies in a record of its own, ``elsewhere``."""

    task: str
    at: int
    channel: str
    path: str = ""
    value: Typed | None = None
    elsewhere: str = ""

    @property
    def place(self) -> tuple[str, int]:
        """The place of the write: a later one of the same place repeats or replaces it."""
        return self.task, self.at


class Loaded(NamedTuple):
    """A checkpoint with the values of its channels and its pending writes, in the order of execution."""

    stored: StoredCheckpoint
    values: dict[str, Typed]
    writes: list[tuple[StoredWrite, Typed]]


class _Writes(NamedTuple):
    store: Store
    key: ThreadKey
    name: str
    writes: Sequence[StoredWrite]


class Checkpoints:
    """The checkpoints of all threads of a store.

    A checkpoint becomes visible with one write, after the values that it refers to. So a process killed at any moment
    leaves complete checkpoints only. It may leave values that nothing refers to; `prune` deletes them after an hour.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._known: OrderedDict[tuple[ThreadKey, str], None] = OrderedDict()
        self._queues: WeakKeyDictionary[asyncio.AbstractEventLoop, Coalescer[_Writes, None]] = WeakKeyDictionary()

    # Reading

    async def find(self, key: ThreadKey, namespace: str, checkpoint_id: str | None) -> Loaded | None:
        """Return a checkpoint, or the newest of a namespace, or ``None``."""
        if checkpoint_id is not None:
            return await self.load(key, names.checkpoint_name(namespace, checkpoint_id))
        beginning = names.checkpoints_of(namespace)
        while newest := await self._page(key, beginning, None, 1):
            loaded = await self.load(key, newest[0])
            if loaded is not None:
                return loaded
        return None

    async def load(self, key: ThreadKey, name: str) -> Loaded | None:
        """Return a checkpoint by the name of its record, or ``None``.

        Raises:
            CorruptRecordError: A record cannot be decoded or is missing.
        """
        found, writes = await asyncio.gather(self.describe(key, name), self._writes(key, name))
        while found is not None:
            beside = {channel: blob for channel, blob in found.blobs.items() if channel not in found.small}
            blobs = await _together(beside.values(), lambda blob: self._get(key, blob, Typed))
            values = {channel: blob for channel, blob in zip(beside, blobs, strict=True) if blob is not None}
            if len(values) == len(beside):
                self._note(key, found)
                return Loaded(found, {**found.small, **values}, writes)
            # Another writer deleted or replaced it in the meantime.
            newest = await self.describe(key, name)
            if newest == found:
                raise CorruptRecordError(f"The checkpoint {found.id!r} of {key} lacks the value of a channel.")
            found = newest
        return None

    async def describe(self, key: ThreadKey, name: str) -> StoredCheckpoint | None:
        """Return a checkpoint without its blobs and writes, or ``None``."""
        return await self._get(key, name, StoredCheckpoint)

    async def listed(self, key: ThreadKey, beginning: str, after: str | None = None) -> AsyncIterator[str]:
        """Yield the names of records with a beginning, in order."""
        while page := await self._page(key, beginning, after, _PAGE):
            for name in page:
                yield name
            after = page[-1]

    async def _page(self, key: ThreadKey, beginning: str, after: str | None, limit: int) -> tuple[str, ...]:
        return await retried(lambda: self._store.list_documents(key, prefix=beginning, after=after, limit=limit))

    async def _writes(self, key: ThreadKey, checkpoint: str) -> list[tuple[StoredWrite, Typed]]:
        name = names.writes_name(checkpoint)
        writes = await self._get(key, name, list[StoredWrite]) or []
        writes.sort(key=lambda write: (write.path, write.task, write.at))
        values = await _together(writes, lambda write: self._value(key, write))
        # A missing value belongs to a write that another writer replaced or deleted in the meantime.
        return [(write, value) for write, value in zip(writes, values, strict=True) if value is not None]

    async def _value(self, key: ThreadKey, write: StoredWrite) -> Typed | None:
        return await self._get(key, write.elsewhere, Typed) if write.elsewhere else write.value

    async def _get(self, key: ThreadKey, name: str, kind: type[T]) -> T | None:
        return _decoded(await retried(lambda: get_record(self._store, key, name)), kind, key, name)

    # Writing

    async def put(
        self, key: ThreadKey, stored: StoredCheckpoint, values: Mapping[str, Callable[[], Typed]], new: Collection[str]
    ) -> None:
        """Store a checkpoint; the last of concurrent writers of the same one wins.

        Args:
            key: The thread.
            stored: The checkpoint, with a name for the blob of each channel in ``values``.
            values: Return the values of channels. Not called for a value that is already stored.
            new: The channels with a version that was made with this checkpoint.
        """

        async def write(channel: str) -> None:
            name = stored.blobs[channel]
            if channel in new or not await self._is_stored(key, name):
                await self._put(key, name, values[channel]())

        await _together(values, write)
        await self._put(key, stored.name, stored)
        self._note(key, stored)
        if stored.parent is None or not stored.blobs or set(stored.blobs) <= set(new):
            return
        # Values that the former checkpoint has too are not deleted as long as one of the two exists. If that one was
        # deleted before this one existed, they may be gone: then this one holds them itself.
        parent = names.checkpoint_name(stored.namespace, stored.parent)
        if await self.describe(key, parent) is None:
            held = {**stored.small, **{channel: make() for channel, make in values.items()}}
            stored = msgspec.structs.replace(stored, small=held)
            await self._put(key, stored.name, stored)
            self._note(key, stored)

    async def put_writes(self, key: ThreadKey, checkpoint: str, writes: Sequence[StoredWrite]) -> None:
        """Store pending writes of a checkpoint, all or none of them. Concurrent calls share one change of the record.

        The first write of a place stays, and a repeated one changes nothing. A place below 0 takes the last one.
        """
        placed = [await self._placed(key, write) for write in writes]
        loop = asyncio.get_running_loop()
        queue = self._queues.get(loop)
        if queue is None:
            queue = self._queues[loop] = Coalescer(_add_all, key=lambda each: (each.key, each.name))
        await queue.submit(_Writes(self._store, key, names.writes_name(checkpoint), placed))

    async def _placed(self, key: ThreadKey, write: StoredWrite) -> StoredWrite:
        if write.value is None or len(write.value.data) <= _INLINE_BYTES:
            return write
        name = names.value_name()
        await self._put(key, name, write.value)
        return msgspec.structs.replace(write, value=None, elsewhere=name)

    async def _put(self, key: ThreadKey, name: str, value: object) -> None:
        data = msgspec.json.encode(value)
        await retried(lambda: put_record(self._store, key, name, data))

    async def _is_stored(self, key: ThreadKey, name: str) -> bool:
        return (key, name) in self._known or await self._get(key, name, Typed) is not None

    def _note(self, key: ThreadKey, stored: StoredCheckpoint) -> None:
        """Remember which values are stored, so that the next checkpoint need not look."""
        for channel, name in stored.blobs.items():
            self._known.pop((key, name), None)
            if channel not in stored.small:
                self._known[key, name] = None
        while len(self._known) > _MOST_KNOWN:
            self._known.popitem(last=False)

    # Deleting and copying

    async def copy(self, source: ThreadKey, target: ThreadKey) -> None:
        """Copy all records. Checkpoints come last, the oldest first, so that each is complete when it appears."""
        for beginning in (names.BLOBS, names.VALUES, names.WRITES, names.CHECKPOINTS):
            found = [name async for name in self.listed(source, beginning)]
            for name in reversed(found):
                data = await self._get(source, name, msgspec.Raw)
                if data is not None:
                    await self._put(target, name, data)

    async def delete_all(self, key: ThreadKey) -> None:
        """Delete all records; the thread and its messages stay."""
        for beginning in (names.CHECKPOINTS, names.WRITES, names.PREFIX):
            await self._delete(key, [name async for name in self.listed(key, beginning)])

    async def delete_where(self, key: ThreadKey, is_unwanted: Callable[[StoredCheckpoint], bool]) -> None:
        """Delete checkpoints with their writes and with the values that no other one refers to."""
        unwanted: list[StoredCheckpoint] = []
        async for name in self.listed(key, names.CHECKPOINTS):
            found = await self.describe(key, name)
            if found is not None and is_unwanted(found):
                unwanted.append(found)
        if unwanted:
            await self._drop(key, unwanted)

    async def keep_latest(self, key: ThreadKey) -> None:
        """Keep the newest checkpoint of each namespace, and those that its values depend on."""
        kept: set[str] = set()
        unwanted: list[StoredCheckpoint] = []
        namespace = None
        async for name in self.listed(key, names.CHECKPOINTS):
            found = await self.describe(key, name)
            if found is None:
                continue
            if found.namespace != namespace:
                namespace = found.namespace
                kept |= await self._needed(key, found)
            if name not in kept:
                unwanted.append(found)
        await self._drop(key, unwanted)

    async def _needed(self, key: ThreadKey, newest: StoredCheckpoint) -> set[str]:
        needed = {newest.name}
        missing, at = set(newest.delta) - newest.channels, newest
        while missing and at.parent is not None:
            older = await self.describe(key, names.checkpoint_name(at.namespace, at.parent))
            if older is None or older.name in needed:
                break
            needed.add(older.name)
            missing -= older.channels
            at = older
        return needed

    async def _drop(self, key: ThreadKey, unwanted: Sequence[StoredCheckpoint]) -> None:
        # The checkpoints first: a checkpoint that can be found is complete.
        await self._delete(key, [each.name for each in unwanted])
        for each in unwanted:
            writes = names.writes_name(each.name)
            stored = await self._get(key, writes, list[StoredWrite]) or []
            await self._delete(key, [*(write.elsewhere for write in stored if write.elsewhere), writes])
        dropped = {blob for each in unwanted for blob in each.blobs.values()}
        in_use: set[str] = set()
        async for name in self.listed(key, names.CHECKPOINTS):
            in_use |= await self._referred(key, name)
        for beginning in (names.BLOBS, names.VALUES):
            orphans = [name async for name in self.listed(key, beginning) if name not in in_use]
            await self._delete(key, [name for name in orphans if name in dropped or await self._is_old(key, name)])

    async def _referred(self, key: ThreadKey, checkpoint: str) -> set[str]:
        found = await self.describe(key, checkpoint)
        writes = await self._get(key, names.writes_name(checkpoint), list[StoredWrite]) or []
        return {*(found.blobs.values() if found is not None else ()), *(write.elsewhere for write in writes)}

    async def _is_old(self, key: ThreadKey, name: str) -> bool:
        """Return whether no writer can still be about to refer to a value."""
        document = await retried(lambda: self._store.get_document(key, name))
        return document is not None and document.updated_ms < time.time() * 1000 - _ORPHAN_MS

    async def _delete(self, key: ThreadKey, doomed: Sequence[str]) -> None:
        for name in doomed:
            self._known.pop((key, name), None)
        await _together(doomed, lambda name: retried(lambda: delete_record(self._store, key, name)))


async def _add_all(batch: Sequence[_Writes]) -> Sequence[EverthreadError | None]:
    store, key, name, _ = batch[0]
    superseded: set[str] = set()

    def add(data: bytes | None) -> bytes:
        before = _decoded(data, list[StoredWrite], key, name) or []
        by_place = {write.place: write for write in before}
        added = [write for each in batch for write in each.writes]
        for write in added:
            if write.at < 0 or write.place not in by_place:
                by_place[write.place] = write
        superseded.clear()
        superseded.update({write.elsewhere for write in (*before, *added)})
        superseded.difference_update({"", *(write.elsewhere for write in by_place.values())})
        return msgspec.json.encode(list(by_place.values()))

    await retried(lambda: change_record(store, key, name, add))
    await _together(superseded, lambda value: retried(lambda: delete_record(store, key, value)))
    return [None] * len(batch)


def _decoded(data: bytes | None, kind: type[T], key: ThreadKey, name: str) -> T | None:
    try:
        return None if data is None else msgspec.json.decode(data, type=kind)
    except msgspec.DecodeError:
        raise CorruptRecordError(f"The record {name!r} of {key} is none of this release.") from None


async def _together(items: Iterable[S], work: Callable[[S], Awaitable[T]]) -> list[T]:
    """Return the results of concurrent calls, some at a time, in the order of the items."""
    waiting, done = list(items), list[T]()
    for at in range(0, len(waiting), _AT_ONCE):
        done.extend(await asyncio.gather(*map(work, waiting[at : at + _AT_ONCE])))
    return done
