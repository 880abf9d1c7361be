"""Cosmos DB with throttling, failing servers, broken connections and lost answers: nothing is lost, nothing doubled."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest

from everthread import open_store
from everthread.contract import Store
from everthread.engines.cosmos import CosmosStore
from everthread.errors import ConfigurationError, LimitExceededError, OutcomeUnknownError, StoreUnavailableError
from everthread.model import NewMessage, ThreadKey
from everthread.testing import Harness, StoreContractSuite, UrlHarness
from tests.cosmos_proxy import LANDED, Fault, FaultyProxy, Request, always, each_once, nothing, now_and_then
from tests.object_servers import COSMOS_KEY, cosmos_url

pytestmark = pytest.mark.slow

KEY, OTHER = ThreadKey("a"), ThreadKey("b")
EVERY_FAULT = pytest.mark.parametrize("fault", list(Fault), ids=lambda fault: fault.name.lower())


def said(number: int, size: int = 1) -> NewMessage:
    return NewMessage(b'"%s%d"' % (b"private" * size, number))


@pytest.fixture
def url(proxy: FaultyProxy) -> str:
    return f"{cosmos_url(proxy, 'http')}&discover=false&timeout=0.5&retry_seconds=60"


@asynccontextmanager
async def impatient(url: str, *, retry_seconds: float, timeout: float = 30.0) -> AsyncIterator[CosmosStore]:
    """A store that gives up soon; not before it is open, since a busy machine may take its time for that."""
    async with open_store(url, timeout=30) as store:
        assert isinstance(store, CosmosStore)
        store.storage.requests._retry_seconds, store.storage.requests._timeout = retry_seconds, timeout
        yield store


async def prepared(url: str) -> None:
    """Two threads, one with a document, all written without a fault."""
    async with open_store(url) as store:
        for number in range(3):
            await store.append(KEY, [said(number)], append_id=str(number))
        await store.put_document(KEY, "d", b"1")
        await store.append(OTHER, [said(9)])


async def seen(store: Store) -> object:
    """All that can be seen of the threads, but for times."""
    document = await store.get_document(KEY, "d")
    return (
        [(m.seq, m.payload) for m in await store.read(KEY)],
        [m.payload for m in await store.read_last(OTHER, 5)],
        None if document is None else (document.value, document.revision),
        [thread.key for thread in await store.list_threads()],
    )


def after(*numbers: int, document: tuple[bytes, int] | None = (b"1", 1), listed: tuple[ThreadKey, ...]) -> object:
    return ([(n, said(n).payload) for n in numbers], [said(9).payload], document, list(listed))


async def append(store: Store) -> None:
    done = await store.append(KEY, [said(3)], append_id="3", expected_seq=3)
    assert (done.first_seq, done.replayed) == (3, False)


async def append_large(store: Store) -> None:
    # More than an item takes: it is in parts, whose writing meets the fault too.
    done = await store.append(KEY, [said(3, 300_000)])
    assert done.first_seq == 3


async def read(store: Store) -> None:
    assert [m.payload for m in await store.read(KEY)] == [said(n).payload for n in range(3)]
    assert (await store.read_last(KEY, 1))[0].payload == said(2).payload
    assert await store.get_thread(ThreadKey("nobody")) is None


async def list_threads(store: Store) -> None:
    assert [thread.key for thread in await store.list_threads()] == [OTHER, KEY]


async def delete(store: Store) -> None:
    assert await store.delete_thread(KEY) is True
    assert await store.delete_thread(KEY) is False


async def change_document(store: Store) -> None:
    assert (await store.put_document(KEY, "d", b"2", expected_revision=1)).revision == 2
    assert (await store.put_document(KEY, "e", b"1", expected_revision=0)).revision == 1
    assert await store.delete_document(KEY, "e") is True


Call = Callable[[Store], Awaitable[None]]
BOTH, CALLS = (
    (OTHER, KEY),
    {
        append: after(0, 1, 2, 3, listed=(KEY, OTHER)),
        read: after(0, 1, 2, listed=(OTHER, KEY)),
        list_threads: after(0, 1, 2, listed=(OTHER, KEY)),
        delete: after(document=None, listed=(OTHER,)),
        change_document: after(0, 1, 2, document=(b"2", 2), listed=(OTHER, KEY)),
    },
)


@EVERY_FAULT
@pytest.mark.parametrize("call", CALLS, ids=lambda call: call.__name__)
async def test_each_request_may_fail_once_in_a_call(proxy: FaultyProxy, url: str, call: Call, fault: Fault) -> None:
    await prepared(url)
    async with open_store(url) as store:
        proxy.plan = each_once(fault)
        await call(store)
        assert proxy.struck > 0
        proxy.plan = nothing
    async with open_store(url) as store:
        assert await seen(store) == CALLS[call]


@EVERY_FAULT
async def test_each_request_may_fail_once_in_a_large_turn(proxy: FaultyProxy, url: str, fault: Fault) -> None:
    await prepared(url)
    async with open_store(url) as store:
        proxy.plan = each_once(fault)
        await append_large(store)
        for revision in (2, 3):
            document = await store.put_document(KEY, "d", large_document(revision))
            assert document.revision == revision
        assert proxy.struck > 8
        proxy.plan = nothing
    async with open_store(url) as store:
        assert [m.payload for m in await store.read(KEY)] == [
            *(said(n).payload for n in range(3)),
            said(3, 300_000).payload,
        ]
        document = await store.get_document(KEY, "d")
        assert document is not None
        assert document.value == large_document(3)
        await store.delete_thread(KEY)
        assert isinstance(store, CosmosStore)
        assert [item["id"] for item in await items_of(store) if item["id"].startswith("x:")] == []


def large_document(number: int) -> bytes:
    """A document that takes two items: it must be escaped."""
    return '"{}{}"'.format("é" * 500_000, number).encode()


async def items_of(store: CosmosStore) -> list[dict[str, object]]:
    """All items of the container, as they are."""
    return [item async for item in store.storage.container.read_all_items()]


@EVERY_FAULT
async def test_faults_without_end_are_a_typed_error(proxy: FaultyProxy, url: str, fault: Fault) -> None:
    await prepared(url)
    async with impatient(url, retry_seconds=0.3, timeout=0.2) as store:
        proxy.plan = always(fault)
        for call in (store.read(KEY), store.list_threads(), store.delete_thread(KEY), store.get_document(KEY, "d")):
            with pytest.raises(StoreUnavailableError) as caught:
                await call
            assert COSMOS_KEY not in str(caught.value)
            assert "private" not in str(caught.value)
        proxy.plan = nothing
    async with open_store(url) as store:
        assert await seen(store) == after(0, 1, 2, listed=BOTH)


@EVERY_FAULT
async def test_an_append_without_any_answer_may_be_repeated(proxy: FaultyProxy, url: str, fault: Fault) -> None:
    await prepared(url)
    async with impatient(url, retry_seconds=0.2, timeout=1) as store:
        await store.read(KEY)
        proxy.plan = always(fault, "create")
        with pytest.raises(OutcomeUnknownError):
            await store.append(KEY, [said(3)], append_id="3")
        proxy.plan = nothing
        # Carried out and not known, or not carried out: it is there once in the end.
        assert (await store.append(KEY, [said(3)], append_id="3")).replayed is (fault in LANDED)
    async with open_store(url) as store:
        assert await seen(store) == after(0, 1, 2, 3, listed=(KEY, OTHER))


async def test_concurrent_requests_are_limited_below_the_timeout(proxy: FaultyProxy, url: str) -> None:
    await prepared(url)
    under_way = threading.Semaphore(32)
    more, released = threading.Event(), threading.Event()

    def hold(_: Request) -> None:
        if not under_way.acquire(blocking=False):
            more.set()
        released.wait(60)
        under_way.release()

    async with open_store(url, timeout=30) as store:
        proxy.plan = hold
        reading = asyncio.gather(*(store.get_thread(ThreadKey(str(number))) for number in range(64)))
        assert not await asyncio.to_thread(more.wait, 1)
        released.set()
        assert await reading == [None] * 64
        assert not more.is_set()


async def test_throttling_is_waited_for_no_longer_than_the_setting_says(proxy: FaultyProxy, url: str) -> None:
    await prepared(url)
    tries: list[int] = []
    for seconds in (0.0, 1.5):
        proxy.plan, proxy.struck = nothing, 0
        async with impatient(url, retry_seconds=seconds) as store:
            proxy.plan = always(Fault.THROTTLED)
            with pytest.raises(StoreUnavailableError, match="throttles"):
                await store.get_thread(KEY)
        tries.append(proxy.struck)
    assert tries[0] == 1
    assert tries[1] > 1


async def test_a_pause_that_the_service_asks_for_is_made(proxy: FaultyProxy, url: str) -> None:
    await prepared(url)
    proxy.pause_ms = 400
    proxy.plan = each_once(Fault.THROTTLED, "query")
    async with open_store(url) as store:
        began = time.monotonic()
        await store.get_thread(KEY)
        assert time.monotonic() - began >= 0.4
    async with impatient(url, retry_seconds=0.2) as store:
        proxy.plan = always(Fault.THROTTLED)
        with pytest.raises(StoreUnavailableError, match="throttles"):
            await store.get_thread(KEY)


async def test_an_item_missing_on_a_late_replica_is_not_absent(proxy: FaultyProxy, url: str) -> None:
    """404 with sub-status 1002: a session's read came to a replica that is behind."""
    await prepared(url)

    async with impatient(url, retry_seconds=0.2) as store:
        await store.read(KEY)
        proxy.plan, proxy.status, proxy.sub_status = always(Fault.UNAVAILABLE, "read"), 404, 1002
        with pytest.raises(StoreUnavailableError):
            await store.get_document(KEY, "d")


