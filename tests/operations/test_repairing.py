"""Threads that are not as they should be are found, repaired in one step, and brought back."""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import pytest
from redis.asyncio import Redis

from everthread import (
    ConfigurationError,
    ConflictError,
    Message,
    NewMessage,
    Retention,
    Store,
    SupportsRewrite,
    ThreadKey,
    new_message,
    open_store,
    view,
)
from everthread.capabilities import required_capability
from everthread.contract import read_all
from everthread.listing import undo
from everthread.messages.rules.links import NO_RESULT
from everthread.model import Rewrite
from everthread.operations._planning import NOTE, plan
from everthread.operations.repair import GRACE, Outcome, StoredThread, inspect, repair
from everthread.operations.undo_repair import undo_repair
from everthread.testing import Clock
from tests.cli.driving import PROGRAM, piped
from tests.servers import Server

KEY = ThreadKey("trip", "a")
LATER = 4_000_000_000.0


def said(text: str, role: str = "user") -> NewMessage:
    return new_message({"role": role, "content": text})


def call(call_id: str, text: str = "") -> NewMessage:
    function = {"name": "look_up", "arguments": "{}"}
    return new_message({"role": "assistant", "content": text, "tool_calls": [{"id": call_id, "function": function}]})


def result(call_id: str) -> NewMessage:
    return new_message({"role": "tool", "tool_call_id": call_id, "content": "42"})


def framework(*contents: dict[str, object], role: str = "tool") -> NewMessage:
    return new_message({"type": "message", "role": role, "contents": list(contents)})


def beta_call(call_id: str) -> NewMessage:
    contents = [{"type": "function_call", "call_id": call_id, "name": "f", "arguments": "{}"}]
    return new_message({"type": "chat_message", "role": {"type": "role", "value": "assistant"}, "contents": contents})


@pytest.fixture
def store(fast_store: Store) -> Store:
    return fast_store


async def broken(store: Store, key: ThreadKey = KEY) -> None:
    await store.append(key, [said("hello"), result("lost"), said("Hi", "assistant")])
    await store.append(key, [said("now"), call("open"), call("done"), result("done")])
    await store.append(key, [said("and?")])


async def all_of(outcomes: AsyncIterator[Outcome]) -> list[Outcome]:
    return [outcome async for outcome in outcomes]


async def run_repair(store: Store, backup: Path) -> list[Outcome]:
    return await all_of(repair(store, "a", backup=backup, clock=lambda: LATER))


async def found(store: Store) -> list[tuple[str, int | None]]:
    outcomes = await all_of(inspect(store, "a", clock=lambda: LATER))
    return [(each.kind, each.seq) for outcome in outcomes for each in outcome.problems if not each.is_harmless]


def seen(messages: tuple[Message, ...]) -> list[tuple[str, list[str], list[str]]]:
    views = [view(message) for message in messages]
    return [(one.role, [c.id for c in one.calls], [r.id for r in one.results]) for one in views]


async def test_whole_threads_have_no_problems(store: Store) -> None:
    await store.append(KEY, [said("x"), call("1"), result("1"), said("y", "assistant")])
    await store.append(KEY, [call("2")])
    await store.append(KEY, [result("2"), call("3"), result("3")])
    await store.append(ThreadKey("empty", "a"), [said("x")], retention=Retention(max_messages=0))
    assert await found(store) == []


async def test_problems_are_found_and_nothing_is_changed(store: Store) -> None:
    await broken(store)
    before = (await store.read(KEY)).messages
    assert await found(store) == [("orphaned-result", 1), ("unanswered-call", 4)]
    assert (await store.read(KEY)).messages == before


async def test_a_repair_changes_nothing_but_faulty_messages(store: Store, tmp_path: Path) -> None:
    await broken(store)
    thread, before = await store.get_thread(KEY), (await store.read(KEY)).messages
    (outcome,) = await run_repair(store, tmp_path / "backup")
    assert (outcome.status, outcome.is_well) == ("repaired", True)
    after = (await store.read(KEY)).messages
    assert [(m.seq, m.turn, m.created_ms) for m in after] == [(m.seq, m.turn, m.created_ms) for m in before]
    assert [m.seq for m, former in zip(after, before, strict=True) if m.payload != former.payload] == [1, 4]
    assert seen((after[1], after[4])) == [("assistant", [], [])] * 2
    assert {view(after[at]).text for at in (1, 4)} == {NOTE}
    now = await store.get_thread(KEY)
    assert thread is not None
    assert now is not None
    assert (now.updated_ms, now.count, now.next_seq) == (thread.updated_ms, thread.count, thread.next_seq)
    assert await found(store) == []


