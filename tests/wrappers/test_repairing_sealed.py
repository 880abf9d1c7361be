"""An encrypted store is repaired with its keys; without them nothing in it is touched, and that is said."""

from __future__ import annotations

import base64
import json
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest

from everthread import Store, ThreadKey
from everthread.engines.memory import MemoryStore, Threads
from everthread.engines.sqlite import SqliteStore
from everthread.operations.doctor import examine
from everthread.operations.repair import Outcome, inspect, repair
from everthread.operations.undo_repair import undo_repair
from everthread.testing import FaultyStore
from everthread.wrappers.encryption.encrypted import Encrypted, Keyring
from everthread.wrappers.encryption.master_keys import keys_from_file, new_master_key
from tests.cli.driving import PROGRAM, piped
from tests.operations.test_repairing import LATER, all_of, broken, call, result, said
from tests.wrappers.sealed_places import KEYRING

KEY, WHOLE = ThreadKey("trip", "a"), ThreadKey("whole", "a")


@pytest.fixture
def threads() -> Threads:
    return {}


@pytest.fixture
async def store(threads: Threads) -> AsyncIterator[Store]:
    async with Encrypted(MemoryStore(threads), KEYRING) as store:
        await store.append(
            WHOLE, [said("hello"), call("c"), result("c"), said("42", "assistant")], default_title="a title"
        )
        await broken(store, KEY)
        yield store


async def content(store: Store, key: ThreadKey = KEY) -> list[tuple[bytes, str, int | None]]:
    return [(message.payload, message.format, message.created_ms) for message in await store.read(key)]


def _payloads(backup: Path) -> list[bytes]:
    changes = [change for line in backup.read_text().splitlines() for change in json.loads(line)["changes"]]
    return [base64.b64decode(change[name]) for change in changes for name in ("old", "new")]


async def run_repair(store: Store, backup: Path) -> list[Outcome]:
    return await all_of(repair(store, "a", backup=backup, clock=lambda: LATER))


async def test_with_the_keys_only_what_is_wrong_is_found(store: Store) -> None:
    (outcome,) = await all_of(inspect(store, "a", clock=lambda: LATER))
    assert outcome.key == KEY
    assert [each.kind for each in outcome.problems] == ["orphaned-result", "unanswered-call", "half-turn"]


async def test_a_repair_and_its_backup_tell_nothing_and_it_is_taken_back(
    store: Store, threads: Threads, tmp_path: Path
) -> None:
    before, whole, backup = await content(store), await content(store, WHOLE), tmp_path / "backup"
    (outcome,) = await run_repair(store, backup)
    assert outcome.status == "repaired"
    assert all([outcome.is_well async for outcome in inspect(store, "a", clock=lambda: LATER)])
    stored = [message.payload for log in threads.values() for message in log.messages]
    for payload in (*_payloads(backup), *stored):
        assert payload.startswith(b'{"everthread-sealed":')
    for _ in range(2):
        (outcome,) = await all_of(undo_repair(store, backup))
        assert outcome.status == "undone"
    assert await content(store) == before
    assert await content(store, WHOLE) == whole


async def test_the_backup_is_sealed_through_other_wrappers_and_views_too(store: Store, tmp_path: Path) -> None:
    for number, around in enumerate((FaultyStore(store, []), store.tenant("a"))):
        assert [outcome.status for outcome in await run_repair(around, tmp_path / str(number))] == ["repaired"]
        assert b"hello" not in b"".join(_payloads(tmp_path / str(number)))
        assert [outcome.status for outcome in await all_of(undo_repair(around, tmp_path / str(number)))] == ["undone"]


async def test_without_the_keys_nothing_sealed_is_touched(store: Store, threads: Threads, tmp_path: Path) -> None:
    bare = MemoryStore(threads)
    # As while a store is being encrypted: the call is sealed and its result is not.
    await bare.append(KEY, [result("open")])
    before = [await content(bare, key) for key in (KEY, WHOLE)]
    outcomes = await run_repair(bare, tmp_path / "backup")
    assert {(outcome.key, outcome.status) for outcome in outcomes} == {(KEY, "sealed"), (WHOLE, "sealed")}
    assert [await content(bare, key) for key in (KEY, WHOLE)] == before
    assert not (tmp_path / "backup").exists()


