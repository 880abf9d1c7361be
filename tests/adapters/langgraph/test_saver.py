"""LangGraph's checkpoints on a store: the framework's kit, whole graphs, and what kills and two writers leave."""

from __future__ import annotations

import asyncio
import operator
from collections.abc import AsyncIterator, Callable
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Annotated, Any, TypedDict

import pytest
from langchain_core.runnables import RunnableConfig
from langgraph.channels.delta import DeltaChannel
from langgraph.checkpoint.base import Checkpoint, empty_checkpoint
from langgraph.checkpoint.conformance import checkpointer_test, validate
from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer
from langgraph.graph import END, START, StateGraph
from langgraph.types import Command, Send, interrupt

from everthread import (
    ConfigurationError,
    CorruptRecordError,
    InvalidIdentifierError,
    LimitExceededError,
    Store,
    StoreUnavailableError,
    ThreadKey,
    new_message,
    open_store,
)
from everthread.adapters import retrying
from everthread.adapters.langgraph import EverthreadSaver
from everthread.testing import Clock
from everthread.testing.faults import Fault, FaultyStore
from tests.object_servers import COSMOS_KEY, CREDENTIALS, cosmos_server, cosmos_url, s3_server, s3_url
from tests.places import empty_place
from tests.postgres_server import fresh_url
from tests.redis_topologies import redis_cluster

TRIP: RunnableConfig = {"configurable": {"thread_id": "trip", "checkpoint_ns": ""}}
WRITES = ("put_document", "delete_document")


class State(TypedDict):
    number: int
    notes: Annotated[list[str], operator.add]


def journey() -> StateGraph[Any, Any, Any, Any]:
    builder = StateGraph(State)
    builder.add_node("plan", lambda state: {"number": state["number"] + 1, "notes": ["planned"]})
    builder.add_node("ask", lambda state: {"notes": [interrupt("Shall I book?")]})
    builder.add_edge(START, "plan")
    builder.add_edge("plan", "ask")
    builder.add_edge("ask", END)
    return builder


class Checkpoints:
    """Makes a sequence of checkpoints of one thread, each the parent of the next."""

    def __init__(self, saver: EverthreadSaver, config: RunnableConfig = TRIP) -> None:
        self.saver = saver
        self.config = config
        self.versions: dict[str, str] = {}
        self.numbers = count()

    async def put(self, metadata: dict[str, Any] | None = None, **changed: Any) -> RunnableConfig:
        values = await self._values() | changed
        new = {channel: self.saver.get_next_version(self.versions.get(channel), None) for channel in changed}
        self.versions |= new
        checkpoint: Checkpoint = {
            **empty_checkpoint(), "channel_values": values, "channel_versions": dict(self.versions),
        }  # fmt: skip
        described: Any = {"source": "loop", "step": next(self.numbers), **(metadata or {})}
        self.config = await self.saver.aput(self.config, checkpoint, described, dict(new))
        return self.config

    async def _values(self) -> dict[str, Any]:
        found = await self.saver.aget_tuple(self.config)
        return {} if found is None else found.checkpoint["channel_values"]


async def values(saver: EverthreadSaver, config: RunnableConfig = TRIP) -> dict[str, Any] | None:
    found = await saver.aget_tuple(config)
    return None if found is None else found.checkpoint["channel_values"]


async def ids(saver: EverthreadSaver, config: RunnableConfig | None = TRIP, **options: Any) -> list[str]:
    return [each.checkpoint["id"] async for each in saver.alist(config, **options)]


# The framework's kit


async def passes_the_kit(store: Store) -> None:
    @checkpointer_test(name="everthread")
    async def saver() -> AsyncIterator[EverthreadSaver]:
        yield EverthreadSaver(store)

    report = await validate(saver)
    assert {name: result.failures for name, result in report.results.items()} == {name: [] for name in report.results}
    assert report.passed_all_base()
    assert report.passed_all()


async def test_the_kit_of_langgraph_passes(store: Store) -> None:
    await passes_the_kit(store)


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["postgres", "folder", "s3", "cosmos", "cluster"])
async def test_the_kit_passes_on_the_other_engines(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, engine: str
) -> None:
    for name, value in {**CREDENTIALS, "AZURE_COSMOS_KEY": COSMOS_KEY}.items():
        monkeypatch.setenv(name, value)
    with ExitStack() as servers:
        if engine == "postgres":
            url = fresh_url(request.getfixturevalue("postgres"))
        elif engine == "folder":
            url = f"file://{tmp_path}/objects"
        elif engine == "s3":
            url = s3_url(servers.enter_context(s3_server()))
        elif engine == "cosmos":
            url = cosmos_url(servers.enter_context(cosmos_server()))
        else:
            url = servers.enter_context(redis_cluster()).url
        async with open_store(url) as store:
            await passes_the_kit(store)


