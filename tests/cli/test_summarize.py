"""``everthread summarize`` and ``show``: output and exit status; a killed run can be repeated."""

from __future__ import annotations

import json
import subprocess
import threading
from pathlib import Path
from typing import Any

import pytest

from everthread import ThreadKey, open_store
from everthread.operations.summarize import get_summary
from tests.cli.driving import PATIENCE, PROGRAM, environment, piped
from tests.openai_server import scripted_openai
from tests.operations.threads import KEY, everything, said

pytestmark = pytest.mark.slow

LONG = "word " * 10_000


async def fill(url: str, *words: str) -> None:
    async with open_store(url) as store:
        for word in words:
            await store.append(KEY, [said(word), said("yes", "assistant")])


async def contents(url: str) -> Any:
    async with open_store(url) as store:
        return await everything(store), await get_summary(store, KEY)


def command(home: Path, *arguments: str, **settings: str) -> subprocess.CompletedProcess[str]:
    return piped("", *arguments, home=home, program=(PROGRAM,), **settings)


async def test_show_prints_the_summary_or_all_messages(places: Any, tmp_path: Path) -> None:
    url = places()
    await fill(url, "I am Ana", "I like Rome", "And now?")
    with scripted_openai("Ana likes Rome.\x1b[2J") as model:
        run = command(tmp_path, "summarize", "trip", "-s", url, "--keep-turns", "1", OPENAI_BASE_URL=model.url)
    assert (run.returncode, run.stdout) == (0, "trip: summarized the 4 messages before position 4.\n")
    short = command(tmp_path, "show", "trip", "-s", url).stdout
    assert "Ana likes Rome." in short
    assert "\x1b" not in short
    assert "And now?" in short
    assert "I am Ana" not in short
    whole = command(tmp_path, "show", "trip", "-s", url, "--all").stdout
    assert "I am Ana" in whole
    assert "summary of" not in whole
    raw = command(tmp_path, "show", "trip", "-s", url, "--raw").stdout
    assert len(raw.splitlines()) == 6


async def test_a_dry_run_asks_no_model_and_changes_nothing(places: Any, tmp_path: Path) -> None:
    url = places()
    await fill(url, "a", "b", "c")
    before = await contents(url)
    run = command(tmp_path, "summarize", "trip", "-s", url, "--keep-turns", "1", "--dry-run", "--json")
    told = json.loads(run.stdout)
    assert (run.returncode, told["start"], told["stop"], told["messages"]) == (0, 0, 4, 4)
    assert await contents(url) == before


async def test_no_model_is_needed_for_a_short_thread(places: Any, tmp_path: Path) -> None:
    url = places()
    await fill(url, "a", "b")
    run = command(tmp_path, "summarize", "trip", "-s", url, "--max-messages", "10")
    assert (run.returncode, run.stdout) == (0, "trip: there is nothing to summarize.\n")


async def test_each_failure_has_its_message_and_exit_status(places: Any, tmp_path: Path) -> None:
    url = places()
    await fill(url, "a", "b")
    arguments = ("summarize", "trip", "-s", url, "--keep-turns", "0")
    without = command(tmp_path, *arguments)
    offline = command(tmp_path, *arguments, "--model", "offline")
    assert without.returncode == offline.returncode == 1
    assert "OPENAI_API_KEY" in without.stderr
    with scripted_openai(OSError("no")) as model:
        failed = command(tmp_path, *arguments, OPENAI_BASE_URL=model.url, OPENAI_API_KEY="key-123456")
    assert failed.returncode == 1
    assert "did not answer" in failed.stderr
    assert "key-123456" not in failed.stderr
    assert "Traceback" not in without.stderr + offline.stderr + failed.stderr
    assert command(tmp_path, "summarize", "unknown", "-s", url).returncode == 3


async def test_killed_and_run_again_it_ends_as_one_run(places: Any, tmp_path: Path) -> None:
    killed, undisturbed = places(), places()
    words = [f"{number} {LONG}" for number in range(40)]
    for url in (killed, undisturbed):
        await fill(url, *words)
    arguments = ("--keep-turns", "1", "--store")
    with scripted_openai(then="Summary.") as model:
        settings = {"OPENAI_BASE_URL": model.url}
        assert command(tmp_path, "summarize", "trip", *arguments, undisturbed, **settings).returncode == 0
        pieces = len(model.requests)
    assert pieces > 2
    with scripted_openai(then="Summary.") as model:
        is_asked_again, may_answer = threading.Event(), threading.Event()
        answer = model.script.next

        def hold_the_second() -> list[Any]:
            if len(model.requests) == 2:
                is_asked_again.set()
                may_answer.wait(PATIENCE)
            return answer()

        model.script.next = hold_the_second
        begun = [PROGRAM, "summarize", "trip", *arguments, killed]
        process = subprocess.Popen(begun, env=environment(tmp_path, OPENAI_BASE_URL=model.url))
        assert is_asked_again.wait(PATIENCE)
        process.kill()
        process.wait()
        may_answer.set()
        _, summary = await contents(killed)
        assert summary is not None
        assert summary.stop < summary.goal
        again = command(tmp_path, "summarize", "trip", *arguments, killed, OPENAI_BASE_URL=model.url)
        assert again.returncode == 0
    assert await contents(killed) == await contents(undisturbed)


# Many threads


async def fill_many(url: str, *names: str, turns: int = 3) -> None:
    async with open_store(url) as store:
        for name in names:
            for number in range(turns):
                await store.append(ThreadKey(name), [said(f"{name} {number}"), said("yes", "assistant")])


