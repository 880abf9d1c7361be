"""What a run loads and saves while other runs of its session do the same, and through overridden methods."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import pytest
from agent_framework import AgentResponse, AgentSession, Content, Message, SessionContext, tool

from everthread import InvalidMessageError, LimitExceededError, ThreadKey, new_message
from everthread.adapters.agent_framework import EverthreadHistoryProvider
from everthread.engines.memory import MemoryStore
from tests.adapters.agents import agent_with, kinds, run, texts, weather
from tests.adapters.scripted import Call, Script, ScriptedClient

both_ways = pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
both_persistences = pytest.mark.parametrize("per_call", [False, True], ids=["per-run", "per-call"])


class Steps:
    """One run whose two halves, loading and saving, are made when the test says so."""

    def __init__(self, store: Any, inputs: Sequence[Message], outputs: Sequence[Message]) -> None:
        self.provider = EverthreadHistoryProvider(store)
        self.agent = agent_with(ScriptedClient())
        self.session = AgentSession(session_id="trip")
        self.context = SessionContext(session_id="trip", input_messages=[copied(message) for message in inputs])
        self.outputs = [copied(message) for message in outputs]

    async def load(self) -> list[str]:
        """Load, and return what the model is asked."""
        await self.provider.before_run(agent=self.agent, session=self.session, context=self.context, state={})
        return [message.text for message in self.context.get_messages(include_input=True)]

    async def save(self) -> None:
        self.context._response = AgentResponse(messages=self.outputs)
        await self.provider.after_run(agent=self.agent, session=self.session, context=self.context, state={})


def copied(message: Message) -> Message:
    contents = [Content.from_dict(content.to_dict()) for content in message.contents]
    return Message(message.role, contents, message_id=message.message_id)


def said(text: str, message_id: str | None = None) -> Message:
    return Message("user", [text], message_id=message_id)


def answered(text: str, message_id: str | None = None) -> Message:
    return Message("assistant", [text], message_id=message_id)


def called(occurrence: str, message_id: str) -> Message:
    call = Content.from_function_call("c1", "find", arguments="{}")
    call.id = occurrence
    return Message("assistant", [call], message_id=message_id)


RESULT = Message("tool", [Content.from_function_result("c1", result="found")])
EARLIER = [said("hello", "m0"), answered("Hi.", "a0")]
YES, DONE = said("yes", "m1"), answered("Done.", "a1")


def orders(runs: int) -> Iterator[list[int]]:
    """Give every order of two steps of each run: the number of a run says that its next step is made."""

    def fill(free: tuple[int, ...], number: int, order: list[int]) -> Iterator[list[int]]:
        if number == runs:
            yield list(order)
            return
        for second in free[1:]:
            filled = list(order)
            filled[free[0]] = filled[second] = number
            yield from fill(tuple(at for at in free[1:] if at != second), number + 1, filled)

    yield from fill(tuple(range(2 * runs)), 0, [-1] * (2 * runs))


async def interleaved(order: list[int], runs: Sequence[Steps]) -> None:
    loaded: set[int] = set()
    for number in order:
        await (runs[number].save() if number in loaded else runs[number].load())
        loaded.add(number)


async def kept(store: MemoryStore) -> list[str]:
    return [message.text for message in await EverthreadHistoryProvider(store).get_messages("trip")]


@pytest.mark.parametrize("transcript", [False, True], ids=["alone", "with-the-transcript"])
async def test_a_repeated_run_is_stored_once_in_every_order(transcript: bool) -> None:
    inputs = [*EARLIER, YES] if transcript else [YES]
    for order in orders(3):
        store = MemoryStore()
        await Steps(store, EARLIER[:1], EARLIER[1:]).save()
        await interleaved(order, [Steps(store, inputs, [DONE]) for _ in range(3)])
        assert await kept(store) == ["hello", "Hi.", "yes", "Done."], order


async def test_a_repeated_run_with_tools_is_stored_once_in_every_order() -> None:
    for order in orders(2):
        store = MemoryStore()
        runs = [Steps(store, [YES], [called(f"af-call-{number}", "a1"), RESULT, DONE]) for number in range(2)]
        await interleaved(order, runs)
        assert len(await kept(store)) == 4, order


async def test_repeated_and_other_runs_are_each_stored_once_in_every_order() -> None:
    for order in orders(3):
        store = MemoryStore()
        other = Steps(store, [said("no", "m2")], [answered("Fine.", "a2")])
        await interleaved(order, [Steps(store, [YES], [DONE]), other, Steps(store, [YES], [DONE])])
        assert sorted(await kept(store)) == ["Done.", "Fine.", "no", "yes"], order


async def test_runs_without_ids_are_each_stored_in_every_order() -> None:
    for order in orders(2):
        store = MemoryStore()
        await interleaved(order, [Steps(store, [said("yes")], [answered("Done.", "a1")]) for _ in range(2)])
        assert await kept(store) == ["yes", "Done."] * 2, order


@pytest.mark.parametrize("again", ["yes", "something else"])
async def test_a_reused_id_is_a_new_message(again: str) -> None:
    store = MemoryStore()
    for number, text in enumerate(("yes", "no")):
        await Steps(store, [said(text, f"msg-{number}")], [answered(f"{text}.", f"a{number}")]).save()
    anew = Steps(store, [said(again, "msg-0")], [answered("Well.", "a2")])
    assert await anew.load() == ["yes", "yes.", "no", "no.", again]
    await anew.save()
    assert await kept(store) == ["yes", "yes.", "no", "no.", again, "Well."]


async def test_a_turn_sent_again_is_stored_once() -> None:
    store = MemoryStore()
    await Steps(store, EARLIER[:1], EARLIER[1:]).save()
    await Steps(store, [YES], [DONE]).save()
    again = Steps(store, [YES], [answered("Done, again.", "a9")])
    assert await again.load() == ["hello", "Hi.", "yes"]
    await again.save()
    assert await kept(store) == ["hello", "Hi.", "yes", "Done.", "Done, again."]


@both_ways
@both_persistences
async def test_a_repeated_run_without_an_answer_id_is_stored_once(store, stream: bool, per_call: bool) -> None:
    options = {"require_per_service_call_history_persistence": per_call}
    for text in ("Done.", "Done.", "Well."):
        agent = agent_with(ScriptedClient(text), EverthreadHistoryProvider(store), **options)
        await run(agent, said("yes", "m1"), stream=stream)
    kept = await EverthreadHistoryProvider(store).get_messages("trip")
    assert [message.text for message in kept] == ["yes", "Done.", "Well."], "another answer is stored, too"


async def test_a_tool_result_sent_again_is_accepted_and_stored_once(store) -> None:
    for _ in range(2):
        provider = EverthreadHistoryProvider(store)
        client = ScriptedClient([Call("weather", {"city": "Rome"}, "c1")], "Sunny.", message_ids=True)
        options: dict[str, Any] = {"tools": [weather], "require_per_service_call_history_persistence": True}
        await run(agent_with(client, provider, **options), said("Weather?", "m1"))
    assert kinds(await provider.get_messages("trip")) == [
        ("user", ["text"]),
        ("assistant", ["function_call"]),
        ("tool", ["function_result"]),
        ("assistant", ["text"]),
    ]


# Overrides


class Counting(EverthreadHistoryProvider):
    """Shows that the framework's methods are called: marks what it loads, and saves copies in two parts."""

    async def get_messages(self, session_id: str | None, **options: Any) -> list[Message]:
        return [*await super().get_messages(session_id, **options), answered("Be brief.")]

    async def save_messages(self, session_id: str | None, messages: Sequence[Message], **options: Any) -> None:
        copies = [Message(message.role, list(message.contents)) for message in messages]
        await super().save_messages(session_id, copies[:1], **options)
        await super().save_messages(session_id, copies[1:], **options)


