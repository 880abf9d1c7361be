"""SIGKILL in the middle of what operates a store, and again and again: it ends as one clean run."""

from __future__ import annotations

import contextlib
import json
import sqlite3
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from redis.asyncio import Redis

from everthread import open_store
from everthread.capabilities import SupportsReconciling, capability
from everthread.operations.erase import erase_tenant
from everthread.operations.summarize import get_summary
from everthread.wrappers.encryption.encrypted import Encrypted
from everthread.wrappers.encryption.rewrapping import rewrap
from tests.operations.kills.mortal import JOBS, is_killed, run_until_done
from tests.operations.kills.state import LONG, TENANT, break_threads, check_consistency, fill_tenant, seen_of
from tests.places import empty_place
from tests.transfer.conversations import turn
from tests.wrappers.sealed_places import KEYRING

pytestmark = pytest.mark.slow


@pytest.fixture(params=["sqlite", "redis"])
def places(request: pytest.FixtureRequest) -> tuple[str, str]:
    """Two empty stores."""
    return empty_place(request, request.param), empty_place(request, request.param)


async def ends_alike(killed: str, clean: str) -> dict[str, Any]:
    """Compares two stores, and gives what is in them."""
    async with open_store(killed) as one, open_store(clean) as other:
        seen = await seen_of(one)
        assert seen == await seen_of(other)
        await check_consistency(one)
        return seen


async def run(job: str, url: str, argument: object = "") -> None:
    async with open_store(url) as store:
        await JOBS[job](store, str(argument))


async def test_pruning(places: tuple[str, str]) -> None:
    idle: list[int] = []
    for url in places:
        async with open_store(url) as store:
            idle.append(await fill_tenant(store))
    killed, clean = places
    assert run_until_done("prune", killed, lambda _: idle[0], stride=6) > 1
    await run("prune", clean, idle[1])
    seen = await ends_alike(killed, clean)
    assert "acme plain" not in seen
    assert len(seen["acme long"]["messages"]) <= 3


async def test_erasing_a_tenant(places: tuple[str, str], tmp_path: Path) -> None:
    for url in places:
        async with open_store(url) as store:
            await fill_tenant(store)
    killed, clean = places
    assert run_until_done("delete-tenant", killed, lambda _: tmp_path / "killed", stride=20) > 1
    await run("delete-tenant", clean, tmp_path / "clean")
    seen = await ends_alike(killed, clean)
    assert {name.split()[0] for name in seen} == {"other"}
    receipt = [json.loads(line) for line in (tmp_path / "killed").read_text().splitlines()]
    whole = [json.loads(line) for line in (tmp_path / "clean").read_text().splitlines()]
    assert receipt[-1]["kind"] == "erased"
    # Nothing is deleted before the first line is complete.
    assert receipt[0]["sums"] == whole[0]["sums"] == whole[-1]["sums"]


async def test_erasing_an_encrypted_tenant(places: tuple[str, str], tmp_path: Path) -> None:
    killed, clean = places
    async with open_store(killed) as inner, open_store(clean) as other:
        await fill_tenant(Encrypted(inner, KEYRING))
        assert len(await other.list_threads(TENANT)) == 0
        await fill_tenant(Encrypted(other, KEYRING))
    assert run_until_done("shred-tenant", killed, lambda _: tmp_path / "killed", stride=20) > 1
    await run("shred-tenant", clean, tmp_path / "clean")
    for url in places:
        async with open_store(url) as inner:
            store = Encrypted(inner, KEYRING)
            assert {name.split()[0] for name in await seen_of(store)} == {"other"}
            assert not await store.keys.destroy(TENANT), "its keys are gone already"
            await check_consistency(inner)


async def test_rewrapping(places: tuple[str, str]) -> None:
    for url in places:
        async with open_store(url) as store:
            await fill_tenant(store)
    killed, clean = places
    assert run_until_done("rewrap", killed, stride=20) > 1
    await run("rewrap", clean)
    async with open_store(killed) as one, open_store(clean) as other:
        found = [await seen_of(Encrypted(inner, KEYRING), TENANT) for inner in (one, other)]
        assert found[0] == found[1]
        assert (await rewrap(Encrypted(one, KEYRING), TENANT)).records == 0
        await check_consistency(one)