async def test_a_full_partition_is_a_limit_error(proxy: FaultyProxy, url: str) -> None:
    await prepared(url)
    async with open_store(url) as store:
        await store.read(KEY)
        proxy.plan, proxy.status, proxy.sub_status = always(Fault.UNAVAILABLE, "create"), 403, 1014
        with pytest.raises(LimitExceededError) as caught:
            await store.append(KEY, [said(3)])
        assert caught.value.limit == 20 * 1024**3
        proxy.plan = nothing
        assert (await store.append(KEY, [said(3)])).first_seq == 3


async def test_refused_credentials_are_not_tried_again(proxy: FaultyProxy, url: str) -> None:
    await prepared(url)
    async with open_store(url) as store:
        proxy.plan, proxy.status = always(Fault.UNAVAILABLE), 401
        proxy.struck = 0
        with pytest.raises(ConfigurationError, match="credentials"):
            await store.get_document(KEY, "d")
        assert proxy.struck == 1


async def test_writing_to_a_deleted_container_is_an_error(proxy: FaultyProxy, url: str) -> None:
    await prepared(url)
    async with open_store(url) as store:
        await store.read(KEY)
        proxy.plan, proxy.status = always(Fault.UNAVAILABLE, "create"), 404
        with pytest.raises(ConfigurationError, match="does not exist"):
            await store.append(KEY, [said(3)])


@pytest.mark.front
class TestCosmosWithFaults(StoreContractSuite):
    """Of every seven requests one fails, in each way in turn."""

    @pytest.fixture
    def harness(self, proxy: FaultyProxy) -> Harness:
        proxy.plan = now_and_then(7)
        return UrlHarness(lambda: f"{cosmos_url(proxy, 'http')}&discover=false")
