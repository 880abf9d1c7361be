"""The lab's own program, as its page describes it: its menu, and the client of the store that it uses directly."""

from __future__ import annotations

import json
from typing import Any

import pytest

from everthread.adapters.agent_framework_beta import RedisChatMessageStore
from tests.beta import betas

pytestmark = pytest.mark.skipif(not betas.HAS_CLASSES, reason="the lab is for the betas with ChatAgent")


async def saved_keys(store: RedisChatMessageStore) -> list[str]:
    client, found = store._redis_client, list[str]()
    for key in await client.keys(f"{store.key_prefix}:*"):
        if await client.exists(key) and await client.llen(key):
            found.append(key)
    return sorted(found)


async def preview(store: RedisChatMessageStore, key: str) -> dict[str, Any]:
    return json.loads((await store._redis_client.lrange(key, 0, 0))[0])


async def test_the_menu_lists_loads_and_continues_threads(redis_url: str, fresh_prefix: str) -> None:
    def factory() -> RedisChatMessageStore:
        return RedisChatMessageStore(redis_url=redis_url, key_prefix=fresh_prefix, max_messages=200)

    agent = betas.agent(betas.scripted("Hello Ana.", "Hello Ben."), factory)
    threads = [agent.get_new_thread() for _ in range(2)]
    for thread, said in zip(threads, ("I am Ana", "I am Ben"), strict=True):
        await betas.run(agent, said, thread)
    current = threads[0].message_store
    keys = await saved_keys(current)
    assert keys == sorted(thread.message_store.redis_key for thread in threads)
    other = threads[1].message_store.redis_key
    assert "I am Ben" in json.dumps(await preview(current, other))

    loaded = RedisChatMessageStore(
        redis_url=current.redis_url,
        thread_id=other.removeprefix(f"{current.key_prefix}:"),
        key_prefix=current.key_prefix,
        max_messages=current.max_messages,
    )
    thread = agent.get_new_thread()
    thread.message_store = loaded
    await current.aclose()
    await betas.run(agent, "Who am I?", thread)
    assert [text for _, text in betas.said(await loaded.list_messages())] == [
        *("I am Ben", "Hello Ben."),
        *("Who am I?", "Done."),
    ]
    for each in (loaded, threads[1].message_store):
        await each.aclose()
