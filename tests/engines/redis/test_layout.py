"""The contents of a Redis database: the keys of threads, and lists that other programs write to."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from datetime import timedelta

import pytest
import redis as redis_sync
import redis.asyncio as redis_py
from hypothesis import given, settings

from everthread import (
    ConfigurationError,
    CorruptRecordError,
    InvalidIdentifierError,
    LimitExceededError,
    MessagePage,
    Retention,
    SchemaError,
    Store,
    ThreadKey,
    new_message,
    open_store,
)
from everthread.engines.redis.keys import Names, ThreadNames, companions_of, list_of
from everthread.model import NewMessage
from everthread.testing import strategies
from tests.servers import Server, free_port, redis_server

KEY = ThreadKey("trip")


@pytest.fixture
async def other(server: Server) -> AsyncIterator[redis_py.Redis]:
    """Another program."""
    async with redis_py.Redis(port=server.port) as client:
        yield client


def said(text: str) -> NewMessage:
    return new_message({"role": "user", "content": text})


def texts(page: MessagePage) -> list[str]:
    return [json.loads(message.payload)["content"] for message in page]


def seqs(page: MessagePage) -> list[int]:
    return [message.seq for message in page]


async def push(other: redis_py.Redis, key: str, *contents: str, most: int | None = None) -> None:
    """Push messages as another program would, and trim."""
    await other.rpush(key, *[json.dumps({"role": "user", "content": text}) for text in contents])
    if most is not None and await other.llen(key) > most:
        await other.ltrim(key, -most, -1)


# Keys


async def test_messages_are_plain_json_in_a_list(store: Store, other: redis_py.Redis, fresh_prefix: str) -> None:
    messages = [said("é"), NewMessage(b'{ "any" : [1,2] }', "json")]
    await store.append(KEY, messages)
    assert await other.lrange(f"{fresh_prefix}:trip", 0, -1) == [message.payload for message in messages]
    await store.append(ThreadKey("trip", "a/b"), messages)
    assert await other.lrange(f"{fresh_prefix}@a%2Fb:trip", 0, -1) == [message.payload for message in messages]


async def test_the_default_prefix_is_that_of_other_programs(server: Server) -> None:
    async with open_store(f"redis://127.0.0.1:{server.port}/7") as store:
        await store.append(KEY, [said("a")])
    with redis_sync.Redis(port=server.port, db=7) as client:
        assert client.llen("chat_messages:trip") == 1


async def test_deleting_a_thread_leaves_no_key(store: Store, other: redis_py.Redis, fresh_prefix: str) -> None:
    key = ThreadKey("a}b", "tenant")
    await store.append(key, [NewMessage(b"1", "json", ("c", "d"), ()), NewMessage(b"1", "json", (), ("c",))])
    await store.put_document(key, "d", b"1")
    assert await other.keys(f"*{fresh_prefix}*")
    await store.delete_thread(key)
    assert await other.keys(f"*{fresh_prefix}*") == []


@pytest.fixture(scope="module")
def cluster_node() -> Iterator[redis_sync.Redis]:
    bus = ["--cluster-port", str(free_port())]
    with (
        redis_server("redis", "--cluster-enabled", "yes", *bus) as server,
        redis_sync.Redis(port=server.port) as client,
    ):
        yield client


@settings(deadline=None)
@given(key=strategies.thread_keys())
def test_the_companions_of_a_list_are_in_its_slot(cluster_node: redis_sync.Redis, key: ThreadKey) -> None:
    names = ThreadNames("prefix", key).names[:9]
    assert len({cluster_node.execute_command("CLUSTER", "KEYSLOT", name) for name in names}) == 1


@given(one=strategies.thread_keys(), two=strategies.thread_keys())
def test_no_two_threads_share_a_key(one: ThreadKey, two: ThreadKey) -> None:
    mine, theirs = ThreadNames("prefix", one).names, ThreadNames("prefix", two).names
    assert len(set(mine)) == len(mine)
    if one != two:
        assert not set(mine[:9]) & set(theirs)


@given(pair=strategies.look_alikes())
def test_threads_that_look_alike_share_no_key(pair: tuple[ThreadKey, ThreadKey]) -> None:
    one, two = (set(ThreadNames("prefix", key).names[:9]) for key in pair)
    assert not one & two


def test_no_companion_is_a_list_or_another_companion() -> None:
    lists = [b"p:%b" % thread for thread in (b"a", b"{a}", b"a}", b"{}a", b"{a", b"}{", b"{a}:meta", b"{p:a}:meta")]
    everything = [*lists, *(name for each in lists for name in companions_of(each))]
    assert len(set(everything)) == len(everything)


@given(key=strategies.thread_keys())
def test_a_meta_key_belongs_to_one_list(key: ThreadKey) -> None:
    names = ThreadNames("prefix", key).names
    assert [list_of(name) for name in names] == [None, names[0], *[None] * 8]


def test_the_cache_of_names_is_bounded() -> None:
    names = Names("p")
    assert names.of(KEY) is names.of(KEY)
    for i in range(5000):
        names.of(ThreadKey(str(i)))
    assert len(names._known) == 2000


@pytest.mark.parametrize("prefix", ["", "a@b", "{a}", "a{", "}", "a\nb", "\0", "\ud800"])
def test_prefixes_that_could_match_other_keys_are_refused(prefix: str) -> None:
    with pytest.raises(ConfigurationError):
        Names(prefix)


async def test_overlapping_prefixes_reach_no_common_thread(server: Server) -> None:
    url = f"redis://127.0.0.1:{server.port}/3?prefix="
    async with open_store(url + "meet") as short, open_store(url + "meet:a") as long:
        await short.append(ThreadKey("a:b"), [said("short's")])
        for call in (
            long.append(ThreadKey("b"), [said("long's")]),
            long.read(ThreadKey("b")),
            long.read(ThreadKey("b"), start=1),
            long.read_last(ThreadKey("b"), 5),
            long.get_thread(ThreadKey("b")),
            long.delete_thread(ThreadKey("b")),
            long.put_document(ThreadKey("b"), "d", b"1"),
        ):
            with pytest.raises(InvalidIdentifierError, match="choose a prefix"):
                await call
        assert texts(await short.read(ThreadKey("a:b"))) == ["short's"]
        assert len(await long.list_threads()) == 0


async def test_an_error_names_a_key_of_another_type(store: Store, other: redis_py.Redis, fresh_prefix: str) -> None:
    await other.set(f"{fresh_prefix}:trip", "not a list")
    for call in (
        store.append(KEY, [said("a")]),
        store.read(KEY),
        store.read(KEY, start=1),
        store.read_last(KEY, 1),
        store.get_thread(KEY),
    ):
        with pytest.raises(CorruptRecordError, match=f"{fresh_prefix}:trip"):
            await call
    assert await other.get(f"{fresh_prefix}:trip") == b"not a list"


async def test_data_of_a_newer_schema_is_refused(store: Store, other: redis_py.Redis, fresh_prefix: str) -> None:
    await store.append(KEY, [said("a")])
    meta = f"{{{fresh_prefix}:trip}}:meta"
    state = await other.hget(meta, "state")
    assert state is not None
    await other.hset(meta, "state", b"\x05" + state[1:])
    for call in (store.append(KEY, [said("b")]), store.read(KEY), store.read_last(KEY, 1), store.get_thread(KEY)):
        with pytest.raises(SchemaError, match="schema 5"):
            await call
    assert await other.llen(f"{fresh_prefix}:trip") == 1


async def test_only_a_thread_with_its_own_retention_has_schema_two(
    store: Store, other: redis_py.Redis, fresh_prefix: str
) -> None:
    async def schema() -> int:
        state = await other.hget(f"{{{fresh_prefix}:trip}}:meta", "state")
        assert isinstance(state, bytes)
        return state[0]

    await store.append(KEY, [said("a"), said("b")])
    assert await schema() == 1
    await store.update_thread(KEY, retention=Retention(max_messages=1))
    assert await schema() == 2
    assert texts(await store.read(KEY)) == texts(await store.read_last(KEY, 2)) == ["a", "b"]
    await store.append(KEY, [said("c")])
    assert await schema() == 2
    assert texts(await store.read(KEY)) == ["c"]
    await store.update_thread(KEY, retention="inherit")
    assert await schema() == 1


async def test_a_threads_own_retention_expires_all_its_keys(
    store: Store, other: redis_py.Redis, fresh_prefix: str
) -> None:
    await store.append(KEY, [NewMessage(b"1", "json", ("c", "open"), ()), NewMessage(b"2", "json", (), ("c",))])
    await store.put_document(KEY, "d", b"1")

    async def lives() -> list[int]:
        names = [name for name in ThreadNames(fresh_prefix, KEY).names[:9] if await other.exists(name)]
        assert len(names) == 7  # of two generations of append ids there is one
        return [await other.pttl(name) for name in names]

    assert set(await lives()) == {-1}
    await store.update_thread(KEY, retention=Retention(expire_after=timedelta(hours=1)))
    left = await lives()
    assert min(left) > 3_500_000
    assert max(left) - min(left) < 1000
    await store.append(KEY, [said("a")])
    assert min(await lives()) > 3_500_000
    await store.update_thread(KEY, retention="inherit")
    assert set(await lives()) == {-1}


# Sizes


async def test_a_turn_of_ten_thousand_messages_is_one_append(store: Store) -> None:
    turn = [said(str(i)) for i in range(10_000)]
    await store.append(KEY, [said("first")])
    await store.append(KEY, turn, append_id="big")
    assert (await store.append(KEY, turn, append_id="big")).replayed
    page = await store.read(KEY)
    assert len(page) == 10_001
    assert page[-1].turn == 1
    await store.append(KEY, turn, retention=Retention(max_messages=3))
    assert seqs(await store.read(KEY)) == [19_998, 19_999, 20_000]


async def test_a_turn_over_the_limit_is_not_sent(store: Store) -> None:
    large = NewMessage(b'"' + b"x" * (15 * 1024 * 1024) + b'"')
    with pytest.raises(LimitExceededError):
        await store.append(KEY, [large] * 20)
    await store.append(KEY, [large])
    assert (await store.read_last(KEY, 1))[0].payload == large.payload


async def test_at_least_a_thousand_append_ids_are_remembered(store: Store) -> None:
    for start in range(0, 2500, 100):
        await asyncio.gather(*(store.append(KEY, [said("x")], append_id=str(start + i)) for i in range(100)))
        oldest = max(start + 100 - 1000, 0)
        assert (await store.append(KEY, [said("x")], append_id=str(oldest))).first_seq == oldest
    assert (await store.get_thread(KEY)) is not None
    assert len(await store.read(KEY)) == 2500


async def test_a_page_is_full_although_the_index_lists_deleted_threads(
    store: Store, other: redis_py.Redis, fresh_prefix: str
) -> None:
    for i in range(30):
        await store.append(ThreadKey(str(i)), [said("x")])
    for i in range(5, 29):
        await other.delete(*(ThreadNames(fresh_prefix, ThreadKey(str(i))).names[:9]))
    page = await store.list_threads(limit=4)
    assert [thread.key.thread_id for thread in page] == ["29", "4", "3", "2"]
    rest = await store.list_threads(limit=4, cursor=page.cursor)
    assert [thread.key.thread_id for thread in rest] == ["1", "0"]
    assert await other.zcard(f"{{{fresh_prefix}}}:recent") == 6


async def test_pages_of_threads_with_equal_times_are_complete(server: Server, fresh_prefix: str) -> None:
    url = f"redis://127.0.0.1:{server.port}?prefix={fresh_prefix}"
    async with open_store(url, clock=lambda: 1_800_000_000.0) as store:
        await asyncio.gather(*(store.append(ThreadKey(f"{i:03}é"), [said("x")]) for i in range(100)))
        seen: list[str] = []
        cursor = None
        while True:
            page = await store.list_threads(limit=7, cursor=cursor)
            seen += [thread.key.thread_id for thread in page]
            if seen and len(seen) == 14:
                await store.delete_thread(ThreadKey(seen[-1]))
            if (cursor := page.cursor) is None:
                break
        assert seen == [f"{i:03}é" for i in reversed(range(100))]


async def test_undos_do_not_grow_what_every_append_reads(
    store: Store, other: redis_py.Redis, fresh_prefix: str
) -> None:
    names = ThreadNames(fresh_prefix, KEY).names
    for _ in range(300):
        appended = await store.append(KEY, [said("kept"), said("undone")])
        await store.truncate(KEY, stop=appended.first_seq + 1)
    state = await other.hget(names[1], "state")
    assert state is not None
    assert len(state) < 200
    assert await other.zcard(names[8]) == 299
    assert seqs(await store.read(KEY)) == list(range(0, 600, 2))
    assert seqs(await store.read_last(KEY, 2, before=301)) == [298, 300]
    # What is dropped takes its runs along.
    await store.truncate(KEY, start=590)
    assert await other.zcard(names[8]) == 5
    await store.truncate(KEY, stop=591)
    assert not await other.exists(names[8])
    assert (await store.append(KEY, [said("x")])).first_seq == 600
    assert seqs(await store.read(KEY)) == [590, 600]


# Other writers


async def test_reading_a_list_of_another_program_changes_nothing(
    store: Store, other: redis_py.Redis, fresh_prefix: str
) -> None:
    await push(other, f"{fresh_prefix}:trip", "a", "b", "c")
    page = await store.read(KEY)
    assert (seqs(page), texts(page)) == ([0, 1, 2], ["a", "b", "c"])
    assert {(m.format, m.created_ms) for m in page} == {("chat-completions", None)}
    assert [m.turn for m in page] == [0, 1, 2]
    assert seqs(await store.read_last(KEY, 2)) == [1, 2]
    assert seqs(await store.read_last(KEY, 2, before=2)) == [0, 1]
    assert seqs(await store.read(KEY, start=1, limit=1)) == [1]
    thread = await store.get_thread(KEY)
    assert thread is not None
    assert (thread.count, thread.next_seq, thread.size) == (3, 3, sum(len(m.payload) for m in page))
    assert len(await store.list_threads()) == 0
    assert await other.keys(f"*{fresh_prefix}*") == [f"{fresh_prefix}:trip".encode()]


async def test_the_first_append_adopts_a_list_of_another_program(
    store: Store, other: redis_py.Redis, fresh_prefix: str
) -> None:
    await push(other, f"{fresh_prefix}:trip", "a", "b")
    appended = await store.append(KEY, [said("c")], expected_seq=2)
    assert (appended.first_seq, appended.next_seq) == (2, 3)
    page = await store.read(KEY)
    assert (seqs(page), texts(page)) == ([0, 1, 2], ["a", "b", "c"])
    assert [m.created_ms is None for m in page] == [True, True, False]
    assert [thread.count for thread in await store.list_threads()] == [3]
    assert await other.lrange(f"{fresh_prefix}:trip", 0, -1) == [m.payload for m in page]


@pytest.mark.parametrize("change", ["title", "document", "truncate"])
async def test_any_write_adopts_a_list_of_another_program(
    store: Store, other: redis_py.Redis, fresh_prefix: str, change: str
) -> None:
    await push(other, f"{fresh_prefix}:trip", "a", "b")
    if change == "title":
        assert (await store.update_thread(KEY, title="t")).count == 2
    elif change == "document":
        await store.put_document(KEY, "d", b"1")
    else:
        await store.truncate(KEY, start=0, stop=2)
    assert texts(await store.read(KEY)) == ["a", "b"]
    assert (await store.append(KEY, [said("c")])).first_seq == 2
    assert await store.delete_thread(KEY)


async def test_pushes_of_another_program_get_the_next_positions(
    store: Store, other: redis_py.Redis, fresh_prefix: str
) -> None:
    await store.append(KEY, [said("a")])
    await push(other, f"{fresh_prefix}:trip", "b", "c")
    assert seqs(await store.read_last(KEY, 5)) == [0, 1, 2]
    assert (await store.append(KEY, [said("d")])).first_seq == 3
    await push(other, f"{fresh_prefix}:trip", "e")
    thread = await store.get_thread(KEY)
    assert thread is not None
    assert (thread.count, thread.next_seq) == (5, 5)
    assert texts(await store.read(KEY)) == ["a", "b", "c", "d", "e"]


async def test_a_trim_by_another_program_keeps_positions(
    store: Store, other: redis_py.Redis, fresh_prefix: str
) -> None:
    await store.append(KEY, [said(str(i)) for i in range(10)])
    await other.ltrim(f"{fresh_prefix}:trip", -4, -1)
    page = await store.read(KEY)
    assert (page.head_seq, seqs(page), texts(page)) == (6, [6, 7, 8, 9], ["6", "7", "8", "9"])
    await push(other, f"{fresh_prefix}:trip", "10", "11", most=4)
    page = await store.read(KEY)
    assert (page.head_seq, seqs(page), texts(page)) == (8, [8, 9, 10, 11], ["8", "9", "10", "11"])
    thread = await store.get_thread(KEY)
    assert thread is not None
    assert (thread.count, thread.size) == (4, sum(len(m.payload) for m in page))


async def test_another_program_and_a_store_write_to_one_thread_alternately(
    store: Store, other: redis_py.Redis, fresh_prefix: str
) -> None:
    last = -1
    for i in range(40):
        if i % 3:
            await push(other, f"{fresh_prefix}:trip", f"q{i}", f"r{i}", most=8)
        else:
            await store.append(KEY, [said(f"q{i}"), said(f"r{i}")], retention=Retention(max_messages=8))
        page = await store.read_last(KEY, 2)
        assert texts(page) == [f"q{i}", f"r{i}"]
        assert seqs(page) == [last + 1, last + 2]
        last += 2
    assert len(await store.read(KEY)) == 8


async def test_a_deleted_list_restarts_without_reused_positions(
    store: Store, other: redis_py.Redis, fresh_prefix: str
) -> None:
    await store.append(KEY, [said("a"), said("b")])
    await other.delete(f"{fresh_prefix}:trip")
    assert await store.read(KEY) == MessagePage((), 2, 2)
    assert (await store.append(KEY, [said("c")])).first_seq == 2
    assert seqs(await store.read(KEY)) == [2]


async def test_payloads_that_are_not_json_are_read_unchanged(
    store: Store, other: redis_py.Redis, fresh_prefix: str
) -> None:
    await other.rpush(f"{fresh_prefix}:trip", b"\xff not json", b'{"role":"user","content":"b"}')
    page = await store.read(KEY)
    assert [m.format for m in page] == ["json", "chat-completions"]
    assert page[0].payload == b"\xff not json"


async def test_lost_facts_lose_only_the_times(store: Store, other: redis_py.Redis, fresh_prefix: str) -> None:
    await store.append(KEY, [said("a"), said("b")])
    await other.delete(f"{{{fresh_prefix}:trip}}:facts")
    assert [m.created_ms for m in await store.read(KEY)] == [None, None]
    await store.append(KEY, [said("c")])
    page = await store.read(KEY)
    assert texts(page) == ["a", "b", "c"]
    assert [m.created_ms is None for m in page] == [True, True, False]


async def test_a_new_thread_drops_companions_of_a_lost_meta(
    store: Store, other: redis_py.Redis, fresh_prefix: str
) -> None:
    await store.append(KEY, [NewMessage(b"1", "json", ("call",), ())], append_id="1")
    await store.put_document(KEY, "d", b"1")
    await other.delete(f"{{{fresh_prefix}:trip}}:meta", f"{fresh_prefix}:trip")
    assert (await store.append(KEY, [said("a")], append_id="1")).replayed is False
    assert await store.list_documents(KEY) == ()
