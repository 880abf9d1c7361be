"""Threads in the form of AG-UI are valid for its clients."""

from __future__ import annotations

from typing import Any

from ag_ui.core.types import Message
from pydantic import TypeAdapter

from everthread import Store, ThreadKey, new_message
from everthread.adapters.agent_framework import EverthreadThreadSnapshotStore
from everthread.adapters.agent_framework.snapshot_store import SNAPSHOT_RECORD
from everthread.server.api import ag_ui
from tests.operations.talks import talk
from tests.server.clients import client

KEY = ThreadKey("trip", "ana")
MESSAGES = TypeAdapter(list[Message])


async def hydrated(store: Store) -> dict[str, Any]:
    async with client(store) as http:
        response = await http.get("/trip/messages", params={"form": "ag-ui"})
    assert response.status_code == 200, response.text
    return response.json()


async def test_calls_and_results_are_those_of_ag_ui(store: Store) -> None:
    await talk(store, KEY, turns=1)
    page = await hydrated(store)
    shown = MESSAGES.validate_python(page["messages"])
    assert [(each.id, each.role) for each in shown] == [
        ("0", "user"),
        ("1", "assistant"),
        ("2-0", "tool"),
        ("3", "assistant"),
    ]
    assert page["messages"][1]["toolCalls"][0]["function"]["name"] == "weather"
    assert page["messages"][2]["toolCallId"] == "call-0"
    assert page["state"] is None


async def test_media_reasoning_and_unknown_roles_are_shown_or_left_out(quick_store: Store) -> None:
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}
    linked = {"type": "image_url", "image_url": {"url": "https://example.com/a.png"}}
    stored = [
        {"role": "user", "content": [{"type": "text", "text": "Look"}, image, linked]},
        {"role": "assistant", "content": "Yes", "reasoning_content": "Hm"},
        {"role": "nonsense", "content": "x"},
        [1, 2],
    ]
    await quick_store.append(KEY, [new_message(each) for each in stored])
    page = await hydrated(quick_store)
    shown = MESSAGES.validate_python(page["messages"])
    assert shown[0].role == "user"
    assert [part["type"] for part in page["messages"][0]["content"]] == ["text", "image", "image"]
    assert page["messages"][0]["content"][1]["source"]["value"] == "AAAA"
    assert {each.role for each in shown} <= {"user", "assistant", "reasoning"}


async def test_the_state_is_that_of_the_newest_snapshot(store: Store) -> None:
    from agent_framework_ag_ui import AGUIThreadSnapshot

    await talk(store, KEY, turns=1)
    snapshot = AGUIThreadSnapshot(messages=[], state={"city": "Rome"}, session_state={"private": True})
    await EverthreadThreadSnapshotStore(store).save(scope="ana", thread_id="trip", snapshot=snapshot)
    page = await hydrated(store)
    assert page["state"] == {"city": "Rome"}
    assert "private" not in str(page)


def test_the_record_is_that_of_the_adapter() -> None:
    assert ag_ui.SNAPSHOT_RECORD == SNAPSHOT_RECORD
