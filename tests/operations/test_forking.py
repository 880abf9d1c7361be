"""Forking: what is copied, and that it ends the same however often it was interrupted."""

from __future__ import annotations

import asyncio
import sys
from datetime import UTC, datetime, timedelta

import pytest

from everthread import ConfigurationError, ConflictError, Retention, Store, ThreadKey, ThreadNotFoundError, open_store
from everthread.engines.memory import MemoryStore
from everthread.errors import OutcomeUnknownError, StoreUnavailableError
from everthread.model import NewMessage
from everthread.operations import inspect_messages
from everthread.operations.fork import DOCUMENT, Forked, fork, plan
from everthread.testing import Fault, FaultyStore
from tests.operations.talks import KEY, call, kept, result, said, talk, texts, turn

FORK = ThreadKey("other way", "acme")
TURNS = 1500
"""More than an engine remembers append ids for."""

AT = 4 * TURNS - 2
STOP = 4 * TURNS - 3
"""``AT`` would cut a call from its result."""

FORKING = f"""
import asyncio, sys
from everthread import ThreadKey, open_store
from everthread.operations.fork import fork

async def main() -> None:
    async with open_store(sys.argv[1]) as store:
        await fork(store, ThreadKey({KEY.thread_id!r}), ThreadKey({FORK.thread_id!r}, {FORK.tenant!r}), at={AT})

asyncio.run(main())
"""


async def test_a_fork_has_turns_title_metadata_and_times(store: Store) -> None:
    await store.append(
        KEY, [said("user", "hello"), NewMessage(b'{"x": 1}', created_at=datetime(2020, 1, 2, tzinfo=UTC))]
    )
    await talk(store, turns=2)
    await store.update_thread(KEY, title="Rome", metadata={"a": 1})
    assert await fork(store, KEY, FORK, at=6) == Forked(FORK, 6, 6)
    source, copy = (await kept(store))[:6], await kept(store, FORK)
    assert copy == source
    thread = await store.get_thread(FORK)
    assert thread is not None
    assert (thread.title, thread.metadata, thread.next_seq) == ("Rome", {"a": 1}, 6)


async def test_a_fork_begins_now_and_has_the_retention_of_its_source(store: Store) -> None:
    await talk(store, turns=3)
    own = Retention(max_messages=6, expire_after=timedelta(days=3))
    source = await store.update_thread(KEY, retention=own)
    await fork(store, KEY, FORK)
    copy = await store.get_thread(FORK)
    assert copy is not None
    assert (copy.retention, copy.next_seq, copy.count) == (own, 12, 5)
    assert copy.expires_ms == copy.updated_ms + 3 * 86_400_000
    assert copy.created_ms >= source.updated_ms
    assert (await store.list_threads(FORK.tenant)).items[0].key == FORK


async def test_the_two_go_their_own_ways_afterwards(store: Store) -> None:
    await talk(store, turns=2)
    await fork(store, KEY, FORK)
    await store.append(FORK, [said("user", "to Naples")])
    await store.append(KEY, turn(9))
    assert texts(await kept(store, FORK))[8:] == ["to Naples"]
    assert len(await kept(store)) == 12


async def test_a_call_is_not_copied_without_its_result(store: Store) -> None:
    await store.append(KEY, [said("user", "weather?"), call("a")])
    await store.append(KEY, [result("a"), said("assistant", "sunny")])
    for at, stop in ((0, 0), (1, 1), (2, 1), (3, 3), (4, 4)):
        target = ThreadKey(f"fork {at}")
        assert (await plan(store, KEY, target, at=at)) == Forked(target, stop, stop)
        assert await store.get_thread(target) is None
        assert await fork(store, KEY, target, at=at) == Forked(target, stop, stop)
    for call_it in (plan, fork):
        with pytest.raises(ConfigurationError, match="ends at position 4"):
            await call_it(store, KEY, FORK, at=5)


async def test_a_fork_of_a_thread_with_gaps_is_dense(store: Store) -> None:
    await talk(store, turns=3)
    await store.truncate(KEY, start=4, stop=8)
    await store.append(KEY, turn(5))
    await fork(store, KEY, FORK)
    copied = await kept(store, FORK)
    assert [message.seq for message in copied] == list(range(8))
    assert texts(copied) == texts(await kept(store))


async def test_forking_again_does_nothing_once_the_fork_is_complete(store: Store) -> None:
    await talk(store)
    await fork(store, KEY, FORK, at=8)
    await store.append(FORK, [said("user", "to Naples")])
    await store.delete_thread(KEY)
    assert await fork(store, KEY, FORK, at=8) == Forked(FORK, 8, 8, resumed=True)
    assert len(await kept(store, FORK)) == 9


