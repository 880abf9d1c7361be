"""Threads as wholes: finding, following, tagging, undoing."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from everthread import ConfigurationError, ConflictError, NewMessage, Store, ThreadKey, ThreadNotFoundError
from everthread.engines.memory import MemoryStore
from everthread.listing import (
    ThreadFilter,
    Usage,
    find_threads,
    follow,
    safe_cut,
    tag_thread,
    title_of,
    undo,
    undo_position,
    usage,
)
from everthread.testing import Clock
from tests.meanwhile import Meanwhile
from tests.operations.talks import KEY, call, in_this_order, kept, result, said, talk, texts, turn


async def found(store: Store, only: ThreadFilter, page_size: int = 2) -> list[str]:
    return [thread.key.thread_id async for thread in find_threads(store, "", only, page_size=page_size)]


async def test_every_filter_must_pass_and_the_newest_come_first(store: Store) -> None:
    for number in range(5):
        key = ThreadKey(f"t{number}")
        await store.append(key, [said("user", "hello")], default_title=f"Trip to ROME {number}")
        await store.update_thread(key, metadata={"stars": number, "customer": "acme" if number % 2 else "other"})
    await in_this_order(store, *(ThreadKey(f"t{number}") for number in range(5)))
    assert await found(store, ThreadFilter()) == ["t4", "t3", "t2", "t1", "t0"]
    assert await found(store, ThreadFilter(title="rome 3")) == ["t3"]
    assert await found(store, ThreadFilter(metadata={"customer": "acme"})) == ["t3", "t1"]
    assert await found(store, ThreadFilter(metadata={"stars": "1"})) == ["t1"]
    assert await found(store, ThreadFilter(metadata={"stars": 1, "customer": "other"})) == []
    assert await found(store, ThreadFilter(metadata={"none": "1"})) == []


async def test_age_is_that_of_the_last_activity() -> None:
    clock = Clock()
    store = MemoryStore(clock=clock)
    for number in range(10):
        await store.append(ThreadKey(f"t{number}"), [said("user", "hello")])
        clock.advance(60)
    now = datetime.fromtimestamp(clock(), UTC)
    assert await found(store, ThreadFilter(active_after=now - timedelta(seconds=150))) == ["t9", "t8"]
    assert await found(store, ThreadFilter(active_before=now - timedelta(seconds=500))) == ["t1", "t0"]


async def test_a_tenants_usage_is_the_sum_of_its_threads(store: Store) -> None:
    assert await usage(store) == Usage()
    await talk(store, turns=2)
    await talk(store, ThreadKey("other", "acme"))
    size = sum(len(message.payload) for number in range(2) for message in turn(number))
    assert await usage(store) == Usage(1, 8, size)


async def test_the_first_user_message_titles_an_untitled_thread(store: Store) -> None:
    await store.append(KEY, [said("system", "Be kind."), said("user", "To Rome, please")])
    thread = await store.get_thread(KEY)
    assert thread is not None
    assert await title_of(store, thread) == "To Rome, please"


# Following


async def test_a_follower_sees_old_and_new_messages_once(store: Store) -> None:
    await talk(store, turns=2)
    seen: list[int] = []
    done = asyncio.Event()

    async def watch() -> None:
        async for message in follow(store, KEY, interval=0.01, page_size=3):
            seen.append(message.seq)
            if len(seen) == 16:
                done.set()

    watching = asyncio.create_task(watch())
    await talk(store, turns=2)
    await asyncio.wait_for(done.wait(), 60)
    watching.cancel()
    assert seen == list(range(16))


async def test_a_follower_continues_with_a_thread_created_again(store: Store) -> None:
    await talk(store)
    following = aiter(follow(store, KEY, start=11, interval=0.01))
    assert texts([await anext(following)]) == ["answer 2"]
    await store.delete_thread(KEY)
    await store.append(KEY, [said("user", "again")])
    assert texts([await anext(following)]) == ["again"]


# Tags


async def test_tags_that_are_set_at_the_same_time_are_all_kept(store: Store) -> None:
    await talk(store)
    await tag_thread(store, KEY, {"old": 1, "gone": 1})
    await asyncio.gather(*(tag_thread(store, KEY, {f"k{n}": n}, remove=["gone"]) for n in range(10)))
    thread = await store.get_thread(KEY)
    assert thread is not None
    assert thread.metadata == {"old": 1, **{f"k{n}": n for n in range(10)}}


async def test_tagging_an_unknown_thread_is_an_error(store: Store) -> None:
    with pytest.raises(ThreadNotFoundError):
        await tag_thread(store, KEY, {"a": 1})
    assert await store.get_thread(KEY) is None


# Undoing


async def test_undo_drops_whole_turns(store: Store) -> None:
    await talk(store, turns=3)
    assert (await undo(store, KEY)).removed == 4
    assert texts(await kept(store))[-1] == "answer 1"
    await store.append(KEY, turn(7))
    assert (await undo(store, KEY, 2)).removed == 8
    assert texts(await kept(store)) == ["question 0", "", "", "answer 0"]


async def test_undo_of_more_turns_than_there_are_leaves_an_empty_thread(store: Store) -> None:
    await talk(store, turns=2)
    assert (await undo(store, KEY, 99)).removed == 8
    assert await kept(store) == []
    assert (await undo(store, KEY)).removed == 0


async def test_undo_of_a_result_drops_its_older_call(store: Store) -> None:
    await store.append(KEY, [said("user", "weather?")])
    await store.append(KEY, [call("a")])
    await store.append(KEY, [result("a"), said("assistant", "sunny")])
    assert await safe_cut(store, KEY, await undo_position(store, KEY)) == 1
    assert (await undo(store, KEY)).removed == 3
    assert texts(await kept(store)) == ["weather?"]


@pytest.mark.parametrize("moment", ["read_last", "truncate"])
async def test_undo_never_drops_a_concurrent_turn(store: Store, moment: str) -> None:
    await talk(store, turns=2)
    with pytest.raises(ConflictError) as caught:
        await undo(Meanwhile(store, moment, lambda: store.append(KEY, turn(2))), KEY)
    assert caught.value.actual == 12
    with pytest.raises(ConflictError):
        await undo(store, KEY, expected_seq=8)
    assert [texts(await kept(store))[at] for at in (3, 7, 11)] == ["answer 0", "answer 1", "answer 2"]
    assert (await undo(store, KEY, expected_seq=12)).removed == 4


async def test_undo_crosses_pages(store: Store) -> None:
    await store.append(KEY, [said("user", "first")])
    for _ in range(2):
        await store.append(KEY, [said("user", "x")] * 700)
    assert await undo_position(store, KEY, 2) == 1
    assert (await undo(store, KEY, 2)).removed == 1400


async def test_undo_of_no_turn_or_of_no_thread_is_refused(store: Store) -> None:
    with pytest.raises(ThreadNotFoundError):
        await undo(store, KEY)
    await talk(store)
    with pytest.raises(ConfigurationError):
        await undo(store, KEY, 0)


tool_talk = st.lists(
    st.lists(
        st.one_of(
            st.just(said("user", "x")),
            st.sampled_from("abc").map(call),
            st.sampled_from("abc").map(result),
        ),
        min_size=1,
        max_size=4,
    ),
    min_size=1,
    max_size=6,
)


@given(tool_talk, st.integers(0, 25), st.integers(0, 5))
@settings(max_examples=300, deadline=None)
def test_the_safe_cut_equals_the_cut_of_the_store(talk: list[list[NewMessage]], at: int, head: int) -> None:
    async def compare() -> None:
        store = MemoryStore()
        for some in talk:
            await store.append(KEY, some)
        await store.truncate(KEY, start=head)
        before = await store.get_thread(KEY)
        assert before is not None
        at_most = min(max(at, before.head_seq), before.next_seq)
        cut = await safe_cut(store, KEY, at_most)
        remaining = [message.seq for message in await kept(store) if message.seq < cut]
        await store.truncate(KEY, stop=at_most)
        assert [message.seq for message in await kept(store)] == remaining

    asyncio.run(compare())
