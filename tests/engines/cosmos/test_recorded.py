"""Items that release 0.1.0 wrote are read, continued and joined."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from everthread import ThreadKey, new_message, open_store
from everthread.engines.cosmos import CosmosStore
from tests.object_servers import cosmos_url
from tests.servers import Server

RECORDED: dict[str, Any] = json.loads((Path(__file__).parent / "recorded_0_1_0.json").read_text())
"""With small limits for items, so that an entry and a document consist of parts."""

PLAIN, OWN = ThreadKey("plain"), ThreadKey("own retention", "a tenant")
TURN = [new_message({"role": "user", "content": "new"})]


@pytest.fixture
async def store(plain_cosmos_emulator: Server) -> AsyncIterator[CosmosStore]:
    url = f"{cosmos_url(plain_cosmos_emulator, 'http')}&discover=false"
    async with open_store(url) as maker:
        assert isinstance(maker, CosmosStore)
        for item in RECORDED["items"]:
            await maker.storage.container.create_item(item)
    async with open_store(url) as store:
        assert isinstance(store, CosmosStore)
        yield store


async def messages(store: CosmosStore, key: ThreadKey) -> list[list[object]]:
    return [[m.seq, m.turn, m.format, m.payload.decode()] for m in await store.read(key)]


async def test_recorded_items_are_read_continued_and_joined(store: CosmosStore) -> None:
    for key in (PLAIN, OWN):
        expected = RECORDED["messages"][key.thread_id]
        assert await messages(store, key) == expected
        thread = await store.get_thread(key)
        assert thread is not None
        assert (await store.list_threads(key.tenant)).items == (thread,)
        assert await store.reconcile(key.tenant) == ()
        # The thread with its own retention keeps two messages.
        kept = expected if thread.retention is None else expected[1:]
        assert (await store.append(key, TURN)).first_seq == thread.next_seq
        await store.compact(key)
        assert (await messages(store, key))[:-1] == kept


async def test_recorded_companions_are_read(store: CosmosStore) -> None:
    thread, document = await store.get_thread(PLAIN), await store.get_document(PLAIN, "a document")
    assert thread is not None
    assert document is not None
    assert (thread.title, thread.metadata, len(document.value)) == ("a title", {"a": ["é", 1]}, 7002)
    # The first is in a snapshot.
    for append_id in ("0", "10"):
        assert (await store.append(PLAIN, TURN, append_id=append_id)).replayed