def lines(run: subprocess.CompletedProcess[str]) -> list[dict[str, Any]]:
    return [json.loads(line) for line in run.stdout.splitlines()]


async def test_all_threads_are_summarized(places: Any, tmp_path: Path) -> None:
    url = places()
    await fill_many(url, "a", "b", "c")
    await fill_many(url, "short", turns=1)
    with scripted_openai(then="Summary.") as model:
        run = command(
            tmp_path, "summarize", "--all", "-s", url, "--keep-turns", "1", "--json", OPENAI_BASE_URL=model.url
        )
        again = command(tmp_path, "summarize", "--all", "-s", url, "--keep-turns", "1", OPENAI_BASE_URL=model.url)
        assert len(model.requests) == 3
    assert run.returncode == again.returncode == 0
    *each, totals = lines(run)
    assert {(one["thread_id"], one["messages"], "text" in one) for one in each} == {(name, 4, False) for name in "abc"}
    assert totals == {"dry_run": False, "threads": 4, "summarized": 3, "failed": 0, "schema": 1}
    assert again.stdout == "Summarized 0 of 4 threads; 0 failed.\n"


async def test_the_next_run_summarizes_a_failed_thread(places: Any, tmp_path: Path) -> None:
    url = places()
    await fill_many(url, "a", "b", "c")
    arguments = ("summarize", "--longer-than", "5", "-s", url, "--keep-turns", "1", "--json")
    with scripted_openai(OSError("no key-123456"), then="Summary.") as model:
        settings = {"OPENAI_BASE_URL": model.url, "OPENAI_API_KEY": "key-123456"}
        run, again = (command(tmp_path, *arguments, **settings) for _ in range(2))
        assert len(model.requests) == 4
    assert (run.returncode, again.returncode) == (1, 0)
    [failed] = [one["thread_id"] for one in lines(run) if isinstance(one.get("failed"), str)]
    assert f"thread '{failed}' is not summarized: The model did not answer." in run.stderr
    assert "key-123456" not in run.stdout + run.stderr
    assert [one["thread_id"] for one in lines(again)[:-1]] == [failed]


async def test_many_failures_in_a_row_stop_the_run(places: Any, tmp_path: Path) -> None:
    url = places()
    await fill_many(url, *(f"t{number}" for number in range(40)), turns=2)
    with scripted_openai(*[OSError("no")] * 50) as model:
        run = command(tmp_path, "summarize", "--all", "-s", url, "--keep-turns", "0", OPENAI_BASE_URL=model.url)
        asked = len(model.requests)
    assert run.returncode == 1
    assert "10 threads in a row failed" in run.stderr
    assert asked < 20


async def test_a_dry_run_of_many_needs_no_model(places: Any, tmp_path: Path) -> None:
    url = places()
    await fill_many(url, "a", "b")
    run = command(tmp_path, "summarize", "--all", "-s", url, "--keep-turns", "1", "--dry-run", "--json")
    *each, totals = lines(run)
    assert sorted((one["thread_id"], one["messages"]) for one in each) == [("a", 4), ("b", 4)]
    assert (run.returncode, totals["summarized"], totals["messages"]) == (0, 2, 8)
    assert totals["tokens"] == sum(one["tokens"] for one in each) > 0
    idle = command(tmp_path, "summarize", "--older-than", "1h", "-s", url, "--dry-run")
    assert idle.stdout == "Would summarize 0 messages (about 0 tokens) of 0 of 0 threads.\n"


def test_the_threads_to_summarize_must_be_named(tmp_path: Path) -> None:
    for wrong in (
        (),
        ("trip", "--all"),
        ("trip", "--older-than", "1d"),
        ("--longer-than", "-1"),
        ("--older-than", "soon"),
    ):
        assert command(tmp_path, "summarize", *wrong, "-s", "memory:").returncode == 2


async def test_a_killed_run_over_many_threads_can_be_repeated(places: Any, tmp_path: Path) -> None:
    killed, undisturbed = places(), places()
    names = [f"t{number}" for number in range(12)]
    for url in (killed, undisturbed):
        await fill_many(url, *names, turns=2)
    arguments = ("--all", "--keep-turns", "1", "--store")
    with scripted_openai(then="Summary.") as model:
        assert command(tmp_path, "summarize", *arguments, undisturbed, OPENAI_BASE_URL=model.url).returncode == 0
    with scripted_openai(then="Summary.") as model:
        is_asked, may_answer = threading.Event(), threading.Event()
        answer = model.script.next

        def hold_from_the_sixth_on() -> list[Any]:
            if len(model.requests) > 5:
                is_asked.set()
                may_answer.wait(PATIENCE)
            return answer()

        model.script.next = hold_from_the_sixth_on
        begun = [PROGRAM, "summarize", *arguments, killed]
        process = subprocess.Popen(begun, env=environment(tmp_path, OPENAI_BASE_URL=model.url))
        assert is_asked.wait(PATIENCE)
        process.kill()
        process.wait()
        may_answer.set()
        assert 0 < len(await summaries(killed, names)) < 12
        assert command(tmp_path, "summarize", *arguments, killed, OPENAI_BASE_URL=model.url).returncode == 0
    assert await summaries(killed, names) == await summaries(undisturbed, names)
    assert await contents(killed) == await contents(undisturbed)


async def summaries(url: str, names: list[str]) -> list[Any]:
    async with open_store(url) as store:
        found = [await get_summary(store, ThreadKey(name)) for name in names]
    return [summary for summary in found if summary is not None]
