"""Conversations of Pydantic AI on every engine, compared with the framework's own store."""

from __future__ import annotations

import asyncio
import re
import subprocess
import sys
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic_ai import BinaryImage, DeferredToolRequests, ImageUrl
from pydantic_ai.conversation import Conversation
from pydantic_ai.conversation_store import (
    ConversationConflict,
    ConversationEntry,
    ConversationRecord,
    ConversationStore,
    InMemoryConversationStore,
)
from pydantic_ai.exceptions import UserError
from pydantic_ai.messages import (
    ModelRequest,
    ModelResponse,
    ThinkingPart,
    ToolReturnPart,
    UserPromptPart,
    repair_messages,
)

from everthread import (
    ConfigurationError,
    CorruptRecordError,
    InvalidIdentifierError,
    InvalidMessageError,
    NewMessage,
    OutcomeUnknownError,
    Retention,
    Store,
    ThreadKey,
    ThreadNotFoundError,
    UnsupportedError,
    open_store,
)
from everthread.adapters.pydantic_ai import EverthreadConversationStore, EverthreadMessageHistory
from everthread.messages import codec
from everthread.operations.fork import fork
from everthread.testing import Fault, FaultyStore
from everthread.testing.guarantees.event_loops import LOOPS, run
from tests.adapters.pydantic_ai.said import NOW, Planner, answered, called, returned, said, unlinked
from tests.places import empty_place

KEY = ThreadKey("trip")


@pytest.fixture
async def memory() -> AsyncIterator[Store]:
    """A store for tests of what engines do not affect."""
    async with open_store("memory:") as opened:
        yield opened


async def saved(conversations: ConversationStore, *texts: str, of: str = "trip", **options: Any) -> Conversation:
    """Add messages to a conversation and save it."""
    conversation = await conversations.load(of) or Conversation(conversation_id=of)
    for text in texts:
        conversation.messages += [said(text), answered(f"{text}!")]
    await conversations.save(conversation, **options)
    return conversation


async def texts_of(conversations: ConversationStore, of: str = "trip", **options: Any) -> list[str]:
    loaded = await conversations.load(of, **options)
    return [] if loaded is None else [str(getattr(each.parts[0], "content", "")) for each in loaded.messages]


async def payloads(store: Store, key: ThreadKey = KEY) -> bytes:
    return b"".join(message.payload for message in await store.read(key))


async def test_the_agent_continues_with_only_the_conversation_id(store: Store) -> None:
    planner = Planner()
    for text in ("The weather in Rome?", "And now?"):
        conversations = EverthreadConversationStore(store)
        conversation = await conversations.load("trip") or Conversation(conversation_id="trip")
        result = await planner.agent.run(text, conversation=conversation)
        assert len(await conversations.save(result)) == (4 if text.startswith("The") else 2)
    loaded = await EverthreadConversationStore(store).load("trip")
    assert loaded is not None
    assert loaded.messages == result.all_messages()
    assert loaded.usage == result.conversation.usage
    assert [len(request) for request in planner.requests] == [1, 3, 5]
    thread = await store.get_thread(KEY)
    assert thread is not None
    assert (thread.title, thread.count) == ("The weather in Rome?", 6)


async def test_messages_come_back_equal(memory: Store) -> None:
    media = [ImageUrl(url="https://example.com/a.png"), BinaryImage(data=bytes(range(256)), media_type="image/png")]
    messages = [
        ModelRequest(parts=[UserPromptPart(content=["Grüße 🌍", *media], timestamp=NOW)], instructions="Be kind."),
        ModelResponse(parts=[ThinkingPart(content="Hm."), *called().parts], timestamp=NOW),
        returned(),
    ]
    conversations = EverthreadConversationStore(memory)
    await conversations.save(Conversation(conversation_id="trip", messages=messages))
    loaded = await EverthreadConversationStore(memory).load("trip")
    assert loaded is not None
    assert loaded.messages == messages
    seen = [codec.view(message) for message in await memory.read(KEY)]
    assert [(view.role, view.text) for view in seen] == [("user", "Grüße 🌍"), ("assistant", ""), ("tool", "")]
    assert [media.media_type for media in seen[0].media] == ["image/png", "image/png"]
    assert seen[0].media[1].size == 256
    assert (seen[1].reasoning, seen[1].calls[0].arguments) == ("Hm.", '{"city":"Rome"}')
    assert (seen[2].results[0].id, seen[2].results[0].text) == ("c1", "Sunny")


