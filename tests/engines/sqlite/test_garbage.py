"""Rows of deleted and expired threads."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from pathlib import Path

from everthread import (
    NewMessage,
    Retention,
    ThreadKey,
)
from everthread.engines.sqlite import SqliteStore
from everthread.testing import (
    Clock,
)
from tests.engines.sqlite.database import KEY, look, tool_turn


async def test_a_deleted_thread_leaves_no_rows(tmp_path: Path) -> None:
    path = tmp_path / "x.db"
    async with SqliteStore(path, synchronous="normal") as store:
        await fill(store, "a", 1500)
        assert await store.delete_thread(KEY)
        assert rows_left(path) == {"threads": 0}


async def test_a_deleted_tenant_leaves_no_rows(tmp_path: Path) -> None:
    path = tmp_path / "x.db"
    async with SqliteStore(path, synchronous="normal") as store:
        await asyncio.gather(*(store.append(ThreadKey(str(n), "t"), tool_turn(n)) for n in range(1200)))
        await store.append(KEY, [NewMessage(b"1")])
        assert await store.delete_tenant("t") == 1200
        assert rows_left(path) == {"threads": 1, "messages": 1}


async def test_later_writes_delete_an_expired_thread_in_parts(tmp_path: Path) -> None:
    path, clock = tmp_path / "x.db", Clock()
    async with SqliteStore(path, synchronous="normal", clock=clock) as store:
        await fill(store, "a", 1500)
        await store.append(KEY, tool_turn(0), retention=Retention(expire_after=timedelta(seconds=5)))
        clock.advance(6)
        left = []
        while not left or left[-1] > 1:
            await store.append(ThreadKey("other"), [NewMessage(b"1")], retention=Retention(max_messages=1))
            left.append(look(path, "SELECT count(*) FROM messages")[0][0])
            assert len(left) < 10
        assert left[0] > 500, "all at once: the append that came first waited for it"
        assert rows_left(path) == {"threads": 1, "messages": 1}


async def test_a_thread_begun_after_expiry_sees_nothing_of_the_old(tmp_path: Path) -> None:
    clock = Clock()
    async with SqliteStore(tmp_path / "x.db", synchronous="normal", clock=clock) as store:
        await fill(store, "a", 3000)
        await store.append(KEY, tool_turn(0), retention=Retention(expire_after=timedelta(seconds=5)))
        clock.advance(6)
        assert (await store.append(KEY, tool_turn(1), append_id="1")).first_seq == 0
        assert [message.seq for message in await store.read(KEY)] == [0, 1, 2, 3]
        assert await store.list_documents(KEY) == ()


async def fill(store: SqliteStore, thread_id: str, messages: int) -> None:
    key = ThreadKey(thread_id)
    for number in range(0, messages, 20):
        await store.append(key, tool_turn(number) * 5, append_id=str(number))
    await store.append(key, [NewMessage(b"1", calls=("open",))])
    await store.put_document(key, "summary", b"{}")
    await store.update_thread(key, metadata={"a": 1})


def rows_left(path: Path) -> dict[str, int]:
    tables = [str(name) for (name,) in look(path, "SELECT name FROM sqlite_master WHERE type = 'table'")]
    # Of the full-text index only what it holds counts; its own tables are never empty.
    own = [name for name in tables if "sqlite" not in name and not name.startswith("message_words_")]
    counts = {name: look(path, f"SELECT count(*) FROM {name}")[0][0] for name in own}
    return {name: int(str(n)) for name, n in counts.items() if n or name == "threads"}
