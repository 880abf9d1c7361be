"""A state machine that makes the same calls to a store and to the memory engine, and compares all results."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from datetime import timedelta
from itertools import pairwise
from typing import Any, NamedTuple, cast

import msgspec
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, rule
from hypothesis.strategies import SearchStrategy

from everthread.capabilities import SupportsImport, capability, required_capability
from everthread.contract import Store
from everthread.engines.memory import MemoryStore, Threads
from everthread.errors import ConflictError, EverthreadError
from everthread.model import Document, MessagePage, Retention, Thread, ThreadKey
from everthread.testing.harness import Clock, Harness
from everthread.testing.strategies import messages, turns

# Few and small values, so that a failure is soon found small; the property tests try odd ones.
_keys = st.builds(
    ThreadKey,
    st.sampled_from(["a", "b", "a:b", "*", "{a}", "\0é💾", "x" * 512]),
    st.sampled_from(["", "a", "a:", "%", "{a}"]),
)
_turns = turns(of=messages(payloads=st.sampled_from([b"1", b'{"text":"\\u0000"}', '"é💾"'.encode(), b" [1e400] "])))
_append_ids = st.sampled_from([None, None, None, "1", "2", "3", "a:{*}"])
# Long, since an engine may leave expiry to a server with another clock.
_expiry = st.none() | st.just(timedelta(days=1))
_retentions = st.one_of(st.none(), st.none(), st.builds(Retention, st.none() | st.integers(0, 8), _expiry))
_places = st.one_of(st.integers(0, 9), st.integers(0, 40), st.just(2**53 - 1))
_positions = st.none() | _places
_titles = st.sampled_from([None, "title", "", "é\0💾"])
_metadata = st.sampled_from([None, {}, {"a": [1, None, 2**70]}, {"": {"é": 0.1}}])
_names = st.sampled_from(["d", "summary", "*", "\0:{é}"])
_values = st.sampled_from([b"1", b' {"a":1,"a":2} ', b'"\\u0000"'])
_off_by = st.sampled_from([0, 0, 1, -1])
_which = st.integers(0, 1)


class _Call(NamedTuple):
    """A call on a thread. ``off_by`` and ``distance`` count from the next position of the thread."""

    name: str
    options: dict[str, Any]


def _calls(name: str, /, **options: SearchStrategy[Any]) -> SearchStrategy[_Call]:
    return st.builds(_Call, st.just(name), st.fixed_dictionaries(options))


_appends = _calls(
    "append", messages=_turns, append_id=_append_ids, retention=_retentions, default_title=_titles
) | _calls("append", messages=_turns, append_id=_append_ids, off_by=st.sampled_from([0, 0, 1, -1, 5]))
_distances = st.sampled_from([0, 1, 3, 100, 2**40])
_skipping_appends = _calls(
    "append", messages=_turns, append_id=_append_ids, retention=_retentions, distance=_distances, off_by=_off_by
)
_reads = st.one_of(
    _calls("read", start=_places, stop=_positions, limit=_positions),
    _calls("read_last", count=st.integers(0, 30), before=_positions),
)
_changes = st.one_of(
    _calls("truncate", start=_places, stop=_positions),
    _calls("truncate", stop=_places),
    _calls("truncate", stop=st.integers(0, 9), off_by=_off_by),
    _calls(
        "update_thread",
        title=_titles,
        metadata=_metadata,
        retention=_retentions | st.just("inherit"),
        expected_revision=st.none() | st.integers(0, 3),
    ),
    _calls("put_document", name=_names, value=_values, expected_revision=st.none() | st.integers(0, 2)),
    _calls("delete_document", name=_names),
    _skipping_appends,
    _calls("restore_position", distance=_distances, off_by=_off_by),
)
_deletions = _calls("delete_thread") | _calls("delete_thread", off_by=_off_by) | _calls("delete_tenant")


def machine_for(harness: Harness) -> type[RuleBasedStateMachine]:
    """Return a state machine. Each run begins on an empty place of ``harness``.

    Run it with `hypothesis.stateful.run_state_machine_as_test`.
    """

    class Machine(StoreMachine):
        def __init__(self) -> None:
            super().__init__(harness.another())

    return Machine


class StoreMachine(RuleBasedStateMachine):
    """Two stores on one place, and the memory engine as the oracle for both."""

    keys: Bundle[ThreadKey] = Bundle("keys")

    def __init__(self, harness: Harness) -> None:
        super().__init__()
        self._harness = harness
        self._clock = Clock()
        self._runner = asyncio.Runner()
        self._stores = [harness.open(clock=self._clock), harness.open(clock=self._clock)]
        self._threads: Threads = {}
        self._oracle = MemoryStore(self._threads, clock=self._clock)
        self._seen: dict[ThreadKey, None] = {}

    def teardown(self) -> None:
        try:
            for key in self._seen:
                self._compare_thread(key, 0)
            for tenant in {key.tenant for key in self._seen}:
                self._compare_listing(tenant, 3, 1)
        finally:
            for store in (*self._stores, self._oracle):
                self._runner.run(store.aclose())
            self._runner.close()

    @initialize(target=keys, key=_keys)
    def first_key(self, key: ThreadKey) -> ThreadKey:
        self._seen[key] = None
        return key

    @rule(target=keys, key=_keys)
    def another_key(self, key: ThreadKey) -> ThreadKey:
        self._seen[key] = None
        return key

    @rule(seconds=st.sampled_from([0.001, 0.5, 3.0]))
    def wait(self, seconds: float) -> None:
        self._clock.advance(seconds)

    @rule(which=_which)
    def close_and_open_again(self, which: int) -> None:
        self._runner.run(self._stores[which].aclose())
        self._stores[which] = self._harness.open(clock=self._clock)

    @rule(key=keys, call=_appends, which=_which)
    def append(self, key: ThreadKey, call: _Call, which: int) -> None:
        self._same(self._made(key, call), which)
        self._compare_thread(key, which)

    @rule(appends=st.lists(st.tuples(keys, _turns, _append_ids, _retentions), min_size=2, max_size=5), which=_which)
    def append_many_at_once(self, appends: list[tuple[Any, ...]], which: int) -> None:
        async def all_of(store: Store) -> object:
            sent = (store.append(key, turn, append_id=i, retention=kept) for key, turn, i, kept in appends)
            return await asyncio.gather(*sent)

        self._same(all_of, which)
        for key in {key for key, *_ in appends}:
            self._compare_thread(key, which)

    @rule(key=keys, call=_reads, which=_which)
    def read(self, key: ThreadKey, call: _Call, which: int) -> None:
        self._same(self._made(key, call), which)

    @rule(key=keys, call=_changes, which=_which)
    def change(self, key: ThreadKey, call: _Call, which: int) -> None:
        if "distance" in call.options and capability(self._stores[which], SupportsImport) is None:
            return
        self._same(self._made(key, call), which)
        self._compare_thread(key, which)
        if "name" in call.options:
            self._same(self._made(key, _Call("get_document", {"name": call.options["name"]})), 1 - which)

    @rule(key=keys, call=_deletions, which=_which)
    def delete(self, key: ThreadKey, call: _Call, which: int) -> None:
        self._same(self._made(key, call), which)
        self._compare_thread(key, which)

    @rule(key=keys, limit=st.integers(1, 4), which=_which)
    def list_threads(self, key: ThreadKey, limit: int, which: int) -> None:
        self._compare_listing(key.tenant, limit, which)

    def _made(self, key: ThreadKey, call: _Call) -> Callable[[Store], Awaitable[object]]:
        """Return a function that makes the call to a store."""
        options = dict(call.options)
        at = self._runner.run(self._oracle.read_last(key, 0)).next_seq
        if "off_by" in options:
            options["expected_seq"] = max(0, at + options.pop("off_by"))
        if "distance" in options:
            options["next_seq" if call.name == "restore_position" else "skip_to"] = at + options.pop("distance")
        subject = key.tenant if call.name == "delete_tenant" else key

        def make(store: Store) -> Awaitable[object]:
            able = required_capability(store, SupportsImport) if call.name == "restore_position" else store
            return getattr(able, call.name)(subject, **options)

        return make

    def _same(self, call: Callable[[Store], Awaitable[object]], which: int) -> None:
        wanted = self._outcome(call, self._oracle)
        found = self._outcome(call, self._stores[which])
        assert found == wanted, f"the store answered\n{found}\nwhere the memory engine answered\n{wanted}"

    def _outcome(self, call: Callable[[Store], Awaitable[object]], store: Store) -> object:
        async def run() -> object:
            return await call(store)

        try:
            return comparable(self._runner.run(run()))
        except ConflictError as error:
            return ConflictError, error.actual
        except EverthreadError as error:
            return type(error)

    def _compare_thread(self, key: ThreadKey, which: int) -> None:
        # Through the store that did not write, so that nothing which that one remembers helps it.
        last = self._runner.run(self._oracle.read_last(key, 1)).next_seq - 1
        other = 1 - which
        self._same(lambda store: store.read(key), other)
        self._same(lambda store: store.get_thread(key), other)
        self._same(lambda store: store.list_documents(key), other)
        self._same(lambda store: store.list_documents(key, prefix="d", after="d", limit=2), other)
        self._same(lambda store: store.read_last(key, 3, before=max(last, 0)), other)

    def _compare_listing(self, tenant: str, limit: int, which: int) -> None:
        if self._harness.lists_late:
            self._runner.run(self._stores[1 - which].list_threads(tenant, limit=1))
        found = self._runner.run(listed(self._stores[which], tenant, limit=limit))
        wanted = self._runner.run(listed(self._oracle, tenant, limit=limit))
        assert {t.key: comparable(t) for t in found} == {t.key: comparable(t) for t in wanted}
        assert len(found) == len(wanted), "a thread is listed twice"
        at = {thread.key: thread.updated_ms for thread in wanted}
        for newer, older in pairwise(found):
            assert newer.updated_ms >= older.updated_ms
            if newer.updated_ms > older.updated_ms:
                assert at[newer.key] >= at[older.key], "an older activity is listed before a newer one"


async def listed(store: Store, tenant: str = "", *, limit: int = 50) -> list[Thread]:
    """Return a tenant's threads, read page by page."""
    threads: list[Thread] = []
    cursor: str | None = None
    while True:
        page = await store.list_threads(tenant, limit=limit, cursor=cursor)
        assert len(page) <= limit
        threads += page
        cursor = page.cursor
        if cursor is None:
            return threads


def comparable(value: Any) -> object:
    """The data that must be equal in two stores: all but times."""
    match value:
        case MessagePage():
            return [(m.seq, m.payload, m.format, m.turn) for m in value], value.head_seq, value.next_seq
        case Thread():
            expires = value.expires_ms is not None
            return {**msgspec.structs.asdict(value), "created_ms": 0, "updated_ms": 0, "expires_ms": expires}
        case Document():
            return {**msgspec.structs.asdict(value), "updated_ms": 0}
        case list() | tuple():
            return [comparable(item) for item in cast(Sequence[object], value)]
        case _:
            return value