async def test_a_paused_run_is_answered_in_another_process(store: Store) -> None:
    planner = Planner(approve=True)
    conversations = EverthreadConversationStore(store)
    await conversations.save(await planner.agent.run("The weather?", conversation_id="trip"))
    conversation = await EverthreadConversationStore(store).load("trip")
    assert conversation is not None
    requests = conversation.deferred_tool_requests
    assert isinstance(requests, DeferredToolRequests)
    assert [call.tool_name for call in requests.approvals] == ["weather"]
    results = requests.build_results(approve_all=True)
    result = await planner.agent.run(conversation=conversation, deferred_tool_results=results)
    await conversations.save(result)
    loaded = await conversations.load("trip")
    assert loaded is not None
    assert (loaded.deferred_tool_requests, unlinked(loaded.messages)) == (None, set())


async def test_a_conversation_can_pause_without_a_new_message(memory: Store) -> None:
    conversations = EverthreadConversationStore(memory)
    conversation = await saved(conversations, "a")
    conversation.deferred_tool_requests = DeferredToolRequests(approvals=[called().parts[0]])  # type: ignore[list-item]
    assert await conversations.save(conversation) == []
    loaded = await conversations.load("trip")
    assert loaded is not None
    assert loaded.deferred_tool_requests == conversation.deferred_tool_requests
    assert await texts_of(conversations) == ["a", "a!"]


async def test_of_two_writers_one_gets_a_conflict(store: Store) -> None:
    one, two = EverthreadConversationStore(store), EverthreadConversationStore(store)
    await saved(one, "a")
    first, second = await one.load("trip"), await two.load("trip")
    assert first is not None
    assert second is not None
    first.messages.append(said("first"))
    second.messages.append(said("second"))
    outcomes = await asyncio.gather(one.save(first), two.save(second), return_exceptions=True)
    assert sorted(type(outcome).__name__ for outcome in outcomes) == ["ConversationConflict", "list"]
    assert len(await texts_of(one)) == 3
    assert len(await store.read(KEY)) == 3
    with pytest.raises(ConversationConflict):
        await one.save(Conversation(conversation_id="trip", messages=[said("new")]))


async def test_a_copy_from_before_a_deletion_is_refused(memory: Store) -> None:
    conversations = EverthreadConversationStore(memory)
    old = await saved(conversations, "a")
    await conversations.delete("trip")
    await saved(conversations, "b")
    with pytest.raises(ConversationConflict):
        await conversations.save(old)
    with pytest.raises(ConversationConflict):
        await conversations.delete_record("trip", expected_revision=str(old.revision))
    assert await texts_of(conversations) == ["b", "b!"]


async def test_a_lost_answer_stores_a_save_once(memory: Store) -> None:
    faulty = FaultyStore(
        memory, [Fault.FAIL_BEFORE, None, Fault.FAIL_AFTER, Fault.FAIL_BEFORE, None] * 9, calls=["append", "read_last"]
    )
    conversations = EverthreadConversationStore(faulty)
    await saved(conversations, "a")
    await saved(conversations, "b")
    assert await texts_of(conversations) == ["a", "a!", "b", "b!"]
    assert len(await memory.read(KEY)) == 4


async def test_an_outage_leaves_a_whole_save_or_none(memory: Store) -> None:
    faulty = FaultyStore(memory, [Fault.FAIL_AFTER, Fault.FAIL_BEFORE, Fault.FAIL_AFTER])
    conversations = EverthreadConversationStore(faulty)
    with pytest.raises(OutcomeUnknownError):
        await saved(conversations, "a")
    assert await texts_of(conversations) == ["a", "a!"]


async def test_branches_stay_stored_and_can_be_continued(store: Store) -> None:
    conversations = EverthreadConversationStore(store)
    conversation = await saved(conversations, "a", "b")
    entries = await conversations.load_entries("trip")
    assert entries is not None
    branched = await conversations.branch("trip", at=2, expected_revision=conversation.revision)
    branched.messages += [said("c")]
    await conversations.save(branched)
    assert await texts_of(conversations) == ["a", "a!", "c"]
    (record,) = await EverthreadConversationStore(store).list_conversations()
    assert record.branches == [entries[-1].id]
    other = EverthreadConversationStore(store)
    assert (await other.read_entry(entries[1].id)) == entries[1]
    back = await other.branch("trip", from_entry=entries[-1].id, expected_revision=branched.revision)
    assert back.messages == conversation.messages
    assert await texts_of(other, limit=1) == ["b!"]
    assert await texts_of(other, limit=0) == []


