"""The types of public names, as a user's type checker sees them. Checked by ``make check``; never run."""

# pyright: strict, reportUnnecessaryTypeIgnoreComment=true, reportUnusedCallResult=false
from __future__ import annotations

from datetime import datetime, timedelta
from typing import assert_type

from everthread import (
    Appended,
    ConflictError,
    Document,
    Message,
    MessagePage,
    NewMessage,
    Page,
    Retention,
    SearchHit,
    Store,
    SupportsSearch,
    Thread,
    ThreadKey,
    Truncated,
    View,
    capability,
    new_message,
    open_store,
    read_all,
    view,
)
from everthread.wrappers.per_loop import PerLoop
from everthread.wrappers.redacted import Redacted
from everthread.wrappers.traced import Traced


async def stores() -> None:
    assert_type(open_store("memory:"), Store)
    async with open_store("memory:", retention=Retention(max_messages=10)) as store:
        assert_type(store, Store)
        assert_type(store.tenant("acme"), Store)
    Traced(Redacted(open_store("memory:"), lambda text: text))
    PerLoop(lambda: open_store("memory:"))
    PerLoop(open_store("memory:"))  # pyright: ignore[reportArgumentType]


async def messages(store: Store, key: ThreadKey) -> None:
    assert_type(new_message({"role": "user", "content": "Hello"}), NewMessage)
    assert_type(await store.append(key, [NewMessage(b"1")], append_id="a", expected_seq=0), Appended)
    await store.append(key, [{"role": "user"}])  # pyright: ignore[reportArgumentType]
    await store.append("trip", [NewMessage(b"1")])  # pyright: ignore[reportArgumentType]
    page = await store.read(key, start=0, stop=10, limit=5)
    assert_type(page, MessagePage)
    assert_type(page[0], Message)
    assert_type(page[0].created_at, datetime | None)
    assert_type([message.seq for message in page], list[int])
    assert_type(await store.read_last(key, 20), MessagePage)
    assert_type(view(page[0]), View)
    assert_type(await store.truncate(key, stop=5), Truncated)
    async for message in read_all(store, key):
        assert_type(message, Message)


async def threads(store: Store, key: ThreadKey) -> None:
    assert_type(await store.get_thread(key), Thread | None)
    page = await store.list_threads("acme", limit=20)
    assert_type(page, Page[Thread])
    assert_type(page.cursor, str | None)
    assert_type(page.items[0].key.thread_id, str)
    own = Retention(max_messages=500, expire_after=timedelta(days=90))
    assert_type(await store.update_thread(key, title="Rome", metadata={"a": 1}, retention=own), Thread)
    await store.update_thread(key, retention="inherit")
    await store.update_thread(key, retention="keep")  # pyright: ignore[reportArgumentType]
    assert_type(await store.delete_thread(key), bool)
    assert_type(await store.delete_tenant("acme"), int)


async def documents(store: Store, key: ThreadKey) -> None:
    assert_type(await store.get_document(key, "note"), Document | None)
    assert_type(await store.put_document(key, "note", b"{}", expected_revision=0), Document)
    assert_type(await store.list_documents(key), tuple[str, ...])


async def abilities_and_errors(store: Store) -> None:
    searchable = capability(store, SupportsSearch)
    assert_type(searchable, SupportsSearch | None)
    if searchable is not None:
        assert_type(await searchable.search("", "rome"), Page[SearchHit])
    try:
        await store.append(ThreadKey("trip"), [NewMessage(b"1")], expected_seq=3)
    except ConflictError as error:
        assert_type(error.actual, int)