async def test_without_the_keys_counts_are_looked_at_all_the_same(store: Store, threads: Threads) -> None:
    class Miscounts(MemoryStore):
        async def list_threads(self, tenant="", **options):
            page = await super().list_threads(tenant, **options)
            return msgspec.structs.replace(page, items=tuple(msgspec.structs.replace(t, count=99) for t in page))

        async def get_thread(self, key):
            thread = await super().get_thread(key)
            return None if thread is None else msgspec.structs.replace(thread, count=99)

    for around in (Miscounts(threads), Encrypted(Miscounts(threads), KEYRING)):
        outcomes = await all_of(inspect(around, "a", clock=lambda: LATER))
        assert [outcome.problems[0].kind for outcome in outcomes] == ["count", "count"]


async def test_a_record_that_does_not_open_is_told_and_never_taken_out(
    store: Store, threads: Threads, tmp_path: Path
) -> None:
    messages = threads[WHOLE].messages
    messages[1] = msgspec.structs.replace(messages[1], payload=messages[0].payload[:-5] + b'xx"}')
    before = [message.payload for message in messages]
    outcomes = {outcome.key: outcome for outcome in await run_repair(store, tmp_path / "backup")}
    assert (outcomes[WHOLE].status, outcomes[KEY].status) == ("failed", "repaired")
    assert "position 1" in outcomes[WHOLE].reason
    assert [message.payload for message in threads[WHOLE].messages] == before


async def test_an_encrypted_backup_is_not_restored_without_its_keys(
    store: Store, threads: Threads, tmp_path: Path
) -> None:
    await run_repair(store, tmp_path / "backup")
    before = await content(store)
    strangers = Encrypted(MemoryStore(threads), Keyring(lambda key_id: new_master_key("m1")))
    for wrong in (MemoryStore(threads), strangers):
        (outcome,) = await all_of(undo_repair(wrong, tmp_path / "backup"))
        assert outcome.status == "failed"
    assert await content(store) == before


async def test_the_doctor_says_whether_the_keys_are_at_hand(threads: Threads) -> None:
    def lost(key_id: str | None) -> None: ...

    facts = {fact.name: fact async for fact in examine(Encrypted(MemoryStore(threads), KEYRING))}
    assert (facts["keys"].status, "m1" in facts["keys"].value) == ("ok", True)
    assert facts["writing"].status != "error"
    facts = {fact.name: fact async for fact in examine(MemoryStore(threads))}
    assert facts["content"].value == "encrypted, and opened without its keys"
    assert "content" not in {fact.name async for fact in examine(MemoryStore())}
    facts = {fact.name: fact async for fact in examine(Encrypted(MemoryStore(), Keyring(lost)))}
    assert (facts["keys"].status, facts["writing"].status) == ("error", "error")
    assert facts["reading"].status != "error"


async def test_the_command_needs_the_keys_and_says_so(tmp_path: Path) -> None:
    path, keys, backup = tmp_path / "t.db", tmp_path / "keys", str(tmp_path / "backup")
    keys.write_text(new_master_key("2026").to_line() + "\n")
    keys.chmod(0o600)
    async with Encrypted(SqliteStore(path), Keyring(keys_from_file(keys))) as store:
        await broken(store, ThreadKey("trip"))
        before = await content(store, ThreadKey("trip"))
    doctor, keyring = (PROGRAM, "doctor", "--store", f"sqlite:///{path}"), {"EVERTHREAD_KEYRING": f"file:{keys}"}

    assert "opened without its keys" in piped("", home=tmp_path, program=doctor).stdout
    assert "master key '2026'" in piped("", home=tmp_path, program=doctor, **keyring).stdout
    blind = piped("", "--repair", "--yes", home=tmp_path, program=doctor)
    assert (blind.returncode, blind.stdout) == (0, ""), blind.stderr
    assert "1 encrypted threads were not examined" in blind.stderr
    assert "Nothing is wrong" not in blind.stderr
    dry = piped("", "--repair", "--dry-run", home=tmp_path, program=doctor, **keyring)
    assert [line.split("\t")[3] for line in dry.stdout.splitlines()] == [
        "orphaned-result",
        "unanswered-call",
        "half-turn",
    ]
    assert piped("", "--repair", "--yes", "--backup", backup, home=tmp_path, program=doctor, **keyring).returncode == 0
    assert _payloads(Path(backup))[0].startswith(b'{"everthread-sealed":')
    assert piped("", "--undo", backup, "--yes", home=tmp_path, program=doctor).returncode == 1
    assert piped("", "--undo", backup, "--yes", home=tmp_path, program=doctor, **keyring).returncode == 0
    async with Encrypted(SqliteStore(path), Keyring(keys_from_file(keys))) as store:
        assert await content(store, ThreadKey("trip")) == before