# Whole graphs


@pytest.mark.parametrize("engine", ["sqlite", "redis"])
def test_a_graph_without_a_loop_continues_in_another_process(request: pytest.FixtureRequest, engine: str) -> None:
    url = empty_place(request, engine)
    config: RunnableConfig = {"configurable": {"thread_id": "trip"}}
    stopped = journey().compile(checkpointer=EverthreadSaver(url)).invoke({"number": 1, "notes": []}, config)
    assert stopped["__interrupt__"][0].value == "Shall I book?"
    saver = EverthreadSaver(url)
    graph = journey().compile(checkpointer=saver)
    assert graph.invoke(Command(resume="yes"), config) == {"number": 2, "notes": ["planned", "yes"]}
    steps = [state.metadata["step"] for state in graph.get_state_history(config) if state.metadata]
    assert steps == [2, 1, 0, -1]
    # An older checkpoint can be continued, and the others stay.
    *_, first = graph.get_state_history(config, filter={"step": 0})
    forked = graph.update_state(first.config, {"number": 10})
    assert graph.invoke(None, forked)["number"] == 11
    assert len(list(graph.get_state_history(config))) > len(steps)
    saver.prune(["trip"])
    assert len(list(saver.list(config))) == 1
    saver.copy_thread("trip", "copy")
    assert graph.get_state({"configurable": {"thread_id": "copy"}}).values["number"] == 11
    saver.delete_for_runs(["unknown"])
    saver.delete_thread("trip")
    assert saver.get_tuple(config) is None
    saver.close()


async def test_a_synchronous_method_works_in_a_running_loop(tmp_path: Path) -> None:
    async with EverthreadSaver(f"sqlite:///{tmp_path}/threads.db") as saver:
        graph = journey().compile(checkpointer=saver)
        config: RunnableConfig = {"configurable": {"thread_id": "trip"}}
        await graph.ainvoke({"number": 1, "notes": []}, config)
        assert graph.get_state(config).values == (await graph.aget_state(config)).values
        await asyncio.to_thread(saver.close)


async def test_many_parallel_tasks_are_all_stored(store: Store) -> None:
    builder = StateGraph(State)
    builder.add_node("fan", lambda state: {})
    builder.add_node("each", lambda sent: {"notes": [f"{sent['n']} " + "x" * 2000 * (sent["n"] % 2)]})
    builder.add_edge(START, "fan")
    builder.add_conditional_edges("fan", lambda state: [Send("each", {"n": number}) for number in range(60)])
    graph = builder.compile(checkpointer=EverthreadSaver(store))
    config: RunnableConfig = {"configurable": {"thread_id": "trip"}}
    done = await graph.ainvoke({"number": 0, "notes": []}, config)
    assert [int(note.split()[0]) for note in done["notes"]] == list(range(60))
    fanned = [state async for state in graph.aget_state_history(config, filter={"step": 1})]
    assert len(fanned[0].tasks) == 60
    assert all(task.result for task in fanned[0].tasks)


async def test_pruning_keeps_what_a_delta_channel_needs(store: Store) -> None:
    class Long(TypedDict):
        notes: Annotated[list[str], DeltaChannel(_joined, snapshot_frequency=4)]

    builder = StateGraph(Long)
    builder.add_node("note", lambda state: {"notes": [f"{len(state['notes'])}"]})
    builder.add_edge(START, "note")
    builder.add_edge("note", END)
    saver = EverthreadSaver(store)
    graph = builder.compile(checkpointer=saver)
    config: RunnableConfig = {"configurable": {"thread_id": "trip"}}
    for _ in range(5):
        await graph.ainvoke({"notes": ["in"]}, config)
        before = (await graph.aget_state(config)).values
        await saver.aprune(["trip"])
        assert (await graph.aget_state(config)).values == before
        assert len(await ids(saver)) <= 10
    assert len(before["notes"]) == 10


def _joined(former: list[str], writes: list[list[str]]) -> list[str]:
    return [*former, *(note for write in writes for note in write)]


# What is stored


