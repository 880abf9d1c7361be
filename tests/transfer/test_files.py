"""Exported files: what is in them, what is refused, and that they come back."""

from __future__ import annotations

import json
import os
from hashlib import blake2b
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings

from everthread import (
    ConfigurationError,
    CorruptRecordError,
    NewMessage,
    SchemaError,
    Store,
    ThreadKey,
    ThreadNotFoundError,
    open_store,
)
from everthread.engines.memory import MemoryStore, Threads
from everthread.model import Message
from everthread.testing import identifiers, payloads
from everthread.transfer import export_threads, import_threads
from everthread.transfer.exporting import file_name
from everthread.transfer.records import MessageLine, decoded, encoded, message_line, message_of
from everthread.wrappers.encryption.encrypted import Encrypted, Keyring
from everthread.wrappers.encryption.master_keys import MasterKey
from tests.transfer.conversations import everything, fill, turn


@pytest.mark.parametrize("into_folder", [False, True], ids=["file", "folder"])
async def test_an_export_imports_equal(store: Store, target: Store, tmp_path: Path, into_folder: bool) -> None:
    await fill(store)
    path = tmp_path / "export"
    exported = await export_threads(store, path, into_folder=into_folder)
    report = await import_threads(target, path)
    assert exported.threads == report.threads == {"new": 10}
    assert await everything(target) == await everything(store)
    again = await import_threads(target, path)
    assert again.threads == {"unchanged": 10}
    assert again.written == again.documents == 0


async def test_an_import_uses_the_exported_or_the_given_tenant(store: Store, target: Store, tmp_path: Path) -> None:
    await fill(store, "acme")
    await export_threads(store, tmp_path / "x", tenant="acme")
    await import_threads(target, tmp_path / "x")
    await import_threads(target, tmp_path / "x", tenant="new")
    assert await everything(target, "acme") == await everything(target, "new") == await everything(store, "acme")
    assert not await target.list_threads()


async def test_a_file_cannot_touch_the_keys_of_tenants(tmp_path: Path) -> None:
    threads: Threads = {}
    keyring = Keyring(lambda _: MasterKey("m", bytes(32)))
    async with Encrypted(MemoryStore(threads), keyring) as encrypted:
        await encrypted.append(ThreadKey("a", "acme"), turn(0))
    name = next(key.thread_id for key in threads if key.tenant == "everthread:keys")
    async with MemoryStore() as store:
        await store.append(ThreadKey(name, "evil"), turn(0))
        await store.put_document(ThreadKey(name, "evil"), "keys", b"[]")
        await export_threads(store, tmp_path / "x", tenant="evil")
    for dry_run in (True, False):
        report = await import_threads(MemoryStore(threads), tmp_path / "x", tenant="everthread:keys", dry_run=dry_run)
        assert report.threads == {"failed": 1}
    async with Encrypted(MemoryStore(threads), keyring) as encrypted:
        assert len(await encrypted.read(ThreadKey("a", "acme"))) == len(turn(0))


async def test_a_dry_run_of_an_import_writes_nothing(store: Store, target: Store, tmp_path: Path) -> None:
    await fill(store)
    await export_threads(store, tmp_path / "x")
    planned = await import_threads(target, tmp_path / "x", dry_run=True)
    assert await everything(target) == {}
    assert await import_threads(target, tmp_path / "x") == planned


async def test_a_changed_byte_anywhere_is_found_before_any_write(tmp_path: Path) -> None:
    path = tmp_path / "x"
    async with open_store("memory:") as store, open_store("memory:") as target:
        await store.append(ThreadKey("a"), turn(0))
        await store.put_document(ThreadKey("a"), "d", b'"x"')
        await store.append(ThreadKey("b"), turn(1))
        await export_threads(store, path)
        whole = path.read_bytes()
        for at in range(whole.index(b"\n") + 1, len(whole)):
            path.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
            with pytest.raises(CorruptRecordError):
                await import_threads(target, path)
        assert await everything(target) == {}


