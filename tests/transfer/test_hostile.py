"""Sources that somebody made to do harm, or that were damaged: bounded, reported, and no harm to the other threads."""

from __future__ import annotations

import gzip
import json
import os
import sqlite3
import time
from contextlib import closing
from hashlib import blake2b
from pathlib import Path
from typing import Any

import pytest

from everthread import ConfigurationError, EverthreadError, Store, ThreadKey, new_message, open_store
from everthread._validation import MAX_TURN_MESSAGES
from everthread.capabilities import MAX_RESTORED_SEQ
from everthread.engines.memory import MemoryStore
from everthread.transfer import Report, import_threads
from everthread.transfer.foreign import _sqlite, foreign_source
from tests.transfer.conversations import everything

HELLO = '{"type":"message","role":"user","contents":[{"type":"text","text":"hello"}]}'
YEAR_10000 = 253_402_300_800_000


def thread(name: str, **changes: Any) -> str:
    """The lines of a thread with one message, with some fields changed."""
    head = {"type": "thread", "thread_id": name, "tenant": "", "head_seq": 0, "next_seq": 1, "created_ms": 5}
    head |= {"updated_ms": 6, "expires_ms": None, "title": "t", "metadata": {}, "documents": {}, "retention": None}
    line: dict[str, Any] = {"type": "message", "seq": 0, "turn": 0, "created_ms": 5, "format": "json", "payload": {}}
    head |= {field: value for field, value in changes.items() if field in head}
    line |= {field.removeprefix("m_"): value for field, value in changes.items() if field.startswith("m_")}
    return thread_of(head, line)


def thread_of(head: dict[str, Any], *messages: dict[str, Any]) -> str:
    lines = "".join(json.dumps(each, separators=(",", ":")) + "\n" for each in (head, *messages))
    digest = blake2b(lines.encode(), digest_size=16).hexdigest()
    return f'{lines}{{"type":"end","messages":{len(messages)},"documents":0,"blake2b":"{digest}"}}\n'


def export(*threads: str) -> str:
    return '{"type":"export","version":2}\n' + "".join(threads)


async def imported(path: Path, kind: str | None = None, **options: Any) -> tuple[Report, set[str]]:
    """What became of an import into an empty store, and the threads that are there then."""
    async with open_store("memory:") as store:
        report = await import_threads(store, path if kind is None else foreign_source(kind, str(path)), **options)
        return report, await names(store)


async def names(store: Store) -> set[str]:
    return set(await everything(store))


BAD_THREADS: dict[str, dict[str, Any]] = {
    "a position far away": {"m_seq": 10**15, "next_seq": 10**15 + 1},
    "a position beyond all": {"m_seq": 2**63, "next_seq": 2**63 + 1},
    "an end far away": {"next_seq": 10**15},
    "a negative end": {"next_seq": -5},
    "a negative position": {"m_seq": -1},
    "a position beyond the end": {"m_seq": 3},
    "a turn behind the position": {"m_turn": 3},
    "a message of the year 10000": {"m_created_ms": YEAR_10000},
    "a message before all years": {"m_created_ms": -(2**60)},
    "an id that is too long": {"thread_id": "x" * 600},
    "no id": {"thread_id": ""},
    "a retention of less than nothing": {"retention": {"max_messages": -1, "expire_ms": None}},
    "a title that is too long": {"title": "x" * 1001},
    "metadata that are too large": {"metadata": {"a": "x" * 65536}},
}


