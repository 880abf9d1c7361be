"""A state machine that does the same to a store and to the memory engine, and compares all that they answer."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from datetime import timedelta
from itertools import pairwise
from typing import Any, Literal, cast

from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, rule

from everthread.contract import Store
from everthread.engines.memory import MemoryStore, Threads
from everthread.errors import ConflictError, EverthreadError
from everthread.model import Document, MessagePage, NewMessage, Page, Retention, Thread, ThreadKey
from everthread.testing.harness import Clock, Harness
from everthread.testing.strategies import messages, turns

Call = Callable[[Store], Awaitable[object]]

# Far away, since an engine may leave expiry to a server with a clock of its own.
_retentions = st.one_of(
    st.none(),
    st.none(),
    st.builds(Retention, st.none() | st.integers(0, 8), st.none() | st.just(timedelta(days=1))),
)
# Few and small values, so that a failure is soon found small; the property tests try odd ones.
_keys = st.builds(
    ThreadKey,
    st.sampled_from(["a", "b", "a:b", "*", "{a}", "\0é💾", "x" * 512]),
    st.sampled_from(["", "a", "a:", "%", "{a}"]),
)
_turns = turns(of=messages(payloads=st.sampled_from([b"1", b'{"text":"\\u0000"}', '"é💾"'.encode(), b" [1e400] "])))
_append_ids = st.sampled_from([None, None, None, "1", "2", "3", "a:{*}"])
_positions = st.one_of(st.none(), st.integers(0, 9), st.integers(0, 40), st.just(2**53 - 1))
_titles = st.sampled_from([None, "title", "", "é\0💾"])
_metadata = st.sampled_from([None, {}, {"a": [1, None, 2**70]}, {"": {"é": 0.1}}])
_names = st.sampled_from(["d", "summary", "*", "\0:{é}"])
_values = st.sampled_from([b"1", b' {"a":1,"a":2} ', b'"\\u0000"'])
_which = st.integers(0, 1)


def machine_for(harness: Harness) -> type[RuleBasedStateMachine]:
    """A state machine whose every run begins on an empty place of ``harness``.

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

    @rule(key=keys, turn=_turns, append_id=_append_ids, retention=_retentions, title=_titles, which=_which)
    def append(
        self,
        *,
        key: ThreadKey,
        turn: list[NewMessage],
        append_id: str | None,
        retention: Retention | None,
        title: str | None,
        which: int,
    ) -> None:
        self._same(
            lambda store: store.append(key, turn, append_id=append_id, retention=retention, default_title=title),
            which,
        )
        self._compare_thread(key, which)

    @rule(key=keys, turn=_turns, off_by=st.sampled_from([0, 0, 1, -1, 5]), append_id=_append_ids, which=_which)
    def append_at(self, key: ThreadKey, turn: list[NewMessage], off_by: int, append_id: str | None, which: int) -> None:
        expected = max(0, self._runner.run(self._oracle.read_last(key, 0)).next_seq + off_by)
        self._same(lambda store: store.append(key, turn, append_id=append_id, expected_seq=expected), which)
        self._compare_thread(key, which)

    @rule(
        appends=st.lists(st.tuples(keys, _turns, _append_ids, _retentions), min_size=2, max_size=5),
        which=_which,
    )
    def append_many_at_once(
        self, appends: list[tuple[ThreadKey, list[NewMessage], str | None, Retention | None]], which: int
    ) -> None:
        async def all_of(store: Store) -> object:
            return await asyncio.gather(
                *(store.append(key, turn, append_id=i, retention=kept) for key, turn, i, kept in appends)
            )

        self._same(all_of, which)
        for key in {key for key, *_ in appends}:
            self._compare_thread(key, which)

    @rule(key=keys, start=_positions, stop=_positions, limit=_positions, which=_which)
    def read(self, key: ThreadKey, start: int | None, stop: int | None, limit: int | None, which: int) -> None:
        self._same(lambda store: store.read(key, start=start or 0, stop=stop, limit=limit), which)

    @rule(key=keys, count=st.integers(0, 30), before=_positions, which=_which)
    def read_last(self, key: ThreadKey, count: int, before: int | None, which: int) -> None:
        self._same(lambda store: store.read_last(key, count, before=before), which)

    @rule(key=keys, start=_positions, stop=_positions, which=_which)
    def truncate(self, key: ThreadKey, start: int | None, stop: int | None, which: int) -> None:
        start = 0 if start is None and stop is None else start
        self._same(lambda store: store.truncate(key, start=start, stop=stop), which)
        self._compare_thread(key, which)

    @rule(key=keys, stop=st.integers(0, 9), off_by=st.sampled_from([0, 0, 1, -1]), which=_which)
    def truncate_at(self, key: ThreadKey, stop: int, off_by: int, which: int) -> None:
        expected = max(0, self._runner.run(self._oracle.read_last(key, 0)).next_seq + off_by)
        self._same(lambda store: store.truncate(key, stop=stop, expected_seq=expected), which)
        self._compare_thread(key, which)

    @rule(
        key=keys,
        title=_titles,
        metadata=_metadata,
        retention=_retentions | st.just("inherit"),
        revision=st.none() | st.integers(0, 3),
        which=_which,
    )
    def update_thread(
        self,
        *,
        key: ThreadKey,
        title: str | None,
        metadata: dict[str, object] | None,
        retention: Retention | Literal["inherit"] | None,
        revision: int | None,
        which: int,
    ) -> None:
        self._same(
            lambda store: store.update_thread(
                key, title=title, metadata=metadata, retention=retention, expected_revision=revision
            ),
            which,
        )
        self._compare_thread(key, which)

    @rule(key=keys, name=_names, value=_values, revision=st.none() | st.integers(0, 2), which=_which)
    def put_document(self, key: ThreadKey, name: str, value: bytes, revision: int | None, which: int) -> None:
        self._same(lambda store: store.put_document(key, name, value, expected_revision=revision), which)
        self._compare_thread(key, which)

    @rule(key=keys, name=_names, which=_which)
    def delete_document(self, key: ThreadKey, name: str, which: int) -> None:
        self._same(lambda store: store.delete_document(key, name), which)
        self._same(lambda store: store.get_document(key, name), 1 - which)

    @rule(key=keys, which=_which)
    def delete_thread(self, key: ThreadKey, which: int) -> None:
        self._same(lambda store: store.delete_thread(key), which)
        self._compare_thread(key, which)

    @rule(key=keys, off_by=st.sampled_from([0, 0, 1, -1]), which=_which)
    def delete_thread_at(self, key: ThreadKey, off_by: int, which: int) -> None:
        expected = max(0, self._runner.run(self._oracle.read_last(key, 0)).next_seq + off_by)
        self._same(lambda store: store.delete_thread(key, expected_seq=expected), which)
        self._compare_thread(key, which)

    @rule(key=keys, which=_which)
    def delete_tenant(self, key: ThreadKey, which: int) -> None:
        self._same(lambda store: store.delete_tenant(key.tenant), which)
        self._compare_thread(key, which)

    @rule(key=keys, limit=st.integers(1, 4), which=_which)
    def list_threads(self, key: ThreadKey, limit: int, which: int) -> None:
        self._compare_listing(key.tenant, limit, which)

    def _same(self, call: Call, which: int) -> None:
        wanted = self._outcome(call, self._oracle)
        found = self._outcome(call, self._stores[which])
        assert found == wanted, f"the store answered\n{found}\nwhere the memory engine answered\n{wanted}"

    def _outcome(self, call: Call, store: Store) -> object:
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
        other = 1 - which
        self._same(lambda store: store.read(key), other)
        self._same(lambda store: store.get_thread(key), other)
        self._same(lambda store: store.list_documents(key), other)
        last = self._runner.run(self._oracle.read_last(key, 1)).next_seq - 1
        self._same(lambda store: store.read_last(key, 3, before=max(last, 0)), other)

    def _compare_listing(self, tenant: str, limit: int, which: int) -> None:
        found = self._runner.run(_all_threads(self._stores[which], tenant, limit))
        wanted = self._runner.run(_all_threads(self._oracle, tenant, limit))
        assert {t.key: comparable(t) for t in found} == {t.key: comparable(t) for t in wanted}
        assert len(found) == len(wanted), "a thread is listed twice"
        at = {thread.key: thread.updated_ms for thread in wanted}
        for newer, older in pairwise(found):
            assert newer.updated_ms >= older.updated_ms
            if newer.updated_ms > older.updated_ms:
                assert at[newer.key] >= at[older.key], "an older activity is listed before a newer one"


async def _all_threads(store: Store, tenant: str, limit: int) -> list[Thread]:
    threads: list[Thread] = []
    cursor: str | None = None
    while True:
        page: Page[Thread] = await store.list_threads(tenant, limit=limit, cursor=cursor)
        threads += page.items
        cursor = page.cursor
        if cursor is None:
            return threads


def comparable(value: Any) -> object:
    """What must be equal in two stores: all but times."""
    match value:
        case MessagePage():
            messages = [(m.seq, m.payload, m.format, m.turn) for m in value]
            return messages, value.head_seq, value.next_seq
        case Thread(key=key, count=count, size=size, title=title, metadata=metadata, revision=revision):
            ends = value.head_seq, value.next_seq
            expires = value.expires_ms is not None
            return key, count, size, ends, title, metadata, revision, expires, value.retention
        case Document():
            return value.name, value.value, value.revision
        case list() | tuple():
            return [comparable(item) for item in cast(Sequence[object], value)]
        case _:
            return value
