"""A repair that is killed leaves a backup from which all that it changed comes back, and nothing else is touched."""

from __future__ import annotations

from pathlib import Path

import pytest

from everthread import ConfigurationError, Store, open_store
from everthread.repairing import Outcome, repair, undo
from tests.kills.mortal import LATER
from tests.kills.state import TENANT, break_threads, seen_of


async def mend(store: Store, backup: Path) -> None:
    assert [each.status async for each in repair(store, TENANT, backup=backup, clock=lambda: LATER)] == ["mended"] * 2


async def take_back(store: Store, backup: Path) -> list[Outcome]:
    return [outcome async for outcome in undo(store, backup, clock=lambda: LATER)]


def said(seen: dict[str, object]) -> object:
    return {name: [message[-1] for message in thread["messages"]] for name, thread in seen.items()}


async def test_a_record_that_is_cut_off_anywhere_is_passed_over_and_the_others_are_undone(tmp_path: Path) -> None:
    async with open_store("memory:") as store:
        await break_threads(store, 2)
        await mend(store, tmp_path / "backup")
    whole = (tmp_path / "backup").read_bytes()
    second = whole.index(b'{"everthread"', 1)
    lines = [end + 1 for end, byte in enumerate(whole) if byte == ord("\n")]
    for cut in sorted({0, 1, 5, 30, second, second + 1, second + 40, len(whole) - 2, *lines}):
        (tmp_path / "cut").write_bytes(whole[:cut])
        async with open_store("memory:") as store:
            await break_threads(store, 2)
            before = said(await seen_of(store))
            # As it was, since this store was never mended.
            statuses = [outcome.status for outcome in await take_back(store, tmp_path / "cut")]
            assert statuses == ["undone"] * ((cut >= second) + (cut >= len(whole) - 1)), cut
            assert said(await seen_of(store)) == before


async def test_a_backup_that_was_cut_off_takes_further_records(tmp_path: Path) -> None:
    async with open_store("memory:") as store:
        await break_threads(store, 2)
        before = said(await seen_of(store))
        (tmp_path / "backup").write_bytes(b'{"everthread": "repair", "thread_id": "brok')
        await mend(store, tmp_path / "backup")
        assert said(await seen_of(store)) != before
        assert [outcome.status for outcome in await take_back(store, tmp_path / "backup")] == ["undone"] * 2
        assert said(await seen_of(store)) == before


async def test_a_thread_whose_mending_did_not_begin_is_left_as_it_is(tmp_path: Path) -> None:
    async with open_store("memory:") as one, open_store("memory:") as other:
        for store in (one, other):
            await break_threads(store, 2)
        await mend(one, tmp_path / "backup")
        before = await seen_of(other)
        outcomes = await take_back(other, tmp_path / "backup")
        assert [(outcome.status, outcome.reason) for outcome in outcomes] == [("undone", "it is as it was already")] * 2
        assert await seen_of(other) == before


@pytest.mark.parametrize("damage", [(b'{"seq": 1', b'\x00"seq": 1'), (b'"repair"', b'"receipt"'), (b"{", b"no ")])
async def test_a_file_that_is_damaged_elsewhere_is_refused(tmp_path: Path, damage: tuple[bytes, bytes]) -> None:
    async with open_store("memory:") as store:
        await break_threads(store, 2)
        await mend(store, tmp_path / "backup")
        (tmp_path / "backup").write_bytes((tmp_path / "backup").read_bytes().replace(*damage, 1))
        with pytest.raises(ConfigurationError, match="cannot be read"):
            await take_back(store, tmp_path / "backup")
