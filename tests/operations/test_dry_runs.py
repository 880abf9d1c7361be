"""Dry runs need no right to write: each works on a store that is open for reading only, and predicts the real run."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import pytest
import pytest_asyncio

from everthread import Store, ThreadKey, open_store
from everthread.operations.fork import fork, plan
from everthread.operations.prune import PrunePolicy, prune
from everthread.operations.repair import inspect
from everthread.operations.summarize import SummaryPolicy, plan_summary
from everthread.operations.summarize_many import summarize_threads
from everthread.transfer import copy_threads, export_threads, import_threads
from tests.transfer.conversations import fill, turn

KEY = ThreadKey("plain")


@pytest.fixture(params=["sqlite", "directory"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/t.db" if request.param == "sqlite" else f"file://{tmp_path}/threads?sync=false"


@pytest_asyncio.fixture
async def reader(place: str) -> AsyncIterator[Store]:
    async with open_store(place) as store:
        await fill(store)
    async with open_store(place, read_only=True) as store:
        yield store


async def test_a_fork_is_planned_without_writing(reader: Store, place: str) -> None:
    planned = await plan(reader, KEY, ThreadKey("fork"), at=10)
    async with open_store(place) as store:
        assert await fork(store, KEY, ThreadKey("fork"), at=10) == planned


async def test_summaries_are_planned_without_writing(reader: Store) -> None:
    assert await plan_summary(reader, KEY, SummaryPolicy()) is not None
    assert KEY in [outcome.key async for outcome in summarize_threads(reader, None) if outcome.plan]


async def test_pruning_is_planned_without_writing(reader: Store, place: str) -> None:
    policy = PrunePolicy(max_messages=3, max_idle=timedelta(days=900))
    planned = [pruned async for pruned in prune(reader, policy, dry_run=True)]
    async with open_store(place) as store:
        assert [pruned async for pruned in prune(store, policy)] == planned


async def test_problems_are_found_without_writing(reader: Store) -> None:
    assert [outcome async for outcome in inspect(reader) if outcome.status != "found"] == []


async def test_a_copy_is_planned_on_two_read_only_stores(reader: Store, tmp_path: Path) -> None:
    place = f"sqlite:///{tmp_path}/target.db"
    async with open_store(place) as target:
        await copy_threads(reader, target, names=["plain", "A"])
        await target.append(ThreadKey("A"), turn(9))
        await target.append(ThreadKey("undone"), turn(9))
    async with open_store(place, read_only=True) as target:
        planned = await copy_threads(reader, target, dry_run=True)
    assert planned.threads == {"new": 7, "unchanged": 1, "ahead": 1, "conflict": 1}
    async with open_store(place) as target:
        report = await copy_threads(reader, target)
    assert (report.threads, report.written, report.documents) == (planned.threads, planned.written, planned.documents)


async def test_a_copy_after_a_trim_is_planned_as_it_ends(place: str, tmp_path: Path) -> None:
    target_place = f"sqlite:///{tmp_path}/target.db"
    async with open_store(place) as store, open_store(target_place) as target:
        await store.append(KEY, turn(0))
        await copy_threads(store, target)
        await store.append(KEY, turn(1))
        await store.truncate(KEY, start=8)
        await store.append(KEY, turn(2))
        async with open_store(target_place, read_only=True) as reader:
            planned = await copy_threads(store, reader, dry_run=True)
        assert planned.threads == (await copy_threads(store, target)).threads == {"extended": 1}


async def test_an_import_is_planned_on_a_read_only_store(reader: Store, place: str, tmp_path: Path) -> None:
    async with open_store("memory:") as store:
        await store.append(ThreadKey("other"), turn(0))
        await store.truncate(ThreadKey("other"), start=4)
        await export_threads(store, tmp_path / "x.jsonl")
    planned = await import_threads(reader, tmp_path / "x.jsonl", dry_run=True)
    assert planned.threads == {"new": 1}
    assert await reader.get_thread(ThreadKey("other")) is None
    async with open_store(place) as store:
        assert (await import_threads(store, tmp_path / "x.jsonl")).threads == planned.threads


async def test_an_export_is_planned_without_a_file(reader: Store, tmp_path: Path) -> None:
    planned = await export_threads(reader, tmp_path / "x.jsonl", dry_run=True)
    assert not (tmp_path / "x.jsonl").exists()
    report = await export_threads(reader, tmp_path / "x.jsonl")
    assert (report.size, report.written) == (planned.size, planned.written)
