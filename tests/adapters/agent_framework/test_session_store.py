"""The state of sessions on a store, in the threads of their histories."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from importlib.util import find_spec
from typing import Any

import agent_framework
import pytest
from agent_framework import AgentSession, Message

from everthread import (
    ConfigurationError,
    CorruptRecordError,
    InvalidIdentifierError,
    InvalidMessageError,
    Store,
    ThreadKey,
    open_store,
)
from everthread.adapters.agent_framework import EverthreadHistoryProvider
from everthread.testing.guarantees.event_loops import LOOPS, run
from tests.adapters.agents import agent_with
from tests.adapters.scripted import ScriptedClient
from tests.places import empty_place, printed_by_python

if not hasattr(agent_framework, "SessionStore"):
    pytest.skip("SessionStore came with agent-framework-core 1.13", allow_module_level=True)

from agent_framework import FileSessionStore, SessionStore, register_state_type

from everthread.adapters.agent_framework import EverthreadSessionStore

KEY = ThreadKey("trip")


def session(**state: Any) -> AgentSession:
    made = AgentSession(session_id="trip", service_session_id="thread_1")
    made.state.update(state)
    return made


async def test_a_session_is_stored_replaced_and_deleted(store: Store) -> None:
    sessions = EverthreadSessionStore(store)
    assert isinstance(sessions, SessionStore)
    assert await sessions.get("trip") is None
    for number in (1, 2):
        saved = session(n=number, message=Message("user", ["Hello"]), list=[1, {"a": None}])
        await sessions.set("trip", saved)
        found = await sessions.get("trip")
        assert found is not None
        assert type(found.state["message"]) is Message
        assert found.to_dict() == saved.to_dict()
    await sessions.delete("trip")
    await sessions.delete("trip")
    assert await sessions.get("trip") is None


async def test_returned_sessions_are_copies(store: Store) -> None:
    sessions, saved = EverthreadSessionStore(store), session(a=[1])
    await sessions.set("trip", saved)
    saved.state["a"].append(2)
    for _ in range(2):
        found = await sessions.get("trip")
        assert found is not None
        assert found.state == {"a": [1]}
        found.state["a"].append(3)


async def test_the_id_of_the_record_may_differ_from_the_sessions(store: Store) -> None:
    sessions = EverthreadSessionStore(store)
    await sessions.set("~conversation", session())
    found = await sessions.get("~conversation")
    assert found is not None
    assert (found.session_id, found.service_session_id) == ("trip", "thread_1")
    assert await sessions.get("trip") is None


async def test_a_mapping_names_the_session_of_a_service(store: Store) -> None:
    sessions = EverthreadSessionStore(store)
    await sessions.set("trip", AgentSession(session_id="trip", service_session_id={"id": "a", "n": 1}))
    found = await sessions.get("trip")
    assert found is not None
    assert found.service_session_id == {"id": "a", "n": 1}


async def test_history_and_state_share_one_thread(store: Store) -> None:
    sessions, history = EverthreadSessionStore(store), EverthreadHistoryProvider(store)
    agent, current = agent_with(ScriptedClient("Hello, Ana."), history), AgentSession(session_id="trip")
    await agent.run("I am Ana.", session=current)
    current.state["seat"] = "12A"
    await sessions.set("trip", current)
    assert [(each.session_id, each.message_count) for each in await history.list_sessions()] == [("trip", 2)]
    resumed = await sessions.get("trip")
    assert resumed is not None
    assert resumed.state["seat"] == "12A"
    await agent.run("Who am I?", session=resumed)
    assert len(await history.get_messages("trip")) == 4
    await sessions.delete("trip")
    assert len(await history.get_messages("trip")) == 4
    await sessions.set("trip", current)
    await history.delete("trip")
    assert await sessions.get("trip") is None


async def test_tenants_have_sessions_of_their_own(store: Store) -> None:
    ours, theirs = (EverthreadSessionStore(store, tenant=tenant) for tenant in ("ours", "theirs"))
    await ours.set("trip", session())
    assert await theirs.get("trip") is None
    await theirs.delete("trip")
    assert await ours.get("trip") is not None


async def test_a_large_state_comes_back(store: Store) -> None:
    sessions, saved = EverthreadSessionStore(store), session(text="é" * 800_000)
    await sessions.set("trip", saved)
    found = await sessions.get("trip")
    assert found is not None
    assert found.state == saved.state


@pytest.mark.filterwarnings("ignore:AgentSession state value")
@pytest.mark.parametrize(
    "value",
    [float("nan"), b"x", {1}, datetime.now(UTC), "\ud800", object(), [{"a": float("inf")}]],
    ids=lambda value: type(value).__name__,
)
async def test_a_state_that_json_would_alter_is_refused(value: object) -> None:
    async with open_store("memory:") as store:
        with pytest.raises(InvalidMessageError):
            await EverthreadSessionStore(store).set("trip", session(value=value))
        assert await store.get_thread(KEY) is None


async def test_values_of_registered_types_come_back() -> None:
    class Seat:
        def __init__(self, row: int) -> None:
            self.row = row

    register_state_type(
        Seat, type_id="test-seat", encoder=lambda seat: {"row": seat.row}, decoder=lambda value: Seat(value["row"])
    )
    async with open_store("memory:") as store:
        sessions = EverthreadSessionStore(store)
        await sessions.set("trip", session(seat=Seat(12)))
        found = await sessions.get("trip")
        assert found is not None
        assert found.state["seat"].row == 12


async def test_a_subclass_of_session_is_refused() -> None:
    class Other(AgentSession):
        pass

    with pytest.raises(InvalidMessageError, match="Other"):
        await EverthreadSessionStore("memory:").set("trip", Other(session_id="trip"))


@pytest.mark.parametrize("identifier", ["", None, 5, "\ud800", "x" * 600])
async def test_impossible_ids_are_refused(identifier: Any) -> None:
    sessions = EverthreadSessionStore("memory:")
    for call in (sessions.get, sessions.delete, lambda each: sessions.set(each, session())):
        with pytest.raises(InvalidIdentifierError):
            await call(identifier)


@pytest.mark.parametrize(
    "value", [b"1", b"{}", b'{"type":"session"}', b'{"type":"session","session_id":"a","state":[]}']
)
async def test_a_record_that_is_no_session_is_reported(value: bytes) -> None:
    async with open_store("memory:") as store:
        await store.put_document(KEY, "agent-framework:session", b'{"value":' + value + b"}")
        with pytest.raises(CorruptRecordError, match="no session"):
            await EverthreadSessionStore(store).get("trip")


async def test_two_writers_leave_one_whole_session(shared_url: str) -> None:
    async with open_store(shared_url) as store, open_store(shared_url) as other:
        both = [EverthreadSessionStore(each) for each in (store, other)]
        await asyncio.gather(*(both[n % 2].set("trip", session(n=n, text=str(n) * 600_000)) for n in range(4)))
        found = await both[0].get("trip")
        assert found is not None
        assert found.state["text"] == str(found.state["n"]) * 600_000


@pytest.mark.slow
def test_another_process_continues_the_session(shared_url: str) -> None:
    run(EverthreadSessionStore(shared_url).set("trip", session(seat="12A")))
    code = (
        "import asyncio, sys\n"
        "from everthread.adapters.agent_framework import EverthreadSessionStore\n"
        "print(asyncio.run(EverthreadSessionStore(sys.argv[1]).get('trip')).state['seat'])"
    )
    assert printed_by_python(code, shared_url) == "12A\n"


@pytest.mark.parametrize("kind", list(LOOPS))
@pytest.mark.parametrize("engine", ["memory", "sqlite", "redis", "postgres", "objects"])
def test_each_call_may_come_from_another_loop(request: pytest.FixtureRequest, engine: str, kind: str) -> None:
    sessions = EverthreadSessionStore(empty_place(request, engine))
    run(sessions.set("trip", session(a=1)), LOOPS[kind])
    assert run(sessions.get("trip"), LOOPS[kind]).state == {"a": 1}


async def test_sessions_of_files_move_over(tmp_path: Any) -> None:
    former = FileSessionStore(tmp_path)
    await former.set("trip", session(a=1, message=Message("user", ["Hello"])))
    sessions, moved = EverthreadSessionStore("memory:"), await former.get("trip")
    assert moved is not None
    await sessions.set("trip", moved)
    found = await sessions.get("trip")
    assert found is not None
    assert found.to_dict() == moved.to_dict()


@pytest.mark.skipif(find_spec("agent_framework_hosting") is None, reason="agent-framework-hosting is not installed")
async def test_a_hosted_agent_resumes_its_sessions(store: Store) -> None:
    from agent_framework_hosting import AgentState

    client = ScriptedClient("Hello, Ana.", "You are Ana.")
    for said, expected in (("I am Ana.", "Hello, Ana."), ("Who am I?", "You are Ana.")):
        state = AgentState(
            agent_with(client, EverthreadHistoryProvider(store)), session_store=EverthreadSessionStore(store)
        )
        current = await state.get_or_create_session("trip")
        agent = await state.get_target()
        assert (await agent.run(said, session=current)).text == expected
        current.state["turns"] = current.state.get("turns", 0) + 1
        await state.set_session("trip", current)
    assert (await state.get_or_create_session("trip")).state["turns"] == 2
    assert [text for _, text in client.requests[-1]] == ["I am Ana.", "Hello, Ana.", "Who am I?"]


@pytest.mark.parametrize("wrong", [7, None, "nothing:"])
def test_wrong_stores_are_refused(wrong: Any) -> None:
    with pytest.raises(ConfigurationError):
        EverthreadSessionStore(wrong)
