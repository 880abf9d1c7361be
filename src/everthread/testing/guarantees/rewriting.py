"""Payloads are replaced in place if they did not change since the caller read them; nothing else changes."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import pytest

from everthread.capabilities import SupportsRewrite, required_capability
from everthread.contract import Store
from everthread.errors import ConfigurationError, InvalidIdentifierError, InvalidMessageError, LimitExceededError
from everthread.model import NewMessage, Retention, Rewrite, ThreadKey
from everthread.testing.guarantees._base import (
    KEY,
    GuaranteeTests,
    answering,
    calling,
    everything,
    pass_time,
    payloads,
    said,
    seqs,
    thread_of,
)
from everthread.testing.harness import Clock, Harness


async def rewrite(store: Store, *changes: Rewrite, key: ThreadKey = KEY) -> int:
    """Rewrites, which the store must be able to."""
    return await required_capability(store, SupportsRewrite).rewrite(key, changes)


def to(seq: int, old: NewMessage, new: NewMessage) -> Rewrite:
    """A change from one message to another."""
    return Rewrite(seq, old.payload, new.payload)


class Rewrites(GuaranteeTests):
    """A message that was rewritten is in its old place with its old facts."""

    async def test_a_payload_is_replaced_where_it_stands(self, store: Store, other_store: Store) -> None:
        await store.append(KEY, [said("a"), said("b"), said("c")])
        await store.append(KEY, [said("d")])
        before = await everything(other_store)
        assert await rewrite(store, to(1, said("b"), said("longer than b")), to(3, said("d"), said(""))) == 2
        after = await everything(other_store)
        assert [m.payload for m in after] == [said(t).payload for t in ("a", "longer than b", "c", "")]
        facts = [[(m.seq, m.format, m.created_ms, m.turn) for m in messages] for messages in (before, after)]
        assert facts[0] == facts[1]
        assert (await store.append(KEY, [said("e")])).first_seq == 4
        assert seqs(await store.read_last(KEY, 3)) == [2, 3, 4]

    async def test_the_size_follows(self, store: Store) -> None:
        await store.append(KEY, [said("a"), said("b")])
        await rewrite(store, to(0, said("a"), said("a" * 500)), to(1, said("b"), said("")))
        thread = await thread_of(store)
        assert (thread.count, thread.size) == (2, len(said("a" * 500).payload) + len(said("").payload))
        await store.truncate(KEY, start=1)
        thread = await thread_of(store)
        assert thread.size == len(said("").payload)

    async def test_what_was_changed_meanwhile_is_left(self, store: Store) -> None:
        await store.append(KEY, [said("a"), said("b")])
        assert await rewrite(store, to(0, said("x"), said("y")), to(1, said("b"), said("B"))) == 1
        assert await rewrite(store, to(1, said("b"), said("again"))) == 0
        assert await payloads(store) == [said("a").payload, said("B").payload]

    async def test_what_is_gone_stays_gone(self, store: Store) -> None:
        await store.append(KEY, [said(str(i)) for i in range(5)])
        await store.truncate(KEY, start=1, stop=4)
        changes = [to(i, said(str(i)), said("x")) for i in (0, 1, 4, 5, 99)]
        assert await rewrite(store, *changes) == 1
        assert await payloads(store) == [said("x").payload, said("2").payload, said("3").payload]
        assert await rewrite(store, to(0, said("a"), said("b")), key=ThreadKey("unknown")) == 0
        assert await store.get_thread(ThreadKey("unknown")) is None

    async def test_it_is_no_activity(self, timed: Store, clock: Clock) -> None:
        await timed.append(KEY, [said("a")], default_title="title")
        before = await timed.get_thread(KEY)
        await pass_time(clock)
        assert await rewrite(timed, to(0, said("a"), said("b"))) == 1
        assert await timed.get_thread(KEY) == before

    async def test_calls_and_results_stay_together(self, store: Store) -> None:
        await store.append(KEY, [said("a"), calling("c")])
        await store.append(KEY, [answering("c"), said("b")])
        await rewrite(store, to(1, calling("c"), said("x")), to(2, answering("c"), said("y")))
        await store.append(KEY, [said("c")], retention=Retention(max_messages=3))
        assert seqs(await store.read(KEY)) == [3, 4]

    async def test_positions_after_a_hole_are_found(self, store: Store) -> None:
        await store.append(KEY, [said(str(i)) for i in range(4)])
        await store.truncate(KEY, stop=2)
        await store.append(KEY, [said("4"), said("5")])
        assert await rewrite(store, *(to(i, said(str(i)), said(f"new {i}")) for i in range(6))) == 4
        assert await payloads(store) == [said(f"new {i}").payload for i in (0, 1, 4, 5)]

    async def test_appends_meanwhile_are_kept(self, store: Store, other_store: Store) -> None:
        await store.append(KEY, [said(str(i)) for i in range(20)])

        async def rewrite_all() -> int:
            return sum([await rewrite(other_store, to(i, said(str(i)), said(f"new {i}"))) for i in range(20)])

        appends = (store.append(KEY, [said(f"more {i}")]) for i in range(20))
        done, *_ = await asyncio.gather(rewrite_all(), *appends)
        assert done == 20
        kept = await payloads(store)
        assert kept[:20] == [said(f"new {i}").payload for i in range(20)]
        assert sorted(kept[20:]) == sorted(said(f"more {i}").payload for i in range(20))

    async def test_of_many_that_rewrite_one_message_one_wins(self, store: Store, other_store: Store) -> None:
        await store.append(KEY, [said("a")])
        both = (store, other_store)
        done = await asyncio.gather(*(rewrite(both[i % 2], to(0, said("a"), said(str(i)))) for i in range(12)))
        assert sum(done) == 1

    async def test_rewrites_that_cannot_be_are_refused(self, harness: Harness) -> None:
        async with harness.open(max_message_bytes=1000) as store:
            rewriter = required_capability(store, SupportsRewrite)
            await store.append(KEY, [said("a")])
            old = said("a").payload
            wrong: list[tuple[type[Exception], Any]] = [
                (InvalidMessageError, [Rewrite(0, old, b"{")]),
                (InvalidMessageError, [(0, old, b"1")]),
                (InvalidMessageError, None),
                (ConfigurationError, [Rewrite(-1, old, b"1")]),
                (LimitExceededError, [Rewrite(0, old, said("x" * 1000).payload)]),
            ]
            for error, changes in wrong:
                with pytest.raises(error):
                    await rewriter.rewrite(KEY, changes)
            with pytest.raises(InvalidIdentifierError):
                await rewriter.rewrite(cast(Any, "thread"), [Rewrite(0, old, b"1")])
            assert await rewriter.rewrite(KEY, []) == 0
            assert await payloads(store) == [old]