async def test_a_fork_shares_the_entries_before_it(store: Store) -> None:
    conversations = EverthreadConversationStore(store)
    await saved(conversations, "a", "b", scope="ana")
    await conversations.fork("trip", at=2, new_conversation_id="other")
    thread = await store.get_thread(ThreadKey("other"))
    assert thread is not None
    assert thread.title == "a"
    assert codec.view((await store.read(thread.key))[0]).text == "[fork of trip]"
    await saved(conversations, "c", of="other")
    await saved(conversations, "d")
    fresh = EverthreadConversationStore(store)
    assert await texts_of(fresh, "other") == ["a", "a!", "c", "c!"]
    assert await texts_of(fresh) == ["a", "a!", "b", "b!", "d", "d!"]
    assert (await texts_of(fresh, "other", limit=3))[0] == "a!"
    assert b'"a"' not in await payloads(store, ThreadKey("other"))
    assert [record.conversation_id for record in await fresh.list_conversations(scope="ana")] == ["trip", "other"]
    assert await fresh.list_conversations(scope="bo") == []
    assert len(await fresh.list_conversations(limit=1)) == 1
    assert await fresh.load("other", scope="bo") is None


async def test_deletion_keeps_only_what_others_reach(store: Store) -> None:
    conversations = EverthreadConversationStore(store)
    await saved(conversations, "shared", "secret")
    await conversations.fork("trip", at=2, new_conversation_id="f")
    await conversations.delete("trip")
    assert await conversations.load("trip") is None
    left = await payloads(store)
    assert b"shared" in left
    assert b"secret" not in left
    assert [each.conversation_id for each in await conversations.list_conversations()] == ["f"]
    await conversations.fork("f", at=1, new_conversation_id="g")
    await conversations.delete("f")
    assert await store.get_thread(ThreadKey("f")) is None
    assert await texts_of(EverthreadConversationStore(store), "g") == ["shared"]
    assert b"shared!" not in await payloads(store)
    await conversations.delete("g")
    assert (await store.list_threads()).items == ()


async def test_a_deleted_id_can_be_used_while_a_fork_lives(memory: Store) -> None:
    conversations = EverthreadConversationStore(memory)
    await saved(conversations, "a")
    await conversations.fork("trip", new_conversation_id="f")
    await conversations.delete("trip")
    await saved(conversations, "new")
    assert await texts_of(conversations) == ["new", "new!"]
    assert await texts_of(conversations, "f") == ["a", "a!"]
    await conversations.delete("f")
    assert await texts_of(conversations) == ["new", "new!"]


async def test_a_new_conversation_is_not_erased_with_the_deleted_one(memory: Store) -> None:
    conversations = EverthreadConversationStore(memory)
    await saved(conversations, "a", "b")
    await conversations.fork("trip", at=2, new_conversation_id="f")

    class Beginning(FaultyStore):
        async def _around(self, call: str, proceed: Any) -> Any:
            if call == "read" and await conversations.load("trip") is None:
                await saved(conversations, "new")
            return await super()._around(call, proceed)

    await EverthreadConversationStore(Beginning(memory, [])).delete("trip")
    assert await texts_of(conversations) == ["new", "new!"]
    assert await texts_of(conversations, "f") == ["a", "a!"]


@pytest.mark.parametrize("killed_before", ["list_documents", "delete_thread", "delete_document"])
async def test_collect_completes_a_deletion_that_was_killed(memory: Store, killed_before: str) -> None:
    await saved(EverthreadConversationStore(memory), "a")
    await EverthreadConversationStore(memory).fork("trip", new_conversation_id="f")
    await saved(EverthreadConversationStore(memory), "b", of="f")
    await EverthreadConversationStore(memory).delete("trip")
    dying = EverthreadConversationStore(FaultyStore(memory, [Fault.CANCEL_BEFORE], calls=[killed_before]))
    with pytest.raises(asyncio.CancelledError):
        await dying.delete("f")
    asyncio.current_task().uncancel()  # type: ignore[union-attr]
    conversations = EverthreadConversationStore(memory)
    assert await conversations.list_conversations() == []
    await conversations.collect()
    if killed_before != "delete_document":
        assert (await memory.list_threads()).items == ()