@both_ways
@both_persistences
async def test_overridden_loading_and_saving_are_called(store, stream, per_call) -> None:
    options = {"require_per_service_call_history_persistence": per_call}
    client = ScriptedClient()
    shown: list[Message] = []
    for number in range(3):
        shown.append(said(f"q{number}"))
        answer = await run(agent_with(client, Counting(store, window=4), **options), list(shown), stream=stream)
        shown.append(answered(answer))
    assert texts(await EverthreadHistoryProvider(store).get_messages("trip")) == texts(shown)
    assert [text for _, text in client.requests[0]] == ["Be brief.", "q0"]


async def test_an_override_gets_the_window_and_may_read_other_sessions(store) -> None:
    class Both(EverthreadHistoryProvider):
        async def get_messages(self, session_id: str | None, **options: Any) -> list[Message]:
            others = await super().get_messages("other", **options)
            return [*others, *await super().get_messages(session_id, **options)]

    provider = Both(store, window=1)
    await provider.save_messages("other", [said("x"), answered("y")])
    await provider.save_messages("trip", [said("a"), answered("b")])
    client = ScriptedClient()
    await run(agent_with(client, provider), "c")
    assert [text for _, text in client.requests[0]] == ["x", "y", "b", "c"]


class Masking(EverthreadHistoryProvider):
    """Hands over changed copies, or only the ones of texts, or none but those that hold a secret."""

    kind = "all"

    async def get_messages(self, session_id: str | None, **options: Any) -> list[Message]:
        found = await super().get_messages(session_id, **options)
        if self.kind == "texts":
            found = [message for message in found if message.text and message.role != "tool"]
        masked = [
            Message(message.role, [message.text.replace("0", "*")], message_id=message.message_id) for message in found
        ]
        if self.kind == "secrets":
            return [mask if "*" in mask.text else message for mask, message in zip(masked, found, strict=True)]
        return masked