async def test_single_turns_can_be_undone_after_a_repair(store: Store, tmp_path: Path) -> None:
    await broken(store)
    await run_repair(store, tmp_path / "backup")
    for left in (7, 3, 0):
        await undo(store, KEY)
        assert len(await store.read(KEY)) == left
        assert await found(store) == []


async def test_a_healthy_store_stays_byte_for_byte(tmp_path: Path) -> None:
    file = tmp_path / "threads.db"
    async with open_store(f"sqlite:///{file}") as store:
        await store.append(KEY, [said("x"), call("1"), result("1"), said("y", "assistant")])
    before = file.read_bytes()
    async with open_store(f"sqlite:///{file}") as store:
        assert await run_repair(store, tmp_path / "backup") == []
    assert file.read_bytes() == before
    assert not (tmp_path / "backup").exists()


@pytest.mark.parametrize("payload", [b'"hello"', b"[1]", b"{}", b"null"])
async def test_json_of_an_application_is_no_problem(payload: bytes, store: Store, tmp_path: Path) -> None:
    await store.append(KEY, [said("hello"), NewMessage(payload), NewMessage(payload, "mine"), result("lost")])
    assert [kind for kind, _ in await found(store)] == ["orphaned-result"]
    await run_repair(store, tmp_path / "backup")
    assert [message.payload for message in await store.read(KEY)][1:3] == [payload, payload]


async def test_a_result_moves_to_its_call_past_a_removed_one(store: Store, tmp_path: Path) -> None:
    await store.append(KEY, [said("q"), call("1"), result("lost"), result("1"), said("a", "assistant")])
    before = [message.payload for message in await store.read(KEY)]
    await run_repair(store, tmp_path / "backup")
    after = (await store.read(KEY)).messages
    assert seen(after)[1:3] == [("assistant", ["1"], []), ("tool", [], ["1"])]
    assert await found(store) == []
    await all_of(undo_repair(store, tmp_path / "backup"))
    assert [message.payload for message in await store.read(KEY)] == before


async def test_a_missing_result_joins_those_of_its_message(store: Store, tmp_path: Path) -> None:
    calls = [{"type": "function_call", "call_id": each, "name": "f", "arguments": "{}"} for each in ("1", "2")]
    answer = {"type": "function_result", "call_id": "1", "result": "x"}
    await store.append(KEY, [framework(*calls, role="assistant"), framework(answer), said("next")])
    await run_repair(store, tmp_path / "backup")
    after = (await store.read(KEY)).messages
    assert seen(after)[:2] == [("assistant", ["1", "2"], []), ("tool", [], ["1", "2"])]
    assert view(after[1]).results[1].text == NO_RESULT


async def test_a_concurrent_change_is_never_overwritten(store: Store, tmp_path: Path) -> None:
    await broken(store)
    read = [message async for message in read_all(store, KEY)]
    thread = await store.get_thread(KEY)
    assert thread
    target = StoredThread(store, thread, read)
    _, changes = plan(target)
    other = said("changed by another program").payload
    await required_capability(store, SupportsRewrite).rewrite(KEY, [Rewrite(4, read[4].payload, other)])
    await store.append(KEY, [said("more")])
    with pytest.raises(ConflictError):
        await target.apply(changes)
    after = [message.payload for message in await store.read(KEY)]
    assert (after[4], after[-1], len(after)) == (other, said("more").payload, len(read) + 1)


async def test_undoing_brings_the_thread_back_and_may_be_repeated(store: Store, tmp_path: Path) -> None:
    await broken(store)
    before = (await store.read(KEY)).messages
    await run_repair(store, tmp_path / "backup")
    for _ in range(2):
        (outcome,) = await all_of(undo_repair(store, tmp_path / "backup"))
        assert outcome.status == "undone"
    after = (await store.read(KEY)).messages
    assert [(m.payload, m.format, m.created_ms) for m in after] == [(m.payload, m.format, m.created_ms) for m in before]