async def test_a_cut_off_file_is_refused_unless_it_ends_with_a_thread(tmp_path: Path) -> None:
    path = tmp_path / "x"
    async with open_store("memory:") as store:
        await store.append(ThreadKey("a"), turn(0))
        await store.append(ThreadKey("b"), turn(1))
        await export_threads(store, path)
    whole = path.read_bytes()
    second = whole.index(b'{"type":"thread"', whole.index(b'{"type":"end"'))
    ends = {whole.index(b"\n") + 1, second}
    async with open_store("memory:") as target:
        for length in set(range(whole.index(b"\n") + 1, len(whole))) - ends:
            path.write_bytes(whole[:length])
            with pytest.raises(CorruptRecordError):
                await import_threads(target, path)
        assert await everything(target) == {}
        for length in sorted(ends):
            path.write_bytes(whole[:length])
            assert (await import_threads(target, path)).is_complete
        assert set(await everything(target)) == {"a"}


async def test_a_file_of_a_newer_version_or_another_kind_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x"
    async with open_store("memory:") as target:
        path.write_text('{"type":"export","version":3,"new":true}\n')
        with pytest.raises(SchemaError, match="version 3"):
            await import_threads(target, path)
        path.write_text('{"some":"json"}\n')
        with pytest.raises(ConfigurationError, match="not an export"):
            await import_threads(target, path)
        with pytest.raises(ConfigurationError, match="Cannot read"):
            await import_threads(target, tmp_path / "nowhere")
        (tmp_path / "empty").mkdir()
        with pytest.raises(ConfigurationError, match="no exported threads"):
            await import_threads(target, tmp_path / "empty")


OLD_EXPORT = """\
{"type":"export","version":1,"selection":"x"}
{"type":"thread","thread_id":"trip","tenant":"","head_seq":0,"next_seq":2,"created_ms":1714564800000,\
"updated_ms":1714564900000,"expires_ms":null,"title":"Trip","metadata":{"n":1},"documents":{"summary":3}}
{"type":"message","seq":0,"turn":0,"created_ms":1714564800000,"format":"json","payload":{"a":1}}
{"type":"message","seq":1,"turn":0,"created_ms":1714564900000,"format":"json","payload":"é"}
{"type":"document","name":"summary","value":{"s":1}}
{"type":"end","messages":2,"documents":1,"blake2b":"DIGEST"}
"""


def old_export(text: str = OLD_EXPORT) -> str:
    """An export of version 1, whose threads have no retention of their own."""
    lines = text.splitlines(keepends=True)[1:-1]
    return text.replace("DIGEST", blake2b("".join(lines).encode(), digest_size=16).hexdigest())


async def test_an_export_of_version_1_is_read(target: Store, tmp_path: Path) -> None:
    (tmp_path / "x").write_text(old_export())
    assert (await import_threads(target, tmp_path / "x")).threads == {"new": 1}
    assert await everything(target) == {
        "trip": {
            "head_seq": 0,
            "next_seq": 2,
            "size": 11,
            "title": "Trip",
            "metadata": {"n": 1},
            "retention": None,
            "times": (1714564800000, 1714564900000, None),
            "documents": {"summary": b'{"s":1}'},
            "messages": [(0, 0, "json", 1714564800000, b'{"a":1}'), (1, 0, "json", 1714564900000, '"é"'.encode())],
        }
    }


async def test_an_expired_thread_is_not_restored(target: Store, tmp_path: Path) -> None:
    (tmp_path / "x").write_text(old_export(OLD_EXPORT.replace('"expires_ms":null', '"expires_ms":1714564900001')))
    report = await import_threads(target, tmp_path / "x")
    assert (report.threads, report.written, report.is_complete) == ({"expired": 1}, 0, True)
    assert await everything(target) == {}


async def test_an_error_in_a_handmade_file_is_typed(target: Store, tmp_path: Path) -> None:
    documents = '"documents":{"summary":3}'
    wrong = f'{documents},"retention":{{"max_messages":-1,"expire_ms":null}}'
    (tmp_path / "x").write_text(old_export(OLD_EXPORT.replace(documents, wrong)))
    report = await import_threads(target, tmp_path / "x")
    assert (report.is_complete, report.threads, report.skipped[0].place) == (False, {}, "x, line 2")
    for wrong in ('{"max_messages":null,"expire_ms":9e30}', "3"):
        (tmp_path / "x").write_text(old_export(OLD_EXPORT.replace(documents, f'{documents},"retention":{wrong}')))
        with pytest.raises(CorruptRecordError):
            await import_threads(target, tmp_path / "x")
    for created, updated in ((1714564900001, 1714564900000), (0, 5), (-9, -9), (2**62, 2**62)):
        text = OLD_EXPORT.replace('"created_ms":1714564800000,"upd', f'"created_ms":{created},"upd')
        text = text.replace('"updated_ms":1714564900000', f'"updated_ms":{updated}')
        (tmp_path / "x").write_text(old_export(text.replace("trip", f"t{created}")))
        assert (await import_threads(target, tmp_path / "x")).is_complete


