"""Keys that release 0.1.0 wrote are read, continued and repaired."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import redis.asyncio as redis_py

from everthread import Retention, Store, ThreadKey, new_message, open_store
from everthread.capabilities import SupportsReconciling, required_capability
from tests.servers import Server

RECORDED: dict[str, Any] = json.loads((Path(__file__).parent / "recorded_0_1_0.json").read_text())
"""Binary strings are in Latin-1. Each thread has another schema number, or a list that another program pushed to."""

KEYS = [
    ThreadKey("plain"),
    ThreadKey("own retention", "a tenant"),
    ThreadKey("scattered"),
    ThreadKey("other {program}"),
]
TURN = [new_message({"role": "user", "content": "new"})]


@pytest.fixture
async def store(server: Server) -> Any:
    async with redis_py.Redis(port=server.port, db=9, encoding="latin-1") as client:
        await client.flushdb()
        for name, values in RECORDED["keys"].items():
            ((kind, content),) = values.items()
            if kind == "list":
                await client.rpush(name, *content)
            elif kind == "hash":
                await client.hset(name, mapping=dict(content))
            else:
                await client.zadd(name, dict(content))
    async with open_store(f"redis://127.0.0.1:{server.port}/9?prefix=recorded") as store:
        yield store


async def messages(store: Store, key: ThreadKey) -> list[list[object]]:
    return [[m.seq, m.turn, m.format, m.payload.decode()] for m in await store.read(key)]


async def test_recorded_threads_are_read_and_continued(store: Store) -> None:
    for tenant in ("", "a tenant"):
        listed = {thread.key for thread in await store.list_threads(tenant)}
        assert listed == {key for key in KEYS if key.tenant == tenant}
        assert await required_capability(store, SupportsReconciling).reconcile(tenant) == ()
    for key in KEYS:
        expected = RECORDED["messages"][key.thread_id]
        assert await messages(store, key) == expected
        thread = await store.get_thread(key)
        assert thread is not None
        # Another append ID than those of the recorded turns.
        appended = await store.append(key, TURN, append_id="new")
        assert appended.first_seq == thread.next_seq
        kept = expected if thread.retention is None else expected[1:]
        assert (await messages(store, key))[:-1] == kept


async def test_recorded_companions_are_read(store: Store) -> None:
    plain, own, scattered, _ = KEYS
    thread, document = await store.get_thread(plain), await store.get_document(plain, "a document")
    assert thread is not None
    assert document is not None
    assert (thread.title, thread.metadata, document.value) == ("a title", {"a": ["é", 1]}, b"2")
    limited = await store.get_thread(own)
    assert limited is not None
    assert isinstance(limited.retention, Retention)
    assert limited.retention.max_messages == 2
    for key, append_id in ((plain, "0"), (plain, "5"), (own, "0"), (scattered, "29")):
        assert (await store.append(key, TURN, append_id=append_id)).replayed


async def test_recorded_links_hold(store: Store) -> None:
    key = KEYS[0]
    call = next(seq for seq, _, _, payload in RECORDED["messages"]["plain"] if '"c1"' in payload)
    await store.truncate(key, start=call + 1)
    assert [seq for seq, *_ in await messages(store, key)] == [call + 3]
    answer = new_message({"role": "tool", "tool_call_id": "c2", "content": "late"})
    await store.append(key, [answer, *TURN])
    await store.truncate(key, start=call + 4)
    assert [seq for seq, *_ in await messages(store, key)] == [call + 5]
