"""Workflow checkpoints on a store: the framework's protocol, and which pickles are read."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import pickle
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import agent_framework
import pytest
from agent_framework import FileCheckpointStorage, Message, WorkflowCheckpoint, WorkflowCheckpointException

from everthread import ConfigurationError, InvalidIdentifierError, Store, ThreadKey, open_store
from everthread.adapters.agent_framework import EverthreadCheckpointStorage, EverthreadHistoryProvider
from everthread.adapters.agent_framework.checkpoint_values import decode_values, encode_values
from everthread.testing.guarantees.event_loops import LOOPS, run
from tests.adapters.agent_framework.checkpoints import ALLOWED, STANDARD, Color, Order, Place, message
from tests.places import empty_place
from tests.readme import ROOT, run_example

NONE = frozenset[str]()
EMPTY = dict[str, Any]()


def checkpoint(state: dict[str, Any] = EMPTY, *, at: str = "2026-11-30T12:00:00+00:00", **fields: Any):
    return WorkflowCheckpoint("orders", "hash", state=dict(state), timestamp=at, **fields)


def at(minute: int, zone: str = "+00:00") -> str:
    return f"2026-11-30T12:{minute:02}:00{zone}"


# The protocol


async def test_what_is_saved_is_loaded_and_deleted(store: Store) -> None:
    storage = EverthreadCheckpointStorage(store, "trip")
    saved = checkpoint({"a": [1, {"b": None}]}, previous_checkpoint_id="p", iteration_count=3, metadata={"m": 1})
    assert await storage.save(saved) == saved.checkpoint_id
    assert await storage.load(saved.checkpoint_id) == saved
    assert await storage.get_latest(workflow_name="orders") == saved
    assert await storage.list_checkpoints(workflow_name="orders") == [saved]
    assert await storage.list_checkpoint_ids(workflow_name="orders") == [saved.checkpoint_id]
    assert await storage.delete(saved.checkpoint_id) is True
    assert await storage.delete(saved.checkpoint_id) is False
    assert await storage.get_latest(workflow_name="orders") is None
    assert await storage.list_checkpoint_ids(workflow_name="orders") == []
    with pytest.raises(WorkflowCheckpointException, match="No checkpoint found"):
        await storage.load(saved.checkpoint_id)
    assert await store.list_documents(ThreadKey("trip")) == ()


async def test_returned_checkpoints_are_copies(store: Store) -> None:
    storage = EverthreadCheckpointStorage(store, "trip")
    saved = checkpoint({"a": [1]})
    await storage.save(saved)
    saved.state["a"].append(2)
    loaded = await storage.load(saved.checkpoint_id)
    loaded.state["a"].append(3)
    assert (await storage.load(saved.checkpoint_id)).state == {"a": [1]}


async def test_the_latest_is_the_newest_by_timestamp(store: Store) -> None:
    storage = EverthreadCheckpointStorage(store, "trip")
    for identifier, time in (("b", at(5)), ("newest", at(30, "-01:00")), ("a", at(59, "+02:00")), ("c", at(7)[:-6])):
        await storage.save(checkpoint(at=time, checkpoint_id=identifier))
    await storage.save(replace(checkpoint(at=at(59), checkpoint_id="other"), workflow_name="invoices"))
    latest = await storage.get_latest(workflow_name="orders")
    assert latest is not None
    assert latest.checkpoint_id == "newest"
    assert await storage.list_checkpoint_ids(workflow_name="orders") == ["a", "b", "c", "newest"]
    assert [each.checkpoint_id for each in await storage.list_checkpoints(workflow_name="invoices")] == ["other"]


async def test_saving_an_id_again_replaces_its_checkpoint(store: Store) -> None:
    storage = EverthreadCheckpointStorage(store, "trip")
    await storage.save(checkpoint(at=at(9), checkpoint_id="a"))
    await storage.save(checkpoint(at=at(5), checkpoint_id="b"))
    await storage.save(checkpoint({"n": 2}, at=at(1), checkpoint_id="a"))
    assert await storage.list_checkpoint_ids(workflow_name="orders") == ["a", "b"]
    latest = await storage.get_latest(workflow_name="orders")
    assert latest is not None
    assert latest.checkpoint_id == "b"
    assert (await storage.load("a")).state == {"n": 2}


@pytest.mark.parametrize("identifier", ["a:b", ":", "~", "é\0\U0001f4be", "a/../b", "x" * 400])
async def test_any_id_and_workflow_name_are_kept_apart(identifier: str) -> None:
    async with open_store("memory:") as store:
        storage = EverthreadCheckpointStorage(store, identifier)
        names = ("", identifier, f"{identifier}:" * 10)
        for number, name in enumerate(names):
            await storage.save(replace(checkpoint(checkpoint_id=f"{identifier}{number}"), workflow_name=name))
        for number, name in enumerate(names):
            assert await storage.list_checkpoint_ids(workflow_name=name) == [f"{identifier}{number}"]
        assert await EverthreadCheckpointStorage(store, "other").list_checkpoint_ids(workflow_name="") == []


async def test_a_limit_keeps_the_newest_of_each_workflow(store: Store) -> None:
    storage = EverthreadCheckpointStorage(store, "trip", max_checkpoints=2)
    for minute in (3, 1, 4, 2):
        await storage.save(checkpoint(at=at(minute), checkpoint_id=str(minute)))
    await storage.save(replace(checkpoint(), workflow_name="invoices"))
    assert await storage.list_checkpoint_ids(workflow_name="orders") == ["3", "4"]
    assert len(await store.list_documents(ThreadKey("trip"))) == 6


async def test_two_writers_lose_no_checkpoint(shared_url: str) -> None:
    async with open_store(shared_url) as store, open_store(shared_url) as other:
        storages = [EverthreadCheckpointStorage(each, "trip", max_checkpoints=40) for each in (store, other)]
        await asyncio.gather(
            *(storages[n % 2].save(checkpoint({"n": n}, at=at(n), checkpoint_id=f"{n:02}")) for n in range(20))
        )
        found = await storages[0].list_checkpoints(workflow_name="orders")
        assert [each.state["n"] for each in found] == list(range(20))


async def test_a_large_checkpoint_comes_back(store: Store) -> None:
    storage = EverthreadCheckpointStorage(store, "trip")
    saved = checkpoint({"text": "é\n" * 700_000})
    await storage.save(saved)
    assert await storage.load(saved.checkpoint_id) == saved
    assert await storage.delete(saved.checkpoint_id)
    assert await store.list_documents(ThreadKey("trip")) == ()


async def test_checkpoints_go_with_the_session(store: Store) -> None:
    storage, history = EverthreadCheckpointStorage(store, "~trip"), EverthreadHistoryProvider(store)
    await storage.save(checkpoint())
    await history.save_messages("~trip", [Message("user", ["Hello"])])
    assert [each.session_id for each in await history.list_sessions()] == ["~trip"]
    assert await history.delete("~trip")
    assert await storage.list_checkpoint_ids(workflow_name="orders") == []


async def test_tenants_and_sessions_are_separate(store: Store) -> None:
    ours = EverthreadCheckpointStorage(store, "trip", tenant="acme")
    identifier = await ours.save(checkpoint())
    for other in (EverthreadCheckpointStorage(store, "trip"), EverthreadCheckpointStorage(store, "t", tenant="acme")):
        assert await other.list_checkpoint_ids(workflow_name="orders") == []
        assert await other.delete(identifier) is False
        with pytest.raises(WorkflowCheckpointException):
            await other.load(identifier)


@pytest.mark.parametrize(
    ("make", "error"),
    [
        (lambda: EverthreadCheckpointStorage("memory:", ""), InvalidIdentifierError),
        (lambda: EverthreadCheckpointStorage("memory:", "a", max_checkpoints=0), ConfigurationError),
        (lambda: EverthreadCheckpointStorage("memory:", "a", allowed_types=["os.system"]), ConfigurationError),
        (lambda: EverthreadCheckpointStorage("nothing:", "a"), ConfigurationError),
        (lambda: EverthreadCheckpointStorage(7, "a"), ConfigurationError),
    ],
)
def test_wrong_settings_are_refused(make: Callable[[], object], error: type[Exception]) -> None:
    with pytest.raises(error):
        make()


# Processes and loops


@pytest.mark.slow
def test_a_workflow_continues_in_another_process(shared_url: str) -> None:
    def step(how: str) -> Any:
        command = [sys.executable, "-W", "ignore", "-m", "tests.adapters.agent_framework.checkpoints", how, shared_url]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    assert len(step("ask")) == 1
    assert step("answer") == ["4711 RED True"]


@pytest.mark.parametrize("kind", list(LOOPS))
@pytest.mark.parametrize("engine", ["memory", "sqlite", "redis", "postgres", "objects"])
def test_each_call_may_come_from_another_loop(request: pytest.FixtureRequest, engine: str, kind: str) -> None:
    storage = EverthreadCheckpointStorage(empty_place(request, engine), "trip")
    saved = checkpoint({"a": 1})
    run(storage.save(saved), LOOPS[kind])
    assert run(storage.get_latest(workflow_name="orders"), LOOPS[kind]) == saved
    assert run(storage.delete(saved.checkpoint_id), LOOPS[kind])


# Values


async def test_python_values_come_back_equal_and_of_their_type() -> None:
    state = STANDARD | {"message": message()}
    values = decode_values(encode_values(state, NONE), NONE)
    again = values.pop("message")
    assert isinstance(again, Message)
    assert again.to_dict() == message().to_dict()
    assert values == {name: value for name, value in state.items() if name != "message"}
    assert repr(values) == repr({name: value for name, value in state.items() if name != "message"})


async def test_a_value_of_the_application_needs_its_types() -> None:
    async with open_store("memory:") as store:
        for value in (Order(1), Color.RED, Place("Rome")):
            saved = checkpoint({"v": value})
            with pytest.raises(
                WorkflowCheckpointException, match=rf"checkpoints:{type(value).__name__}.*allowed_types"
            ):
                await EverthreadCheckpointStorage(store, "trip").save(saved)
            assert await store.get_thread(ThreadKey("trip")) is None
        names = [f"{each.__module__}:{each.__qualname__}" for each in (*ALLOWED, Place)]
        for allowed in ((*ALLOWED, Place), names):
            storage = EverthreadCheckpointStorage(store, "trip", allowed_types=allowed)
            saved = checkpoint({"v": [Order(1), Color.RED, Place("Rome")]})
            await storage.save(saved)
            assert await storage.load(saved.checkpoint_id) == saved


@pytest.mark.skipif(not hasattr(agent_framework, "register_checkpoint_type"), reason="this release lacks it")
def test_registered_types_are_allowed() -> None:
    class Registered(str):
        __slots__ = ()

    Registered.__qualname__ = "Registered"
    sys.modules[__name__].Registered = Registered
    value = {"v": Registered("a")}
    with pytest.raises(WorkflowCheckpointException, match="allowed_types"):
        encode_values(value, NONE)
    agent_framework.register_checkpoint_type(Registered)
    assert type(decode_values(encode_values(value, NONE), NONE)["v"]) is Registered


async def test_what_cannot_be_pickled_is_refused() -> None:
    endless: list[Any] = []
    endless.append(endless)
    async with open_store("memory:") as store:
        storage = EverthreadCheckpointStorage(store, "trip")
        for value in (lambda: None, open(os.devnull), endless):  # noqa: SIM115, PTH123
            with pytest.raises(WorkflowCheckpointException, match="cannot be stored"):
                await storage.save(checkpoint({"v": value}))
        with pytest.raises(WorkflowCheckpointException, match="ISO 8601"):
            await storage.save(checkpoint(at="yesterday"))
        assert await store.get_thread(ThreadKey("trip")) is None


class _Calls:
    """Pickled, it is a call."""

    def __init__(self, function: object, *arguments: object) -> None:
        self.call = (function, arguments)

    def __reduce__(self) -> Any:
        return self.call


def _global(module: str, name: str, *arguments: bytes) -> bytes:
    return f"c{module}\n{name}\n".encode() + b"(" + b"".join(arguments) + b"tR."


def hostile(folder: Path) -> dict[str, bytes]:
    target = str(folder / "pwned")
    return {
        "system": pickle.dumps(_Calls(os.system, f"touch {target}")),
        "eval": pickle.dumps(_Calls(eval, f"open({target!r}, 'w')")),
        "getattr": pickle.dumps(_Calls(getattr, Message, "__init__")),
        "type": pickle.dumps(_Calls(type, "A", (), {})),
        "open": pickle.dumps(_Calls(open, target, "w")),
        "file store": pickle.dumps(_Calls(FileCheckpointStorage, target)),
        "import": pickle.dumps(_Calls(__import__, "os")),
        "framework function": _global("agent_framework._workflows._checkpoint_encoding", "decode_checkpoint_value"),
        "framework module": _global("agent_framework._types", "json.loads"),
        "framework alias": _global("agent_framework._workflows._checkpoint", "Path", b"V" + target.encode() + b"\n"),
        "nested": _global("agent_framework._types", "Message.from_dict"),
        "encodings": _global("codecs", "decode"),
        "tools": _global("functools", "partial"),
    }


NAMES = list(hostile(Path()))


@contextmanager
def stays_empty(folder: Path) -> Iterator[None]:
    yield
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize("name", NAMES)
async def test_a_hostile_pickle_calls_nothing(name: str, tmp_path: Path) -> None:
    data = {"__pickled__": base64.b64encode(hostile(tmp_path)[name]).decode(), "__type__": "builtins:int"}
    record = json.dumps({"value": {**checkpoint().to_dict(), "checkpoint_id": "bad", "state": {"v": data}}}).encode()
    async with open_store("memory:") as store:
        storage = EverthreadCheckpointStorage(store, "trip", allowed_types=ALLOWED)
        await storage.save(checkpoint(checkpoint_id="good", at=at(0)))
        await storage.save(checkpoint(checkpoint_id="bad", at=at(1)))
        await store.put_document(ThreadKey("trip"), "agent-framework:checkpoint:bad", record)
        with stays_empty(tmp_path):
            with pytest.raises(WorkflowCheckpointException, match="not allowed"):
                await storage.load("bad")
            with pytest.raises(WorkflowCheckpointException, match="not allowed"):
                await storage.get_latest(workflow_name="orders")
            assert [each.checkpoint_id for each in await storage.list_checkpoints(workflow_name="orders")] == ["good"]
            assert await storage.delete("bad")
        assert (await storage.load("good")).checkpoint_id == "good"


@pytest.mark.parametrize("value", ["AAAA", "%", 5, base64.b64encode(b"\x80\x05K\x01").decode(), ""])
def test_damaged_pickles_are_reported(value: object) -> None:
    with pytest.raises(WorkflowCheckpointException):
        decode_values(json.dumps({"v": {"__pickled__": value, "__type__": "builtins:int"}}).encode(), NONE)


def test_a_value_of_another_type_is_reported() -> None:
    pickled = base64.b64encode(pickle.dumps(1)).decode()
    with pytest.raises(WorkflowCheckpointException, match="not of its type"):
        decode_values(json.dumps({"v": {"__pickled__": pickled, "__type__": "builtins:str"}}).encode(), NONE)


@pytest.mark.parametrize("data", [b"[]", b"1", b"{}"])
async def test_a_record_that_is_no_checkpoint_is_reported(data: bytes) -> None:
    async with open_store("memory:") as store:
        await store.put_document(ThreadKey("trip"), "agent-framework:checkpoint:a", b'{"value":' + data + b"}")
        with pytest.raises(WorkflowCheckpointException):
            await EverthreadCheckpointStorage(store, "trip").load("a")


def test_the_example_of_the_documentation_continues_in_a_second_process(tmp_path: Path) -> None:
    page = (ROOT / "docs" / "integrations" / "agent-framework-checkpoints.md").read_text()
    code = page.split("<!-- example: checkpoints -->\n```python\n")[1].split("```")[0]
    assert run_example(code, tmp_path) == "waits for an approval\n"
    assert run_example(code, tmp_path) == "['order 4711: sent']\n"


async def test_recorded_checkpoints_are_read() -> None:
    fields = '"workflow_name":"orders","graph_signature_hash":"h","checkpoint_id":"c1","previous_checkpoint_id":null'
    fields += ',"timestamp":"2026-11-30T12:00:00+00:00","messages":{},"pending_request_info_events":{}'
    fields += ',"iteration_count":1,"metadata":{},"version":"1.0"'
    state = '"state":{"pair":{"__pickled__":"gAWVBwAAAAAAAABLAUsChpQu","__type__":"builtins:tuple"},"text":"\u00e9"}'
    entry = "agent-framework:checkpoints:44ca0059a7c4a09e661ed10ce6c69e52:063931636800000000:c1"
    async with open_store("memory:") as store:
        await store.put_document(
            ThreadKey("trip"), "agent-framework:checkpoint:c1", f'{{"value":{{{fields},{state}}}}}'.encode()
        )
        await store.put_document(ThreadKey("trip"), entry, b"1")
        storage = EverthreadCheckpointStorage(store, "trip")
        loaded = await storage.load("c1")
        assert (loaded.state, loaded.iteration_count) == ({"pair": (1, 2), "text": "é"}, 1)
        assert await storage.get_latest(workflow_name="orders") == loaded