@pytest.mark.parametrize("into_folder", [False, True], ids=["file", "folder"])
async def test_skipped_damaged_threads_are_reported(tmp_path: Path, into_folder: bool) -> None:
    path = tmp_path / "x"
    async with open_store("memory:") as store, open_store("memory:") as target:
        for name in ("a", "b", "c", "d"):
            await store.append(ThreadKey(name), turn(0))
        await export_threads(store, path, into_folder=into_folder)
        for name, cut in (("b", b"question"), ("c", b'"end"')):
            file = path / file_name(name, ".jsonl") if into_folder else path
            whole = file.read_bytes()
            at = whole.index(cut, whole.index(b'"thread_id":"%b"' % name.encode()))
            file.write_bytes(whole[:at] + b"!" + whole[at:])
        with pytest.raises(CorruptRecordError):
            await import_threads(target, path)
        assert await everything(target) == {}
        report = await import_threads(target, path, skip_unreadable=True)
        assert (report.threads, report.is_complete, len(report.skipped)) == ({"new": 2}, False, 2)
        assert all(", from line " in skipped.place for skipped in report.skipped)
        assert set(await everything(target)) == {"a", "d"}
        again = await import_threads(target, path, skip_unreadable=True)
        assert (again.threads, again.skipped) == ({"unchanged": 2}, report.skipped)
        if into_folder:
            (path / "0.jsonl").write_text("no export")
            assert len((await import_threads(target, path, skip_unreadable=True)).skipped) == 3


@pytest.mark.parametrize("into_folder", [False, True], ids=["file", "folder"])
@pytest.mark.parametrize("format_name", ["jsonl", "markdown", "html"])
async def test_a_dry_run_of_an_export_reports_and_writes_nothing(
    store: Store, tmp_path: Path, format_name: str, into_folder: bool
) -> None:
    await fill(store)
    path = tmp_path / "x"
    options: dict[str, Any] = {"format": format_name, "into_folder": into_folder}
    planned = await export_threads(store, path, **options, dry_run=True)
    assert not list(tmp_path.glob("x*"))
    assert await export_threads(store, path, **options) == planned
    files = list(path.iterdir()) if into_folder else [path]
    assert (planned.files, planned.size) == (len(files), sum(file.stat().st_size for file in files))
    if into_folder and format_name == "jsonl":
        await store.append(ThreadKey("plain"), turn(9))
        again = await export_threads(store, path, **options, dry_run=True)
        assert (again.files, again.threads) == (1, {"new": 1, "unchanged": 9})


async def test_an_export_that_cannot_be_written_is_an_error(store: Store, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="Cannot write"):
        await export_threads(store, tmp_path / "nowhere" / "x")
    with pytest.raises(ThreadNotFoundError):
        await export_threads(store, tmp_path / "x", names=["nobody"])
    assert not (tmp_path / "x").exists()
    with pytest.raises(ConfigurationError, match="Unknown format"):
        await export_threads(store, tmp_path / "x", format="word")  # type: ignore[arg-type]


async def test_files_of_unchanged_threads_stay(store: Store, tmp_path: Path) -> None:
    await fill(store)
    folder = tmp_path / "folder"
    await export_threads(store, folder, into_folder=True)
    before = {path: path.stat().st_mtime_ns for path in folder.iterdir()}
    await store.append(ThreadKey("plain"), turn(9))
    await store.put_document(ThreadKey("a"), "new", b"1")
    cut = folder / file_name("A", ".jsonl")
    cut.write_bytes(cut.read_bytes()[:-20])
    report = await export_threads(store, folder, into_folder=True)
    assert report.threads == {"new": 3, "unchanged": 7}
    changed = {path for path in folder.iterdir() if path.stat().st_mtime_ns != before.get(path)}
    assert changed == {folder / file_name(name, ".jsonl") for name in ("plain", "a", "A")}