async def test_undoing_brings_orphaned_results_at_the_head_back(store: Store, tmp_path: Path) -> None:
    await store.append(KEY, [result("a"), result("b"), said("hi"), result("c"), said("yo"), result("d"), call("d")])
    before = [message.payload for message in await store.read(KEY)]
    await run_repair(store, tmp_path / "backup")
    assert await found(store) == []
    for _ in range(2):
        (outcome,) = await all_of(undo_repair(store, tmp_path / "backup"))
        assert outcome.status == "undone"
        assert [message.payload for message in await store.read(KEY)] == before


async def test_an_undo_keeps_messages_appended_since(store: Store, tmp_path: Path) -> None:
    await broken(store)
    before = [message.payload for message in await store.read(KEY)]
    await run_repair(store, tmp_path / "backup")
    await store.append(KEY, [said("later")])
    (outcome,) = await all_of(undo_repair(store, tmp_path / "backup"))
    assert outcome.status == "undone"
    assert [message.payload for message in await store.read(KEY)] == [*before, said("later").payload]


async def test_an_undo_leaves_a_message_changed_since(store: Store, tmp_path: Path) -> None:
    await broken(store)
    await run_repair(store, tmp_path / "backup")
    await store.truncate(KEY, stop=3)
    before = (await store.read(KEY)).messages
    (outcome,) = await all_of(undo_repair(store, tmp_path / "backup"))
    assert outcome.status == "failed"
    assert (await store.read(KEY)).messages == before


async def test_the_backup_is_for_its_owner_alone(store: Store, tmp_path: Path) -> None:
    await broken(store)
    await run_repair(store, tmp_path / "backup")
    assert (tmp_path / "backup").stat().st_mode & 0o777 == 0o600
    (tmp_path / "other").write_text("{}\n")
    with pytest.raises(ConfigurationError):
        await all_of(undo_repair(store, tmp_path / "other"))