async def test_a_thread_that_is_not_this_fork_is_left_alone(store: Store) -> None:
    await talk(store)
    await talk(store, FORK, turns=1)
    before = await kept(store, FORK)
    for forking in (fork, plan):
        with pytest.raises(ConflictError):
            await forking(store, KEY, FORK)
    await fork(store, KEY, ThreadKey("a"), at=4)
    with pytest.raises(ConflictError):
        await fork(store, KEY, ThreadKey("a"), at=8)
    await store.put_document(ThreadKey("b"), DOCUMENT, b'"other"')
    with pytest.raises(ConflictError):
        await fork(store, KEY, ThreadKey("b"))
    assert await kept(store, FORK) == before


async def test_there_must_be_a_source_and_none_is_made(store: Store) -> None:
    with pytest.raises(ThreadNotFoundError):
        await fork(store, KEY, FORK)
    assert await store.get_thread(KEY) is None
    assert await store.get_thread(FORK) is None


async def test_a_source_trimmed_during_a_fork_is_a_conflict() -> None:
    inner = MemoryStore()
    await talk(inner)
    with pytest.raises(StoreUnavailableError):
        await fork(FaultyStore(inner, [None, Fault.FAIL_BEFORE]), KEY, FORK)
    await inner.append(KEY, turn(4), retention=Retention(max_messages=8))
    with pytest.raises(ConflictError, match="trimmed"):
        await fork(inner, KEY, FORK)


@pytest.mark.parametrize("fault", [Fault.FAIL_BEFORE, Fault.FAIL_AFTER])
@pytest.mark.parametrize("which", range(7))
async def test_the_next_call_completes_a_failed_fork(fault: Fault, which: int) -> None:
    inner = MemoryStore()
    await talk(inner, turns=4)
    calls = ("append", "put_document", "update_thread")
    store = FaultyStore(inner, [None] * which + [fault], calls=calls)
    with pytest.raises((StoreUnavailableError, OutcomeUnknownError)):
        await fork(store, KEY, FORK, at=14)
    await fork(store, KEY, FORK, at=14)
    assert [m.payload for m in await kept(inner, FORK)] == [m.payload for m in (await kept(inner))[:13]]
    assert (await fork(store, KEY, FORK, at=14)).messages == 13


@pytest.mark.slow
async def test_a_killed_fork_run_again_equals_a_clean_one(url: str) -> None:
    await _prepare(url)
    partial = 0
    async with open_store(url) as watching:
        # Killed as soon as so many messages are seen in the fork; the last one may finish.
        for enough in (0, 1, 500, 2000, 4000, None):
            partial += 0 < await _run_and_kill(url, watching, enough) < STOP
    assert partial >= 2
    await _compare(url)


async def _run_and_kill(url: str, watching: Store, enough: int | None) -> int:
    run = await asyncio.create_subprocess_exec(sys.executable, "-c", FORKING, url)
    try:
        while run.returncode is None and (enough is None or await _copied(watching) < enough):
            await asyncio.sleep(0.001)
    finally:
        if run.returncode is None:
            run.kill()
        await run.wait()
    return await _copied(watching)


async def _copied(store: Store) -> int:
    thread = await store.get_thread(FORK)
    return 0 if thread is None else thread.next_seq


async def _prepare(url: str) -> None:
    async with open_store(url) as store:
        await asyncio.gather(*(store.append(KEY, turn(number)) for number in range(TURNS)))
        await store.update_thread(KEY, title="Rome")


async def _compare(url: str) -> None:
    async with open_store(url) as store:
        wanted, found = (await kept(store))[:STOP], await kept(store, FORK)
        assert found == wanted
        thread = await store.get_thread(FORK)
        assert thread is not None
        assert thread.title == "Rome"
        assert await fork(store, KEY, FORK, at=AT) == Forked(FORK, STOP, STOP, resumed=True)


async def test_an_interrupted_conversion_ends_like_a_whole_one(store: Store) -> None:
    await talk(store, turns=3)
    # The result of this call is in the turn after the next one.
    await store.append(KEY, [said("user", "late"), call("late")])
    await store.append(KEY, [said("user", "still there?")])
    await store.append(KEY, [result("late"), said("assistant", "yes")])
    planned = await plan(store, KEY, FORK, format="anthropic")
    with pytest.raises(StoreUnavailableError):
        await fork(FaultyStore(store, [None, Fault.FAIL_BEFORE]), KEY, FORK, format="anthropic")
    done = await fork(store, KEY, FORK, format="anthropic")
    assert (done.messages, done.stop, done.lost) == (planned.messages, planned.stop, planned.lost)
    copy = await kept(store, FORK)
    assert {message.format for message in copy} == {"anthropic"}
    assert len({message.turn for message in copy}) == 6
    assert done.messages == len(copy)
    assert inspect_messages([message.payload for message in copy]) == []
    with pytest.raises(ConflictError, match="another fork"):
        await fork(store, KEY, FORK, format="langchain")
    with pytest.raises(ConfigurationError, match="use agent-framework"):
        await fork(store, KEY, ThreadKey("new"), format="nonsense")