@pytest.mark.parametrize("format_name", ["jsonl", "html"])
async def test_an_exported_file_is_readable_by_its_owner_alone(store: Store, tmp_path: Path, format_name: str) -> None:
    await store.append(ThreadKey("a"), turn(0))
    await export_threads(store, tmp_path / "x", format=format_name)  # type: ignore[arg-type]
    assert (tmp_path / "x").stat().st_mode & 0o077 == 0


@pytest.mark.parametrize("format_name", ["jsonl", "html"])
@pytest.mark.parametrize("into_folder", [False, True], ids=["file", "folder"])
async def test_a_planted_link_is_never_written_through(tmp_path: Path, format_name: str, into_folder: bool) -> None:
    victim = tmp_path / "victim"
    victim.write_text("precious")
    path = tmp_path / "x" / file_name("a", "." + format_name) if into_folder else tmp_path / "x"
    path.parent.mkdir(exist_ok=True)
    path.with_name(path.name + ".part").symlink_to(victim)
    path.symlink_to(victim)
    async with open_store("memory:") as store:
        await store.append(ThreadKey("a"), turn(0))
        options: dict[str, Any] = {"format": format_name, "into_folder": into_folder}
        if format_name == "jsonl" and not into_folder:
            with pytest.raises(ConfigurationError, match="is a link"):
                await export_threads(store, path, **options)
        else:
            await export_threads(store, path.parent if into_folder else path, **options)
            assert not path.is_symlink()
            assert path.stat().st_mode & 0o077 == 0
    assert victim.read_text() == "precious"


async def test_an_unfinished_file_with_a_second_name_is_not_continued(tmp_path: Path) -> None:
    (tmp_path / "victim").write_text("precious")
    (tmp_path / "x.part").hardlink_to(tmp_path / "victim")
    async with open_store("memory:") as store:
        with pytest.raises(ConfigurationError, match="not a regular file of your own"):
            await export_threads(store, tmp_path / "x")
    assert (tmp_path / "victim").read_text() == "precious"


async def test_only_a_regular_file_is_replaced(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    async with open_store("memory:") as store:
        for format_name in ("jsonl", "html"):
            with pytest.raises(ConfigurationError, match="not a regular file"):
                await export_threads(store, tmp_path / "pipe", format=format_name)  # type: ignore[arg-type]


async def test_an_unfinished_export_of_other_threads_starts_anew(store: Store, tmp_path: Path) -> None:
    await store.append(ThreadKey("secret", "acme"), turn(0))
    await store.append(ThreadKey("plain"), turn(0))
    path = tmp_path / "x"
    await export_threads(store, path, tenant="acme")
    path.rename(tmp_path / "x.part")
    await export_threads(store, path)
    assert b"secret" not in path.read_bytes()


async def test_a_message_that_is_not_json_is_exported_and_fails_on_import(tmp_path: Path) -> None:
    spoilt = Message(0, b'{"a":NaN}\xff', "json", None, 0)
    line = decoded(encoded(message_line(spoilt)), "x", MessageLine)
    assert message_of(line) == spoilt


@settings(deadline=None)
@given(payloads())
def test_payloads_come_back_byte_for_byte_and_stand_in_one_line(payload: bytes) -> None:
    message = Message(3, payload, "json", 5, 2)
    data = encoded(message_line(message))
    assert data.count(b"\n") == 1
    json.loads(data)
    assert message_of(decoded(data, "x", MessageLine)) == message


@settings(deadline=None)
@given(identifiers(), identifiers())
def test_files_of_two_threads_never_have_the_same_name(one: str, other: str) -> None:
    names = {file_name(each, ".jsonl").lower() for each in (one, other)}
    assert len(names) == len({one, other})
    assert all(len(name.encode()) <= 255 and not set(name) & set('/\\:*?"<>|\0') for name in names)


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(identifiers())
async def test_a_thread_of_any_name_comes_back(tmp_path: Path, thread_id: str) -> None:
    async with MemoryStore() as store, MemoryStore() as target:
        await store.append(ThreadKey(thread_id), [NewMessage(b"1")])
        await export_threads(store, tmp_path / "x")
        await import_threads(target, tmp_path / "x")
        assert await everything(target) == await everything(store)