async def test_an_unchanged_channel_is_stored_once(store: Store) -> None:
    checkpoints = Checkpoints(EverthreadSaver(store))
    await checkpoints.put(large="x" * 100_000, small=0)
    before = await store.list_documents(ThreadKey("trip"), prefix="lg.b.")
    for number in range(1, 5):
        await checkpoints.put(small=number)
    assert await store.list_documents(ThreadKey("trip"), prefix="lg.b.") == before
    assert len(before) == 1
    # A saver that knows nothing of the thread neither.
    checkpoints.saver = EverthreadSaver(store)
    await checkpoints.put(small=9)
    assert await store.list_documents(ThreadKey("trip"), prefix="lg.b.") == before
    assert await values(checkpoints.saver) == {"large": "x" * 100_000, "small": 9}


async def test_values_larger_than_a_document_are_stored(store: Store) -> None:
    saver = EverthreadSaver(store)
    large = "é" * 2_000_000
    config = await Checkpoints(saver).put(large=large)
    await saver.aput_writes(config, [("large", large + "!")], "task")
    found = await saver.aget_tuple(TRIP)
    assert found is not None
    assert found.checkpoint["channel_values"] == {"large": large}
    assert found.pending_writes == [("task", "large", large + "!")]


async def test_too_large_a_value_is_refused(store: Store) -> None:
    with pytest.raises(LimitExceededError):
        await Checkpoints(EverthreadSaver(store)).put(large=b"x" * (49 * 1024 * 1024))
    assert await values(EverthreadSaver(store)) is None


async def test_checkpoints_live_beside_the_messages_of_a_thread(store: Store) -> None:
    saver = EverthreadSaver(store, tenant="acme")
    key = ThreadKey("trip", "acme")
    await store.append(key, [new_message({"role": "user", "content": "Hello"})])
    await Checkpoints(saver).put(notes=["a"])
    assert await values(EverthreadSaver(store)) is None
    assert await values(EverthreadSaver(store.tenant("acme"))) == {"notes": ["a"]}
    await saver.adelete_thread("trip")
    assert await store.list_documents(key) == ()
    assert len(await store.read(key)) == 1


async def test_a_thread_that_held_checkpoints_only_is_deleted_with_them(store: Store) -> None:
    saver = EverthreadSaver(store)
    await Checkpoints(saver).put(notes=["a"])
    await saver.aprune(["trip"], strategy="delete")
    assert await store.get_thread(ThreadKey("trip")) is None


async def test_checkpoints_are_ordered_by_their_ids(store: Store) -> None:
    saver = EverthreadSaver(store)
    wanted = ["b", "b2", "a", "ba", "é", "B", "1f0", "x" * 200]
    for checkpoint_id in wanted:
        checkpoint: Checkpoint = {**empty_checkpoint(), "id": checkpoint_id}
        await saver.aput(TRIP, checkpoint, {}, {})
    newest_first = sorted(wanted, reverse=True)
    assert await ids(saver) == newest_first
    before: RunnableConfig = {"configurable": {"thread_id": "trip", "checkpoint_id": "b"}}
    assert await ids(saver, before=before) == [each for each in newest_first if each < "b"]
    assert await ids(saver, {"configurable": {"thread_id": "trip"}}, before=before, limit=1) == ["a"]
    assert await ids(saver, None, limit=2) == newest_first[:2]
    newest = await saver.aget_tuple(TRIP)
    assert newest is not None
    assert newest.checkpoint["id"] == newest_first[0]


# Kills, retries and other writers


@pytest.mark.parametrize("engine", ["memory", "sqlite"])
async def test_a_kill_between_any_two_writes_leaves_the_last_checkpoint(
    request: pytest.FixtureRequest, engine: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retrying, "RETRY_DELAYS", ())
    async with open_store(empty_place(request, engine)) as store:
        first = Checkpoints(EverthreadSaver(store))
        await first.put(notes=["kept"], other="unchanged " * 10)
        for writes in count():
            faulty = FaultyStore(store, [None] * writes + [Fault.FAIL_BEFORE] * 1000, calls=WRITES)
            next_one = Checkpoints(EverthreadSaver(faulty), first.config)
            next_one.versions = dict(first.versions)
            try:
                config = await next_one.put(notes=["next"], large="x" * 2_000_000)
                await next_one.saver.aput_writes(config, [("notes", ["y" * 5000])], "task")
            except StoreUnavailableError:
                found = await values(EverthreadSaver(store))
                assert found is not None
                if found["notes"] == ["kept"]:
                    assert found == {"notes": ["kept"], "other": "unchanged " * 10}
                    continue
                # The checkpoint is complete, and only its pending write is missing.
                assert found == {"notes": ["next"], "other": "unchanged " * 10, "large": "x" * 2_000_000}
                await EverthreadSaver(store).adelete_for_runs(["none"])
            else:
                assert writes > 10
                return