async def test_summarising(places: tuple[str, str]) -> None:
    for url in places:
        async with open_store(url) as store:
            await fill_tenant(store)
    killed, clean = places
    assert run_until_done("summarize", killed, stride=30) > 1
    await run("summarize", clean)
    seen = await ends_alike(killed, clean)
    assert sum(bool(thread["documents"]) for name, thread in seen.items() if name.startswith("acme")) > 8
    async with open_store(killed) as store:
        assert await get_summary(store, LONG) is not None


async def test_compacting(tmp_path: Path) -> None:
    killed, clean = f"file://{tmp_path}/killed", f"file://{tmp_path}/clean"
    for url in (killed, clean):
        async with open_store(url) as store:
            await fill_tenant(store)
            before = await seen_of(store)
    assert run_until_done("compact", killed, stride=4) > 1
    await run("compact", clean)
    assert await ends_alike(killed, clean) == before


async def test_repairing_and_undoing(places: tuple[str, str], tmp_path: Path) -> None:
    killed, clean = places
    for url in places:
        async with open_store(url) as store:
            await break_threads(store)
            before = payloads(await seen_of(store))
    backups: list[Path] = []

    def backup(number: int) -> Path:
        backups.append(tmp_path / f"backup {number}")
        return backups[-1]

    assert run_until_done("repair", killed, backup, stride=4) > 1
    await run("repair", clean, tmp_path / "clean")
    assert payloads(await ends_alike(killed, clean)) != before
    for each in reversed([each for each in backups if each.exists()]):
        run_until_done("undo", killed, lambda _, each=each: each, stride=5)
    async with open_store(killed) as store:
        assert payloads(await seen_of(store)) == before
        await check_consistency(store)


def payloads(seen: dict[str, Any]) -> dict[str, list[bytes]]:
    """What was said in each thread of the tenant."""
    return {name: [message[-1] for message in thread["messages"]] for name, thread in seen.items()}


async def lose_what_is_kept_twice(url: str) -> None:
    """Spoils the counts and leaves remains on SQLite, loses the index on Redis."""
    if url.startswith("sqlite"):
        with contextlib.closing(sqlite3.connect(url.removeprefix("sqlite:///"), isolation_level=None)) as db:
            db.execute("UPDATE threads SET count = count + 1")
            db.execute(
                "INSERT INTO messages (thread, seq, turn, tied, created_ms, format, payload)"
                " SELECT 1000 + id % 40, id, id, 0, 0, 'json', '1' FROM messages"
            )
        return
    place = urlsplit(url)
    prefix = parse_qs(place.query)["prefix"][0]
    async with Redis(port=place.port or 0) as client:
        assert await client.delete(f"{{{prefix}@{TENANT}}}:recent") == 1


async def test_repairing_counts_and_indexes(places: tuple[str, str]) -> None:
    for url in places:
        async with open_store(url) as store:
            await fill_tenant(store, 60)
        await lose_what_is_kept_twice(url)
    killed, clean = places
    async with open_store(killed) as store:
        assert capability(store, SupportsReconciling)
        assert sum([drift.count for drift in await store.reconcile(TENANT)]) > 40
    kills = [is_killed("reconcile", killed, calls=1, later=later) for later in (100, 1000, 4000, 9000, 20_000)]
    assert sum(kills) >= 2
    for url in places:
        await run("reconcile", url)
    seen = await ends_alike(killed, clean)
    assert len(seen["acme long"]["messages"]) == 60


@pytest.mark.parametrize("kept", [b"", b'{"kind":"thread","messages":1}\n', b"not a receipt\n"])
@pytest.mark.parametrize("cut", [b"", b"{", b'{"kind":"', b'{"kind":"erased","tenant":"ac'])
async def test_a_receipt_with_a_cut_off_line_continues_in_whole_lines(tmp_path: Path, kept: bytes, cut: bytes) -> None:
    (tmp_path / "receipt").write_bytes(kept + cut)
    async with open_store("memory:") as store:
        await store.append(LONG, turn(0))
        await erase_tenant(store, TENANT, tmp_path / "receipt")
    receipt = (tmp_path / "receipt").read_bytes()
    assert receipt.startswith(kept)
    lines = receipt.removeprefix(kept).splitlines()
    assert [json.loads(line)["kind"] for line in lines] == ["counted", "erased"]


async def test_a_file_that_is_no_receipt_keeps_its_last_line(tmp_path: Path) -> None:
    (tmp_path / "notes").write_bytes(b"one\ntwo")
    async with open_store("memory:") as store:
        await erase_tenant(store, TENANT, tmp_path / "notes")
    assert (tmp_path / "notes").read_bytes().startswith(b'one\ntwo\n{"kind":"counted"')
