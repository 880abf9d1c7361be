"""What lies in Cosmos DB: one partition a thread, items below the limit, how long they live, what is left."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections import Counter
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from everthread import open_store
from everthread.contract import Store
from everthread.engines._segments.compaction import Sizes
from everthread.engines._segments.log import Fence
from everthread.engines.cosmos import CosmosStorage, CosmosStore
from everthread.engines.cosmos.items import ITEM_BYTES, Ghost, items_of, partition_of, request_bytes
from everthread.errors import CorruptRecordError, LimitExceededError, StoreUnavailableError
from everthread.model import NewMessage, Retention, ThreadKey
from everthread.operations.prune import PrunePolicy, prune
from everthread.testing import Clock
from tests.cosmos_proxy import Fault, FaultyProxy, Request, nothing
from tests.object_servers import cosmos_url

pytestmark = pytest.mark.slow

KEY, OTHER = ThreadKey("a", "t"), ThreadKey("b", "t")


def said(text: str) -> NewMessage:
    return NewMessage(f'"{text}"'.encode())


@pytest.fixture
def url(proxy: FaultyProxy) -> str:
    return f"{cosmos_url(proxy, 'http')}&discover=false"


def opened(url: str, **options: Any) -> CosmosStore:
    store = open_store(url, **options)
    assert isinstance(store, CosmosStore)
    return store


async def all_items(store: CosmosStore) -> list[dict[str, Any]]:
    return [item async for item in store.storage.container.read_all_items()]


async def every_kind_of_thing(store: CosmosStore, key: ThreadKey = KEY) -> None:
    """Leaves joined turns, large turns, documents and metadata of a thread."""
    for number in range(12):
        await store.append(key, [said(str(number))], append_id=str(number))
    await store.append(key, [said("x" * 2_100_000)])
    await store.put_document(key, "d", said("é" * 500_000).payload)
    await store.update_thread(key, metadata={"large": "x" * 5000})
    await store.compact(key)


# Where things are


async def test_all_of_a_thread_is_one_logical_partition(url: str) -> None:
    async with opened(url, sizes=Sizes(compact_after=4)) as store:
        await every_kind_of_thing(store)
        await store.append(OTHER, [said("a")])
        found = await all_items(store)
    kinds = {item["id"][0] for item in found if item["pk"] == "t/t/a"}
    assert kinds == {"t", "s", "d", "x"}
    assert {item["pk"] for item in found if not item["id"].startswith("r:")} == {"t/t/a", "t/t/b"}
    assert {item["pk"] for item in found if item["id"].startswith("r:")} == {"r/t"}


names = st.text(alphabet="ab.-_~0", min_size=1, max_size=4)


@given(st.lists(st.tuples(st.sampled_from(["t/a/b", "s/a/b", "d/a/b", "r/a"]), names), unique=True, max_size=8))
@settings(max_examples=200, deadline=None)
def test_no_two_objects_and_no_parts_of_two_meet(objects: list[tuple[str, str]]) -> None:
    ids: Counter[tuple[str, str]] = Counter()
    for folder, name in objects:
        partition = partition_of(folder)
        assert partition.name_of(partition.id_of(name)) == name
        ids[partition.key, partition.id_of(name)] += 1
        parts = partition.part_ids(name, "n", 2)
        ids.update((partition.key, part) for part in parts)
        above, below = partition.parts_range([name])
        assert all(above < part < below and Ghost.of_part(part).owner == name for part in parts)
    assert set(ids.values()) <= {1}


# How large they are

TEXTS = ["x", "é", "\U0001f642", '\\"', "\\\\", "日", " \t\n"]


@pytest.mark.parametrize("text", TEXTS, ids=["ascii", "accent", "emoji", "quote", "backslash", "kanji", "space"])
async def test_an_object_of_the_item_limit_comes_back_whole(url: str, proxy: FaultyProxy, text: str) -> None:
    """The proxy refuses what is larger than an item may be, counted on the JSON that is sent."""
    store = opened(url)
    async with store:
        for number, data in enumerate(at_the_border(text)):
            proxy.requests.clear()
            assert await store.storage.create("t/t/a", f"{number:012x}", data)
            assert len([request for request in proxy.requests if request.verb == "upsert"]) == number * (
                1 + (len(data) > 1_400_000)
            )
            found = await store.storage.get("t/t/a", f"{number:012x}")
            assert found is not None
            assert found.data == data


def at_the_border(text: str) -> tuple[bytes, bytes]:
    """The largest object of such text that is one item, and one that is a little larger."""
    low, high = 1, ITEM_BYTES
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (
            (low, middle) if items_of(partition_of("t/t/a"), "0" * 12, text.encode() * middle).parts else (middle, high)
        )
    return text.encode() * low, text.encode() * high


@pytest.mark.parametrize("text", TEXTS, ids=["ascii", "accent", "emoji", "quote", "backslash", "kanji", "space"])
def test_an_item_uses_the_whole_limit(text: str) -> None:
    whole, cut = (items_of(partition_of("t/t/a"), "0" * 12, data) for data in at_the_border(text))
    assert ITEM_BYTES * 0.99 < request_bytes(whole.item) <= ITEM_BYTES
    assert all(request_bytes(part) < ITEM_BYTES for part in (cut.item, *cut.parts))


async def test_turns_around_the_limit_of_an_item_come_back(url: str) -> None:
    turns = [[said(text * (size // len(text)))] for text in ("x", "é") for size in (600_000, 1_990_000, 2_100_000)]
    async with opened(url) as store:
        for turn in turns:
            await store.append(KEY, turn)
    async with opened(url) as store:
        assert [m.payload for m in await store.read(KEY)] == [message.payload for turn in turns for message in turn]


async def test_a_turn_above_the_object_limit_is_refused(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(CosmosStorage, "max_object_bytes", 4_000_000)
    async with opened(url) as store:
        most = 4_000_000 - 1024 * 1024
        await store.append(KEY, [said("x" * (most - 2))])
        with pytest.raises(LimitExceededError) as caught:
            await store.append(KEY, [said("x" * (most - 3)), NewMessage(b"10")])
        assert (caught.value.size, caught.value.limit) == (most + 1, most)
        assert len(await store.read(KEY)) == 1


async def test_a_refused_item_is_reported_with_its_size(url: str, proxy: FaultyProxy) -> None:
    async with opened(url) as store:
        await store.append(KEY, [said("x")])
        proxy.most_bytes = 100_000
        with pytest.raises(LimitExceededError) as caught:
            await store.append(KEY, [said("private" * 20_000)])
        assert caught.value.size > 140_000
        assert "private" not in str(caught.value)
        assert (await store.append(KEY, [said("y")])).first_seq == 1


# Parts


async def test_parts_are_deleted_with_their_object(url: str) -> None:
    large = b"x" * 3_000_000
    async with opened(url) as store:
        storage = store.storage

        async def parts() -> Counter[str]:
            ids = [item["id"] for item in await all_items(store)]
            return Counter(Ghost.of_part(each).owner for each in ids if each.startswith("x:"))

        assert await storage.create("t/t/a", "1", large)
        assert not await storage.create("t/t/a", "1", large[1:])
        assert await storage.create("t/t/a", "10", large)
        assert await parts() == {"1": 3, "10": 3}
        await storage.put("t/t/a", "1", b"")
        assert await parts() == {"10": 3}
        await storage.delete("t/t/a", ["1", "10"])
        assert await parts() == {}


async def test_parts_of_a_dead_writer_go_with_their_entry(url: str, proxy: FaultyProxy) -> None:
    async with opened(url, retry_seconds=0) as store:
        proxy.plan = lambda request: Fault.CUT if request.verb == "create" else None
        with pytest.raises(Exception, match="cannot be reached"):
            await store.storage.create("t/t/a", "1", b"x" * 3_000_000)
        proxy.plan = lambda _: None
        assert len(await all_items(store)) == 3
        assert await store.storage.create("t/t/a", "1", b"{}")
        await store.storage.delete("t/t/a", ["1"])
        assert await all_items(store) == []


@pytest.mark.parametrize("fault", [Fault.CUT, Fault.CUT_AFTERWARDS], ids=["before", "afterwards"])
async def test_killed_large_writes_are_whole_or_absent(
    url: str, proxy: FaultyProxy, fault: Fault, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("everthread.engines.cosmos.items.ITEM_BYTES", 20_000)
    monkeypatch.setattr("everthread.engines.cosmos.items._PART_BYTES", 6_000)
    large, larger = said("é" * 4_000), said("é" * 5_000)
    async with opened(url, fence=Fence(trust_s=0, grace_s=-1, listing_s=0), cache_bytes=0) as store:
        for step in range(100):
            key = ThreadKey(f"{step}", "t")
            left = step

            def dying(request: Request) -> Fault | None:
                nonlocal left
                left -= 1
                return fault if left < 0 else None

            await store.append(key, [said("a")])
            await store.put_document(key, "d", larger.payload)
            async with opened(url, retry_seconds=0) as killed:
                await killed.read(key)
                proxy.plan = dying
                with contextlib.suppress(StoreUnavailableError):
                    await killed.append(key, [large], append_id="1")
                    await killed.put_document(key, "d", large.payload)
                    await killed.put_document(key, "e", larger.payload)
                is_done = left > 0
            proxy.plan = nothing
            assert len(await store.read(key)) in {1, 2}
            await store.append(key, [large], append_id="1")
            assert [m.payload for m in await store.read(key)] == [said("a").payload, large.payload]
            documents = [await store.get_document(key, name) for name in "de"]
            assert [document.value for document in documents if document is not None] in (
                [larger.payload],
                [large.payload],
                [large.payload, larger.payload],
            )
            await store.compact(key)
            assert await unreferenced(store, key) == []
            await store.delete_thread(key)
            assert [item["id"] for item in await items_of_thread(store, key) if item["id"].startswith("x:")] == []
            if is_done:
                return
    pytest.fail("It never came to its end.")


async def items_of_thread(store: CosmosStore, key: ThreadKey) -> list[dict[str, Any]]:
    partition = f"t/{place_name(key)}"
    found = store.storage.container.query_items(
        "SELECT * FROM c WHERE c.pk = @pk", parameters=[{"name": "@pk", "value": partition}], partition_key=partition
    )
    return [item async for item in found]


async def test_parts_of_a_write_in_progress_are_kept(url: str, proxy: FaultyProxy) -> None:
    done, arrived = threading.Event(), threading.Event()

    def hold(request: Request) -> Fault | None:
        if request.verb == "create" and request.item_id.startswith("d:"):
            arrived.set()
            done.wait(20)
        return None

    async with opened(url) as store:
        await store.append(KEY, [said("former")])
        await store.delete_thread(KEY)
        await store.append(KEY, [said("x")])
    async with opened(url) as store:
        proxy.plan = hold
        value = said("é" * 500_000).payload
        writing = asyncio.create_task(store.put_document(KEY, "d", value))
        await asyncio.to_thread(arrived.wait, 20)
        await store.reconcile("t", repair=True)
        done.set()
        await writing
        document = await store.get_document(KEY, "d")
        assert document is not None
        assert document.value == value


async def unreferenced(store: CosmosStore, key: ThreadKey) -> list[str]:
    found = await items_of_thread(store, key)
    parts = {part for item in found if "of" in item for part in parts_of(item)}
    return [item["id"] for item in found if item["id"].startswith("x:") and item["id"] not in parts]


def parts_of(item: dict[str, Any]) -> list[str]:
    kind, _, name = item["id"].partition(":")
    return partition_of(f"{kind}/a/b").part_ids(name, item["of"], item["parts"])


async def test_deleting_a_document_keeps_parts_of_another_write(url: str, proxy: FaultyProxy) -> None:
    deleted, arrived = threading.Event(), threading.Event()

    def hold(request: Request) -> Fault | None:
        if request.verb == "create" and request.item_id.startswith("d:"):
            arrived.set()
            deleted.wait(20)
        return None

    async with opened(url) as store:
        await store.append(KEY, [said("x")])
        await store.put_document(KEY, "d", b"1")
        value = said("é" * 500_000).payload
        await store.delete_document(KEY, "d")
        proxy.plan = hold
        writing = asyncio.create_task(store.put_document(KEY, "d", value))
        await asyncio.to_thread(arrived.wait, 20)
        await store.storage.delete("d/t/a", ["000000000000-d"])
        deleted.set()
        assert (await writing).revision == 1
        document = await store.get_document(KEY, "d")
        assert document is not None
        assert document.value == value


async def test_a_missing_part_is_an_error(url: str) -> None:
    async with opened(url, cache_bytes=0) as store:
        await store.append(KEY, [said("x" * 3_000_000)])
        part = next(item for item in await all_items(store) if item["id"].startswith("x:"))
        await store.storage.container.delete_item(part["id"], part["pk"])
        with pytest.raises(CorruptRecordError, match="part"):
            await store.read(KEY)


# How long they live


def short_lived(found: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """What Cosmos DB will remove by itself. The emulator does not do it."""
    return [item for item in found if item["ttl"] > 0]


async def test_only_emptied_entries_of_a_live_thread_expire(url: str) -> None:
    expiring = Retention(expire_after=timedelta(seconds=60))
    async with opened(url, sizes=Sizes(compact_after=4), retention=expiring) as store:
        for number in range(12):
            await store.append(KEY, [said(str(number))], append_id=str(number))
        assert {item["ttl"] for item in await all_items(store)} == {-1}
        await every_kind_of_thing(store)
        before = await seen(store)
        doomed = short_lived(await all_items(store))
        assert doomed
        assert all(item["id"].startswith("t:") and item["body"] == "" and "parts" not in item for item in doomed)
        for item in doomed:
            await store.storage.container.delete_item(item["id"], item["pk"])
    async with opened(url) as store:
        assert await seen(store) == before


async def test_only_the_deletion_entry_of_a_deleted_thread_stays(url: str) -> None:
    async with opened(url, sizes=Sizes(compact_after=4)) as store:
        await every_kind_of_thing(store)
        await store.delete_thread(KEY)
        found = await all_items(store)
    stays = [item for item in found if item["ttl"] == -1]
    assert len(stays) == 1
    assert stays[0]["size"] < 200
    assert len(short_lived(found)) == len(found) - 1 > 0
    assert all(item["body"] == "" and item["ttl"] == 24 * 3600 for item in short_lived(found))


async def test_nothing_needs_expired_items(url: str) -> None:
    """A thread is deleted and begun again; then all goes that may go."""
    async with opened(url, sizes=Sizes(compact_after=4)) as store:
        await every_kind_of_thing(store)
        await store.delete_thread(KEY)
        await store.append(KEY, [said("new")], append_id="new")
        await store.put_document(KEY, "d", b"1")
        before = await seen(store)
        doomed = short_lived(await all_items(store))
        assert doomed
        for item in doomed:
            await store.storage.container.delete_item(item["id"], item["pk"])
        assert await seen(store) == before
        async with opened(url) as other:
            assert await seen(other) == before
            assert (await other.append(KEY, [said("new")], append_id="new")).replayed
            assert (await other.append(KEY, [said("newer")])).first_seq == 1


async def seen(store: Store) -> object:
    thread = await store.get_thread(KEY)
    return thread, [m.payload for m in await store.read(KEY)], await store.get_document(KEY, "d")


async def test_pruning_needs_a_bounded_number_of_requests(url: str, proxy: FaultyProxy) -> None:
    clock = Clock()
    soon = Retention(expire_after=timedelta(seconds=60))
    live = [ThreadKey(f"live{number}", "t") for number in range(10)]
    dead = [ThreadKey(f"dead{number}", "t") for number in range(5)]
    async with opened(url, clock=clock) as store:
        for key in (*dead, *live):
            await store.append(key, [said("x")] * 3, retention=soon if key in dead else None)
            await store.put_document(key, "d", b"1")
    clock.advance(3600)
    policy = PrunePolicy(max_messages=100)
    asked: list[int] = []
    for _ in range(2):
        proxy.requests.clear()
        async with opened(url, clock=clock) as store:
            assert [pruned.key async for pruned in prune(store, policy, "t")] == live[::-1]
        asked.append(len(proxy.requests))
    async with opened(url, clock=clock) as store:
        left = Counter(item["pk"] for item in await all_items(store) if item["ttl"] == -1)
    # Of a dead thread the note that it was deleted stays, and of the tenant's list nothing but who lives.
    assert left == {"r/t": 10} | {f"t/t/{key.thread_id}": 2 for key in live} | {
        f"t/t/{key.thread_id}": 1 for key in dead
    }
    # A listing, and two requests for each thread that lives; then twelve for each that expired.
    assert asked[1] <= 1 + 2 * len(live)
    assert asked[0] - asked[1] <= 14 * len(dead)


async def test_reconcile_deletes_remains_of_killed_writers(url: str) -> None:
    """Objects that nobody refers to, and what is left of a thread: in all partitions of the tenant, and in no other."""
    async with opened(url, fence=Fence(trust_s=0, grace_s=-1, listing_s=0)) as store:
        for key in (KEY, OTHER, ThreadKey("a", "t2"), ThreadKey("a", "")):
            await store.append(key, [said("x")])
            await store.append(key, [said("y")])
            await store.storage.create(f"s/{place_name(key)}", f"{1:012x}-lost", b"x" * 3_000_000)
        await store.storage.create("d/t/nobody", f"{0:012x}-d", b"{}")
        expected = {"objects of deleted threads": 1, "objects that no thread refers to": 2}
        assert {drift.what: drift.count for drift in await store.reconcile("t")} == expected
        assert all(drift.repaired for drift in await store.reconcile("t", repair=True))
        assert await store.reconcile("t") == ()
        left = Counter(item["pk"] for item in await all_items(store) if item["id"][0] in "sdx")
        assert left == {"t/t2/a": 4, "t/~/a": 4}
        assert [m.payload for m in await store.read(KEY)] == [said("x").payload, said("y").payload]


def place_name(key: ThreadKey) -> str:
    return f"{key.tenant or '~'}/{key.thread_id}"


async def test_partitions_are_found_page_by_page(url: str, proxy: FaultyProxy) -> None:
    async with opened(url) as store:
        for at in range(0, 150, 25):
            keys = [ThreadKey(f"{number}", "t") for number in range(at, at + 25)]
            await asyncio.gather(*(store.append(key, [said("x")]) for key in keys))
        await store.append(ThreadKey("other", "u"), [said("x")])
        proxy.requests.clear()
        found = [name async for page in store.storage.folders("t/t") for name in page]
        assert sorted(found) == sorted(str(number) for number in range(150))
        assert len([request for request in proxy.requests if request.verb == "query"]) >= 2


async def test_a_created_container_indexes_ids_only_and_expires_items(url: str) -> None:
    async with opened(url) as store:
        made = await store.storage.container.read()
    assert made["defaultTtl"] == -1
    assert [path["path"] for path in made["indexingPolicy"]["includedPaths"]] == ["/pk/?"]
    assert next(path["path"] for path in made["indexingPolicy"]["excludedPaths"]) == "/*"


async def test_pages_of_a_query_are_joined_by_their_continuation_tokens(url: str, proxy: FaultyProxy) -> None:
    async with opened(url, fence=Fence(trust_s=0)) as store:
        names = [f"{number:012x}" for number in range(250)]
        for at in range(0, 250, 25):
            await asyncio.gather(*(store.storage.create("t/t/a", name, b"{}") for name in names[at : at + 25]))
        proxy.requests.clear()
        pages = [[listed.name for listed in page] async for page in store.storage.list("t/t/a", after=names[9])]
        assert [name for page in pages for name in page] == names[10:]
        assert [len(page) for page in pages] == [100, 100, 40]
        assert len(proxy.requests) == 3
