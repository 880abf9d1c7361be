"""Runs whose store does not answer."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import pytest
from agent_framework import Message

from everthread import ConfigurationError, StoreUnavailableError
from everthread.adapters.agent_framework import EverthreadHistoryProvider
from everthread.engines.memory import MemoryStore
from everthread.testing.faults import Fault, FaultyStore
from everthread.wrappers.forwarding import ABILITIES, ForwardingStore
from tests.adapters.agents import agent_with, run, texts
from tests.adapters.scripted import ScriptedClient

both_ways = pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])


class Hanging(ForwardingStore):
    """A store in which one call never returns."""

    carries = ABILITIES

    def __init__(self, call: str) -> None:
        super().__init__(MemoryStore())
        self._call = call

    async def _around(self, call: str, proceed: Any) -> Any:
        if call == self._call:
            await asyncio.Event().wait()
        return await proceed()


@both_ways
@pytest.mark.parametrize("call", ["read", "append"])
async def test_a_store_that_hangs_ends_the_run_in_time(call: str, stream: bool) -> None:
    client = ScriptedClient()
    provider = EverthreadHistoryProvider(Hanging(call), timeout=0.05)
    with pytest.raises(StoreUnavailableError, match=r"0\.05 seconds"):
        await run(agent_with(client, provider), "hello", stream=stream)
    assert len(client.seen) == (0 if call == "read" else 1)


@both_ways
@pytest.mark.parametrize("call", ["read", "append"])
async def test_a_run_may_answer_without_its_store(call: str, stream: bool, caplog) -> None:
    inner = MemoryStore()
    await EverthreadHistoryProvider(inner).save_messages("trip", [Message("user", ["before"])])
    store = FaultyStore(inner, [Fault.FAIL_BEFORE] * 3, calls=[call])
    client = ScriptedClient()
    agent = agent_with(client, EverthreadHistoryProvider(store, on_outage="answer"))
    with caplog.at_level(logging.ERROR):
        assert await run(agent, "hello", stream=stream) == "Done."
    assert client.requests == [[*([("user", "before")] if call == "append" else []), ("user", "hello")]]
    assert [record.levelname for record in caplog.records] == ["ERROR"]
    assert "'trip' failed (StoreUnavailableError)" in caplog.text
    said = texts(await EverthreadHistoryProvider(inner).get_messages("trip"))
    assert said == [("user", "before"), *([("user", "hello"), ("assistant", "Done.")] if call == "read" else [])]


async def test_a_transcript_is_not_stored_again_after_an_outage() -> None:
    store = FaultyStore(MemoryStore(), [None, Fault.FAIL_BEFORE], calls=["read"])
    shown: list[Message] = []
    agent = agent_with(ScriptedClient("a0", "a1"), EverthreadHistoryProvider(store, on_outage="answer"))
    for number in range(2):
        shown.append(Message("user", [f"q{number}"]))
        shown.append(Message("assistant", [await run(agent, list(shown))]))
    assert texts(await EverthreadHistoryProvider(store).get_messages("trip")) == texts(shown)


@pytest.mark.parametrize("wrong", [{"timeout": 0}, {"timeout": True}, {"on_outage": "ignore"}])
async def test_a_wrong_setting_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError):
        EverthreadHistoryProvider("memory:", **wrong)
