"""Threads that are not as they should be are found, mended in one step, and brought back."""

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
    Message,
    NewMessage,
    Retention,
    Store,
    ThreadKey,
    new_message,
    open_store,
    view,
)
from everthread.repairing import GRACE, Outcome, inspect, repair, undo
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


@pytest.fixture(params=["memory", "sqlite", "redis"])
async def store(
    request: pytest.FixtureRequest, tmp_path: Path, plain_redis_server: Server, fresh_prefix: str
) -> AsyncIterator[Store]:
    urls = {
        "memory": "memory:",
        "sqlite": f"sqlite:///{tmp_path}/threads.db?synchronous=normal",
        "redis": f"redis://127.0.0.1:{plain_redis_server.port}?prefix={fresh_prefix}",
    }
    async with open_store(urls[request.param]) as store:
        yield store


async def broken(store: Store, key: ThreadKey = KEY) -> None:
    await store.append(key, [said("hello"), result("lost"), said("Hi", "assistant")])
    await store.append(key, [said("now"), call("open"), call("done"), result("done")])
    await store.append(key, [said("and?")])


async def all_of(outcomes: AsyncIterator[Outcome]) -> list[Outcome]:
    return [outcome async for outcome in outcomes]


async def mend(store: Store, backup: Path) -> list[Outcome]:
    return await all_of(repair(store, "a", backup=backup, clock=lambda: LATER))


async def found(store: Store) -> list[tuple[str, int | None]]:
    outcomes = await all_of(inspect(store, "a", clock=lambda: LATER))
    return [(problem.kind, problem.seq) for outcome in outcomes for problem in outcome.problems]


def seen(messages: tuple[Message, ...]) -> list[tuple[str, list[str], list[str]]]:
    views = [view(message) for message in messages]
    return [(one.role, [c.id for c in one.calls], [r.id for r in one.results]) for one in views]


async def test_whole_threads_have_no_problems(store: Store) -> None:
    await store.append(KEY, [said("x"), call("1"), result("1"), said("y", "assistant")])
    await store.append(KEY, [call("2"), call("3")])
    await store.append(KEY, [result("3"), result("2")])
    await store.append(ThreadKey("empty", "a"), [said("x")], retention=Retention(max_messages=0))
    assert await found(store) == []


async def test_what_is_wrong_is_found_and_nothing_is_changed(store: Store) -> None:
    await broken(store)
    before = (await store.read(KEY)).messages
    assert await found(store) == [("orphaned-result", 1), ("unanswered-call", 4)]
    assert (await store.read(KEY)).messages == before


async def test_a_mended_thread_is_valid_and_its_positions_go_on(store: Store, tmp_path: Path) -> None:
    await broken(store)
    before = await store.read(KEY)
    (outcome,) = await mend(store, tmp_path / "backup")
    assert outcome.status == "mended"
    page = await store.read(KEY)
    assert seen(page.messages) == [
        ("user", [], []),
        ("assistant", [], []),
        ("user", [], []),
        ("assistant", ["open"], []),
        ("tool", [], ["open"]),
        ("assistant", ["done"], []),
        ("tool", [], ["done"]),
        ("user", [], []),
    ]
    assert page.head_seq == before.next_seq
    assert page[0].created_ms == before[0].created_ms
    assert await found(store) == []


async def test_undoing_brings_the_thread_back_and_may_be_repeated(store: Store, tmp_path: Path) -> None:
    await broken(store)
    before = (await store.read(KEY)).messages
    await mend(store, tmp_path / "backup")
    for _ in range(2):
        (outcome,) = await all_of(undo(store, tmp_path / "backup"))
        assert outcome.status == "undone"
    after = (await store.read(KEY)).messages
    assert [(m.payload, m.format, m.created_ms) for m in after] == [(m.payload, m.format, m.created_ms) for m in before]


async def test_undoing_leaves_a_thread_that_went_on(store: Store, tmp_path: Path) -> None:
    await broken(store)
    await mend(store, tmp_path / "backup")
    await store.append(KEY, [said("later")])
    before = (await store.read(KEY)).messages
    (outcome,) = await all_of(undo(store, tmp_path / "backup"))
    assert outcome.status == "failed"
    assert (await store.read(KEY)).messages == before