async def test_a_fork_of_what_is_being_deleted_is_refused(memory: Store) -> None:
    conversations = EverthreadConversationStore(memory)
    await saved(conversations, "a")
    (record,) = await conversations.list_conversations()
    await conversations.delete("trip")
    late = ConversationRecord(conversation_id="f", head_id=record.head_id, forked_from="trip")
    with pytest.raises(ConversationConflict):
        await conversations.write_record(late, expected_revision=None)
    assert (await memory.list_threads()).items == ()


@pytest.mark.parametrize("calls", ["put_document", "append"])
async def test_a_deletion_during_a_fork_leaves_no_broken_fork(memory: Store, calls: str) -> None:
    conversations = EverthreadConversationStore(memory)
    await saved(conversations, "a")

    class Deleting(FaultyStore):
        async def _around(self, call: str, proceed: Any) -> Any:
            if call == calls:
                await conversations.delete("trip")
            return await super()._around(call, proceed)

    forking = EverthreadConversationStore(Deleting(memory, []))
    try:
        await forking.fork("trip", new_conversation_id="f")
    except ConversationConflict:
        assert (await memory.list_threads()).items == ()
    else:
        assert await texts_of(conversations, "f") == ["a", "a!"]


async def test_an_unknown_head_is_a_conflict(memory: Store) -> None:
    conversations = EverthreadConversationStore(memory)
    for lost in ("nowhere", "trip@3"):
        with pytest.raises(ConversationConflict):
            await conversations.write_record(
                ConversationRecord(conversation_id="trip", head_id=lost), expected_revision=None
            )
        with pytest.raises(ThreadNotFoundError):
            await conversations.read_entry(lost)
    entry = ConversationEntry(parent_id="nowhere", message=said("a"))
    record = ConversationRecord(conversation_id="trip", head_id=entry.id)
    with pytest.raises(ConversationConflict):
        await conversations.write_record(record, new_entries=[entry], expected_revision=None)
    assert await memory.get_thread(KEY) is None


async def test_messages_of_other_programs_are_a_conversation(store: Store) -> None:
    history, conversations = EverthreadMessageHistory(store), EverthreadConversationStore(store)
    await history.append("trip", [said("a"), answered("a!")])
    assert await texts_of(conversations) == ["a", "a!"]
    await saved(conversations, "b")
    await history.append("trip", [said("c"), answered("c!")])
    loaded = await conversations.load("trip")
    assert loaded is not None
    assert await texts_of(EverthreadConversationStore(store)) == ["a", "a!", "b", "b!", "c", "c!"]
    await history.append("trip", [said("d")])
    with pytest.raises(ConversationConflict):
        await conversations.save(loaded)
    await conversations.fork("trip", at=5, new_conversation_id="f")
    await conversations.delete("trip")
    assert await texts_of(EverthreadConversationStore(store), "f") == ["a", "a!", "b", "b!", "c"]


async def test_a_copied_thread_is_a_conversation(memory: Store) -> None:
    conversations = EverthreadConversationStore(memory)
    conversation = await saved(conversations, "a", "b")
    await conversations.branch("trip", at=2, expected_revision=conversation.revision)
    await saved(conversations, "c")
    await fork(memory, KEY, ThreadKey("copy"))
    await memory.delete_thread(KEY)
    assert await texts_of(EverthreadConversationStore(memory), "copy") == ["a", "a!", "c", "c!"]
    await saved(EverthreadConversationStore(memory), "d", of="copy")
    assert await texts_of(EverthreadConversationStore(memory), "copy") == ["a", "a!", "c", "c!", "d", "d!"]


async def test_a_history_begins_where_the_retention_cut_it(store: Store) -> None:
    conversations = EverthreadConversationStore(store, retention=Retention(max_messages=3))
    for text in "abc":
        await saved(conversations, text)
    assert await texts_of(conversations) == ["b!", "c", "c!"]
    loaded = await conversations.load("trip")
    assert loaded is not None
    result = await Planner().agent.run("Hello", conversation=loaded)
    await conversations.save(result)
    assert len(await texts_of(conversations)) == 3


