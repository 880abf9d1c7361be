"""Tenants: a view reaches only its own, and erasing leaves nothing but a receipt."""

from __future__ import annotations

import asyncio
import json
import sqlite3
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, TypeVar

import pytest
import redis as redis_client
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from everthread import (
    ConflictError,
    InvalidIdentifierError,
    Retention,
    Store,
    SupportsSearch,
    ThreadKey,
    open_store,
)
from everthread.engines.memory import MemoryStore
from everthread.errors import OutcomeUnknownError
from everthread.listing import usage
from everthread.model import Page, Thread
from everthread.operations.erase import Sums, erase_tenant
from everthread.testing import Clock, Fault, FaultyStore
from everthread.testing.strategies import identifiers, look_alikes
from everthread.wrappers import ForwardingStore
from everthread.wrappers.encryption.encrypted import Encrypted
from everthread.wrappers.forwarding import TenantStore
from tests.operations.talks import KEY, kept, said, talk, texts, turn
from tests.wrappers.sealed_places import KEYRING

T = TypeVar("T")
Call = Callable[[Store, ThreadKey], Awaitable[object]]

CALLS: dict[str, Call] = {
    "append": lambda store, key: store.append(key, [said("user", "x")]),
    "check_append": lambda store, key: store.check_append(key, [said("user", "x")]),
    "read": lambda store, key: store.read(key),
    "read_last": lambda store, key: store.read_last(key, 5),
    "truncate": lambda store, key: store.truncate(key, stop=0),
    "get_thread": lambda store, key: store.get_thread(key),
    "update_thread": lambda store, key: store.update_thread(key, title="x"),
    "delete_thread": lambda store, key: store.delete_thread(key),
    "get_document": lambda store, key: store.get_document(key, "d"),
    "put_document": lambda store, key: store.put_document(key, "d", b"1"),
    "delete_document": lambda store, key: store.delete_document(key, "d"),
    "list_documents": lambda store, key: store.list_documents(key),
    "list_threads": lambda store, key: store.list_threads(key.tenant),
    "delete_tenant": lambda store, key: store.delete_tenant(key.tenant),
}


def test_every_call_of_a_store_is_tried() -> None:
    others = {"supports", "open", "aclose", "location", "tenant", "abandon", "erase_remains"}  # which name no thread
    assert set(CALLS) == {name for name in vars(Store) if not name.startswith("_")} - others


@pytest.mark.parametrize("name", CALLS)
async def test_a_view_refuses_the_keys_of_other_tenants(name: str) -> None:
    store = MemoryStore()
    await talk(store, ThreadKey("trip", "other"))
    before = await kept(store, ThreadKey("trip", "other"))
    for tenant in ("acme", ""):
        with pytest.raises(InvalidIdentifierError, match="Only tenant"):
            await CALLS[name](store.tenant(tenant), ThreadKey("trip", "other"))
    assert await kept(store, ThreadKey("trip", "other")) == before


async def test_within_a_view_the_default_tenant_is_its_own(store: Store) -> None:
    view = store.tenant("acme")
    await talk(view)
    assert texts(await kept(view)) == texts(await kept(store, ThreadKey("trip", "acme")))
    assert await store.get_thread(KEY) is None
    assert [thread.key for thread in await view.list_threads()] == [ThreadKey("trip", "acme")]
    assert await view.delete_tenant("") == 1


async def test_a_view_does_all_that_a_store_does_for_its_tenant(store: Store) -> None:
    view = store.tenant("acme")
    await view.append(KEY, turn(0), append_id="a", expected_seq=0, default_title="Rome")
    assert (await view.append(KEY, turn(0), append_id="a")).replayed
    await view.append(KEY, turn(1), retention=Retention(max_messages=4))
    assert texts((await view.read_last(KEY, 1)).messages) == ["answer 1"]
    assert (await view.truncate(KEY, stop=7)).next_seq >= 7
    assert (await view.update_thread(KEY, metadata={"a": 1})).title == "Rome"
    await view.put_document(KEY, "d", b"1")
    document = await view.get_document(KEY, "d")
    assert document is not None
    assert await view.list_documents(KEY) == ("d",)
    assert await view.delete_document(KEY, "d")
    assert await view.delete_thread(KEY)