@pytest.mark.parametrize("kind", ["all", "texts", "secrets"])
@pytest.mark.parametrize("ids", [False, True])
async def test_changed_copies_of_messages_that_a_transcript_repeats_are_left_out(store, kind: str, ids: bool) -> None:
    provider = Masking(store)
    provider.kind = kind
    client = ScriptedClient("a0", [Call("weather", {"city": "Rome"})], "a1", "a2", "a3", message_ids=ids)
    shown: list[Message] = []
    for number in range(4):
        shown.append(said(f"q{number}"))
        answer = await run(agent_with(client, provider, tools=[weather]), list(shown))
        shown.append(answered(answer))
    assert client.requests[-1] == texts(shown[:-1])
    kept = await EverthreadHistoryProvider(store).get_messages("trip")
    assert [message.text for message in kept if message.text and message.role != "tool"] == [m.text for m in shown]


async def test_changed_copies_before_a_repeated_part_reach_the_model(store) -> None:
    provider = Masking(store)
    await provider.save_messages("trip", [said("q0"), answered("a0"), said("q1"), answered("a1")])
    client = ScriptedClient()
    await run(agent_with(client, provider), [said("q1"), answered("a1"), said("q2")])
    assert [text for _, text in client.requests[-1]] == ["q*", "a*", "q1", "a1", "q2"]


# Refusing early


REFUSED: dict[str, tuple[type[Exception], Any]] = {
    "a lone surrogate": (InvalidMessageError, "lone \ud800"),
    "NaN": (InvalidMessageError, Message("user", ["x"], additional_properties={"x": float("nan")})),
    "20 MB": (LimitExceededError, "x" * 20_000_000),
    "too many messages": (LimitExceededError, [said("x")] * 10_001),
}


@both_persistences
@pytest.mark.parametrize("kind", REFUSED)
async def test_an_unstorable_input_never_reaches_the_model(kind: str, per_call: bool) -> None:
    error, given = REFUSED[kind]
    provider = EverthreadHistoryProvider(MemoryStore())
    client = ScriptedClient()
    with pytest.raises(error):
        await run(agent_with(client, provider, require_per_service_call_history_persistence=per_call), given)
    assert client.seen == []
    assert await provider.get_messages("trip") == []


UNSTORABLE = {"a lone surrogate": "lone \ud800", "2 kB": "x" * 2000}


