"""No choice of identifiers reaches another's data."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
import pytest
from hypothesis import strategies as st

from everthread.capabilities import SupportsTenantList, capability
from everthread.contract import Store
from everthread.errors import InvalidIdentifierError
from everthread.model import MessagePage, Retention, ThreadKey
from everthread.testing.guarantees._base import CALLS, KEY, READS, GuaranteeTests, document_of, for_examples, said
from everthread.testing.harness import Harness
from everthread.testing.machine import listed
from everthread.testing.strategies import look_alikes, thread_keys

PAIRS = [
    (ThreadKey("b:c", "a"), ThreadKey("c", "a:b")),
    (ThreadKey("a", ""), ThreadKey("a", "a")),
    (ThreadKey("a/b", ""), ThreadKey("b", "a")),
    (ThreadKey("b|c", "a"), ThreadKey("c", "a|b")),
    (ThreadKey("%3A", ""), ThreadKey(":", "")),
    (ThreadKey("*", ""), ThreadKey("a", "")),
    (ThreadKey("[ab]", ""), ThreadKey("a", "")),
    (ThreadKey("a", "*"), ThreadKey("a", "b")),
    (ThreadKey("a", "%"), ThreadKey("a", "b")),
    (ThreadKey("a_b", ""), ThreadKey("axb", "")),
    (ThreadKey("{a}b", ""), ThreadKey("{a}c", "")),
    (ThreadKey("}{", ""), ThreadKey("{}", "")),
    (ThreadKey("a\0b", ""), ThreadKey("a", "")),
    (ThreadKey("a ", ""), ThreadKey("a", "")),
    (ThreadKey("A", ""), ThreadKey("a", "")),
    (ThreadKey("é", ""), ThreadKey("e\u0301", "")),
    (ThreadKey("1", ""), ThreadKey("01", "")),
    (ThreadKey("1", "1"), ThreadKey("11", "")),
    (ThreadKey("x" * 512, ""), ThreadKey("x" * 511, "")),
    (ThreadKey("💾", "\U0010ffff"), ThreadKey("💾", "\ufeff")),
    (ThreadKey("a:meta", ""), ThreadKey("a", "")),
    (ThreadKey("a}:meta", ""), ThreadKey("a", "")),
]


async def seen_of(store: Store, key: ThreadKey) -> tuple[MessagePage, Any, Any, Any, Any, Any]:
    """Return all results of a store for a thread, each of a separate read."""
    return (
        await store.read(key),
        await store.read_last(key, 3),
        await store.get_thread(key),
        key in [thread.key for thread in await listed(store, key.tenant)],
        await store.list_documents(key),
        await store.get_document(key, "d"),
    )


async def fill(store: Store, key: ThreadKey, text: str) -> None:
    """Give a thread all kinds of data."""
    await store.append(key, [said(text), said(text)], append_id="1", default_title=text)
    await store.update_thread(key, metadata={"of": text})
    await store.put_document(key, "d", msgspec.json.encode(text))


async def check_apart(store: Store, mine: ThreadKey, theirs: ThreadKey) -> None:
    """Fail if a change of one thread affects the other."""
    nothing = await seen_of(store, theirs)
    await fill(store, mine, "mine")
    assert await seen_of(store, theirs) == nothing, "a thread shows in another that does not exist"
    await fill(store, theirs, "theirs")
    kept = await seen_of(store, theirs)
    assert [m.payload for m in kept[0]] == [said("theirs").payload] * 2
    await store.append(mine, [said("mine")], retention=Retention(max_messages=1))
    await store.truncate(mine, stop=0)
    await store.update_thread(mine, title="mine", metadata={"of": "mine"})
    await store.put_document(mine, "d", b"2")
    await store.delete_document(mine, "d")
    assert await seen_of(store, theirs) == kept, "a change of one thread shows in another"
    await store.delete_thread(mine)
    assert await seen_of(store, theirs) == kept, "deleting one thread changed another"
    if mine.tenant != theirs.tenant:
        await fill(store, mine, "mine")
        assert await store.delete_tenant(mine.tenant) == 1
        assert await seen_of(store, theirs) == kept, "deleting one tenant changed another's thread"
    assert await store.delete_thread(theirs)


class Isolated(GuaranteeTests):
    """Any text is a valid identifier and is stored unchanged."""

    async def test_nobody_writes_to_the_tenant_that_holds_keys(self, store: Store) -> None:
        key = ThreadKey("a", "everthread:keys")
        for name in CALLS.keys() - READS:
            with pytest.raises(InvalidIdentifierError):
                await CALLS[name](store, key)

    @pytest.mark.parametrize(("mine", "theirs"), PAIRS, ids=str)
    async def test_look_alikes_are_apart(self, store: Store, mine: ThreadKey, theirs: ThreadKey) -> None:
        await check_apart(store, mine, theirs)
        await check_apart(store, theirs, mine)

    async def test_document_names_are_apart(self, store: Store) -> None:
        names = ["a", "a:b", "*", "a*", "\0", "{a}", "meta", "messages", "%61", "é", "e\u0301", "x" * 512]
        for at, name in enumerate(names):
            await store.put_document(KEY, name, b"%d" % at)
        for at, name in enumerate(names):
            document = await document_of(store, name)
            assert document.value == b"%d" % at
        await store.delete_document(KEY, "*")
        assert await store.list_documents(KEY) == tuple(sorted(set(names) - {"*"}))

    async def test_a_listing_shows_one_tenant_alone(self, store: Store) -> None:
        tenants = ["", "a", "a:", ":a", "*", "%", "A", "é", "e\u0301", "{a}", "\0"]
        for tenant in tenants:
            await store.append(ThreadKey("t", tenant), [said(tenant)])
        for tenant in tenants:
            assert [thread.key for thread in await listed(store, tenant)] == [ThreadKey("t", tenant)]

    async def test_each_named_tenant_is_listed_once(self, store: Store) -> None:
        able = capability(store, SupportsTenantList)
        if able is None:
            return
        tenants = ["a", "a b", "b:c", "*", "%", "A", "é", "{a}", "}", "\0", "x" * 512, "gone"]
        for tenant in ["", *tenants]:
            for thread_id in ("t", "u"):
                await store.append(ThreadKey(thread_id, tenant), [said(tenant)])
        await store.delete_tenant("gone")
        tenants = sorted(set(tenants) - {"gone"})
        assert await able.list_tenants() == tuple(tenants)
        assert await able.list_tenants(after=tenants[2], limit=3) == tuple(tenants[3:6])
        assert await able.list_tenants(after=tenants[-1]) == ()

    async def test_two_places_share_nothing(self, harness: Harness) -> None:
        async with harness.open() as store, harness.another().open() as elsewhere:
            await fill(store, KEY, "here")
            assert await elsewhere.get_thread(KEY) is None
            assert await listed(elsewhere, KEY.tenant) == []
            await fill(elsewhere, KEY, "there")
            await elsewhere.delete_tenant(KEY.tenant)
            assert len(await store.read(KEY)) == 2


class IsolatedProperties(GuaranteeTests):
    """The same for generated pairs of keys."""

    def test_no_key_reaches_the_data_of_another(self, harness: Harness) -> None:
        async def check(pair: tuple[ThreadKey, ThreadKey]) -> None:
            async with harness.open() as store:
                await check_apart(store, *pair)

        asyncio.run(check((ThreadKey("a"), ThreadKey("a", "a"))))
        for_examples(check, st.tuples(thread_keys(), thread_keys()).filter(lambda pair: pair[0] != pair[1]))
        for_examples(check, look_alikes())
