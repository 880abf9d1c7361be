"""No choice of identifiers reaches another's data."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

import msgspec
import pytest
from hypothesis import assume, example, given

from everthread.contract import Store
from everthread.model import Document, MessagePage, Retention, Thread, ThreadKey
from everthread.testing.guarantees._base import KEY, GuaranteeTests, few_examples, said
from everthread.testing.guarantees.threads import listed
from everthread.testing.harness import Harness
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


@dataclass(frozen=True)
class Everything:
    """All that a store tells of a thread."""

    page: MessagePage
    tail: MessagePage
    thread: Thread | None
    is_listed: bool
    names: tuple[str, ...]
    document: Document | None


async def seen_of(store: Store, key: ThreadKey) -> Everything:
    """All that a store tells of a thread."""
    return Everything(
        await store.read(key),
        await store.read_last(key, 3),
        await store.get_thread(key),
        key in [thread.key for thread in await listed(store, key.tenant)],
        await store.list_documents(key),
        await store.get_document(key, "d"),
    )


async def fill(store: Store, key: ThreadKey, text: str) -> None:
    """Uses everything that a thread can have."""
    await store.append(key, [said(text), said(text)], append_id="1", default_title=text)
    await store.update_thread(key, metadata={"of": text})
    await store.put_document(key, "d", msgspec.json.encode(text))


async def check_apart(store: Store, mine: ThreadKey, theirs: ThreadKey) -> None:
    """Fails if anything that is done to one thread shows in the other."""
    nothing = await seen_of(store, theirs)
    await fill(store, mine, "mine")
    assert await seen_of(store, theirs) == nothing, "a thread shows in another that does not exist"
    await fill(store, theirs, "theirs")
    kept = await seen_of(store, theirs)
    assert [m.payload for m in kept.page] == [said("theirs").payload] * 2
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
    """Identifiers are taken as they are, whatever is in them."""

    @pytest.mark.parametrize(("mine", "theirs"), PAIRS, ids=str)
    async def test_look_alikes_are_apart(self, store: Store, mine: ThreadKey, theirs: ThreadKey) -> None:
        await check_apart(store, mine, theirs)
        await check_apart(store, theirs, mine)

    async def test_document_names_are_apart(self, store: Store) -> None:
        names = ["a", "a:b", "*", "a*", "\0", "{a}", "meta", "messages", "%61", "é", "e\u0301", "x" * 512]
        for at, name in enumerate(names):
            await store.put_document(KEY, name, b"%d" % at)
        for at, name in enumerate(names):
            document = await store.get_document(KEY, name)
            assert document is not None
            assert document.value == b"%d" % at
        await store.delete_document(KEY, "*")
        assert await store.list_documents(KEY) == tuple(sorted(set(names) - {"*"}))

    async def test_a_listing_shows_one_tenant_alone(self, store: Store) -> None:
        tenants = ["", "a", "a:", ":a", "*", "%", "A", "é", "e\u0301", "{a}", "\0"]
        for tenant in tenants:
            await store.append(ThreadKey("t", tenant), [said(tenant)])
        for tenant in tenants:
            assert [thread.key for thread in await listed(store, tenant)] == [ThreadKey("t", tenant)]

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
        async def check(mine: ThreadKey, theirs: ThreadKey) -> None:
            async with harness.open() as store:
                await check_apart(store, mine, theirs)

        @few_examples
        @given(thread_keys(), thread_keys())
        @example(ThreadKey("a"), ThreadKey("a", "a"))
        def any_two(mine: ThreadKey, theirs: ThreadKey) -> None:
            assume(mine != theirs)
            asyncio.run(check(mine, theirs))

        @few_examples
        @given(look_alikes())
        def two_alike(pair: tuple[ThreadKey, ThreadKey]) -> None:
            asyncio.run(check(*pair))

        any_two()
        two_alike()
