"""Records that cannot be read: an export or a copy reports each, and moves all the rest."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator
from io import BytesIO
from pathlib import Path
from typing import Literal

import pytest
import pytest_asyncio

from everthread import Store, ThreadKey, open_store
from everthread.operations.search import search
from everthread.transfer import copy_threads, export_threads, import_threads
from everthread.wrappers.encryption.encrypted import Encrypted
from tests.transfer.conversations import turn
from tests.wrappers.sealed_places import KEYRING

BAD = ThreadKey("bad")
THREADS = [ThreadKey("first"), BAD, ThreadKey("last")]

Form = Literal["jsonl", "markdown", "html"]
FORMS: list[Form] = ["jsonl", "markdown", "html"]


def damage(path: Path, statement: str) -> None:
    with sqlite3.connect(path) as db:
        (thread,) = db.execute("SELECT id FROM threads WHERE thread_id = 'bad'").fetchone()
        assert db.execute(statement, (thread,)).rowcount == 1
    db.close()


@pytest_asyncio.fixture
async def plain(tmp_path: Path) -> AsyncIterator[Store]:
    async with open_store(f"sqlite:///{tmp_path}/t.db") as store:
        await fill(store)
        yield store


@pytest_asyncio.fixture
async def sealed(tmp_path: Path) -> AsyncIterator[Store]:
    async with Encrypted(open_store(f"sqlite:///{tmp_path}/t.db"), KEYRING) as store:
        await fill(store)
        yield store


async def fill(store: Store) -> None:
    for key in THREADS:
        await store.append(key, turn(0))
        await store.update_thread(key, title="a trip", metadata={"x": 1})
        await store.put_document(key, "state", b'{"a":1}')


async def reported(store: Store, form: Form = "jsonl", names: tuple[str, ...] = ()) -> tuple[list[str], str]:
    file = BytesIO()
    report = await export_threads(store, file, format=form, names=names)
    assert not report.is_complete
    return [skipped.place for skipped in report.skipped], file.getvalue().decode()


@pytest.mark.parametrize("form", FORMS)
async def test_an_export_reports_a_message_that_is_not_json(plain: Store, form: Form, tmp_path: Path) -> None:
    damage(tmp_path / "t.db", "UPDATE messages SET payload = CAST('{bad' AS BLOB) WHERE thread = ? AND seq = 1")
    places, text = await reported(plain, form)
    assert places == ["thread 'bad', position 1"]
    assert text.count("answer 0") == 3


async def test_an_exported_record_comes_back_unchanged(plain: Store, tmp_path: Path) -> None:
    damage(tmp_path / "t.db", "UPDATE messages SET payload = CAST('{bad' AS BLOB) WHERE thread = ? AND seq = 1")
    await export_threads(plain, tmp_path / "x.jsonl")
    await export_threads(plain, tmp_path / "again.jsonl")
    assert (tmp_path / "x.jsonl").read_bytes() == (tmp_path / "again.jsonl").read_bytes()
    async with open_store("memory:") as target:
        report = await import_threads(target, tmp_path / "x.jsonl", skip_unreadable=True)
        assert [skipped.place for skipped in report.skipped] == ["thread 'bad', position 1"]
        assert [message.seq for message in await target.read(BAD)] == [0, 2, 3]


async def test_an_export_leaves_out_a_document_that_is_not_json(plain: Store, tmp_path: Path) -> None:
    damage(tmp_path / "t.db", "UPDATE documents SET value = CAST('{bad' AS BLOB) WHERE thread = ?")
    places, text = await reported(plain)
    assert places == ["thread 'bad', document 'state'"]
    (tmp_path / "x.jsonl").write_text(text)
    async with open_store("memory:") as target:
        assert (await import_threads(target, tmp_path / "x.jsonl")).threads == {"new": 3}
        assert (await copy_threads(plain, target, skip_unreadable=True)).threads == {"unchanged": 3}
        assert (await copy_threads(plain, target)).threads == {"unchanged": 2, "failed": 1}


@pytest.mark.parametrize("form", FORMS)
async def test_an_export_has_the_messages_of_a_damaged_thread(sealed: Store, form: Form, tmp_path: Path) -> None:
    damage(tmp_path / "t.db", 'UPDATE metadata SET value = CAST(\'{"$everthread":"x"}\' AS BLOB) WHERE thread = ?')
    places, text = await reported(sealed, form)
    assert places == ["thread 'bad'"]
    assert text.count("answer 0") == 3


async def test_a_damaged_thread_named_in_an_export_is_reported(sealed: Store, tmp_path: Path) -> None:
    damage(tmp_path / "t.db", 'UPDATE metadata SET value = CAST(\'{"$everthread":"x"}\' AS BLOB) WHERE thread = ?')
    places, text = await reported(sealed, names=("bad", "last"))
    assert places == ["thread 'bad'"]
    assert text.count("answer 0") == 1


async def test_a_copy_reports_a_damaged_thread_and_moves_the_others(sealed: Store, tmp_path: Path) -> None:
    damage(tmp_path / "t.db", 'UPDATE metadata SET value = CAST(\'{"$everthread":"x"}\' AS BLOB) WHERE thread = ?')
    async with open_store("memory:") as target:
        report = await copy_threads(sealed, target)
        assert (report.threads, [each.place for each in report.skipped]) == ({"new": 2}, ["thread 'bad'"])
        report = await copy_threads(sealed, target, skip_unreadable=True)
        assert (report.threads, [each.place for each in report.skipped]) == (
            {"new": 1, "unchanged": 2},
            ["thread 'bad'"],
        )
        assert len(await target.read(BAD)) == 4


async def test_an_indexed_search_reports_a_hit_that_is_not_json(plain: Store, tmp_path: Path) -> None:
    assert len((await search(plain, "", "answer")).hits) == 3
    damage(tmp_path / "t.db", "UPDATE messages SET payload = CAST('{bad' AS BLOB) WHERE thread = ? AND seq = 3")
    found = await search(plain, "", "answer")
    assert not found.is_scan
    assert {hit.key for hit in found.hits} == {*THREADS} - {BAD}
    assert [(each.key, each.seq) for each in found.unreadable] == [(BAD, 3)]