@both_persistences
@pytest.mark.parametrize("kind", UNSTORABLE)
async def test_a_tool_result_that_cannot_be_stored_loses_nothing_else(kind: str, per_call: bool, caplog) -> None:
    @tool(approval_mode="never_require")
    def pay() -> str:
        return UNSTORABLE[kind]

    provider = EverthreadHistoryProvider(MemoryStore(max_message_bytes=1000))
    client = ScriptedClient([Call("pay", {}, "c1")], "Paid.")
    agent = agent_with(client, provider, tools=[pay], require_per_service_call_history_persistence=per_call)
    assert await run(agent, "pay") == "Paid."
    asked, called, result, answer = await provider.get_messages("trip")
    assert (asked.text, called.contents[0].call_id, answer.text) == ("pay", "c1", "Paid.")
    assert result.contents[0].call_id == "c1"
    assert result.contents[0].result.startswith("[This content was not stored: ")
    assert "is not stored" in caplog.text
    assert "xxx" not in caplog.text
    assert await run(agent, "again") == "Done."


@both_persistences
@pytest.mark.parametrize("kind", UNSTORABLE)
async def test_an_answer_that_cannot_be_stored_keeps_the_question(kind: str, per_call: bool) -> None:
    provider = EverthreadHistoryProvider(MemoryStore(max_message_bytes=1000))
    agent = agent_with(
        ScriptedClient(UNSTORABLE[kind]), provider, require_per_service_call_history_persistence=per_call
    )
    assert await run(agent, "hello") == UNSTORABLE[kind]
    asked, answer = await provider.get_messages("trip")
    assert asked.text == "hello"
    assert answer.text.startswith("[This content was not stored: ")
    assert await run(agent, "again") == "Done."


class Small(MemoryStore):
    """A store that takes few bytes in one append."""

    async def append(self, key: ThreadKey, messages: Sequence[Any], **options: Any) -> Any:
        await self.check_append(key, messages)
        return await super().append(key, messages, **options)

    async def check_append(self, key: ThreadKey, messages: Sequence[Any]) -> None:
        if (size := sum(len(message.payload) for message in messages)) > 3000:
            raise LimitExceededError("too large", size, 3000)


@both_ways
async def test_a_run_of_more_messages_than_an_append_takes_is_stored_whole(stream: bool) -> None:
    store = MemoryStore()
    client = ScriptedClient([Call("weather", {"city": "Rome"}, "c1")], "Sunny.", message_ids=True)
    inputs = [Message("user", [f"fact {number}"], message_id=f"m{number}") for number in range(9_998)]
    for _ in range(2):
        client.script = Script([Call("weather", {"city": "Rome"}, "c1")], "Sunny.")
        client.seen = []
        agent = agent_with(client, EverthreadHistoryProvider(store), tools=[weather])
        assert await run(agent, inputs, stream=stream) == "Sunny."
    kept = await EverthreadHistoryProvider(store).get_messages("trip")
    assert [message.text for message in kept[:9_998]] == [message.text for message in inputs]
    assert kinds(kept[9_998:]) == [
        ("assistant", ["function_call"]),
        ("tool", ["function_result"]),
        ("assistant", ["text"]),
    ]


async def test_a_run_of_more_bytes_than_an_append_takes_is_stored_whole() -> None:
    @tool(approval_mode="never_require")
    def measure(length: int) -> str:
        return "x" * length

    calls = [[Call("measure", {"length": length}, f"c{length}")] for length in (1001, 1002, 1003, 1004)]
    provider = EverthreadHistoryProvider(Small())
    assert await run(agent_with(ScriptedClient(*calls), provider, tools=[measure]), "measure") == "Done."
    kept = await provider.get_messages("trip")
    found = [content.result for message in kept for content in message.contents if content.type == "function_result"]
    assert [len(result) for result in found] == [1001, 1002, 1003, 1004]
    assert kept[-1].text == "Done."


async def test_a_result_too_large_for_an_append_is_replaced_alone() -> None:
    @tool(approval_mode="never_require")
    def measure(length: int) -> str:
        return "x" * length

    calls = [Call("measure", {"length": length}, f"c{length}") for length in (10, 4000, 20)]
    provider = EverthreadHistoryProvider(Small())
    assert await run(agent_with(ScriptedClient(calls), provider, tools=[measure]), "measure") == "Done."
    kept = [content for message in await provider.get_messages("trip") for content in message.contents]
    results = [content.result for content in kept if content.type == "function_result"]
    assert [results[0], results[2]] == ["x" * 10, "x" * 20]
    assert "the store takes at most 3,000" in results[1]


