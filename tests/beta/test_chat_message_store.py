"""The lab's class and its general form: what they keep, what they tell of themselves, and what they share."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Sequence
from typing import Any

import pytest
import redis.asyncio as redis_client

from everthread import (
    ConfigurationError,
    InvalidIdentifierError,
    InvalidMessageError,
    NewMessage,
    OutcomeUnknownError,
    Retention,
    Store,
    StoreUnavailableError,
    ThreadKey,
    open_store,
)
from everthread.adapters.agent_framework_beta import EverthreadChatMessageStore, RedisChatMessageStore
from everthread.engines.memory import MemoryStore
from tests.beta import betas
from tests.servers import redis_server

SECRET = "s3cret-p@ss/word"
ENCODED = "s3cret-p%40ss%2Fword"


def turn(number: int) -> list[Any]:
    return [betas.message("user", f"question {number}"), betas.message("assistant", f"answer {number}")]


# Messages, on every engine


async def test_messages_come_back_in_order_and_equal(store: Store) -> None:
    kept = EverthreadChatMessageStore(store, "t")
    messages = [betas.message("user", "hi"), betas.message("assistant", *betas.every_content(), message_id="m")]
    await kept.add_messages(messages)
    await kept.add_messages([betas.message("user", "more")])
    read = await EverthreadChatMessageStore(store, "t").list_messages()
    assert [each.to_dict() for each in read[:2]] == [each.to_dict() for each in messages]
    assert read[2].text == "more"


async def test_adding_nothing_makes_no_thread(store: Store) -> None:
    kept = EverthreadChatMessageStore(store, "t")
    await kept.add_messages([])
    assert await store.get_thread(ThreadKey("t")) is None
    assert await kept.list_messages() == []


@pytest.mark.parametrize("most", [0, 1, 3, 4, 7])
async def test_exactly_the_newest_plain_messages_stay(store: Store, most: int) -> None:
    kept = EverthreadChatMessageStore(store, "t", retention=Retention(max_messages=most))
    texts: list[str] = []
    for number in range(4):
        await kept.add_messages(turn(number))
        texts += [f"question {number}", f"answer {number}"]
        assert [each.text for each in await kept.list_messages()] == texts[len(texts) - min(most, len(texts)) :]


async def test_a_tool_result_is_never_stored_without_its_call(store: Store) -> None:
    kept = EverthreadChatMessageStore(store, "t", retention=Retention(max_messages=2))
    await kept.add_messages(
        [
            betas.message("user", "weather?"),
            betas.message("assistant", betas.call("c1")),
            betas.message("tool", betas.result("c1")),
            betas.message("assistant", "sunny"),
        ]
    )
    assert betas.said(await kept.list_messages()) == [("assistant", "sunny")]


async def test_each_genuine_repeat_is_stored(store: Store) -> None:
    kept = EverthreadChatMessageStore(store, "t")
    yes = betas.message("user", "yes")
    for _ in range(3):
        await kept.add_messages([yes])
    assert [each.text for each in await kept.list_messages()] == ["yes"] * 3


async def test_clear_deletes_the_messages_and_delete_the_thread(store: Store) -> None:
    kept = EverthreadChatMessageStore(store, "t")
    await kept.clear()
    await kept.add_messages(turn(1))
    await kept.clear()
    assert await kept.list_messages() == []
    await kept.add_messages(turn(2))
    assert [each.text for each in await kept.list_messages()] == ["question 2", "answer 2"]
    assert await kept.delete() is True
    assert await kept.delete() is False


async def test_threads_are_listed_with_their_first_question(store: Store) -> None:
    first = EverthreadChatMessageStore(store, "first", tenant="ana")
    await first.add_messages([betas.message("system", "Be kind."), betas.message("user", "Plan a trip\nto Rome")])
    other = first.for_thread()
    await other.add_messages(turn(1))
    await EverthreadChatMessageStore(store, "foreign").add_messages(turn(2))
    threads = (await other.list_threads()).items
    assert {thread.key.thread_id: thread.title for thread in threads} == {
        "first": "Plan a trip to Rome",
        other.thread_id: "question 1",
    }
    assert (await other.for_thread("first").list_messages())[1].text == "Plan a trip\nto Rome"


async def test_tenants_do_not_see_each_other(store: Store) -> None:
    await EverthreadChatMessageStore(store, "t", tenant="ana").add_messages(turn(1))
    assert await EverthreadChatMessageStore(store, "t", tenant="ben").list_messages() == []
    assert await EverthreadChatMessageStore(store, "t").list_messages() == []


async def test_a_record_that_is_no_message_is_left_out_and_logged(
    store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    kept = EverthreadChatMessageStore(store, "t")
    await kept.add_messages(turn(1))
    await store.append(ThreadKey("t"), [NewMessage(b'{"no": "private message"}')])
    assert len(await kept.list_messages()) == 2
    assert "position 2 of thread 't'" in caplog.text
    assert "private" not in caplog.text


@pytest.mark.parametrize("given", ["hello", {"role": "user"}, 7, None, [None], ["hello"]])
async def test_values_that_are_no_messages_are_refused_as_a_whole(given: Any) -> None:
    async with open_store("memory:") as store:
        kept = EverthreadChatMessageStore(store, "t")
        with pytest.raises(InvalidMessageError):
            await kept.add_messages(given)
        with pytest.raises(InvalidMessageError):
            await kept.add_messages([betas.message("user", "ok"), None])
        assert await store.get_thread(ThreadKey("t")) is None


async def test_a_store_of_the_caller_is_not_closed(store: Store) -> None:
    async with EverthreadChatMessageStore(store, "t") as kept:
        await kept.add_messages(turn(1))
    assert (await store.get_thread(ThreadKey("t"))) is not None


# Trouble


class Faulty(MemoryStore):
    """A store whose next appends fail, before or after they took effect."""

    def __init__(self, *faults: str) -> None:
        super().__init__()
        self.faults = list(faults)

    async def append(self, key: ThreadKey, messages: Sequence[NewMessage], **options: Any) -> Any:
        fault = self.faults.pop(0) if self.faults else ""
        if fault == "before":
            raise StoreUnavailableError("not reached")
        appended = await super().append(key, messages, **options)
        if fault == "after":
            raise OutcomeUnknownError("no answer")
        return appended


@pytest.mark.parametrize("faults", [["before"], ["after"], ["after", "before"], ["before", "after"], ["after"] * 2])
async def test_an_append_with_a_lost_reply_takes_effect_once(faults: list[str]) -> None:
    kept = EverthreadChatMessageStore(Faulty(*faults), "t")
    await kept.add_messages(turn(1))
    assert [each.text for each in await kept.list_messages()] == ["question 1", "answer 1"]


async def test_a_store_that_stays_away_is_a_typed_error() -> None:
    with pytest.raises(StoreUnavailableError):
        await EverthreadChatMessageStore(Faulty(*["before"] * 9), "t").add_messages(turn(1))


async def test_a_stopped_server_is_a_typed_error_until_it_returns() -> None:
    with redis_server("redis", "--requirepass", SECRET) as server:
        kept = RedisChatMessageStore(f"redis://:{ENCODED}@127.0.0.1:{server.port}/0", "t")
        async with kept:
            await kept.add_messages(turn(1))
            server.kill()
            with pytest.raises(StoreUnavailableError) as raised:
                await kept.add_messages(turn(2))
            assert SECRET not in str(raised.value)
            assert ENCODED not in str(raised.value)
            server.start()
            await kept.add_messages(turn(3))
            assert (await kept.list_messages())[-1].text == "answer 3"


# The lab's class


def test_no_url_is_a_value_error() -> None:
    for missing in (None, ""):
        with pytest.raises(ValueError, match="redis_url is required"):
            RedisChatMessageStore(missing)


def test_without_an_id_each_store_has_a_new_one() -> None:
    ids = {RedisChatMessageStore("redis://localhost:6379").thread_id for _ in range(3)}
    assert len(ids) == 3
    assert all(re.fullmatch(r"thread_[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", each) for each in ids)


def test_positional_arguments_are_those_of_the_lab() -> None:
    kept = RedisChatMessageStore("redis://localhost:6379", "t", "lab11", 200)
    assert (kept.redis_key, kept.thread_id, kept.key_prefix, kept.max_messages) == ("lab11:t", "t", "lab11", 200)
    assert RedisChatMessageStore("redis://localhost:6379", "t").redis_key == "chat_messages:t"


@pytest.mark.parametrize(
    "wrong",
    [
        {"max_messages": -1},
        {"max_messages": 1.5},
        {"max_messages": True},
        {"redis_url": "postgresql://localhost/0"},
        {"redis_url": "localhost:6379"},
        {"redis_url": 7},
        {"key_prefix": ""},
        {"key_prefix": "a@b"},
    ],
)
def test_wrong_arguments_are_value_errors(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError):
        RedisChatMessageStore(**{"redis_url": "redis://localhost:6379", **wrong})


@pytest.mark.parametrize("thread_id", ["", 7, "x" * 5000, "\ud800"])
def test_an_invalid_thread_id_is_refused(thread_id: Any) -> None:
    with pytest.raises(InvalidIdentifierError):
        RedisChatMessageStore("redis://localhost:6379", thread_id)


@pytest.mark.parametrize("wrong", [None, 7, "nowhere", "carrier-pigeon://loft"])
def test_a_place_that_is_none_is_refused(wrong: Any) -> None:
    with pytest.raises(ConfigurationError):
        EverthreadChatMessageStore(wrong, "t")
    with pytest.raises(ConfigurationError):
        EverthreadChatMessageStore("memory:", "t", retention=5)


async def test_the_thread_is_a_list_of_plain_json(redis_url: str, fresh_prefix: str) -> None:
    messages = [betas.message("user", "hi"), betas.message("assistant", "hello")]
    async with RedisChatMessageStore(redis_url, "t", fresh_prefix) as kept:
        await kept.add_messages(messages)
        client = redis_client.from_url(redis_url)
        rows = await client.lrange(kept.redis_key, 0, -1)
        await client.aclose()
    assert [json.loads(row) for row in rows] == [each.to_dict() for each in messages]


async def test_a_list_of_another_program_is_continued(redis_url: str, fresh_prefix: str) -> None:
    client = redis_client.from_url(redis_url)
    for each in turn(1):
        await client.rpush(f"{fresh_prefix}:t", json.dumps(each.to_dict()))
    async with RedisChatMessageStore(redis_url, "t", fresh_prefix, 3) as kept:
        assert [each.text for each in await kept.list_messages()] == ["question 1", "answer 1"]
        await kept.add_messages(turn(2))
        assert [each.text for each in await kept.list_messages()] == ["answer 1", "question 2", "answer 2"]
        # The newest question is not the title of a conversation that began with another.
        assert [thread.title for thread in await kept.list_threads()] == [None]
    await client.aclose()


# State


@pytest.fixture
def secret_store() -> RedisChatMessageStore:
    url = (
        f"rediss://ana:{ENCODED}@cache.example.net:6380/2?ssl_cert_reqs=none&password={ENCODED}&health_check_interval=9"
    )
    return RedisChatMessageStore(url, "t", "lab11", 200)


CLEAN = "rediss://cache.example.net:6380/2?ssl_cert_reqs=none&health_check_interval=9"


async def test_the_state_names_thread_and_place_and_no_secret(secret_store: RedisChatMessageStore) -> None:
    state = {"thread_id": "t", "redis_url": CLEAN, "key_prefix": "lab11", "max_messages": 200}
    assert await secret_store.serialize() == {"messages": [], "store_metadata": state}
    assert await secret_store.serialize_state() == state
    for shown in (
        repr(secret_store),
        str(secret_store),
        secret_store.location,
        json.dumps(await secret_store.serialize()),
    ):
        assert SECRET not in shown
        assert ENCODED not in shown


async def test_include_credentials_keeps_the_password(secret_store: RedisChatMessageStore) -> None:
    state = await secret_store.serialize_state(include_credentials=True)
    assert state["redis_url"] == secret_store.redis_url
    assert (await RedisChatMessageStore.deserialize(state)).redis_url == secret_store.redis_url


@pytest.mark.parametrize(
    ("explicit", "environment", "expected"),
    [
        ("redis://explicit:1", "redis://environment:1", "redis://explicit:1"),
        (None, "redis://environment:1", "redis://environment:1"),
        (None, None, CLEAN),
    ],
)
async def test_argument_then_environment_then_state_name_the_place(
    secret_store: RedisChatMessageStore,
    monkeypatch: pytest.MonkeyPatch,
    explicit: str | None,
    environment: str | None,
    expected: str,
) -> None:
    if environment:
        monkeypatch.setenv("REDIS_URL", environment)
    state = await secret_store.serialize()
    restored = await RedisChatMessageStore.deserialize(state, redis_url=explicit)
    assert restored.redis_url == expected
    assert (restored.redis_key, restored.max_messages) == ("lab11:t", 200)


async def test_the_old_state_with_a_full_url_is_accepted() -> None:
    old = {"thread_id": "t", "redis_url": f"redis://:{ENCODED}@h:1/0", "key_prefix": "lab11", "max_messages": None}
    for state in (old, {"messages": [], "store_metadata": old}):
        restored = await RedisChatMessageStore.deserialize(state)
        assert (restored.redis_url, restored.redis_key) == (old["redis_url"], "lab11:t")


@pytest.mark.parametrize(
    "state",
    [
        None,
        7,
        "state",
        {},
        [],
        {"messages": []},
        {"store_metadata": None},
        {"store_metadata": {"redis_url": "redis://h"}},
        {"thread_id": None, "redis_url": "redis://h"},
        {"thread_id": 7, "redis_url": "redis://h"},
        {"thread_id": "", "redis_url": "redis://h"},
        {"thread_id": "t"},
        {"thread_id": "t", "redis_url": 7},
        {"thread_id": "t", "redis_url": "redis://h", "key_prefix": 7},
        {"thread_id": "t", "redis_url": "redis://h", "max_messages": "9"},
        {"thread_id": "t", "redis_url": "redis://h", "max_messages": -9},
    ],
)
async def test_a_state_that_is_none_is_a_value_error(state: Any) -> None:
    with pytest.raises(ValueError):
        await RedisChatMessageStore.deserialize(state)


@pytest.mark.parametrize("state", [{"messages": []}, {"thread_id": ""}, {"thread_id": "t", "max_messages": -1}, 7])
async def test_a_wrong_state_changes_nothing(state: Any) -> None:
    kept = RedisChatMessageStore("redis://localhost:6379", "mine", "lab11", 5)
    with pytest.raises(ValueError):
        await kept.update_from_state(state)
    assert (kept.redis_key, kept.max_messages) == ("lab11:mine", 5)
    await kept.update_from_state(None)
    assert kept.redis_key == "lab11:mine"


async def test_a_password_with_an_unclear_end_is_refused() -> None:
    with pytest.raises(ConfigurationError) as raised:
        await RedisChatMessageStore("redis://:half/way@127.0.0.1:1/0", "t").serialize()
    assert "half" not in str(raised.value)


async def test_update_from_state_continues_another_thread_here(redis_url: str, fresh_prefix: str) -> None:
    async with RedisChatMessageStore(redis_url, "old", fresh_prefix, 5) as saved:
        await saved.add_messages(turn(1))
        state = await saved.serialize()
    async with RedisChatMessageStore(redis_url, "new", fresh_prefix, 7) as kept:
        assert await kept.list_messages() == []
        await kept.update_from_state(state)
        assert (kept.redis_key, kept.max_messages) == (f"{fresh_prefix}:old", 7)
        assert [each.text for each in await kept.list_messages()] == ["question 1", "answer 1"]
        await kept.deserialize_state({**state["store_metadata"], "thread_id": "third"})
        assert kept.thread_id == "third"


async def test_the_general_store_continues_from_its_state(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    retention = Retention(max_messages=4)
    async with EverthreadChatMessageStore(url, "general", tenant="ana", retention=retention) as kept:
        await kept.add_messages(turn(1))
        state = json.loads(json.dumps(await kept.serialize()))
        monkeypatch.setenv("EVERTHREAD_STORE", url)
        async with await EverthreadChatMessageStore.deserialize(state) as restored:
            assert (restored.tenant, restored.max_messages) == ("ana", 4)
            assert [each.text for each in await restored.list_messages()] == ["question 1", "answer 1"]
        monkeypatch.setenv("EVERTHREAD_STORE", "memory:")
        async with await EverthreadChatMessageStore.deserialize(state) as elsewhere:
            assert await elsewhere.list_messages() == []
        async with await EverthreadChatMessageStore.deserialize(state, store=url) as again:
            await again.delete()


async def test_a_store_of_the_caller_must_be_passed_again(store: Store) -> None:
    state = await EverthreadChatMessageStore(store, "t").serialize()
    with pytest.raises(ConfigurationError, match="store="):
        await EverthreadChatMessageStore.deserialize(state)
    assert (await EverthreadChatMessageStore.deserialize(state, store=store)).thread_id == "t"


# Connections


async def clients_of(url: str) -> int:
    client = redis_client.from_url(url)
    try:
        return len([each for each in await client.client_list() if each["id"] != str(await client.client_id())])
    finally:
        await client.aclose()


async def test_stores_of_one_loop_share_a_connection() -> None:
    with redis_server("redis") as server:
        url = f"redis://127.0.0.1:{server.port}/0"
        stores = [RedisChatMessageStore(url, f"t{number}") for number in range(20)]
        assert await clients_of(url) == 0
        await asyncio.gather(*(each.add_messages(turn(1)) for each in stores))
        shared = await clients_of(url)
        assert shared <= 2
        for each in stores[1:]:
            await each.aclose()
            await each.aclose()
        assert len(await stores[0].list_messages()) == 2
        await stores[0].aclose()
        assert len(await stores[0].list_messages()) == 2
        await stores[0].aclose()


async def test_an_unused_store_is_disconnected() -> None:
    with redis_server("redis") as server:
        url = f"redis://127.0.0.1:{server.port}/0"
        async with RedisChatMessageStore(url, "t") as kept:
            await kept.add_messages(turn(1))
            assert await clients_of(url) >= 1
        async with asyncio.timeout(60):
            while await clients_of(url):
                await asyncio.sleep(0)


def test_one_store_can_be_used_in_one_event_loop_after_another(redis_url: str, fresh_prefix: str) -> None:
    kept = RedisChatMessageStore(redis_url, "t", fresh_prefix)

    async def once(number: int) -> list[str]:
        async with kept:
            await kept.add_messages(turn(number))
            return [each.text for each in await kept.list_messages()]

    asyncio.run(once(1))
    assert asyncio.run(once(2)) == ["question 1", "answer 1", "question 2", "answer 2"]