async def test_the_backup_is_for_its_owner_alone(store: Store, tmp_path: Path) -> None:
    await broken(store)
    await mend(store, tmp_path / "backup")
    assert (tmp_path / "backup").stat().st_mode & 0o777 == 0o600
    (tmp_path / "other").write_text("{}\n")
    with pytest.raises(ConfigurationError):
        await all_of(undo(store, tmp_path / "other"))


async def test_only_what_is_wrong_is_taken_out_of_a_message(store: Store, tmp_path: Path) -> None:
    kept = {"type": "text", "text": "beside it"}
    lost = {"type": "function_result", "call_id": "lost", "result": "x"}
    await store.append(KEY, [framework(kept, lost), beta_call("open"), said("and?")])
    await mend(store, tmp_path / "backup")
    messages = (await store.read(KEY)).messages
    assert view(messages[0]).text == "beside it"
    assert seen(messages)[1:3] == [("assistant", ["open"], []), ("tool", [], ["open"])]
    assert messages[2].format == "agent-framework"
    assert b'"chat_message"' in messages[2].payload


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


async def test_records_that_are_not_json_are_taken_out_and_stay_in_the_backup(
    plain_redis_server: Server, fresh_prefix: str, tmp_path: Path
) -> None:
    port = plain_redis_server.port
    async with Redis(port=port) as client, open_store(f"redis://127.0.0.1:{port}?prefix={fresh_prefix}") as store:
        key = ThreadKey("trip")
        await store.append(key, [said("one"), said("two"), said("three")])
        await client.lset(f"{fresh_prefix}:trip", 1, b"\xff not JSON")
        (outcome,) = await all_of(repair(store, backup=tmp_path / "backup"))
        assert ("undecodable", 1) in [(problem.kind, problem.seq) for problem in outcome.problems]
        assert [view(message).text for message in await store.read(key)] == ["one", "three"]
        (outcome,) = await all_of(undo(store, tmp_path / "backup"))
        assert (outcome.status, outcome.reason[:1]) == ("undone", "1")


async def test_a_thread_that_expires_still_does_after_it_was_mended(tmp_path: Path) -> None:
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
    assert await mend(store, tmp_path / "backup") == []
    assert not (tmp_path / "backup").exists()


def _mend_until_killed(url: str, backup: Path) -> None:
    import asyncio

    async def work() -> None:
        async with open_store(url) as store:
            async for _ in repair(store, "a", backup=backup, clock=lambda: LATER):
                pass

    asyncio.run(work())


@pytest.mark.parametrize("mended", [0, 1, 7])
async def test_a_repair_that_is_killed_and_run_again_ends_as_one_clean_run(mended: int, tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/threads.db"
    keys = [ThreadKey(str(number), "a") for number in range(30)]
    async with open_store(url) as store:
        for key in keys:
            await broken(store, key)
    context = multiprocessing.get_context("spawn")
    process = context.Process(target=_mend_until_killed, args=(url, tmp_path / "one"))
    process.start()
    async with open_store(url) as store:
        # Killed as soon as so many are mended, wherever it is by then.
        while process.is_alive() and sum([(await store.read(key, limit=1)).head_seq > 0 for key in keys]) < mended:
            pass
        os.kill(process.pid or 0, signal.SIGKILL)
        process.join()
        await mend(store, tmp_path / "two")
        assert await found(store) == []
        for key in keys:
            assert len(await store.read(key)) == 8
            assert (await store.read(key)).head_seq == 8


async def test_the_command_says_what_it_would_do_does_it_and_takes_it_back(tmp_path: Path) -> None:
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
    ]
    refused = piped("", "--repair", "--backup", backup, home=tmp_path, program=doctor)
    assert refused.returncode == 2, "nobody can be asked"
    done = piped("", "--repair", "--backup", backup, "--yes", home=tmp_path, program=doctor)
    assert (done.returncode, "--undo" in done.stderr) == (0, True), done.stderr
    assert piped("", "--repair", "--dry-run", home=tmp_path, program=doctor).returncode == 0
    back = piped("", "--undo", backup, "--yes", home=tmp_path, program=doctor)
    assert back.returncode == 0, back.stderr
    assert piped("", "--repair", "--dry-run", home=tmp_path, program=doctor).returncode == 1