@pytest.mark.parametrize("changes", BAD_THREADS.values(), ids=BAD_THREADS.keys())
async def test_an_impossible_thread_stops_no_other(changes: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    path.write_text(export(thread("bad", **changes), thread("good")))
    report, there = await imported(path)
    assert not report.is_complete
    assert "good" in there
    told = [problem.reason for problem in report.problems] + [each.place for each in report.skipped]
    assert len(told) == 1
    assert "x.jsonl, line " in told[0]
    planned, _ = await imported(path, dry_run=True)
    assert planned == report


@pytest.mark.parametrize("dry_run", [True, False])
async def test_a_turn_that_no_store_takes_counts_no_message(tmp_path: Path, *, dry_run: bool) -> None:
    head, message = map(json.loads, thread("long", next_seq=MAX_TURN_MESSAGES + 1).splitlines()[:2])
    path = tmp_path / "x.jsonl"
    path.write_text(export(thread_of(head, *(message | {"seq": seq} for seq in range(MAX_TURN_MESSAGES + 1)))))
    report, there = await imported(path, dry_run=dry_run)
    assert (report.threads, report.written, there) == ({"failed": 1}, 0, set())


async def test_an_empty_thread_is_imported_as_a_dry_run_says(target: Store, tmp_path: Path) -> None:
    head = json.loads(thread("bare", next_seq=0, metadata={"a": 1}).splitlines()[0])
    path = tmp_path / "x.jsonl"
    path.write_text(export(thread_of(head)))
    assert (await import_threads(target, path, dry_run=True)).threads == {"new": 1}
    assert (await import_threads(target, path)).threads == {"new": 1}
    (found,) = (await everything(target)).values()
    assert (found["title"], found["metadata"], found["documents"], found["next_seq"]) == ("t", {"a": 1}, {}, 0)


@pytest.mark.parametrize("dry_run", [True, False])
async def test_a_message_above_the_targets_limit_fails_its_thread(tmp_path: Path, *, dry_run: bool) -> None:
    path = tmp_path / "x.jsonl"
    path.write_text(export(thread("large", m_payload="x" * 200), thread("small")))
    report = await import_threads(MemoryStore(max_message_bytes=100), path, dry_run=dry_run)
    assert report.threads == {"failed": 1, "new": 1}
    assert report.written == 1


async def test_a_report_gives_each_place_once(tmp_path: Path) -> None:
    path = tmp_path / "h.jsonl"
    path.write_text(export(thread("a", next_seq=-5), thread("b", m_seq=3), "{}\n", thread("c")))
    report, there = await imported(path, skip_unreadable=True)
    told = [f"{each.place}: {each.reason}" for each in report.skipped] + [each.reason for each in report.problems]
    assert [text.count("h.jsonl") for text in told] == [1, 1, 1]
    assert there == {"c"}


@pytest.mark.parametrize("expires_ms", [YEAR_10000, 2**62], ids=["year 10000", "later"])
async def test_a_thread_that_expires_after_all_years_is_kept(expires_ms: int, tmp_path: Path) -> None:
    (tmp_path / "x").write_text(export(thread("a", expires_ms=expires_ms, created_ms=2**62, updated_ms=2**62)))
    report, there = await imported(tmp_path / "x")
    assert (report.is_complete, there) == (True, {"a"})


@pytest.mark.parametrize("updated_ms", [6, int(time.time() * 1000)], ids=["long ago", "now"])
async def test_a_thread_past_its_own_retention_is_expired(updated_ms: int, tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    retention = {"max_messages": None, "expire_ms": 1}
    path.write_text(export(thread("gone", retention=retention, updated_ms=updated_ms), thread("good")))
    report, there = await imported(path)
    assert (report.threads, there) == ({"expired": 1, "new": 1}, {"good"})


@pytest.mark.parametrize("of", ["metadata", "payload"])
async def test_deeply_nested_json_is_a_typed_error(of: str, tmp_path: Path) -> None:
    deep = '{"a":' * 20_000 + "1" + "}" * 20_000
    (tmp_path / "x").write_text(export(thread("a").replace(f'"{of}":{{}}', f'"{of}":{deep}'), thread("b")))
    with pytest.raises(EverthreadError, match=r"^x[:,]"):
        await imported(tmp_path / "x")
    report, there = await imported(tmp_path / "x", skip_unreadable=True)
    assert (report.is_complete, there) == (False, {"b"})


async def test_a_byte_order_mark_and_windows_line_ends_are_accepted(tmp_path: Path) -> None:
    text = export(thread("a"), thread("b"))
    (tmp_path / "x").write_bytes(b"\xef\xbb\xbf" + text.replace("\n", "\r\n").encode())
    report, there = await imported(tmp_path / "x")
    assert (report.is_complete, there) == (True, {"a", "b"})
    (tmp_path / "s.jsonl").write_bytes(b"\xef\xbb\xbf" + f"{HELLO}\r\n{HELLO}\r\n".encode())
    report, _ = await imported(tmp_path / "s.jsonl", "agent-framework-files")
    assert (report.is_complete, report.written) == (True, 2)


async def test_anything_but_a_regular_file_is_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.jsonl")
    (tmp_path / "loop.jsonl").symlink_to("loop.jsonl")
    for name in ("pipe.jsonl", "loop.jsonl", "nowhere"):
        for kind in (None, "openai-agents"):
            with pytest.raises(ConfigurationError, match=name):
                await imported(tmp_path / name, kind)
    with pytest.raises(ConfigurationError, match="not a regular file"):
        await imported(Path("/dev/zero"))
    (tmp_path / "good.jsonl").write_text(HELLO)
    report, there = await imported(tmp_path, "agent-framework-files")
    assert there == {"good"}
    assert {each.place for each in report.skipped} == {"pipe.jsonl", "loop.jsonl"}


async def test_a_compressed_export_says_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "x.gz").write_bytes(gzip.compress(export(thread("a")).encode()))
    with pytest.raises(ConfigurationError, match="Decompress it first"):
        await imported(tmp_path / "x.gz")


# SQLite

COLUMNS = "(id INTEGER PRIMARY KEY, session_id TEXT, message_data TEXT, created_at TEXT)"
SESSIONS = "CREATE TABLE agent_sessions (session_id TEXT PRIMARY KEY, created_at TEXT, updated_at TEXT)"
ENDLESS = (
    "WITH RECURSIVE n(id) AS (SELECT 1 UNION ALL SELECT id + 1 FROM n) "
    "SELECT id, 's' AS session_id, zeroblob(1000000) AS message_data, '' AS created_at FROM n"
)
HOSTILE = {
    "a view": [SESSIONS, f"CREATE VIEW agent_messages AS {ENDLESS}"],
    "two views": [
        "CREATE VIEW agent_sessions AS SELECT 's' AS session_id, '' AS created_at, '' AS updated_at",
        f"CREATE VIEW agent_messages AS {ENDLESS}",
    ],
    "a virtual table": [
        SESSIONS,
        "CREATE VIRTUAL TABLE agent_messages USING fts5(session_id, message_data, created_at)",
    ],
    "a generated column": [
        SESSIONS,
        "CREATE TABLE agent_messages (id INTEGER PRIMARY KEY, session_id TEXT, created_at TEXT, "
        "message_data AS (zeroblob(900000000)))",
    ],
    "no such tables": ["CREATE TABLE other (x)"],
}


def database(path: Path, *statements: str) -> None:
    with closing(sqlite3.connect(path)) as opened, opened:
        for statement in statements:
            opened.execute(statement)


@pytest.mark.parametrize("statements", HOSTILE.values(), ids=HOSTILE.keys())
async def test_only_plain_tables_of_a_sqlite_file_are_read(statements: list[str], tmp_path: Path) -> None:
    database(tmp_path / "x.db", *statements)
    with pytest.raises(ConfigurationError, match=r"x\.db"):
        await imported(tmp_path / "x.db", "openai-agents")


async def test_an_impossible_session_stops_no_other(tmp_path: Path) -> None:
    ids = ["'good'", f"'{'x' * 600}'", "''", "CAST(X'ff' AS TEXT)", "NULL"]
    rows = ", ".join(f"({each}, '10000-01-01 00:00:00', '-4713-01-01')" for each in ids)
    database(
        tmp_path / "x.db",
        SESSIONS,
        f"CREATE TABLE agent_messages {COLUMNS}",
        f"INSERT INTO agent_sessions VALUES {rows}",
        f"INSERT INTO agent_messages VALUES (1, 'good', '{HELLO}', '10000-01-01'), (7, 'good', '{HELLO}', 9e99)",
    )
    report, there = await imported(tmp_path / "x.db")
    assert (report.written, there) == (2, {"good"})
    assert [each.place.startswith("x.db, agent_sessions, row ") for each in report.skipped] == [True] * 4


@pytest.mark.parametrize("text", [b"agent_messages (id", b"TABLE agent_sessions"])
async def test_a_sqlite_file_with_a_damaged_schema_is_reported(text: bytes, tmp_path: Path) -> None:
    path = tmp_path / "x.db"
    database(path, SESSIONS, f"CREATE TABLE agent_messages {COLUMNS}")
    data = path.read_bytes()
    at = data.rindex(text) + 3
    path.write_bytes(data[:at] + b"\x97" + data[at + 1 :])
    with pytest.raises(ConfigurationError, match=r"x\.db: the database is damaged"):
        await imported(path, "openai-agents")


async def test_every_row_of_a_sqlite_file_is_imported_or_named(tmp_path: Path) -> None:
    numbers = [-(2**63), -(2**63) + 1, -5, 0, 2**63 - 1]
    for columns in (COLUMNS, COLUMNS.replace(" PRIMARY KEY", "")):
        path = tmp_path / f"{len(columns)}.db"
        rows = ", ".join(f"({number}, 's', '{HELLO}', '')" for number in numbers)
        database(
            path, SESSIONS, f"CREATE TABLE agent_messages {columns}", "INSERT INTO agent_sessions VALUES ('s', '', '')"
        )
        database(path, f"INSERT INTO agent_messages VALUES {rows}")
        report, _ = await imported(path)
        assert (report.written, report.is_complete) == (5, True)
    database(path, f"INSERT INTO agent_messages VALUES (NULL, 's', '{HELLO}', ''), (-1e300, 's', '{HELLO}', '')")
    report, _ = await imported(path)
    assert report.written == 5
    assert report.skipped[0].reason.startswith("2 rows")


async def test_a_sqlite_file_that_takes_too_many_steps_is_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_sqlite, "STEPS", 300_000)
    monkeypatch.setattr(_sqlite, "STEPS_A_BYTE", 0)
    # Without an index, each of many sessions reads all rows.
    numbers = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 400) "
    database(
        tmp_path / "x.db",
        SESSIONS,
        f"CREATE TABLE agent_messages {COLUMNS}",
        f"INSERT INTO agent_sessions {numbers} SELECT 's' || i, '', '' FROM n",
        f"INSERT INTO agent_messages {numbers} SELECT i, 'none', '', '' FROM n",
    )
    report, _ = await imported(tmp_path / "x.db")
    assert report.threads["failed"] > 0
    assert "more steps than its size allows" in report.problems[-1].reason


