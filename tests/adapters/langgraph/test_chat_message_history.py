"""LangChain's chat history on a store."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, SystemMessage, ToolMessage
from langchain_core.runnables import RunnableLambda
from langchain_core.runnables.history import RunnableWithMessageHistory

from everthread import CorruptRecordError, NewMessage, Store, ThreadKey, UnsupportedError, new_message, view
from everthread.adapters.langgraph import EverthreadChatMessageHistory
from everthread.testing.faults import Fault, FaultyStore

KEY = ThreadKey("trip")
TURN: list[BaseMessage] = [
    SystemMessage("Be brief."),
    HumanMessage([{"type": "text", "text": "A seat,  please"}], id="h1", name="ana"),
    AIMessage("", tool_calls=[{"id": "c1", "name": "book", "args": {"seat": "12a"}}], usage_metadata=None),
    ToolMessage("done", tool_call_id="c1", artifact={"a": [1, None]}),
    AIMessage("Booked.", response_metadata={"é": 1.5}),
]


async def test_messages_come_back_and_are_understood(store: Store) -> None:
    history = EverthreadChatMessageHistory("trip", store)
    assert await history.aget_messages() == []
    await history.aadd_messages(TURN)
    await history.aadd_messages([])
    assert await EverthreadChatMessageHistory("trip", store).aget_messages() == TURN
    assert await EverthreadChatMessageHistory("trip", store, tenant="acme").aget_messages() == []
    stored = await store.read(KEY)
    assert [view(message).role for message in stored] == ["system", "user", "assistant", "tool", "assistant"]
    assert {message.turn for message in stored} == {0}
    thread = await store.get_thread(KEY)
    assert thread is not None
    assert thread.title == "A seat, please"


async def test_clearing_keeps_the_thread(store: Store) -> None:
    history = EverthreadChatMessageHistory("trip", store)
    await history.aclear()
    assert await store.get_thread(KEY) is None
    await history.aadd_messages(TURN)
    await store.put_document(KEY, "d", b"1")
    await history.aclear()
    assert await history.aget_messages() == []
    assert await store.list_documents(KEY) == ("d",)


async def test_a_lost_answer_stores_messages_once(store: Store) -> None:
    faulty = FaultyStore(store, [Fault.FAIL_AFTER, Fault.FAIL_BEFORE])
    await EverthreadChatMessageHistory("trip", faulty).aadd_messages(TURN)
    assert await EverthreadChatMessageHistory("trip", store).aget_messages() == TURN


async def test_messages_of_others_are_refused(store: Store) -> None:
    history = EverthreadChatMessageHistory("trip", store)
    await store.append(KEY, [new_message({"role": "user", "content": "Hello"})])
    with pytest.raises(UnsupportedError, match="position 0"):
        await history.aget_messages()
    for payload in (b'{"type":"human"}', b"[]", b'{"type":"human","data":{}}', b'{"type":"new","data":{}}'):
        await store.delete_thread(KEY)
        await store.append(KEY, [NewMessage(payload, format="langchain")])
        with pytest.raises(CorruptRecordError, match="position 0"):
            await history.aget_messages()


def test_a_chain_without_a_loop_remembers(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/threads.db"
    chain = RunnableWithMessageHistory(
        RunnableLambda(lambda messages: AIMessage(f"I see {len(messages)}.")),  # pyright: ignore
        lambda session_id: EverthreadChatMessageHistory(session_id, url),
    )
    config = {"configurable": {"session_id": "trip"}}
    assert chain.invoke("One", config).content == "I see 1."  # pyright: ignore
    assert chain.invoke("Two", config).content == "I see 3."  # pyright: ignore
    history = EverthreadChatMessageHistory("trip", url)
    assert [message.text for message in history.messages] == ["One", "I see 1.", "Two", "I see 3."]

    async def in_a_loop() -> None:
        history.add_messages([HumanMessage("Three")])
        assert (await history.aget_messages())[-1].text == "Three"
        await history.aclose()

    asyncio.run(in_a_loop())
    history.clear()
    assert history.messages == []