async def test_a_view_keeps_the_conditions_and_the_retention_of_single_threads(store: Store) -> None:
    view = store.tenant("acme")
    await talk(view)
    for call in (view.truncate(KEY, stop=4, expected_seq=8), view.delete_thread(KEY, expected_seq=8)):
        with pytest.raises(ConflictError) as conflict:
            await call
        assert conflict.value.actual == 12
    changed = await view.update_thread(KEY, retention=Retention(max_messages=4))
    assert changed.retention == Retention(max_messages=4)
    await view.append(KEY, turn(3))
    assert texts(await kept(view))[0] == "question 3"
    assert await view.delete_thread(KEY, expected_seq=16)


async def test_a_view_of_a_view_stays_within_it(store: Store) -> None:
    view = store.tenant("acme")
    assert view.tenant("").tenant("acme") is view
    with pytest.raises(InvalidIdentifierError):
        view.tenant("other")


async def test_a_view_tells_its_tenant_and_never_closes_the_store() -> None:
    class Watched(MemoryStore):
        is_closed = False

        async def aclose(self) -> None:
            self.is_closed = True
            await super().aclose()

    async with Watched() as store:
        async with store.tenant("acme") as view:
            assert "acme" in view.location
            assert "acme" in repr(view)
        await view.aclose()
        assert not store.is_closed
    assert store.is_closed


async def test_an_invalid_key_or_tenant_is_refused(store: Store) -> None:
    with pytest.raises(InvalidIdentifierError):
        await store.tenant("acme").read("trip")  # type: ignore[arg-type]
    for tenant in (None, 7, "x" * 600, "\ud800"):
        with pytest.raises(InvalidIdentifierError):
            store.tenant(tenant)  # type: ignore[arg-type]


def test_a_view_can_search_exactly_if_its_store_can(tmp_path: Path) -> None:
    for url in ("memory:", f"sqlite:///{tmp_path}/a.db", "postgresql://127.0.0.1/x", "redis://127.0.0.1/0"):
        store = open_store(url)
        assert store.tenant("acme").supports(SupportsSearch) is store.supports(SupportsSearch)


pairs = st.one_of(look_alikes(), st.tuples(*[st.builds(ThreadKey, identifiers(), identifiers())] * 2))


def test_no_pair_of_tenant_and_thread_reaches_anothers_data(any_url: str) -> None:
    with asyncio.Runner() as runner:
        store = open_store(any_url)

        @given(pairs)
        @settings(max_examples=150, deadline=None)
        def look(pair: tuple[ThreadKey, ThreadKey]) -> None:
            assume(pair[0].tenant != pair[1].tenant)
            runner.run(_look_for(store, *pair))

        try:
            look()
        finally:
            runner.run(store.aclose())


async def _look_for(store: Store, one: ThreadKey, other: ThreadKey) -> None:
    """Writes as one tenant, looks and deletes as another."""
    await store.append(one, [said("user", "secret")], append_id="a", default_title="secret")
    await store.put_document(one, "d", b'"secret"')
    view = store.tenant(other.tenant)
    for key in (other, ThreadKey(other.thread_id), ThreadKey(one.thread_id)):
        await _find_nothing(view, key)
    assert not (await view.append(other, [said("user", "mine")], append_id="a")).replayed
    assert await view.delete_tenant("") == 1
    assert texts(await kept(store, one)) == ["secret"]
    assert await store.list_documents(one) == ("d",)
    assert await store.delete_tenant(one.tenant) == 1


async def _find_nothing(view: TenantStore, key: ThreadKey) -> None:
    assert await view.get_thread(key) is None
    assert await kept(view, key) == []
    assert (await view.read_last(key, 9)).messages == ()
    assert await view.get_document(key, "d") is None
    assert await view.list_documents(key) == ()
    assert not await view.delete_thread(key)
    assert not await view.delete_document(key, "d")
    assert (await view.list_threads()).items == ()


# Usage


async def test_threads_that_move_past_the_listing_are_counted_once() -> None:
    class Moves(ForwardingStore):
        is_done = False

        async def list_threads(self, tenant: str = "", **options: Any) -> Page[Thread]:
            page = await super().list_threads(tenant, **options)
            if not self.is_done:
                self.is_done = True
                clock.advance(1)
                for name in ("0", "4"):
                    await self._inner.append(ThreadKey(name, tenant), [said("user", "x")])
            return page

    clock = Clock()
    store = MemoryStore(clock=clock)
    for number in range(5):
        await talk(store, ThreadKey(str(number), "acme"), turns=1)
        clock.advance(1)
    found = await usage(Moves(store), "acme", page_size=2)
    # Thread 4 was listed before it grew.
    assert (found.threads, found.messages) == (5, 21)


