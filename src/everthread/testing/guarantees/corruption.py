"""A record that cannot be decoded raises an error that names it; it is never skipped."""

from __future__ import annotations

from collections.abc import Awaitable
from io import BytesIO
from typing import Literal

import pytest

from everthread.capabilities import SupportsSearch, capability
from everthread.contract import Store
from everthread.engines.memory import MemoryStore
from everthread.errors import CorruptRecordError
from everthread.listing import every_thread, title_of, usage
from everthread.messages.codec import decode
from everthread.model import MessagePage, ThreadKey
from everthread.operations.fork import fork
from everthread.operations.prune import PrunePolicy, prune
from everthread.operations.repair import repair
from everthread.operations.search import search
from everthread.operations.summarize import SummaryPolicy
from everthread.operations.summarize_many import summarize_threads
from everthread.readable import Unreadable, read_all_around
from everthread.testing.guarantees._base import KEY, GuaranteeTests, payloads, said, seqs, thread_of
from everthread.testing.harness import CorruptibleHarness
from everthread.transfer import copy_threads, export_threads

BAD: dict[str, bytes] = {
    "cut off": b'{"role": "us',
    "nothing": b"",
    "a number": b"5",
    "a text": b'"text"',
    "an array": b'[{"role": "user"}]',
    "NaN": b'{"role": "user", "content": "x", "score": NaN}',
    "half a surrogate": b'{"role": "user", "content": "\\ud800"}',
    "a role that is a list": b'{"role": [], "content": "x"}',
    "an unknown call": b'{"role": "assistant", "tool_calls": [5, {"id": [], "function": "f"}]}',
}
"""Records as other programs may have written them."""

OTHER = ThreadKey("other", KEY.tenant)
Form = Literal["jsonl", "markdown", "html"]
NOT_JSON = {"cut off": b'{"role": "us', "empty": b""}


class AfterCorruption(GuaranteeTests):
    """For places with records that a test can damage. A subclass defines a `CorruptibleHarness`."""

    async def test_a_spoilt_record_is_told_and_not_skipped(self, harness: CorruptibleHarness, store: Store) -> None:
        await store.append(KEY, [said(str(i)) for i in range(5)])
        await harness.corrupt(KEY, 2, b'{"role": "us')
        with pytest.raises(CorruptRecordError, match="2"):
            await _values(store.read(KEY))
        with pytest.raises(CorruptRecordError, match="2"):
            await _values(store.read_last(KEY, 3))

    @pytest.mark.parametrize("bad", BAD)
    async def test_a_bad_record_stops_no_operation(self, harness: CorruptibleHarness, store: Store, bad: str) -> None:
        await store.append(KEY, [said("first"), said("bad"), said("last")])
        await harness.corrupt(KEY, 1, BAD[bad])
        other = ThreadKey("other", KEY.tenant)
        await store.append(other, [said("first of another")])
        assert {thread.key for thread in await store.list_threads(KEY.tenant)} == {KEY, other}
        assert [thread.damage for thread in await store.list_threads(KEY.tenant)] == ["", ""]
        titles = {await title_of(store, thread) for thread in await store.list_threads(KEY.tenant)}
        assert "first of another" in titles
        assert seqs([message async for message in read_all_around(store, KEY)])[::2] != []
        found = await search(store, KEY.tenant, "first", scan=True)
        assert {(hit.key, hit.seq) for hit in found.hits} == {(KEY, 0), (other, 0)}
        asked: list[str] = []

        async def answer(request: str) -> str:
            asked.append(request)
            return "in short"

        summaries = summarize_threads(store, answer, SummaryPolicy(keep_turns=0), KEY.tenant)
        assert {outcome.key async for outcome in summaries if outcome.summary} == {KEY, other}
        assert all("first" in request for request in asked)
        pruned = [outcome async for outcome in prune(store, PrunePolicy(max_messages=5), KEY.tenant)]
        assert {outcome.key for outcome in pruned} == {KEY, other}
        await self._is_moved(store, other)
        await self._is_copied(store, harness)
        outcomes = {outcome.key: outcome async for outcome in repair(store, KEY.tenant)}
        assert set(outcomes) <= {KEY, ThreadKey("copy", KEY.tenant)}

    async def _is_moved(self, store: Store, other: ThreadKey) -> None:
        for form in ("jsonl", "markdown", "html"):
            file = BytesIO()
            report = await export_threads(store, file, tenant=KEY.tenant, format=form)
            assert "first of another" in file.getvalue().decode()
            assert {outcome.key for outcome in report.problems} <= {KEY}
        async with MemoryStore() as target:
            await copy_threads(store, target, tenant=KEY.tenant, skip_unreadable=True)
            assert await payloads(target, other) == [said("first of another").payload]

    async def _is_copied(self, store: Store, harness: CorruptibleHarness) -> None:
        forked = await fork(store, KEY, ThreadKey("copy", KEY.tenant))
        copies = await payloads(store, forked.key)
        assert (copies[0], copies[-1]) == (said("first").payload, said("last").payload)
        assert [each.seq for each in forked.unreadable] == [1] * (3 - len(copies))

    async def test_the_rest_of_the_thread_stays_usable(self, harness: CorruptibleHarness, store: Store) -> None:
        await store.append(KEY, [said(str(i)) for i in range(5)])
        await harness.corrupt(KEY, 2, b"\xff\xfe")
        assert seqs(await store.read(KEY, start=3)) == [3, 4]
        assert seqs(await store.read(KEY, stop=2)) == [0, 1]
        assert (await store.append(KEY, [said("5")])).first_seq == 5
        assert (await store.truncate(KEY, start=3)).head_seq == 3
        assert seqs(await store.read(KEY)) == [3, 4, 5]


