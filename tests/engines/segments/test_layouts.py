"""Objects that release 0.1.0 wrote, and two releases that work on one store at the same time."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from everthread import SchemaError, ThreadKey
from everthread.engines._segments import records
from everthread.engines.objects import ObjectStore
from tests.engines.segments.scripts import KEY, appending, message, opened
from tests.engines.storages import MemoryStorage

RECORDED: dict[str, Any] = json.loads((Path(__file__).parent / "recorded_0_1_0.json").read_text())
UNDONE = ThreadKey("undone")


def recorded() -> MemoryStorage:
    """A thread of layout 1, and one of layout 2, in which turns were undone before they were joined."""
    storage = MemoryStorage()
    for path, data in RECORDED["objects"].items():
        folder, _, name = path.rpartition("/")
        storage.objects[folder, name] = (data.encode(), "0", 0.0)
    return storage


async def messages(store: ObjectStore, key: ThreadKey) -> list[list[object]]:
    return [[message.seq, message.payload.decode()] for message in await store.read(key)]


@pytest.mark.parametrize("key", [KEY, UNDONE], ids=["layout 1", "layout 2"])
async def test_recorded_objects_are_read_continued_and_joined(key: ThreadKey) -> None:
    storage, expected = recorded(), RECORDED["messages"][key.thread_id]
    async with opened(storage) as store:
        assert await messages(store, key) == expected
        thread = await store.get_thread(key)
        assert thread is not None
        assert (await store.list_threads(key.tenant)).items == (thread,)
        appended = await store.append(key, [message(1)])
        assert appended.first_seq == thread.next_seq
        await store.compact(key)
    async with opened(storage) as store:
        assert (await messages(store, key))[:-1] == expected


async def test_recorded_companions_are_read() -> None:
    async with opened(recorded()) as store:
        thread, document = await store.get_thread(KEY), await store.get_document(KEY, "a document")
        assert thread is not None
        assert document is not None
        assert (thread.title, thread.metadata["big"], document.value) == ("t", "x" * 5000, b"2")
        for number in (22, 30):
            repeated = await store.append(KEY, [message(0)], append_id=str(number))
            assert repeated.replayed


async def test_a_release_without_layout_two_shares_a_store(monkeypatch: pytest.MonkeyPatch) -> None:
    # Only the version that it knows makes it the former release here.
    storage = recorded()
    async with opened(storage) as newer, opened(storage) as older:
        for number in range(40, 46):
            with monkeypatch.context() as release:
                if number % 2:
                    release.setattr(records, "LAYOUT_WITH_HOLES", records.LAYOUT)
                await appending(number)(older if number % 2 else newer)
        assert await messages(newer, KEY) == await messages(older, KEY)
        stored = dict(storage.objects)
        monkeypatch.setattr(records, "LAYOUT_WITH_HOLES", records.LAYOUT)
        for call in (older.read(UNDONE), older.append(UNDONE, [message(0)]), older.delete_thread(UNDONE)):
            with pytest.raises(SchemaError, match="update everthread"):
                await call
        assert storage.objects == stored