async def test_a_store_is_no_export(tmp_path: Path) -> None:
    path = tmp_path / "threads.db"
    async with open_store(f"sqlite:///{path}") as store:
        await store.append(ThreadKey("trip"), [new_message({"role": "user", "content": "hello"})])
    async with open_store("memory:") as target:
        with pytest.raises(ConfigurationError, match=r"is a store.*everthread copy"):
            await import_threads(target, path)


# Saved threads

STATE = f'{{"service_thread_id":null,"chat_message_store_state":{{"messages":[{HELLO},{HELLO}]}}}}'


@pytest.mark.parametrize(
    "text", [STATE, "\ufeff" + STATE, json.dumps(json.loads(STATE), indent=2), f'{{"messages":[{HELLO},{HELLO}]}}']
)
async def test_saved_threads_of_the_betas_are_recognized(text: str, tmp_path: Path) -> None:
    (tmp_path / "trip.json").write_text(text)
    for path in (tmp_path / "trip.json", tmp_path):
        async with open_store("memory:") as store:
            assert (await import_threads(store, path)).is_complete
            found = await store.read(ThreadKey("trip"))
            assert [json.loads(message.payload) for message in found] == [json.loads(HELLO)] * 2
            assert not any(b"\n" in message.payload for message in found)


@pytest.mark.parametrize(
    "text",
    [
        '{"service_thread_id":"thread_1","chat_message_store_state":null}',
        '{"service_thread_id":null,"chat_message_store_state":{"messages":[]}}',
        '{"chat_message_store_state":{"messages":{"a":1}}}',
        '{"messages":[' + '{"a":' * 5000 + "1" + "}" * 5000 + "]}",
        '{"some":"json"}',
        "[1]",
        "{",
        "\xff",
    ],
)
async def test_a_file_without_a_saved_thread_stops_no_other(text: str, tmp_path: Path) -> None:
    (tmp_path / "bad.json").write_bytes(text.encode("latin-1"))
    (tmp_path / "good.json").write_text(STATE)
    report, there = await imported(tmp_path)
    assert (report.is_complete, there) == (False, {"good"})
    assert report.skipped[0].place == "bad.json"
    with pytest.raises(ConfigurationError):
        await imported(tmp_path / "bad.json")


