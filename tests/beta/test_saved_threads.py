"""Threads that the betas' own serializer gave, saved to files, can be imported."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from agent_framework import AgentThread, ChatMessageStore

from everthread import ThreadKey, open_store, view
from everthread.transfer import import_threads
from tests.beta import betas

SAID = [
    betas.message("user", betas.text("weather in Rome? é💾")),
    betas.message("assistant", betas.call("c", arguments='{"city":"Rome"}')),
    betas.message("tool", betas.result("c", "22 °C")),
    betas.message("assistant", betas.text("It is 22 °C.")),
]


@pytest.mark.parametrize("indent", [None, 2])
@pytest.mark.parametrize("whole", [True, False], ids=["thread", "store"])
async def test_a_serialized_thread_is_imported(whole: bool, indent: int | None, tmp_path: Path) -> None:
    store = ChatMessageStore(SAID)
    state = await (AgentThread(message_store=store) if whole else store).serialize()
    (tmp_path / "trip.json").write_text(json.dumps(state, indent=indent, default=lambda message: message.to_dict()))
    async with open_store("memory:") as target:
        assert (await import_threads(target, tmp_path / "trip.json")).is_complete
        found = await target.read(ThreadKey("trip"))
        thread = await target.get_thread(ThreadKey("trip"))
    assert [type(SAID[0]).from_dict(json.loads(message.payload)).to_dict() for message in found] == [
        message.to_dict() for message in SAID
    ]
    assert [view(message).role for message in found] == ["user", "assistant", "tool", "assistant"]
    assert view(found[1]).calls[0].name == "weather"
    assert {message.turn for message in found} == {0}
    assert thread is not None
    assert thread.title == "weather in Rome? é💾"