@pytest.mark.parametrize("fault", [Fault.FAIL_BEFORE, Fault.FAIL_AFTER])
async def test_a_lost_answer_changes_nothing(store: Store, fault: Fault) -> None:
    plan = [fault, None, None] * 20
    faulty = FaultyStore(store, plan, calls=(*WRITES, "get_document", "list_documents"))
    checkpoints = Checkpoints(EverthreadSaver(faulty))
    await checkpoints.put(notes=["a"])
    config = await checkpoints.put(number=1000)
    await checkpoints.saver.aput_writes(config, [("notes", ["b"]), ("notes", ["c" * 3000])], "task")
    found = await EverthreadSaver(store).aget_tuple(TRIP)
    assert found is not None
    assert found.checkpoint["channel_values"] == {"notes": ["a"], "number": 1000}
    assert found.pending_writes == [("task", "notes", ["b"]), ("task", "notes", ["c" * 3000])]
    assert len(await ids(EverthreadSaver(store))) == 2
    assert len(await store.list_documents(ThreadKey("trip"), prefix="lg.v.")) == 1


async def test_repeated_writes_are_stored_once_and_errors_replaced(store: Store) -> None:
    saver = EverthreadSaver(store)
    config = await Checkpoints(saver).put(notes=[])
    for text in ("first", "second"):
        await saver.aput_writes(config, [("notes", [text * 1000]), ("__error__", text * 1000)], "task", "path")
    found = await saver.aget_tuple(config)
    assert found is not None
    assert sorted(found.pending_writes or ()) == [
        ("task", "__error__", "second" * 1000), ("task", "notes", ["first" * 1000]),
    ]  # fmt: skip
    assert len(await store.list_documents(ThreadKey("trip"), prefix="lg.v.")) == 2


async def test_two_writers_lose_nothing(store: Store) -> None:
    savers = [EverthreadSaver(store), EverthreadSaver(store)]
    first = Checkpoints(savers[0])
    config = await first.put(notes=["start"])

    async def branch(saver: EverthreadSaver, name: str) -> RunnableConfig:
        mine = Checkpoints(saver, config)
        mine.versions = dict(first.versions)
        for number in range(3):
            made = await mine.put(notes=[f"{name} {number}"])
            await saver.aput_writes(config, [("notes", [f"{name} {number}"])], f"{name} {number}")
        return made

    ends = await asyncio.gather(*(branch(saver, name) for saver, name in zip(savers, "ab", strict=True)))
    assert [await values(savers[0], end) for end in ends] == [{"notes": ["a 2"]}, {"notes": ["b 2"]}]
    assert len(await ids(savers[0])) == 7
    found = await savers[0].aget_tuple(config)
    assert found is not None
    assert len(found.pending_writes or ()) == 6


async def test_a_checkpoint_is_complete_though_its_parent_was_pruned(store: Store) -> None:
    old = Checkpoints(EverthreadSaver(store))
    await old.put(notes=["old " * 100])
    parent = old.config
    await old.put(notes=["new " * 100])
    late = Checkpoints(EverthreadSaver(store), parent)
    await late._values()  # it has read the old checkpoint, which is deleted now
    late.versions = {"notes": (await old.saver.aget_tuple(parent)).checkpoint["channel_versions"]["notes"]}  # pyright: ignore
    kept = {"notes": ["old " * 100]}

    async def prune_then_put() -> RunnableConfig:
        checkpoint: Checkpoint = {**empty_checkpoint(), "channel_values": kept, "channel_versions": late.versions}  # pyright: ignore
        await old.saver.aprune(["trip"])
        return await late.saver.aput(parent, checkpoint, {}, {})

    config = await prune_then_put()
    assert await values(EverthreadSaver(store), config) == kept
    # And so is the next one, which did not change the value either.
    late.config = config
    await late.put(number=1)
    assert await values(EverthreadSaver(store), late.config) == {**kept, "number": 1}
    await old.saver.aprune(["trip"])
    assert await values(EverthreadSaver(store)) == {**kept, "number": 1}