async def test_a_run_continues_after_a_call_without_a_result(memory: Store) -> None:
    conversations, planner = EverthreadConversationStore(memory), Planner()
    await conversations.save(Conversation(conversation_id="trip", messages=[said("Rome?"), called()]))
    # The framework carries the call out, unless it is repaired.
    await conversations.save(await planner.agent.run(conversation=await conversations.load("trip")))
    await conversations.save(Conversation(conversation_id="other", messages=[said("Rome?"), called()]))
    conversation = await conversations.load("other")
    assert conversation is not None
    conversation.messages = repair_messages(conversation.messages)
    await conversations.save(await planner.agent.run("Well?", conversation=conversation))
    for each in ("trip", "other"):
        loaded = await conversations.load(each)
        assert loaded is not None
        assert unlinked(loaded.messages) == set()
    assert [unlinked(request) for request in planner.requests] == [set(), set()]


async def test_a_window_into_a_turn_reaches_the_model_repaired(memory: Store) -> None:
    conversations = EverthreadConversationStore(memory)
    messages = [said("Rome?"), called(), returned(), answered("Sunny.")]
    await conversations.save(Conversation(conversation_id="trip", messages=messages))
    planner = Planner()
    result = await planner.agent.run("Well?", conversation=await conversations.load("trip", limit=2))
    assert unlinked(planner.requests[-1]) == set()
    await conversations.save(result)
    assert len((await conversations.load("trip")).messages) == 6  # type: ignore[union-attr]


async def test_other_formats_are_refused_and_not_listed(memory: Store) -> None:
    await memory.append(KEY, [codec.new_message({"role": "user", "content": "Hello"})])
    conversations = EverthreadConversationStore(memory)
    with pytest.raises(UnsupportedError, match="position 0"):
        await conversations.load("trip")
    with pytest.raises(UnsupportedError):
        await conversations.save(Conversation(conversation_id="trip", messages=[said("a")]))
    assert await conversations.list_conversations() == []


@pytest.mark.parametrize(
    "payload",
    [
        b'{"kind":"request"}',
        b'{"kind":"request","parts":[{"part_kind":"SECRET"}]}',
        b'{"kind":"record","everthread":{"state":{"record":{"SECRET":1}}}}',
        b'{"kind":"record","everthread":{"state":{"record":[]}}}',
        b'{"kind":"response","parts":[],"everthread":{"id":"x","parent_id":"x","parent":[0,""]}}',
    ],
)
async def test_damaged_records_give_typed_errors(memory: Store, payload: bytes) -> None:
    await memory.append(KEY, [NewMessage(payload, "pydantic-ai")])
    conversations = EverthreadConversationStore(memory)
    with pytest.raises(CorruptRecordError) as raised:
        await conversations.load("trip")
    assert "SECRET" not in str(raised.value)
    await saved(conversations, "a", of="well")
    assert "well" in [record.conversation_id for record in await conversations.list_conversations()]


async def test_messages_that_json_lacks_are_refused(memory: Store) -> None:
    conversations = EverthreadConversationStore(memory)
    for message in (said("SECRET\ud800"), ModelRequest(parts=[ToolReturnPart("SECRET", object(), "c")])):
        with pytest.raises(InvalidMessageError) as raised:
            await conversations.save(Conversation(conversation_id="trip", messages=[message]))
        assert "SECRET" not in str(raised.value)
    assert await memory.get_thread(KEY) is None


async def test_tenants_share_nothing(memory: Store) -> None:
    one, two = EverthreadConversationStore(memory, tenant="a"), EverthreadConversationStore(memory, tenant="b")
    await saved(one, "a")
    (record,) = await one.list_conversations()
    assert await two.load("trip") is None
    assert await two.list_conversations() == []
    with pytest.raises(LookupError):
        await two.read_entry(str(record.head_id))
    with pytest.raises(InvalidIdentifierError):
        await one.load("")
    with pytest.raises(ConfigurationError):
        EverthreadConversationStore(7)  # type: ignore[arg-type]


async def test_a_long_history_is_read_in_pages(memory: Store) -> None:
    conversations = EverthreadConversationStore(FaultyStore(memory, []))
    messages = [said(str(number)) for number in range(1500)]
    await conversations.save(Conversation(conversation_id="trip", messages=messages))
    counting = FaultyStore(memory, [])
    loaded = await EverthreadConversationStore(counting).load("trip")
    assert loaded is not None
    assert loaded.messages == messages
    assert len(counting.made) < 12
    counting.made.clear()
    await EverthreadConversationStore(counting).load("trip", limit=20)
    assert counting.made == ["read_last", "read_last"]


