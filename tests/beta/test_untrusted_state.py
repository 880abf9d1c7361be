"""What a serialized state decides: a thread, and at most a Redis server that gets nothing but what the state holds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from everthread import ConfigurationError, Retention
from everthread.adapters.agent_framework_beta import EverthreadChatMessageStore, RedisChatMessageStore, restore_thread
from tests.beta import betas


def state_at(url: str, name: str = "store_url") -> dict[str, Any]:
    return {"messages": [], "store_metadata": {"thread_id": "t", name: url}}


PLACES = [
    "sqlite:///{folder}/planted.db",
    "file://{folder}/planted",
    "memory:",
    "postgresql://127.0.0.1:1/postgres",
    "s3://bucket/prefix",
    "cosmos://account/database",
    "unix:///{folder}/redis.sock",
    "redis://127.0.0.1:1/0?auth=entra",
    "redis://127.0.0.1:1/0?%61uth=entra",
    "rediss://127.0.0.1:1/0?ssl_certfile=/c.pem&ssl_keyfile=/k.pem",
    "rediss://127.0.0.1:1/0?ssl_ca_certs=/c.pem",
    "rediss+cluster://127.0.0.1:1/0?ssl_ca_path=/certificates",
]


@pytest.mark.parametrize("place", PLACES)
async def test_a_state_alone_opens_no_file_and_sends_no_own_credentials(place: str, tmp_path: Path) -> None:
    url = place.format(folder=tmp_path)
    with pytest.raises(ConfigurationError, match="EVERTHREAD_STORE") as raised:
        await EverthreadChatMessageStore.deserialize(state_at(url))
    assert "store=" in str(raised.value)
    agent = betas.agent(betas.scripted(), None)
    thread = {"service_thread_id": None, "chat_message_store_state": state_at(url)}
    for restore in (restore_thread(agent, thread), agent.deserialize_thread(thread)):
        with pytest.raises(ConfigurationError):
            await restore
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "number",
    [1e15, 1e308, -1, float("nan"), float("inf"), 10**400, 10**5000, True, "1"],
    ids=lambda value: type(value).__name__,
)
@pytest.mark.parametrize("name", ["expire_after", "max_messages"])
async def test_a_number_that_cannot_be_is_a_configuration_error(name: str, number: object) -> None:
    state = {"thread_id": "t", "store_url": "redis://127.0.0.1:1/0", name: number}
    with pytest.raises(ConfigurationError):
        await EverthreadChatMessageStore.deserialize(state)


@pytest.mark.parametrize("place", PLACES[6:-1])
async def test_the_labs_state_alone_sends_no_own_credentials(place: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="REDIS_URL"):
        await RedisChatMessageStore.deserialize(state_at(place.format(folder=tmp_path), "redis_url"))


async def test_a_file_opens_if_the_caller_names_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    url = f"sqlite:///{tmp_path}/threads.db"
    state = state_at(f"sqlite:///{tmp_path}/planted.db")
    async with await EverthreadChatMessageStore.deserialize(state, store=url) as kept:
        await kept.add_messages([betas.message("user", "hi")])
    monkeypatch.setenv("EVERTHREAD_STORE", url)
    async with await EverthreadChatMessageStore.deserialize(state) as kept:
        assert betas.said(await kept.list_messages()) == [("user", "hi")]
    assert not (tmp_path / "planted.db").exists()


async def test_a_state_of_another_place_is_refused_until_the_caller_decides(monkeypatch: pytest.MonkeyPatch) -> None:
    here, there = "redis://:pw@127.0.0.1:1/0", "redis://127.0.0.1:2/0"
    kept = RedisChatMessageStore(here, "mine")
    await kept.update_from_state(state_at("redis://127.0.0.1:1", "redis_url"))
    assert (kept.thread_id, kept.redis_url) == ("t", here)
    for other in (there, "redis://127.0.0.1:1/1", "rediss://127.0.0.1:1/0", "sqlite:///x.db"):
        with pytest.raises(ConfigurationError, match="REDIS_URL"):
            await kept.update_from_state({**state_at(other, "redis_url")["store_metadata"], "thread_id": "new"})
        assert (kept.thread_id, kept.redis_url) == ("t", here)
    await kept.update_from_state(state_at(there, "redis_url"), redis_url=there)
    assert kept.redis_url == there
    monkeypatch.setenv("REDIS_URL", there)
    await kept.update_from_state(state_at(here, "redis_url"))
    assert (kept.thread_id, kept.redis_url) == ("t", there)


async def test_a_general_store_refuses_a_state_of_another_place(tmp_path: Path) -> None:
    kept = EverthreadChatMessageStore(f"sqlite:///{tmp_path}/here.db", "mine")
    with pytest.raises(ConfigurationError, match="another place"):
        await kept.update_from_state(state_at(f"sqlite:///{tmp_path}/there.db"))
    await kept.update_from_state(state_at(f"sqlite:///{tmp_path}/here.db"))
    assert kept.thread_id == "t"


async def test_a_state_does_not_reach_another_tenant(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/threads.db"
    async with EverthreadChatMessageStore(url, "private", tenant="ben") as kept:
        await kept.add_messages([betas.message("user", "secret")])
    stolen = {"thread_id": "private", "store_url": url, "tenant": "ben"}
    agent = betas.agent(betas.scripted(), lambda: EverthreadChatMessageStore(url, tenant="ana"))
    thread = {"service_thread_id": None, "chat_message_store_state": {"messages": [], "store_metadata": stolen}}
    for restore in (
        agent.deserialize_thread(thread),
        restore_thread(agent, thread),
        EverthreadChatMessageStore.deserialize(stolen, store=url, tenant="ana"),
    ):
        with pytest.raises(ConfigurationError, match="another tenant"):
            await restore
    without_tenant = {"thread_id": "private", "store_url": url}
    async with EverthreadChatMessageStore(url, tenant="ana") as kept:
        await kept.update_from_state(without_tenant)
        assert (kept.tenant, await kept.list_messages()) == ("ana", [])
        await kept.update_from_state(stolen, tenant="ben")
        assert betas.said(await kept.list_messages()) == [("user", "secret")]


async def test_a_state_changes_neither_prefix_nor_retention(tmp_path: Path) -> None:
    url = "redis://127.0.0.1:1/0"
    kept = RedisChatMessageStore(url, "mine", key_prefix="ana", max_messages=5)
    state = {"thread_id": "t", "redis_url": url, "max_messages": 0, "key_prefix": "ben"}
    with pytest.raises(ConfigurationError, match="key_prefix="):
        await kept.update_from_state(state)
    assert (kept.redis_key, kept.max_messages) == ("ana:mine", 5)
    for theirs in ({}, {"key_prefix": "ana"}):
        await kept.update_from_state({"thread_id": "t", "redis_url": url, "max_messages": 0, **theirs})
        assert (kept.redis_key, kept.max_messages) == ("ana:t", 5)
    await kept.update_from_state(state, key_prefix="ben")
    assert (kept.redis_key, kept.max_messages) == ("ben:t", 5)

    other = EverthreadChatMessageStore(f"sqlite:///{tmp_path}/x.db", "mine", retention=Retention(max_messages=5))
    await other.update_from_state({"thread_id": "t", "store_url": None, "max_messages": 0, "expire_after": 1})
    assert (other.thread_id, other._retention) == ("t", Retention(max_messages=5))