async def _values(page: Awaitable[MessagePage]) -> list[object]:
    """Decode the messages of a page. An engine may find the fault when it reads or when it decodes."""
    return [decode(message, KEY) for message in await page]


class DamageReports(GuaranteeTests):
    """For places with records that a test can damage. A subclass defines a `CorruptibleHarness`."""

    @pytest.mark.parametrize("bad", NOT_JSON)
    async def test_searches_report_a_record_that_is_not_json(
        self, harness: CorruptibleHarness, store: Store, bad: str
    ) -> None:
        if searchable := capability(store, SupportsSearch):
            await searchable.prepare_search()
        await self._write(harness, store, NOT_JSON[bad])
        for scan in (False, True):
            found = await search(store, KEY.tenant, "word", scan=scan)
            assert {(hit.key, hit.seq) for hit in found.hits} == {(KEY, 0), (KEY, 2), (OTHER, 0)}
            assert [(each.key, each.seq) for each in found.unreadable] == [(KEY, 1)]

    @pytest.mark.parametrize("form", ["jsonl", "markdown", "html"])
    @pytest.mark.parametrize("bad", NOT_JSON)
    async def test_exports_report_a_record_that_is_not_json(
        self, harness: CorruptibleHarness, store: Store, bad: str, form: Form
    ) -> None:
        await self._write(harness, store, NOT_JSON[bad])
        report = await export_threads(store, file := BytesIO(), tenant=KEY.tenant, format=form)
        assert not report.is_complete
        (skipped,) = report.skipped
        assert str(KEY) in skipped.place
        assert "position 1" in skipped.place
        assert file.getvalue().count(b"word") == 3

    async def test_listing_reads_no_messages(self, harness: CorruptibleHarness, store: Store) -> None:
        await self._write(harness, store, b"{")
        assert [thread.damage async for thread in every_thread(store, KEY.tenant)] == ["", ""]
        assert (await usage(store, KEY.tenant)).threads == 2

    async def test_a_title_skips_and_reports_a_record_that_is_not_json(
        self, harness: CorruptibleHarness, store: Store
    ) -> None:
        await store.append(KEY, [said("bad"), said("good")])
        await harness.corrupt(KEY, 0, b"{")
        (thread,) = await store.list_threads(KEY.tenant)
        reported: list[Unreadable] = []
        assert await title_of(store, thread, on_unreadable=reported.append) == "good"
        assert [(each.key, each.seq) for each in reported] == [(KEY, 0)]

    async def test_damaged_metadata_hide_no_thread(self, harness: CorruptibleHarness, store: Store) -> None:
        await store.append(KEY, [said("first")], default_title="title")
        await store.append(OTHER, [said("word")])
        await harness.corrupt_metadata(KEY)
        async with harness.open() as fresh:
            listed = {thread.key: thread for thread in await fresh.list_threads(KEY.tenant)}
            assert set(listed) == {KEY, OTHER}
            assert repr(KEY.thread_id) in listed[KEY].damage
            assert listed[KEY].metadata == {}
            assert listed[OTHER].damage == ""
            with pytest.raises(CorruptRecordError, match=repr(KEY.thread_id)):
                await fresh.get_thread(KEY)

    async def test_a_thread_with_damaged_metadata_stays_usable(self, harness: CorruptibleHarness, store: Store) -> None:
        await store.append(KEY, [said("first")])
        await harness.corrupt_metadata(KEY)
        await store.append(KEY, [said("second")])
        assert seqs(await store.read(KEY)) == [0, 1]
        assert (await store.update_thread(KEY, metadata={"a": 1}, title="new")).damage == ""
        thread = await thread_of(store)
        assert (thread.metadata, thread.title) == ({"a": 1}, "new")

    @pytest.mark.parametrize("form", ["jsonl", "markdown"])
    async def test_exports_report_a_thread_with_damaged_metadata(
        self, harness: CorruptibleHarness, store: Store, form: Form
    ) -> None:
        await store.append(KEY, [said("first")])
        await store.append(OTHER, [said("word")])
        await harness.corrupt_metadata(KEY)
        async with harness.open() as fresh:
            report = await export_threads(fresh, file := BytesIO(), tenant=KEY.tenant, format=form)
        assert [skipped.place for skipped in report.skipped] == [str(KEY)]
        assert file.getvalue().count(b"word") == 1

    async def _write(self, harness: CorruptibleHarness, store: Store, bad: bytes) -> None:
        await store.append(KEY, [said("word 0"), said("word 1"), said("word 2")])
        await store.append(OTHER, [said("word")])
        await harness.corrupt(KEY, 1, bad)