async def test_an_expiry_is_that_of_the_retention(memory: Store) -> None:
    conversations = EverthreadConversationStore(memory, retention=Retention(expire_after=timedelta(days=1)))
    await saved(conversations, "a")
    thread = await memory.get_thread(KEY)
    assert thread is not None
    assert thread.expires_ms == thread.updated_ms + 86_400_000


NAMES = st.sampled_from(["a", "b", "c"])
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("save"), NAMES, st.integers(1, 3)),
        st.tuples(st.just("rewrite"), NAMES, st.integers(0, 3)),
        st.tuples(st.just("branch"), NAMES, st.integers(0, 6)),
        st.tuples(st.just("back"), NAMES, st.integers(0, 2)),
        st.tuples(st.just("fork"), NAMES, NAMES, st.integers(0, 6)),
        st.tuples(st.just("delete"), NAMES),
    ),
    max_size=14,
)


@given(STEPS)
def test_it_does_what_the_stores_of_the_framework_do(steps: list[tuple[Any, ...]]) -> None:
    async def compare() -> None:
        async with open_store("memory:") as store:
            reference = InMemoryConversationStore()
            for number, step in enumerate(steps):
                # A new object has nothing remembered.
                both = [reference, EverthreadConversationStore(store)]
                assert await outcome(both[1], step, number) == await outcome(both[0], step, number)
                for name in "abc":
                    one, two = [await each.load(name) for each in both]
                    assert (one and one.messages) == (two and two.messages)
                listed = [{each.conversation_id for each in await each.list_conversations()} for each in both]
                assert listed[0] == listed[1]
            texts = b"".join([await payloads(store, thread.key) for thread in (await store.list_threads()).items])
            stored = {entry.message.parts[0].content.encode() for entry in reference._entries.values()}  # type: ignore[union-attr]
            assert set(re.findall(rb'"content":"([^"]*)"', texts)) == stored
            for name in "abc":
                await EverthreadConversationStore(store).delete(name)
            assert (await store.list_threads()).items == ()

    asyncio.run(compare())


async def outcome(conversations: ConversationStore, step: tuple[Any, ...], number: int) -> str:
    """Take a step; return the name of the error, or nothing."""
    kind, name, *numbers = step
    loaded = await conversations.load(name)
    try:
        if kind == "delete":
            await conversations.delete(name)
        elif kind == "fork":
            await conversations.fork(name, at=numbers[1], new_conversation_id=numbers[0])
        elif kind == "branch":
            revision = loaded.revision if loaded else None
            await conversations.branch(name, at=numbers[0], expected_revision=revision)
        elif kind == "back":
            record = await conversations.read_record(name)
            if record is not None and numbers[0] < len(record.branches):
                tip = record.branches[numbers[0]]
                await conversations.branch(name, from_entry=tip, expected_revision=record.revision)
        else:
            new = loaded or Conversation(conversation_id=name)
            if kind == "rewrite":
                new.messages[numbers[0] :] = [said(f"{number}")]
            else:
                new.messages += [said(f"{number}.{each}") for each in range(numbers[0])]
            await conversations.save(new)
    except UserError as error:
        return type(error).__name__
    return ""


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["sqlite", "redis", "postgres", "objects"])
async def test_each_engine_stores_forks_and_deletes_them(engine: str, request: pytest.FixtureRequest) -> None:
    async with open_store(empty_place(request, engine)) as store:
        await test_deletion_keeps_only_what_others_reach(store)
        await test_branches_stay_stored_and_can_be_continued(store)


@pytest.mark.parametrize("loop", list(LOOPS))
@pytest.mark.parametrize("engine", ["memory", "sqlite", "redis"])
def test_a_store_by_url_works_in_every_loop(engine: str, loop: str, request: pytest.FixtureRequest) -> None:
    conversations = EverthreadConversationStore(empty_place(request, engine))

    async def talk(number: int) -> int:
        await saved(conversations, str(number))
        return len(await texts_of(conversations))

    assert [run(talk(number), LOOPS[loop]) for number in range(3)] == [2, 4, 6]


def test_the_package_needs_no_framework_until_used() -> None:
    code = "import sys, everthread.adapters.pydantic_ai as a; assert 'pydantic_ai' not in sys.modules; print(a.__all__)"
    assert subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
