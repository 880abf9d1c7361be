"""Message stores of the betas in every kind of event loop, and in many loops."""

from __future__ import annotations

import asyncio
import gc
import threading
from pathlib import Path
from typing import Any

import pytest

from everthread.adapters.agent_framework_beta import EverthreadChatMessageStore, RedisChatMessageStore
from everthread.testing.guarantees.event_loops import LOOPS, run
from tests.beta import betas


@pytest.fixture(params=["memory", "sqlite", "redis", "the lab's class"])
def store(request: pytest.FixtureRequest, tmp_path: Path, fresh_prefix: str) -> EverthreadChatMessageStore:
    if request.param == "memory":
        return EverthreadChatMessageStore("memory:", "t")
    if request.param == "sqlite":
        return EverthreadChatMessageStore(f"sqlite:///{tmp_path}/threads.db", "t")
    url = request.getfixturevalue("redis_url")
    if request.param == "redis":
        return EverthreadChatMessageStore(f"{url}?prefix={fresh_prefix}", "t")
    return RedisChatMessageStore(url, "t", fresh_prefix)


async def say(agent: Any, text: str) -> str:
    return await betas.run(agent, text, agent.get_new_thread())


async def said(store: EverthreadChatMessageStore) -> list[str]:
    return [message.text for message in await store.list_messages()]


@pytest.mark.parametrize("kind", list(LOOPS))
def test_each_run_may_come_from_another_loop(store: EverthreadChatMessageStore, kind: str) -> None:
    agent = betas.agent(betas.scripted(then="Fine."), lambda: store)
    for number in range(3):
        run(say(agent, f"{number}"), LOOPS[kind])
    assert run(said(store), LOOPS[kind]) == ["0", "Fine.", "1", "Fine.", "2", "Fine."]
    run(store.aclose(), LOOPS[kind])
    assert len(run(said(store), LOOPS[kind])) == 6


def test_loops_of_several_threads_run_at_once(store: EverthreadChatMessageStore) -> None:
    agent, together = betas.agent(betas.scripted(then="Fine."), lambda: store), threading.Barrier(3)

    def talk() -> None:
        together.wait()
        run(say(agent, "hello"))

    threads = [threading.Thread(target=talk) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    # The betas save a run's question and its answer one after the other.
    assert sorted(run(said(store))) == ["Fine."] * 3 + ["hello"] * 3


async def test_unclosed_stores_are_closed_when_they_are_collected(tmp_path: Path) -> None:
    log = tmp_path / "threads.db-wal"
    stores = [EverthreadChatMessageStore(f"sqlite:///{tmp_path}/threads.db", f"{number}") for number in range(2)]
    for store in stores:
        await store.add_messages([betas.message("user", "hello")])
    del store
    stores.pop()
    gc.collect()
    assert await stores[0].list_messages()
    assert log.exists()
    stores.clear()
    gc.collect()
    async with asyncio.timeout(60):
        while log.exists():
            await asyncio.sleep(0)
