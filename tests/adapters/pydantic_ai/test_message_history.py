"""Message histories of Pydantic AI on every engine."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from pydantic_ai.conversation import Conversation
from pydantic_ai.messages import repair_messages

from everthread import ConflictError, CorruptRecordError, NewMessage, Store, ThreadKey, UnsupportedError, open_store
from everthread.adapters.pydantic_ai import EverthreadConversationStore, EverthreadMessageHistory
from everthread.messages import codec
from everthread.operations.repair import repair
from everthread.testing import Fault, FaultyStore
from tests.adapters.pydantic_ai.said import Planner, answered, called, returned, said, unlinked

KEY = ThreadKey("trip")


@pytest.fixture
async def memory() -> AsyncIterator[Store]:
    """A store for tests of what engines do not affect."""
    async with open_store("memory:") as opened:
        yield opened


async def test_the_agent_continues_with_only_the_thread_id(store: Store) -> None:
    planner = Planner()
    for text in ("The weather in Rome?", "And now?"):
        history = EverthreadMessageHistory(store)
        result = await planner.agent.run(text, message_history=await history.load("trip"))
        await history.append("trip", result.new_messages())
    assert await EverthreadMessageHistory(store).load("trip") == result.all_messages()
    assert [len(request) for request in planner.requests] == [1, 3, 5]
    thread = await store.get_thread(KEY)
    assert thread is not None
    assert (thread.title, thread.count) == ("The weather in Rome?", 6)


async def test_a_window_has_every_call_of_its_results(memory: Store) -> None:
    history = EverthreadMessageHistory(memory)
    messages = [said("Rome?"), called(), returned(), answered("Sunny."), said("Well?")]
    await history.append("trip", messages)
    for limit in range(6):
        window = await history.load("trip", limit=limit)
        assert window == messages[len(messages) - len(window) :]
        assert unlinked(window) == set()
    assert len(await history.load("trip", limit=3)) == 2
    assert await history.load("unknown") == []


async def test_an_append_is_safe_to_repeat(memory: Store) -> None:
    history = EverthreadMessageHistory(FaultyStore(memory, [Fault.FAIL_AFTER]))
    await history.append("trip", [])
    for _ in range(2):
        await history.append("trip", [said("a")], append_id="request-1")
    with pytest.raises(ConflictError):
        await history.append("trip", [said("b")], expected_seq=0)
    assert len(await history.load("trip")) == 1


async def test_an_unanswered_call_reaches_the_model_repaired(memory: Store) -> None:
    history, planner = EverthreadMessageHistory(memory), Planner()
    await history.append("trip", [said("Rome?"), called()])
    await planner.agent.run("Well?", message_history=repair_messages(await history.load("trip")))
    assert unlinked(planner.requests[-1]) == set()


async def test_records_of_a_conversation_store_are_no_messages(memory: Store) -> None:
    history, conversations = EverthreadMessageHistory(memory), EverthreadConversationStore(memory)
    await history.append("trip", [said("a"), answered("b")])
    conversation = await conversations.load("trip")
    assert conversation is not None
    await conversations.save(conversation)
    assert await history.load("trip") == conversation.messages


async def test_other_contents_give_typed_errors(memory: Store) -> None:
    history = EverthreadMessageHistory(memory)
    await memory.append(KEY, [codec.new_message({"role": "user", "content": "Hello"})])
    with pytest.raises(UnsupportedError, match="position 0"):
        await history.load("trip")
    await memory.append(ThreadKey("damaged"), [NewMessage(b'{"kind":"request","parts":["SECRET"]}', "pydantic-ai")])
    with pytest.raises(CorruptRecordError) as raised:
        await history.load("damaged")
    assert "SECRET" not in str(raised.value)


async def test_a_repaired_history_reaches_the_model_whole(memory: Store, tmp_path: Path) -> None:
    history, planner = EverthreadMessageHistory(memory), Planner()
    turn = [said("Rome?"), called(), returned(), returned("lost"), called("open"), answered("Sunny.")]
    await history.append("trip", turn)
    (outcome,) = [each async for each in repair(memory, backup=tmp_path / "backup", is_stopped=True)]
    assert [problem.kind for problem in outcome.problems] == ["orphaned-result", "unanswered-call"]
    repaired = await history.load("trip")
    assert unlinked(repaired) == set()
    await planner.agent.run("Well?", message_history=repaired)
    assert unlinked(planner.requests[-1]) == set()


async def test_a_repair_leaves_the_entries_of_conversations(memory: Store, tmp_path: Path) -> None:
    conversations = EverthreadConversationStore(memory)
    await conversations.save(Conversation(conversation_id="trip", messages=[said("Rome?"), called()]))
    assert [each async for each in repair(memory, backup=tmp_path / "backup", is_stopped=True)] == []
