"""A repair that is killed leaves a backup from which all that it changed comes back, and nothing else is touched."""

from __future__ import annotations

from pathlib import Path

import pytest

from everthread import ConfigurationError, Store, open_store
from everthread.operations.repair import Outcome, repair
from everthread.operations.undo_repair import undo_repair
from tests.operations.kills.mortal import LATER
from tests.operations.kills.state import TENANT, break_threads, seen_of

pytestmark = pytest.mark.slow


async def run_repair(store: Store, backup: Path) -> None:
    assert [each.status async for each in repair(store, TENANT, backup=backup, clock=lambda: LATER)] == ["repaired"] * 2


async def take_back(store: Store, backup: Path) -> list[Outcome]:
    return [outcome async for outcome in undo_repair(store, backup)]


def said(seen: dict[str, object]) -> object:
    return {name: [message[-1] for message in thread["messages"]] for name, thread in seen.items()}


async def test_a_cut_off_record_is_ignored_and_the_others_are_undone(tmp_path: Path) -> None:
    async with open_store("memory:") as store:
        await break_threads(store, 2)
        await run_repair(store, tmp_path / "backup")
    whole = (tmp_path / "backup").read_bytes()
    second = whole.index(b'{"everthread"', 1)
    lines = [end + 1 for end, byte in enumerate(whole) if byte == ord("\n")]
    for cut in sorted({0, 1, 5, 30, second, second + 1, second + 40, len(whole) - 2, *lines}):
        (tmp_path / "cut").write_bytes(whole[:cut])
        async with open_store("memory:") as store:
            await break_threads(store, 2)
            before = said(await seen_of(store))
            # As it was, since this store was never repaired.
            statuses = [outcome.status for outcome in await take_back(store, tmp_path / "cut")]
            assert statuses == ["undone"] * ((cut >= second - 1) + (cut >= len(whole) - 1)), cut
            assert said(await seen_of(store)) == before


async def test_a_backup_that_was_cut_off_takes_further_records(tmp_path: Path) -> None:
    async with open_store("memory:") as store:
        await break_threads(store, 2)
        before = said(await seen_of(store))
        (tmp_path / "backup").write_bytes(b'{"everthread": "repair", "thread_id": "brok')
        await run_repair(store, tmp_path / "backup")
        assert said(await seen_of(store)) != before
        assert [outcome.status for outcome in await take_back(store, tmp_path / "backup")] == ["undone"] * 2
        assert said(await seen_of(store)) == before


async def test_a_thread_not_repaired_yet_stays_unchanged(tmp_path: Path) -> None:
    async with open_store("memory:") as one, open_store("memory:") as other:
        for store in (one, other):
            await break_threads(store, 2)
        await run_repair(one, tmp_path / "backup")
        before = await seen_of(other)
        outcomes = await take_back(other, tmp_path / "backup")
        assert [(outcome.status, outcome.reason) for outcome in outcomes] == [
            ("undone", "its messages are unchanged")
        ] * 2
        assert await seen_of(other) == before


@pytest.mark.parametrize("damage", [(b'"changes"', b'"chances"'), (b'"repair"', b'"receipt"'), (b"{", b"no ")])
async def test_a_file_that_is_damaged_elsewhere_is_refused(tmp_path: Path, damage: tuple[bytes, bytes]) -> None:
    async with open_store("memory:") as store:
        await break_threads(store, 2)
        await run_repair(store, tmp_path / "backup")
        (tmp_path / "backup").write_bytes((tmp_path / "backup").read_bytes().replace(*damage, 1))
        with pytest.raises(ConfigurationError, match="cannot be read"):
            await take_back(store, tmp_path / "backup")