async def test_a_direct_save_of_unstorable_content_is_refused() -> None:
    provider = EverthreadHistoryProvider(MemoryStore(max_message_bytes=1000))
    for unstorable, error in zip(UNSTORABLE.values(), (InvalidMessageError, LimitExceededError), strict=True):
        with pytest.raises(error):
            await provider.save_messages("trip", [said("a"), answered(unstorable)])
    assert await provider.get_messages("trip") == []


async def test_an_input_that_is_not_stored_is_not_refused() -> None:
    provider = EverthreadHistoryProvider(MemoryStore(max_message_bytes=1000), store_inputs=False)
    assert await run(agent_with(ScriptedClient(), provider), "x" * 2000) == "Done."


async def test_a_text_that_is_null_is_stored_and_read(store) -> None:
    empty = Content.from_text("x")
    empty.text = None
    provider = EverthreadHistoryProvider(store)
    assert await run(agent_with(ScriptedClient(), provider), [Message("user", [empty]), said("hello")]) == "Done."
    row = {"type": "message", "role": "user", "contents": [{"type": "text", "text": None}]}
    await store.append(ThreadKey("trip"), [new_message(row)])
    assert await run(agent_with(ScriptedClient(), provider), "again") == "Done."


# Runs that were cut off, and several providers


@both_ways
async def test_a_half_turn_that_is_sent_again_goes_on(store, stream: bool) -> None:
    options: dict[str, Any] = {"tools": [weather], "require_per_service_call_history_persistence": True}
    call = [Call("weather", {"city": "Rome"})]
    broken = ScriptedClient(call, ConnectionError("the network broke"), message_ids=True)
    with pytest.raises(ConnectionError):
        await run(agent_with(broken, EverthreadHistoryProvider(store), **options), YES, stream=stream)
    client = ScriptedClient("Done.", message_ids=True)
    assert await run(agent_with(client, EverthreadHistoryProvider(store), **options), YES, stream=stream) == "Done."
    assert client.requests == [[("user", "yes")]]
    await run(agent_with(client, EverthreadHistoryProvider(store), **options), "more", stream=stream)
    assert [text for _, text in client.requests[-1]] == ["yes", "Done.", "more"]


@both_persistences
async def test_an_abandoned_stream_leaves_a_usable_session(store, per_call: bool) -> None:
    options: dict[str, Any] = {"tools": [weather], "require_per_service_call_history_persistence": per_call}
    client = ScriptedClient(["Looking.", Call("weather", {"city": "Rome"})], "Sunny in Rome.", "Here.")
    agent = agent_with(client, EverthreadHistoryProvider(store), **options)
    async for update in agent.run("Weather?", session=AgentSession(session_id="trip"), stream=True):
        if "Sunny" in update.text:
            break
    assert await run(agent_with(client, EverthreadHistoryProvider(store), **options), "Hello?") == "Here."
    assert client.requests[-1][-1] == ("user", "Hello?")


@both_ways
@both_persistences
async def test_each_of_several_providers_keeps_its_own_part_once(store, stream: bool, per_call: bool) -> None:
    options: dict[str, Any] = {"tools": [weather], "require_per_service_call_history_persistence": per_call}
    client = ScriptedClient(["Looking. ", Call("weather", {"city": "Rome"})], "Sunny.")
    for said_now in ("Weather?", "Thanks"):
        main = EverthreadHistoryProvider(store)
        audit = EverthreadHistoryProvider(store, source_id="audit", load_messages=False)
        asked = EverthreadHistoryProvider(store, source_id="asked", load_messages=False, store_outputs=False)
        await run(agent_with(client, main, audit, asked, **options), said_now, stream=stream)
    assert texts(await audit.get_messages("trip")) == texts(await main.get_messages("trip"))
    assert [text for _, text in client.requests[-1] if text] == ["Weather?", "Looking. ", "Sunny.", "Thanks"]
    assert [text for _, text in texts(await asked.get_messages("trip")) if text] == ["Weather?", "Thanks"]
