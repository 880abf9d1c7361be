"""A thread from another store gets the positions and times that it had there."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any, cast

import pytest

from everthread.capabilities import MAX_RESTORED_SEQ, SupportsImport, required_capability
from everthread.contract import Store
from everthread.errors import (
    ConfigurationError,
    InvalidIdentifierError,
    LimitExceededError,
    ThreadNotFoundError,
)
from everthread.model import Retention, Thread, ThreadKey
from everthread.testing.guarantees._base import (
    KEY,
    GuaranteeTests,
    answering,
    calling,
    conflict,
    everything,
    one_wins,
    pass_time,
    payloads,
    said,
    thread_of,
)
from everthread.testing.guarantees.expiry import LATER
from everthread.testing.harness import Clock, Harness
from everthread.testing.machine import listed

BEGUN = datetime(2024, 2, 29, 23, 59, 59, 123_000, UTC)
LAST = datetime(2025, 6, 1, tzinfo=UTC)


async def restore(
    store: Store, key: ThreadKey = KEY, *, created_at: datetime = BEGUN, updated_at: datetime = LAST
) -> Thread:
    """Restore times through `SupportsImport`, which the store must have."""
    return await required_capability(store, SupportsImport).restore_times(
        key, created_at=created_at, updated_at=updated_at
    )


class ImportsPositions(GuaranteeTests):
    """``restore_position`` moves the next position of a thread forward, at the same cost for any distance."""

    async def test_a_new_thread_begins_at_the_restored_position(self, store: Store, other_store: Store) -> None:
        await move(store, 100, expected_seq=0)
        thread = await thread_of(other_store)
        assert (thread.head_seq, thread.next_seq, thread.count, thread.size) == (100, 100, 0, 0)
        assert [thread.key for thread in await listed(store, KEY.tenant)] == [KEY]
        appended = await other_store.append(KEY, [said("a"), said("b")], expected_seq=100)
        assert (appended.first_seq, appended.next_seq) == (100, 102)
        page = await store.read(KEY)
        assert ([message.seq for message in page], page.head_seq, page.next_seq) == ([100, 101], 100, 102)

    async def test_a_gap_stays_between_messages(self, store: Store, other_store: Store) -> None:
        for stop in (2, 1000, 2**40):
            await store.append(KEY, [said("a"), said("b")])
            await move(store, stop + 2, expected_seq=(await store.read_last(KEY, 0)).next_seq)
        await store.append(KEY, [said("c")])
        seqs = [0, 1, 4, 5, 1002, 1003, 2**40 + 2]
        assert [message.seq for message in await other_store.read(KEY)] == seqs
        assert [message.seq for message in await other_store.read(KEY, start=2, stop=1003)] == [4, 5, 1002]
        assert [message.seq for message in await other_store.read(KEY, start=6, limit=2)] == [1002, 1003]
        assert [message.seq for message in await other_store.read_last(KEY, 3, before=1004)] == [5, 1002, 1003]
        thread = await thread_of(other_store)
        assert (thread.head_seq, thread.next_seq, thread.count) == (0, 2**40 + 3, 7)

    async def test_messages_around_a_gap_can_be_trimmed_and_undone(self, store: Store, other_store: Store) -> None:
        for text in "abc":
            turn = await store.append(KEY, [said(text), said(text)])
            await move(store, turn.next_seq + 1_000_000, expected_seq=turn.next_seq)
        await store.truncate(KEY, stop=1_000_003)
        await store.truncate(KEY, start=1)
        assert [message.seq for message in await other_store.read(KEY)] == [1, 1_000_002]
        appended = await store.append(KEY, [said("d")], retention=Retention(max_messages=2))
        assert appended.first_seq == 3_000_006
        assert [message.seq for message in await other_store.read(KEY)] == [1_000_002, 3_000_006]

    async def test_calls_and_results_stay_linked_across_a_gap(self, store: Store) -> None:
        await store.append(KEY, [said("a"), calling("1")])
        await move(store, 10_000, expected_seq=2)
        await store.append(KEY, [answering("1"), said("b")])
        await store.truncate(KEY, start=2)
        assert [message.seq for message in await store.read(KEY)] == [10_001]

    async def test_a_repeated_call_changes_nothing(self, store: Store) -> None:
        await store.append(KEY, [said("a")])
        await move(store, 9, expected_seq=1)
        before = await store.get_thread(KEY)
        await move(store, 9, expected_seq=1)
        await move(store, 9, expected_seq=9)
        assert await store.get_thread(KEY) == before

    async def test_positions_never_move_back(self, store: Store) -> None:
        await store.append(KEY, [said("a"), said("b")])
        before = await store.get_thread(KEY)
        for next_seq, expected_seq in ((3, 1), (5, 3), (1, 0)):
            with conflict(2):
                await move(store, next_seq, expected_seq=expected_seq)
        for next_seq, expected_seq in ((1, 2), (-1, 0), (True, 0), (5, cast(Any, None))):
            with pytest.raises(ConfigurationError):
                await move(store, next_seq, expected_seq=expected_seq)
        with conflict(0):
            await move(store, 5, ThreadKey("other", KEY.tenant), expected_seq=4)
        assert await store.get_thread(KEY) == before
        assert len(await listed(store, KEY.tenant)) == 1

    async def test_the_highest_position_is_bounded(self, store: Store, other_store: Store) -> None:
        with pytest.raises(LimitExceededError):
            await move(store, MAX_RESTORED_SEQ + 1, expected_seq=0)
        assert await store.get_thread(KEY) is None
        await move(store, MAX_RESTORED_SEQ, expected_seq=0)
        await store.append(KEY, [said("a")], append_id="1")
        await store.append(KEY, [said("b")])
        await store.truncate(KEY, stop=MAX_RESTORED_SEQ + 1)
        await store.append(KEY, [said("c")])
        assert (await store.append(KEY, [said("a")], append_id="1")).first_seq == MAX_RESTORED_SEQ
        seqs = [MAX_RESTORED_SEQ, MAX_RESTORED_SEQ + 2]
        assert [message.seq for message in await other_store.read(KEY)] == seqs

    async def test_a_thread_without_messages_can_expire(self, timed: Store, clock: Clock) -> None:
        await move(timed, 7, expected_seq=0, expire_after=timedelta(hours=1))
        thread = await thread_of(timed)
        assert thread.expires_ms == thread.updated_ms + 3_600_000
        await pass_time(clock)
        await move(timed, 8, expected_seq=7)
        later = await thread_of(timed)
        assert later.expires_ms == thread.expires_ms
        assert later.updated_ms > thread.updated_ms

    async def test_an_expired_thread_begins_again(self, harness: Harness) -> None:
        async with harness.open() as store:
            await store.append(KEY, [said("a")], retention=LATER)
            await restore(store)
            await move(store, 5, expected_seq=0)
            assert await payloads(store) == []
            assert (await store.append(KEY, [said("b")])).first_seq == 5


class SkipsPositions(ImportsPositions):
    """``append(skip_to=…)`` leaves positions without messages, in the same step as the turn."""

    async def test_a_turn_begins_where_it_is_told_to(self, store: Store, other_store: Store) -> None:
        for expected, first in ((0, 3), (5, 5), (7, 1000), (1002, 2**40)):
            turn = [said("a"), said("b")]
            appended = await store.append(KEY, turn, expected_seq=expected, skip_to=first, default_title="title")
            assert (appended.first_seq, appended.next_seq, appended.replayed) == (first, first + 2, False)
        seqs = [3, 4, 5, 6, 1000, 1001, 2**40, 2**40 + 1]
        found = await other_store.read(KEY)
        assert [message.seq for message in found] == seqs
        assert [message.turn for message in found] == [seq - at % 2 for at, seq in enumerate(seqs)]
        thread = await thread_of(other_store)
        assert (thread.head_seq, thread.next_seq, thread.count, thread.title) == (3, 2**40 + 2, 8, None)
        assert [message.seq for message in await other_store.read_last(KEY, 3)] == [1001, 2**40, 2**40 + 1]
        assert [message.seq for message in await other_store.read(KEY, start=4, stop=1001)] == [4, 5, 6, 1000]

    async def test_skipping_appends_made_together_land_in_their_order(self, store: Store, other_store: Store) -> None:
        # Their calls and results are linked across the gaps.
        turns = [[said("a"), calling("1")], [answering("1")], [said("b")], [calling("2")], [answering("2"), said("c")]]
        firsts = [0, 5, 6, 500, 10_000]
        ends = [first + len(turn) for first, turn in zip(firsts, turns, strict=True)]
        appends = [
            store.append(KEY, turn, append_id=f"at {first}", expected_seq=expected, skip_to=first)
            for turn, first, expected in zip(turns, firsts, [0, *ends], strict=False)
        ]
        assert [appended.first_seq for appended in await asyncio.gather(*appends)] == firsts
        assert [message.seq for message in await other_store.read(KEY)] == [0, 1, 5, 6, 500, 10_000, 10_001]
        await other_store.truncate(KEY, start=2)
        assert [message.seq for message in await store.read(KEY)] == [6, 500, 10_000, 10_001]
        await store.truncate(KEY, stop=10_000)
        assert [message.seq for message in await other_store.read(KEY)] == [6]

    async def test_a_repeated_skip_takes_effect_once(self, store: Store, other_store: Store) -> None:
        first = await store.append(KEY, [said("a")], append_id="1", expected_seq=0, skip_to=7)
        for each in (store, other_store):
            again = await each.append(KEY, [said("a")], append_id="1", expected_seq=0, skip_to=7)
            assert (again.first_seq, again.next_seq, again.replayed) == (first.first_seq, first.next_seq, True)
        assert [message.seq for message in await store.read(KEY)] == [7]

    async def test_of_two_writers_that_skip_one_wins(self, store: Store, other_store: Store) -> None:
        await store.append(KEY, [said("a")])
        await one_wins(
            lambda number: (store, other_store)[number % 2].append(
                KEY, [said(str(number))], expected_seq=1, skip_to=10 + number
            )
        )
        page = await store.read(KEY)
        assert len(page) == 2
        assert page[1].payload == said(str(page[1].seq - 10)).payload

    async def test_a_refused_skip_changes_nothing(self, store: Store) -> None:
        await store.append(KEY, [said("a"), said("b")])
        before = await store.get_thread(KEY)
        for expected, first in ((1, 9), (3, 3), (0, 1)):
            with conflict(2):
                await store.append(KEY, [said("c")], expected_seq=expected, skip_to=first)
        for expected_seq, skip_to in ((2, 1), (None, 5), (2, -1), (2, True)):
            with pytest.raises(ConfigurationError):
                await store.append(KEY, [said("c")], expected_seq=expected_seq, skip_to=cast(Any, skip_to))
        with pytest.raises(LimitExceededError):
            await store.append(KEY, [said("c")], expected_seq=2, skip_to=MAX_RESTORED_SEQ + 1)
        other = ThreadKey("other", KEY.tenant)
        with conflict(0):
            await store.append(other, [said("c")], expected_seq=4, skip_to=9)
        assert await store.get_thread(KEY) == before
        assert await store.get_thread(other) is None

    async def test_retention_trims_across_skipped_positions(self, store: Store, other_store: Store) -> None:
        two = Retention(max_messages=2)
        for expected, first in ((0, 0), (1, 100), (101, 200), (201, 300)):
            await store.append(KEY, [said("a")], expected_seq=expected, skip_to=first, retention=two)
        assert [message.seq for message in await other_store.read(KEY)] == [200, 300]
        await store.append(KEY, [said("a")], expected_seq=301, skip_to=400, retention=Retention(max_messages=0))
        thread = await thread_of(other_store)
        assert (thread.head_seq, thread.next_seq, thread.count) == (401, 401, 0)
        await store.append(KEY, [said("b")], expected_seq=401, skip_to=500, retention=two)
        thread = await thread_of(other_store)
        assert (thread.head_seq, thread.next_seq, thread.count) == (500, 501, 1)

    async def test_a_turn_of_many_gaps_is_read_in_pages(self, store: Store, other_store: Store) -> None:
        appends = [
            store.append(KEY, [said(str(at))], expected_seq=at and 3 * at - 2, skip_to=3 * at) for at in range(300)
        ]
        await asyncio.gather(*appends)
        seqs = [3 * at for at in range(300)]
        assert [message.seq for message in await everything(other_store)] == seqs
        assert [message.seq for message in await other_store.read(KEY, start=448, limit=3)] == [450, 453, 456]
        assert [message.seq for message in await other_store.read_last(KEY, 2, before=450)] == [444, 447]
        await other_store.truncate(KEY, start=301, stop=600)
        assert [message.seq for message in await everything(store)] == seqs[101:200]


async def move(
    store: Store, next_seq: int, key: ThreadKey = KEY, *, expected_seq: int, expire_after: timedelta | None = None
) -> None:
    """Move the next position of a thread, which the store must be able to."""
    await required_capability(store, SupportsImport).restore_position(
        key, next_seq, expected_seq=expected_seq, expire_after=expire_after
    )


class Imports(SkipsPositions):
    """``restore_times`` sets when a thread was begun and last active, and its place in the listing."""

    async def test_the_times_are_kept(self, store: Store, other_store: Store) -> None:
        await store.append(KEY, [said("a")], default_title="title")
        await store.update_thread(KEY, metadata={"a": 1}, retention=Retention(max_messages=9))
        before = await thread_of(store)
        restored = await restore(store)
        assert (restored.created_at, restored.updated_at) == (BEGUN, LAST)
        assert await other_store.get_thread(KEY) == restored
        assert (restored.title, restored.metadata, restored.revision) == ("title", {"a": 1}, before.revision)
        assert (restored.retention, restored.count, restored.size) == (before.retention, 1, before.size)
        assert await payloads(store) == [said("a").payload]

    async def test_the_listing_follows(self, timed: Store, clock: Clock) -> None:
        keys = [ThreadKey(name) for name in "abcd"]
        for key in keys:
            await timed.append(key, [said("x")])
            await pass_time(clock)
        for days, key in enumerate(keys):
            await restore(timed, key, updated_at=LAST - timedelta(days=days))
        assert [thread.key for thread in await listed(timed, limit=2)] == keys
        await timed.append(keys[2], [said("y")])
        assert [thread.key for thread in await listed(timed, limit=2)] == [keys[i] for i in (2, 0, 1, 3)]

    async def test_a_thread_can_be_moved_forward_again(self, store: Store) -> None:
        for key in (KEY, ThreadKey("other", KEY.tenant)):
            await store.append(key, [said("a")])
            await restore(store, key)
        await restore(store, updated_at=LAST + timedelta(milliseconds=1))
        assert [thread.key for thread in await listed(store, KEY.tenant)] == [KEY, ThreadKey("other", KEY.tenant)]

    async def test_it_may_be_sent_again(self, store: Store) -> None:
        await store.append(KEY, [said("a")])
        first = await restore(store)
        assert await restore(store) == first
        assert len(await listed(store, KEY.tenant)) == 1

    async def test_activity_after_it_counts_from_now(self, timed: Store, clock: Clock) -> None:
        await timed.append(KEY, [said("a")])
        before = await thread_of(timed)
        await restore(timed)
        await pass_time(clock)
        await timed.append(KEY, [said("b")])
        after = await thread_of(timed)
        assert after.created_at == BEGUN
        assert after.updated_ms > before.updated_ms

    async def test_the_time_left_counts_from_the_last_activity(self, store: Store) -> None:
        await store.append(KEY, [said("a")], retention=LATER)
        before = await thread_of(store)
        soon = before.updated_at - timedelta(minutes=30)
        restored = await restore(store, updated_at=soon)
        assert restored.expires_ms is not None
        assert abs(restored.expires_ms - restored.updated_ms - 3_600_000) <= 1000
        assert await store.get_thread(KEY) == restored

    async def test_a_thread_that_would_have_expired_is_gone(self, store: Store) -> None:
        await store.append(KEY, [said("a")], retention=LATER)
        await restore(store)
        assert await store.get_thread(KEY) is None
        assert await listed(store, KEY.tenant) == []

    async def test_times_without_a_zone_are_in_utc(self, store: Store) -> None:
        await store.append(KEY, [said("a")])
        restored = await restore(store, created_at=BEGUN.replace(tzinfo=None), updated_at=LAST.replace(tzinfo=None))
        assert (restored.created_at, restored.updated_at) == (BEGUN, LAST)

    async def test_a_thread_without_messages_has_times_too(self, store: Store) -> None:
        await store.put_document(KEY, "d", b"1")
        await restore(store)
        assert [thread.updated_at for thread in await listed(store, KEY.tenant)] == [LAST]

    async def test_times_that_cannot_be_are_refused(self, store: Store) -> None:
        importer = required_capability(store, SupportsImport)
        with pytest.raises(ThreadNotFoundError):
            await restore(store)
        await store.append(KEY, [said("a")])
        before = await store.get_thread(KEY)
        for created_at, updated_at in (
            (LAST, BEGUN),
            (datetime(1969, 12, 31, tzinfo=UTC), LAST),
            (cast(Any, 0), LAST),
            (BEGUN, cast(Any, None)),
        ):
            with pytest.raises(ConfigurationError):
                await importer.restore_times(KEY, created_at=created_at, updated_at=updated_at)
        with pytest.raises(InvalidIdentifierError):
            await importer.restore_times(cast(Any, "thread"), created_at=BEGUN, updated_at=LAST)
        assert await store.get_thread(KEY) == before