def apart(count: int, step: int) -> str:
    """The lines of a thread of messages that are so far apart."""
    head = json.loads(thread("apart").partition("\n")[0]) | {"next_seq": count * step}
    line = {"type": "message", "turn": 0, "created_ms": 1, "format": "f", "payload": {}}
    each = [head, *(line | {"seq": number * step} for number in range(count))]
    lines = "".join(json.dumps(one, separators=(",", ":")) + "\n" for one in each)
    digest = blake2b(lines.encode(), digest_size=16).hexdigest()
    return f'{lines}{{"type":"end","messages":{count},"documents":0,"blake2b":"{digest}"}}\n'


class Counting(MemoryStore):
    """Counts the messages that are appended."""

    appended = 0

    async def append(self, key: ThreadKey, messages: Any, **options: Any) -> Any:
        self.appended += len(messages)
        return await super().append(key, messages, **options)


FAR_APART = {
    "within a thread": export(apart(200, 50_000)),
    "threads that begin late": export(*(thread(str(n), m_seq=49_998, next_seq=49_999) for n in range(400))),
    "threads that end late": export(*(thread(str(n), next_seq=49_999) for n in range(400))),
    "the highest position": export(thread("far", m_seq=MAX_RESTORED_SEQ, next_seq=MAX_RESTORED_SEQ + 1)),
}


@pytest.mark.parametrize("text", FAR_APART.values(), ids=FAR_APART.keys())
async def test_positions_without_messages_cost_nothing(text: str, tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    path.write_text(text)
    async with Counting() as store:
        report = await import_threads(store, path)
        assert report.is_complete
        assert store.appended == text.count('"type":"message"') == report.written
        assert (await import_threads(store, path)).threads == {"unchanged": sum(report.threads.values())}


@pytest.mark.parametrize("dry_run", [False, True])
@pytest.mark.parametrize("ends", [{"m_seq": MAX_RESTORED_SEQ + 1}, {}], ids=["message", "next position"])
async def test_a_position_beyond_the_bound_fails_its_thread(
    ends: dict[str, int], dry_run: bool, tmp_path: Path
) -> None:
    path = tmp_path / "x.jsonl"
    path.write_text(export(thread("far", next_seq=MAX_RESTORED_SEQ + 2, **ends), thread("near")))
    report, there = await imported(path, dry_run=dry_run)
    assert report.threads == {"failed": 1, "new": 1}
    assert "too high" in report.problems[0].reason
    assert ("near" in there) != dry_run