async def test_many_threads_of_one_time_come_to_an_end() -> None:
    store = MemoryStore(clock=lambda: 1_700_000_000.0)
    for number in range(5):
        await store.append(ThreadKey(str(number), "acme"), [said("user", "x")])
    assert (await usage(store, "acme", page_size=2)).threads == 5


# Erasing


async def test_a_receipt_has_counts_and_no_content(store: Store, tmp_path: Path) -> None:
    names = [f"thread-{number}" for number in range(5)]
    for name in names:
        await talk(store, ThreadKey(name, "acme"), turns=2)
    await store.put_document(ThreadKey(names[0], "acme"), "summary", b'"they like Rome"')
    await talk(store, ThreadKey("thread-0", "acme2"))
    size = sum([thread.size for thread in await store.list_threads("acme")])
    receipt = tmp_path / "receipt.jsonl"
    erased = await erase_tenant(store, "acme", receipt)
    assert (erased.sums, erased.left) == (Sums(5, 40, size, 1), 0)
    assert (await store.list_threads("acme")).items == ()
    assert await store.get_document(ThreadKey(names[0], "acme"), "summary") is None
    assert len(await kept(store, ThreadKey("thread-0", "acme2"))) == 12
    text = receipt.read_text()
    counted, last = [json.loads(line) for line in text.splitlines()]
    assert (counted["kind"], last["kind"]) == ("counted", "erased")
    assert counted["sums"] == last["sums"] == {"threads": 5, "messages": 40, "size": size, "documents": 1}
    assert not any(word in text for word in ("question", "sunny", "they like", "Rome", "thread-0"))


async def test_an_unreadable_record_does_not_stop_an_erasure(tmp_path: Path) -> None:
    inner = MemoryStore()
    store = Encrypted(inner, KEYRING)
    for name in ("whole", "spoilt"):
        await store.append(ThreadKey(name, "acme"), turn(0))
    await inner.append(ThreadKey("spoilt", "acme"), [said("user", "not sealed")])
    erased = await erase_tenant(store, "acme", tmp_path / "receipt.jsonl")
    assert (erased.sums.threads, erased.sums.messages, erased.left) == (2, 9, 0)
    assert len(await inner.list_threads("acme")) == 0


async def test_a_second_run_completes_a_failed_erasure_and_its_receipt(tmp_path: Path) -> None:
    inner, receipt = MemoryStore(), tmp_path / "receipt.jsonl"
    await talk(inner, ThreadKey("a", "acme"))
    with pytest.raises(OutcomeUnknownError):
        await erase_tenant(FaultyStore(inner, [Fault.FAIL_AFTER], calls=["delete_tenant"]), "acme", receipt)
    with receipt.open("ab") as file:
        file.write(b'{"kind":"era')
    await erase_tenant(inner, "acme", receipt)
    lines = [json.loads(line) for line in receipt.read_text().splitlines()]
    assert [(line["kind"], line["sums"]["threads"]) for line in lines] == [
        ("counted", 1),
        ("counted", 0),
        ("erased", 0),
    ]


async def test_threads_created_during_an_erasure_are_a_conflict(tmp_path: Path) -> None:
    class Late(MemoryStore):
        async def delete_tenant(self, tenant: str) -> int:
            deleted = await super().delete_tenant(tenant)
            await self.append(ThreadKey("late", tenant), [said("user", "x")])
            return deleted

    with pytest.raises(ConflictError, match="erase it again"):
        await erase_tenant(Late(), "acme", tmp_path / "receipt.jsonl")


async def test_nothing_of_an_erased_tenant_remains_in_the_storage(url: str, tmp_path: Path) -> None:
    async with open_store(url) as store:
        for number in range(3):
            key = ThreadKey(f"zebra-{number}", "acme-zebra")
            await talk(store, key)
            await store.put_document(key, "zebra", b'"zebra"')
        await talk(store)
        assert _traces(url, "zebra")
        await erase_tenant(store, "acme-zebra", tmp_path / "receipt.jsonl")
        assert _traces(url, "zebra") == []


def _traces(url: str, word: str) -> list[str]:
    """Keys or rows in the storage itself that hold the word."""
    if url.startswith("redis"):
        with redis_client.Redis.from_url(url.partition("?")[0], decode_responses=True) as server:
            return [key for key in server.scan_iter() if word in key]
    with sqlite3.connect(url.removeprefix("sqlite:///")) as db:
        tables = [name for (name,) in db.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        return [str(row) for table in tables for row in db.execute(f"SELECT * FROM {table}") if word in str(row)]