async def test_pruning_leaves_nothing_unused() -> None:
    clock = Clock()
    async with open_store("memory:", clock=clock) as store:
        clock.advance(-2 * 3600)
        await store.put_document(ThreadKey("trip"), "lg.b.old.left-by-a-killed-writer", b'{"value":1}')
        clock.advance(2 * 3600)
        await store.put_document(ThreadKey("trip"), "lg.b.new.of-a-running-writer", b'{"value":1}')
        checkpoints = Checkpoints(EverthreadSaver(store))
        for number in range(10):
            config = await checkpoints.put(notes=["x" * 100 + str(number)])
            await checkpoints.saver.aput_writes(config, [("notes", ["y" * 5000])], "task")
        await checkpoints.saver.aprune(["trip"])
        assert len(await ids(checkpoints.saver)) == 1
        names = await store.list_documents(ThreadKey("trip"))
        assert [name[:9] for name in names if "new" in name] == ["lg.b.new."]
        assert [name[:5] for name in names if "new" not in name] == ["lg.b.", "lg.c.", "lg.v.", "lg.w."]


# Types, mistakes and damage


@dataclass
class Ticket:
    seat: str


async def test_classes_are_loaded_only_if_they_are_allowed(store: Store) -> None:
    allowing = EverthreadSaver(store, allowed_types=[Ticket])
    await Checkpoints(allowing).put(ticket=Ticket("12a"))
    assert await values(allowing) == {"ticket": Ticket("12a")}
    assert await values(EverthreadSaver(store)) == {"ticket": {"seat": "12a"}}
    extended = EverthreadSaver(store).with_allowlist([(Ticket.__module__, "Ticket")])
    assert await values(extended) == {"ticket": Ticket("12a")}


async def test_pickles_need_a_serializer_that_allows_them(store: Store) -> None:
    with pytest.raises(TypeError):
        await Checkpoints(EverthreadSaver(store)).put(value=type(store))
    assert await values(EverthreadSaver(store)) is None
    pickling = EverthreadSaver(store, serde=JsonPlusSerializer(pickle_fallback=True))
    await Checkpoints(pickling).put(value=Ticket)
    assert await values(pickling) == {"value": Ticket}
    with pytest.raises(NotImplementedError):
        await values(EverthreadSaver(store))


@pytest.mark.parametrize(
    ("make", "error"),
    [
        (lambda saver: saver.aget_tuple({"configurable": {}}), ConfigurationError),
        (lambda saver: saver.aget_tuple({}), ConfigurationError),
        (lambda saver: saver.aget_tuple({"configurable": {"thread_id": ""}}), InvalidIdentifierError),
        (lambda saver: saver.aput_writes(TRIP, [("notes", 1)], "task"), ConfigurationError),
        (lambda saver: saver.aprune(["trip"], strategy="half"), ConfigurationError),
    ],
)
async def test_mistakes_are_reported(store: Store, make: Callable[[EverthreadSaver], Any], error: type) -> None:
    with pytest.raises(error):
        await make(EverthreadSaver(store))


def test_a_serializer_brings_its_own_types() -> None:
    with pytest.raises(ConfigurationError, match="allowed_types"):
        EverthreadSaver("memory:", allowed_types=[Ticket], serde=JsonPlusSerializer())


async def test_damage_is_reported_with_its_place(store: Store) -> None:
    saver = EverthreadSaver(store)
    config = await Checkpoints(saver).put(notes=["a"])
    await saver.aput_writes(config, [("notes", 1)], "task")
    key = ThreadKey("trip")
    (blob,) = await store.list_documents(key, prefix="lg.b.")
    await store.delete_document(key, blob)
    with pytest.raises(CorruptRecordError, match="trip"):
        await saver.aget_tuple(TRIP)
    writes = await store.list_documents(key, prefix="lg.w.")
    await store.put_document(key, writes[0], b'{"value": {}}')
    with pytest.raises(CorruptRecordError, match="trip"):
        await saver.aput_writes(config, [("notes", 1)], "task")
    (name,) = await store.list_documents(key, prefix="lg.c.")
    await store.put_document(key, name, b'{"value": [1]}')
    with pytest.raises(CorruptRecordError, match="trip"):
        await saver.aget_tuple(TRIP)
    await store.put_document(key, "lg.c.other", b'{"value": {}}')
    with pytest.raises(CorruptRecordError, match="no checkpoint"):
        await ids(saver, {"configurable": {"thread_id": "trip"}})


async def test_a_run_is_found_whatever_its_id_is(store: Store) -> None:
    checkpoints = Checkpoints(EverthreadSaver(store))
    for run_id in ("one", 2):
        await checkpoints.put({"run_id": run_id}, notes=[run_id])
    await checkpoints.saver.adelete_for_runs(["2"])
    assert await values(checkpoints.saver) == {"notes": ["one"]}
