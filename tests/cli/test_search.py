"""``everthread search``, in a pipe and on a terminal."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from everthread import NewMessage, ThreadKey, new_message, open_store
from tests.cli.driving import PROGRAM, Tty, piped
from tests.servers import Server

SEARCH = (PROGRAM, "search")


def said(text: str, role: str = "user") -> NewMessage:
    return new_message({"role": role, "content": text})


@pytest.fixture(params=["sqlite", "redis"])
async def url(request: pytest.FixtureRequest, tmp_path: Path, plain_redis_server: Server, fresh_prefix: str) -> str:
    urls = {
        "sqlite": f"sqlite:///{tmp_path}/threads.db",
        "redis": f"redis://127.0.0.1:{plain_redis_server.port}?prefix={fresh_prefix}",
    }
    async with open_store(urls[request.param]) as store:
        await store.append(
            ThreadKey("trip"), [said("A train to Zürich"), said("At\t9\x1b[31m\nfor the train", "assistant")]
        )
        await store.append(ThreadKey("trip", "acme"), [said("Another train")])
    return urls[request.param]


async def test_hits_are_lines_in_a_pipe(url: str, tmp_path: Path) -> None:
    run = piped("", "train", "--store", url, home=tmp_path, program=SEARCH)
    assert run.returncode == 0, run.stderr
    rows = [line.split("\t") for line in run.stdout.splitlines()]
    assert [(row[0], row[1], row[2], row[4]) for row in rows] == [
        ("trip", "1", "assistant", "At 9␛[31m for the train"),
        ("trip", "0", "user", "A train to Zürich"),
    ]
    assert ("one by one" in run.stderr) is url.startswith("redis")


async def test_hits_are_json_objects_of_one_tenant(url: str, tmp_path: Path) -> None:
    run = piped("", "TRAIN", "--store", url, "--tenant", "acme", "--json", home=tmp_path, program=SEARCH)
    (hit,) = map(json.loads, run.stdout.splitlines())
    assert (hit["thread_id"], hit["seq"], hit["role"], hit["text"]) == ("trip", 0, "user", "Another train")


async def test_the_cursor_continues_a_search(url: str, tmp_path: Path) -> None:
    first = piped("", "train", "--store", url, "-n", "1", home=tmp_path, program=SEARCH)
    cursor = first.stderr.partition("--cursor ")[2].strip()
    second = piped("", "train", "--store", url, "-n", "1", "--cursor", cursor, home=tmp_path, program=SEARCH)
    assert [run.stdout.split("\t")[1] for run in (first, second)] == ["1", "0"]
    wrong = piped("", "train", "--store", url, "--cursor", "made up", home=tmp_path, program=SEARCH)
    assert (wrong.returncode, wrong.stdout) == (1, "")
    assert "cursor" in wrong.stderr


async def test_a_search_without_hits_ends_with_0(url: str, tmp_path: Path) -> None:
    run = piped("", "-n", "5", "--store", url, "--", '-"x OR *', home=tmp_path, program=SEARCH)
    assert (run.returncode, run.stdout) == (0, "")
    assert "Nothing was found." in run.stderr


async def test_found_words_are_highlighted_on_a_terminal(url: str, tmp_path: Path) -> None:
    with Tty("zurich train", "--store", url, home=tmp_path, program=SEARCH) as terminal:
        terminal.expect(r"trip #0")
        terminal.expect("A train to Zürich")
        assert terminal.exit_status() == 0
        assert "train\x1b[0m" in terminal.raw


async def test_indexing_shows_progress(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/large.db"
    async with open_store(url, synchronous="normal") as store:
        for _ in range(2):
            await store.append(ThreadKey("trip"), [said("train")] * 4000)
    with Tty("train", "-n1", "--store", url, home=tmp_path, program=SEARCH) as terminal:
        terminal.expect("Making the index .*8000/8000")
        terminal.expect("trip #")
        assert terminal.exit_status() == 0
    with Tty("train", "-n1", "--store", url, home=tmp_path, program=SEARCH) as terminal:
        terminal.expect("trip #")
        assert terminal.exit_status() == 0
        assert "index" not in terminal.raw


async def test_a_scan_at_its_limit_prints_a_cursor(url: str, tmp_path: Path) -> None:
    options = ("--store", url, "--scan", "--scan-limit", "1")
    run = piped("", "zurich", *options, home=tmp_path, program=SEARCH)
    assert "there are more" in run.stderr
    cursor = run.stderr.partition("--cursor ")[2].strip()
    rest = piped("", "zurich", "--store", url, "--scan", "--cursor", cursor, home=tmp_path, program=SEARCH)
    assert "A train to Zürich" in run.stdout + rest.stdout
    assert "all there are" in rest.stderr


def test_a_search_needs_a_word(url: str, tmp_path: Path) -> None:
    for text in ("", '"-"'):
        run = piped("", text, "--store", url, home=tmp_path, program=SEARCH)
        assert (run.returncode, "no word" in run.stderr) == (2, True)
