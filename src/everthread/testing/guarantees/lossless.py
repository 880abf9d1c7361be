"""Payloads come back equal, byte for byte."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

from hypothesis import strategies as st

from everthread.contract import Store
from everthread.model import NewMessage, ThreadKey
from everthread.testing.guarantees._base import KEY, GuaranteeTests, everything, for_examples, said, thread_of
from everthread.testing.harness import Clock, Harness
from everthread.testing.strategies import agent_framework_messages, identifiers, json_values, payloads


class Lossless(GuaranteeTests):
    """Payloads, formats, times, titles and metadata come back unchanged."""

    async def test_the_store_time_is_kept_to_the_millisecond(self, timed: Store, clock: Clock) -> None:
        clock.advance(0.123)
        await timed.append(KEY, [said("a")])
        made = (await everything(timed))[0].created_at
        assert made is not None
        # An engine may use the clock of its storage instead of this process's.
        assert abs(made - datetime.fromtimestamp(clock(), UTC)) < timedelta(minutes=5)
        assert made.microsecond % 1000 == 0

    async def test_a_given_time_is_kept(self, store: Store) -> None:
        times = [
            datetime(2020, 2, 29, 23, 59, 59, 999_000, tzinfo=UTC),
            datetime(2030, 1, 1, tzinfo=timezone(timedelta(hours=-5))),
            datetime(1969, 7, 20, 20, 17, tzinfo=UTC),
            datetime(1970, 1, 1, tzinfo=UTC),
        ]
        await store.append(KEY, [NewMessage(b"1", created_at=time) for time in times])
        assert [m.created_at for m in await everything(store)] == times

    async def test_a_message_of_megabytes_comes_back(self, store: Store) -> None:
        large = NewMessage(b'"' + b"0123456789abcdef" * (2**17) + b'"')
        await store.append(KEY, [said("a"), large])
        page = await store.read_last(KEY, 1)
        assert page[0].payload == large.payload
        thread = await thread_of(store)
        assert thread.size == len(large.payload) + len(said("a").payload)

    async def test_an_unknown_format_comes_back(self, store: Store) -> None:
        formats = ["json", "agent-framework", "someone's: {future}*/format\n", "é", "x" * 200]
        await store.append(KEY, [NewMessage(b"1", format=name) for name in formats])
        assert [m.format for m in await everything(store)] == formats


class LosslessProperties(GuaranteeTests):
    """The same for generated text and JSON."""

    def test_payloads_come_back_byte_for_byte(self, harness: Harness) -> None:
        async def check(turn: list[NewMessage], key: ThreadKey) -> None:
            async with harness.open() as store:
                await store.delete_thread(key)
                await store.append(key, turn)
                kept = await everything(store, key)
                assert [(m.payload, m.format) for m in kept] == [(m.payload, m.format) for m in turn]
                assert (await store.read_last(key, len(turn))).messages == tuple(kept)
                thread = await thread_of(store, key)
                assert (thread.count, thread.size) == (len(turn), sum(len(m.payload) for m in turn))

        some = st.lists(st.builds(NewMessage, payloads()) | agent_framework_messages(), min_size=1, max_size=12)

        for_examples(check, some, st.builds(ThreadKey, identifiers()))

    def test_titles_and_metadata_come_back_equal(self, harness: Harness) -> None:
        async def check(title: str, metadata: dict[str, object]) -> None:
            async with harness.open() as store:
                await store.append(KEY, [said("a")])
                changed = await store.update_thread(KEY, title=title, metadata=metadata)
                assert (changed.title, changed.metadata) == (title, metadata)
                assert await store.get_thread(KEY) == changed

        text = st.text(st.characters(exclude_categories=["Cs"]), max_size=50)

        for_examples(check, text, st.dictionaries(text, json_values(), max_size=4))
