"""Server-Sent Events: what a follower receives, also after interruptions, and the bounds of followers."""

from __future__ import annotations

import json
import logging

import pytest

from everthread import ConfigurationError, Store, ThreadKey, open_store
from everthread.server import ThreadApi, thread_api
from everthread.server.api.following import Followers
from everthread.testing.faults import Fault, FaultyStore
from tests.operations.talks import said, talk
from tests.server.clients import authorize, mounted, stream

KEY = ThreadKey("trip", "ana")
PATH = "/threads/trip/events"


async def test_new_messages_arrive_in_order(store: Store) -> None:
    await talk(store, KEY, turns=1)
    async with stream(mounted(store, poll_seconds=0.02), PATH) as events:
        assert (await events.event()).name == "open"
        for number in range(3):
            await store.append(KEY, [said("user", f"new {number}"), said("assistant", "yes")])
            received = [json.loads((await events.event()).data) for _ in range(2)]
            assert [(each["seq"], each["text"]) for each in received] == [
                (4 + 2 * number, f"new {number}"),
                (5 + 2 * number, "yes"),
            ]


async def test_an_interrupted_follower_misses_nothing(store: Store) -> None:
    await talk(store, KEY, turns=1)
    app = mounted(store, poll_seconds=0.02)
    async with stream(app, PATH) as events:
        # Before any message: the first event has an ID already.
        seen = (await events.event()).id
    await store.append(KEY, [said("user", "one"), said("user", "two")])
    async with stream(app, PATH, last_event_id=seen) as events:
        await events.event()
        received = await events.event()
        assert json.loads(received.data)["text"] == "one"
    await store.append(KEY, [said("user", "three")])
    async with stream(app, PATH + "?start=0", last_event_id=received.id) as events:
        await events.event()
        assert [json.loads((await events.event()).data)["text"] for _ in range(2)] == ["two", "three"]


async def test_a_follower_begins_at_a_position(quick_store: Store) -> None:
    await talk(quick_store, KEY, turns=60)
    app = mounted(quick_store)
    async with stream(app, PATH + "?start=3&form=raw") as events:
        await events.event()
        received = [json.loads((await events.event()).data) for _ in range(237)]
    assert [each["seq"] for each in received] == list(range(3, 240))
    assert received[0]["payload"] == {"role": "assistant", "content": "answer 0"}
    async with stream(app, PATH + "?start=9000000000") as events:
        assert (await events.event()).id.endswith(".240")


async def test_a_thread_that_is_created_again_starts_from_its_beginning(store: Store) -> None:
    await talk(store, KEY, turns=2)
    app = mounted(store, poll_seconds=0.02)
    async with stream(app, PATH) as events:
        seen = (await events.event()).id
    await store.delete_thread(KEY)
    await talk(store, KEY, turns=3)
    async with stream(app, PATH, last_event_id=seen) as events:
        assert (await events.event()).name == "restart"
        assert json.loads((await events.event()).data)["seq"] == 0


async def test_a_follower_learns_of_the_deletion(store: Store) -> None:
    await talk(store, KEY, turns=1)
    async with stream(mounted(store, poll_seconds=0.02), PATH) as events:
        await events.event()
        await store.delete_thread(KEY)
        assert (await events.event()).name == "deleted"
        assert await events.body() == b""
    async with stream(mounted(store), PATH) as events:
        assert events.status == 404


async def test_a_follower_outlasts_an_outage_of_the_store() -> None:
    plan = [None, *([Fault.FAIL_BEFORE] * 3)]
    async with FaultyStore(open_store("memory:"), plan, calls=["read"]) as store:
        await talk(store, KEY, turns=1)
        async with stream(mounted(store, poll_seconds=0.02), PATH) as events:
            await events.event()
            failed = await events.event()
            await store.append(KEY, [said("user", "back again")])
            assert (failed.name, json.loads(failed.data)["status"]) == ("problem", 503)
            assert json.loads((await events.event()).data)["text"] == "back again"


async def test_the_number_of_followers_is_bounded(quick_store: Store) -> None:
    await talk(quick_store, KEY, turns=1)
    await talk(quick_store, ThreadKey("trip", "ben"), turns=1)
    await talk(quick_store, ThreadKey("trip", "eve"), turns=1)
    path = PATH.removeprefix("/threads")
    followers = Followers(2, 1, poll_seconds=0.5, stay_seconds=600)
    app = ThreadApi(quick_store, authorize, followers)
    async with stream(app, path) as first, stream(app, path) as second, stream(app, path, "ben") as other:
        assert [first.status, second.status, other.status] == [200, 429, 200]
        assert json.loads(await second.body())["title"] == "TooManyFollowers"
        async with stream(app, path, "eve") as third:
            assert third.status == 429
    async with stream(app, path) as again:
        assert again.status == 200
    assert followers.counts == {}


async def test_a_follower_must_connect_again_after_some_time(quick_store: Store) -> None:
    await talk(quick_store, KEY, turns=1)
    async with stream(mounted(quick_store, poll_seconds=0.02, stay_seconds=0.01), PATH) as events:
        assert b"open" in await events.body()


async def test_followers_of_different_tenants_receive_only_their_own(quick_store: Store) -> None:
    await talk(quick_store, KEY, turns=1)
    await talk(quick_store, ThreadKey("trip", "ben"), turns=1)
    app = mounted(quick_store, poll_seconds=0.02)
    async with stream(app, PATH) as ana, stream(app, PATH, "ben") as ben:
        await ana.event()
        await ben.event()
        await quick_store.append(ThreadKey("trip", "ben"), [said("user", "for ben")])
        await quick_store.append(KEY, [said("user", "for ana")])
        assert json.loads((await ana.event()).data)["text"] == "for ana"
        assert json.loads((await ben.event()).data)["text"] == "for ben"


async def test_no_log_has_a_message(quick_store: Store, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    await talk(quick_store, KEY, turns=1)
    async with stream(mounted(quick_store), PATH + "?start=0") as events:
        await events.event()
        assert "question" in (await events.event()).data
    assert "question" not in caplog.text


@pytest.mark.parametrize("wrong", ["0", "a.b", "1.-1", "1.2.3", "9" * 40 + ".1"])
async def test_a_wrong_event_id_is_refused(quick_store: Store, wrong: str) -> None:
    await talk(quick_store, KEY, turns=1)
    async with stream(mounted(quick_store), PATH, last_event_id=wrong) as events:
        assert events.status == 422


@pytest.mark.parametrize("wrong", [{"poll_seconds": 0.001}, {"stay_seconds": 0}, {"most_followers": -1}])
def test_wrong_limits_are_refused(quick_store: Store, wrong: dict[str, float]) -> None:
    with pytest.raises(ConfigurationError):
        thread_api(quick_store, authorize=authorize, **wrong)  # type: ignore[arg-type]
