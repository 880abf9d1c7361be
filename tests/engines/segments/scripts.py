"""What tests of the segment log do to a thread, step by step, and what they see of it afterwards."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any

from everthread.capabilities import SupportsRewrite, capability
from everthread.contract import Store
from everthread.engines._segments.log import Fence
from everthread.engines._segments.storage import Storage
from everthread.engines.objects import ObjectStore
from everthread.errors import (
    ConflictError,
)
from everthread.model import NewMessage, Retention, Rewrite, ThreadKey
from tests.engines.storages import KilledError, MemoryStorage, WatchedStorage

KEY = ThreadKey("a thread", "a tenant")
AT_ONCE = Fence(trust_s=0, grace_s=-1, listing_s=0)
"""Remembers nothing and removes at once: for one writer at a time only."""

Call = Callable[[Store], Awaitable[object]]


def message(number: int, size: int = 20, **links: Any) -> NewMessage:
    return NewMessage(b'"%s"' % str(number).zfill(size).encode(), **links)


def appending(number: int, count: int = 2, **options: Any) -> Call:
    turn = [message(number * 100 + at) for at in range(count)]
    return lambda store: store.append(KEY, turn, append_id=str(number), **options)


async def compacting(store: Store) -> None:
    if isinstance(store, ObjectStore):
        await store.compact(KEY)


def tool_turns() -> list[Call]:
    """A call and its result in turns of their own, so that they come to lie in different objects."""
    call, result = message(1, calls=("c",)), message(2, results=("c",))
    return [
        lambda store: store.append(KEY, [message(0), call], append_id="call"),
        lambda store: store.append(KEY, [message(0)], append_id="between"),
        lambda store: store.append(KEY, [result, message(0)], append_id="result"),
    ]


SCRIPT: list[Call] = [
    *(appending(number) for number in range(3)),
    lambda store: store.update_thread(KEY, title="t", metadata={"big": "x" * 5000}, expected_revision=0),
    *tool_turns(),
    compacting,
    lambda store: store.put_document(KEY, "a document", b"1", expected_revision=0),
    *(appending(number, retention=Retention(max_messages=9)) for number in range(10, 14)),
    lambda store: store.truncate(KEY, stop=18),
    compacting,
    lambda store: store.put_document(KEY, "a document", b"2", expected_revision=1),
    *(appending(number) for number in range(20, 23)),
    lambda store: store.truncate(KEY, start=13),
    compacting,
]

DELETING: list[Call] = [
    *(appending(number) for number in range(3)),
    lambda store: store.put_document(KEY, "d", b"1", expected_revision=0),
    compacting,
    lambda store: store.delete_thread(KEY),
    appending(4),
    lambda store: store.put_document(KEY, "e", b"1", expected_revision=0),
]


def rewriting(*numbers: int) -> Call:
    """Puts other payloads in the place of the messages with these numbers, wherever they are."""

    async def call(store: Store) -> None:
        assert capability(store, SupportsRewrite)
        wanted = {message(number).payload: b'"new %d"' % number for number in numbers}
        page = await store.read(KEY)
        await store.rewrite(KEY, [Rewrite(m.seq, m.payload, wanted[m.payload]) for m in page if m.payload in wanted])

    return call


REWRITING: list[Call] = [
    *(appending(number) for number in range(1, 4)),
    *tool_turns(),
    rewriting(100, 2),
    compacting,
    *(appending(number, retention=Retention(max_messages=11)) for number in range(10, 13)),
    rewriting(101, 201, 300, 1, 1001, 1100, 1200),
    *(appending(number) for number in range(20, 22)),
    lambda store: store.truncate(KEY, stop=18),
    compacting,
]


async def observed(store: Store) -> object:
    """All that can be seen of the thread."""
    thread = await store.get_thread(KEY)
    names = await store.list_documents(KEY)
    documents = [await store.get_document(KEY, name) for name in names]
    listed = (await store.list_threads(KEY.tenant)).items
    return thread, tuple(await store.read(KEY)), documents, listed


async def repeated(store: Store, call: Call) -> None:
    """Does again what may have been done already."""
    with contextlib.suppress(ConflictError):
        await call(store)


@contextlib.asynccontextmanager
async def opened(storage: Storage, **options: Any) -> AsyncIterator[ObjectStore]:
    async with ObjectStore(storage, clock=lambda: 1_000_000.0, **options) as store:
        yield store


async def run(store: Store, script: Sequence[Call]) -> int:
    """Runs a script until it is killed; returns how many calls were finished."""
    for done, call in enumerate(script):
        try:
            await call(store)
        except KilledError:
            return done
    return len(script)


async def operations_of(script: Sequence[Call]) -> int:
    storage = WatchedStorage(MemoryStorage())
    async with opened(storage, fence=AT_ONCE) as store:
        await run(store, script)
    return storage.calls.total()


def payloads_in(storage: MemoryStorage) -> bytes:
    return b"".join(data for data, _, _ in storage.objects.values())
