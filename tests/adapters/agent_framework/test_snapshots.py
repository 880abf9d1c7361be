"""AG-UI snapshots on a store: the scope is the tenant."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import agent_framework_ag_ui
import pytest

from everthread import (
    CorruptRecordError,
    InvalidIdentifierError,
    InvalidMessageError,
    Store,
    ThreadKey,
    open_store,
)
from everthread.adapters.agent_framework import Everthread, EverthreadHistoryProvider
from everthread.testing.guarantees.event_loops import LOOPS, run
from tests.adapters.agents import agent_with
from tests.adapters.scripted import ScriptedClient
from tests.places import empty_place, printed_by_python

if not hasattr(agent_framework_ag_ui, "AGUIThreadSnapshotStore"):
    pytest.skip("snapshots came with agent-framework-ag-ui 1.0", allow_module_level=True)

from agent_framework_ag_ui import AGUIThreadSnapshot, AGUIThreadSnapshotStore, add_agent_framework_fastapi_endpoint

from everthread.adapters.agent_framework import EverthreadThreadSnapshotStore

HERE = {"scope": "ana", "thread_id": "trip"}


def snapshot(text: str = "Hello") -> AGUIThreadSnapshot:
    return AGUIThreadSnapshot(
        messages=[{"id": "m1", "role": "user", "content": text}],
        state={"seat": [12, "A", None]},
        interrupt=[{"id": "call-1"}],
        session_state={"private": {"a": 1.5}},
    )


async def test_a_snapshot_is_saved_replaced_and_deleted(store: Store) -> None:
    snapshots = EverthreadThreadSnapshotStore(store)
    assert isinstance(snapshots, AGUIThreadSnapshotStore)
    assert await snapshots.get(**HERE) is None
    for text in ("Hello", "é" * 800_000, "Bye"):
        await snapshots.save(**HERE, snapshot=snapshot(text))
        assert await snapshots.get(**HERE) == snapshot(text)
    assert await snapshots.delete(**HERE) is True
    assert await snapshots.delete(**HERE) is False
    assert await snapshots.get(**HERE) is None


async def test_returned_snapshots_are_copies(store: Store) -> None:
    snapshots, saved = EverthreadThreadSnapshotStore(store), snapshot()
    await snapshots.save(**HERE, snapshot=saved)
    saved.messages.clear()
    found = await snapshots.get(**HERE)
    assert found == snapshot()
    found.messages.clear()
    assert await snapshots.get(**HERE) == snapshot()


async def test_scopes_never_reach_each_other(store: Store) -> None:
    snapshots = EverthreadThreadSnapshotStore(store)
    for scope, thread_id in (("ana", "trip"), ("ana", "~trip"), ("ana:trip", "x"), ("ana", "trip:x"), ("bob", "trip")):
        await snapshots.save(scope=scope, thread_id=thread_id, snapshot=snapshot(f"{scope}|{thread_id}"))
    assert await snapshots.get(scope="ana", thread_id="~trip") == snapshot("ana|~trip")
    await snapshots.clear(scope="ana")
    assert await snapshots.get(**HERE) is None
    assert await snapshots.get(scope="ana", thread_id="trip:x") is None
    assert await snapshots.get(scope="bob", thread_id="trip") == snapshot("bob|trip")
    assert await snapshots.get(scope="ana:trip", thread_id="x") == snapshot("ana:trip|x")


async def test_clearing_keeps_the_messages(store: Store) -> None:
    snapshots, history = EverthreadThreadSnapshotStore(store), EverthreadHistoryProvider(store, tenant="ana")
    await agent_with(ScriptedClient(), history).run(
        "Hello", session=agent_with(ScriptedClient()).create_session(session_id="trip")
    )
    await snapshots.save(**HERE, snapshot=snapshot())
    await snapshots.clear(scope="ana")
    assert len(await history.get_messages("trip")) == 2
    await snapshots.save(**HERE, snapshot=snapshot())
    await store.delete_tenant("ana")
    assert await snapshots.get(**HERE) is None


@pytest.mark.parametrize("wrong", ["", None, 5, "\ud800", "x" * 600])
async def test_impossible_scopes_and_ids_are_refused(wrong: Any) -> None:
    snapshots = EverthreadThreadSnapshotStore("memory:")
    for place in ({"scope": wrong, "thread_id": "trip"}, {"scope": "ana", "thread_id": wrong}):
        for call in (snapshots.get(**place), snapshots.delete(**place), snapshots.save(**place, snapshot=snapshot())):
            with pytest.raises(InvalidIdentifierError):
                await call


async def test_without_a_scope_all_are_cleared(store: Store) -> None:
    snapshots = EverthreadThreadSnapshotStore(store)
    for scope in ("ana", "bob"):
        await snapshots.save(scope=scope, thread_id="trip", snapshot=snapshot())
    await store.put_document(ThreadKey("trip", "ana"), "other", b"1")
    await snapshots.clear()
    assert [await snapshots.get(scope=scope, thread_id="trip") for scope in ("ana", "bob")] == [None, None]
    assert await store.list_documents(ThreadKey("trip", "ana")) == ("other",)


@pytest.mark.parametrize("value", [float("nan"), b"x", {1}, "\ud800", object()], ids=lambda value: type(value).__name__)
async def test_a_value_that_json_would_alter_is_refused(value: object) -> None:
    async with open_store("memory:") as store:
        with pytest.raises(InvalidMessageError):
            await EverthreadThreadSnapshotStore(store).save(**HERE, snapshot=AGUIThreadSnapshot(state={"v": value}))
        assert await store.get_thread(ThreadKey("trip", "ana")) is None


@pytest.mark.parametrize("value", [b"1", b"{}", b'{"messages":5}'])
async def test_a_record_that_is_no_snapshot_is_reported(value: bytes) -> None:
    async with open_store("memory:") as store:
        await store.put_document(
            ThreadKey("trip", "ana"), "agent-framework:ag-ui-snapshot", b'{"value":' + value + b"}"
        )
        with pytest.raises(CorruptRecordError, match="no snapshot"):
            await EverthreadThreadSnapshotStore(store).get(**HERE)


async def test_fields_of_a_newer_release_are_ignored() -> None:
    async with open_store("memory:") as store:
        value = b'{"value":{"messages":[{"id":"a"}],"newer":1}}'
        await store.put_document(ThreadKey("trip", "ana"), "agent-framework:ag-ui-snapshot", value)
        assert await EverthreadThreadSnapshotStore(store).get(**HERE) == AGUIThreadSnapshot(messages=[{"id": "a"}])


async def test_two_writers_leave_one_whole_snapshot(shared_url: str) -> None:
    async with open_store(shared_url) as store, open_store(shared_url) as other:
        both = [EverthreadThreadSnapshotStore(each) for each in (store, other)]
        saved = [snapshot(str(number) * 600_000) for number in range(4)]
        await asyncio.gather(*(both[n % 2].save(**HERE, snapshot=each) for n, each in enumerate(saved)))
        assert await both[0].get(**HERE) in saved


@pytest.mark.slow
def test_another_process_finds_the_snapshot(shared_url: str) -> None:
    run(EverthreadThreadSnapshotStore(shared_url).save(**HERE, snapshot=snapshot()))
    code = (
        "import asyncio, sys\n"
        "from everthread.adapters.agent_framework import EverthreadThreadSnapshotStore\n"
        "found = EverthreadThreadSnapshotStore(sys.argv[1]).get(scope='ana', thread_id='trip')\n"
        "print(asyncio.run(found).messages[0]['content'])"
    )
    assert printed_by_python(code, shared_url) == "Hello\n"


@pytest.mark.parametrize("kind", list(LOOPS))
@pytest.mark.parametrize("engine", ["memory", "sqlite", "redis", "postgres", "objects"])
def test_each_call_may_come_from_another_loop(request: pytest.FixtureRequest, engine: str, kind: str) -> None:
    snapshots = EverthreadThreadSnapshotStore(empty_place(request, engine))
    run(snapshots.save(**HERE, snapshot=snapshot()), LOOPS[kind])
    assert run(snapshots.get(**HERE), LOOPS[kind]) == snapshot()
    assert run(snapshots.delete(**HERE), LOOPS[kind])


async def test_a_restarted_endpoint_shows_the_conversation_again(store: Store) -> None:
    import httpx
    from fastapi import FastAPI

    async def events(body: dict[str, Any], user: str = "ana") -> list[dict[str, Any]]:
        app, stores = FastAPI(), Everthread(store)
        add_agent_framework_fastapi_endpoint(
            app,
            agent_with(ScriptedClient("Hello, Ana."), stores.history()),
            "/agent",
            snapshot_store=stores.snapshots(),
            snapshot_scope_resolver=lambda request: user,
        )
        transport = httpx.ASGITransport(app=app)
        async with httpx.AsyncClient(transport=transport, base_url="http://agent") as client:
            response = await client.post("/agent", json={"threadId": "trip", "runId": "r", **body})
        return [json.loads(line[5:]) for line in response.text.splitlines() if line.startswith("data:")]

    said = {"id": "m1", "role": "user", "content": "I am Ana."}
    await events({"messages": [said]})
    shown = [event for event in await events({"messages": []}) if event["type"] == "MESSAGES_SNAPSHOT"]
    assert [message["content"] for message in shown[-1]["messages"]] == ["I am Ana.", "Hello, Ana."]
    assert not [event for event in await events({"messages": []}, "bob") if event["type"] == "MESSAGES_SNAPSHOT"]