async def test_changes_too_large_for_an_undo_are_not_made(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("everthread.operations._backup.MAX_LINE", 200)
    await broken(store)
    before = (await store.read(KEY)).messages
    (outcome,) = await run_repair(store, tmp_path / "backup")
    assert (outcome.status, "200" in outcome.reason) == ("failed", True)
    assert (await store.read(KEY)).messages == before
    assert not (tmp_path / "backup").exists()


async def test_only_the_orphaned_result_is_removed_from_a_message(store: Store, tmp_path: Path) -> None:
    kept = {"type": "text", "text": "beside it"}
    lost = {"type": "function_result", "call_id": "lost", "result": "x"}
    await store.append(KEY, [framework(kept, lost), beta_call("open"), said("and?")])
    await run_repair(store, tmp_path / "backup")
    messages = (await store.read(KEY)).messages
    assert view(messages[0]).text == "beside it"
    assert (view(messages[1]).text, view(messages[1]).role) == (NOTE, "assistant")
    assert b'"chat_message"' in messages[1].payload


async def test_a_call_that_is_still_waiting_is_left_alone(tmp_path: Path) -> None:
    clock = Clock()
    async with open_store("memory:", clock=clock) as store:
        await store.append(KEY, [said("x"), call("open")])
        assert await all_of(inspect(store, "a", clock=clock)) == []
        clock.advance(GRACE.total_seconds() + 1)
        (outcome,) = await all_of(inspect(store, "a", clock=clock))
        assert [problem.kind for problem in outcome.problems] == ["unanswered-call"]


async def test_an_approval_may_wait_for_as_long_as_it_likes(store: Store) -> None:
    asked = {"type": "function_call", "call_id": "1", "name": "f", "arguments": "{}"}
    await store.append(
        KEY, [framework({"type": "function_approval_request", "id": "r", "function_call": asked}, role="assistant")]
    )
    await store.append(KEY, [said("something else")])
    assert await found(store) == []


async def test_records_that_are_not_json_stay_in_the_backup(
    plain_redis_server: Server, fresh_prefix: str, tmp_path: Path
) -> None:
    port = plain_redis_server.port
    async with Redis(port=port) as client, open_store(f"redis://127.0.0.1:{port}?prefix={fresh_prefix}") as store:
        key = ThreadKey("trip")
        await store.append(key, [said("one"), said("two"), said("three")])
        await client.lset(f"{fresh_prefix}:trip", 1, b"\xff not JSON")
        (outcome,) = await all_of(repair(store, backup=tmp_path / "backup"))
        assert ("undecodable", 1) in [(problem.kind, problem.seq) for problem in outcome.problems]
        assert [view(message).text for message in await store.read(key)] == ["one", NOTE, "three"]
        (outcome,) = await all_of(undo_repair(store, tmp_path / "backup"))
        assert (outcome.status, outcome.reason[:1]) == ("partial", "1")


async def test_a_thread_that_expires_still_does_after_it_was_repaired(tmp_path: Path) -> None:
    clock = Clock()
    async with open_store("memory:", clock=clock) as store:
        await store.append(KEY, [result("lost"), said("x")], retention=Retention(expire_after=timedelta(hours=2)))
        await all_of(repair(store, "a", backup=tmp_path / "backup", clock=clock))
        clock.advance(7100)
        assert await store.get_thread(KEY) is not None
        clock.advance(200)
        assert await store.get_thread(KEY) is None


async def test_other_tenants_are_left_alone(store: Store, tmp_path: Path) -> None:
    await broken(store, ThreadKey("trip", "b"))
    assert await run_repair(store, tmp_path / "backup") == []
    assert not (tmp_path / "backup").exists()


async def inspect_faulty(store: Store) -> AsyncIterator[Outcome]:
    async for outcome in inspect(store, "a", clock=lambda: LATER):
        if not outcome.is_well:
            yield outcome


def _repair_until_killed(url: str, backup: Path) -> None:
    import asyncio

    async def work() -> None:
        async with open_store(url) as store:
            async for _ in repair(store, "a", backup=backup, clock=lambda: LATER):
                pass

    asyncio.run(work())


@pytest.mark.parametrize("repaired", [0, 1, 7])
async def test_a_killed_repair_run_again_equals_a_clean_one(repaired: int, tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/threads.db"
    keys = [ThreadKey(str(number), "a") for number in range(30)]
    async with open_store(url) as store:
        for key in keys:
            await broken(store, key)
    context = multiprocessing.get_context("spawn")
    process = context.Process(target=_repair_until_killed, args=(url, tmp_path / "one"))
    process.start()
    async with open_store(url) as store:
        # Killed as soon as so many are repaired, wherever it is by then.
        while process.is_alive() and 30 - len(await all_of(inspect_faulty(store))) < repaired:
            pass
        os.kill(process.pid or 0, signal.SIGKILL)
        process.join()
        await run_repair(store, tmp_path / "two")
        assert await found(store) == []
        for backup in (tmp_path / "one", tmp_path / "two"):
            if backup.exists():
                assert {outcome.status async for outcome in undo_repair(store, backup)} <= {"undone"}
        assert len(await found(store)) == 60


async def test_the_command_plans_repairs_and_undoes(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/threads.db"
    async with open_store(url) as store:
        await broken(store, ThreadKey("trip"))
    doctor = (PROGRAM, "doctor", "--store", url)
    backup = str(tmp_path / "backup")
    dry = piped("", "--repair", "--dry-run", home=tmp_path, program=doctor)
    assert dry.returncode == 1
    assert [line.split("\t")[:4] for line in dry.stdout.splitlines()] == [
        ["found", "trip", "1", "orphaned-result"],
        ["found", "trip", "4", "unanswered-call"],
        ["found", "trip", "6", "half-turn"],
    ]
    refused = piped("", "--repair", "--backup", backup, home=tmp_path, program=doctor)
    assert refused.returncode == 2, "nobody can be asked"
    done = piped("", "--repair", "--backup", backup, "--yes", home=tmp_path, program=doctor)
    assert (done.returncode, "--undo" in done.stderr) == (0, True), done.stderr
    assert piped("", "--repair", "--dry-run", home=tmp_path, program=doctor).returncode == 0
    back = piped("", "--undo", backup, "--yes", home=tmp_path, program=doctor)
    assert back.returncode == 0, back.stderr
    assert piped("", "--repair", "--dry-run", home=tmp_path, program=doctor).returncode == 1
