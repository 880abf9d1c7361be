"""No command sends a control character to the terminal, whatever is stored, named or typed."""

from __future__ import annotations

import asyncio
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from everthread import ThreadKey, new_message, open_store
from tests.cli.driving import PATIENCE, Tty, environment

HOSTILE = "a\x1b]0;owned\x07\x1b[2J\x7f\x9b31m\u202ecba\u2066\u200f\u2028z"
OBEYED = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u206f]")
# All in one process: starting one for each command takes many times as long.
SCRIPT = """
import json, sys
from everthread.cli.group import everthread
for arguments in json.loads(sys.argv[1]):
    try:
        everthread(arguments)
    except SystemExit as end:
        print(f"-> {end.code}", flush=True)
"""
READING = (
    ["threads"],
    ["threads", "--title", HOSTILE],
    ["show", HOSTILE],
    ["search", "hello"],
    ["usage"],
    ["retention", HOSTILE],
    ["config", "show"],
    ["delete-tenant", HOSTILE, "--dry-run"],
    ["prune", "--max-messages", "0", "--dry-run"],
    ["compact", HOSTILE],
    ["rewrap", HOSTILE],
    ["summarize", HOSTILE, "--dry-run"],
)
CHANGING = (
    ["rename", HOSTILE, HOSTILE],
    ["tag", HOSTILE, f"{HOSTILE}={HOSTILE}"],
    ["fork", HOSTILE, "--id", f"{HOSTILE}2"],
    ["undo", f"{HOSTILE}2", "--yes"],
    ["delete", f"{HOSTILE}2", "--yes"],
)
FAILING = (
    ["show", f"{HOSTILE}no"],
    [HOSTILE],
    ["threads", f"--{HOSTILE}"],
    ["threads", HOSTILE],
    ["threads", "--limit", HOSTILE],
    ["threads", "--tag", HOSTILE],
    ["threads", "--older-than", HOSTILE],
    ["threads", "--cursor", HOSTILE],
    ["threads", "--store", f"nothing://{HOSTILE}"],
    ["threads", f"@{HOSTILE}"],
    ["import", HOSTILE],
    ["import", f"{HOSTILE}.db", "--from", "openai-agents"],
    ["import", f"{HOSTILE}.jsonl"],
    ["export", f"{HOSTILE}/no/x"],
    ["config", "add", HOSTILE, "memory:"],
    ["config", "remove", HOSTILE],
    ["new-key", HOSTILE],
    ["doctor", "--undo", HOSTILE, "--yes"],
    ["completion", HOSTILE],
)
ASKING = (
    ["export", f"{HOSTILE}.jsonl"],
    ["delete", HOSTILE],
    ["chat", "--thread", HOSTILE, "--model", HOSTILE],
)


@pytest.fixture
def home(tmp_path: Path) -> Path:
    async def write() -> None:
        async with open_store(f"sqlite:///{tmp_path}/threads.db") as store:
            key = ThreadKey(HOSTILE)
            await store.append(key, [new_message({"role": "user", "content": f"hello {HOSTILE}"})] * 3)
            await store.update_thread(key, title=HOSTILE, metadata={HOSTILE: HOSTILE})
            await store.append(ThreadKey(HOSTILE, HOSTILE), [new_message({"role": "user", "content": HOSTILE})])

    asyncio.run(write())
    (tmp_path / f"{HOSTILE}.db").write_text("no database")
    (tmp_path / f"{HOSTILE}.jsonl").write_text("no export")
    return tmp_path


def settings(home: Path) -> dict[str, str]:
    return {"EVERTHREAD_STORE": f"sqlite:///{home}/threads.db", "EVERTHREAD_CONFIG": f"{home}/c.toml", "TERM": "dumb"}


def in_a_terminal(home: Path, commands: list[list[str]]) -> str:
    places = settings(home) | {"PYTHONPATH": "", "PWD": str(home)}
    script = f"import os; os.chdir({str(home)!r}){SCRIPT}"
    program = (sys.executable, "-c", script, json.dumps(commands))
    with Tty(home=home, program=program, columns=200, **places) as tty:
        assert tty.exit_status() == 0
        return tty.raw


def in_a_pipe(home: Path, commands: list[list[str]]) -> str:
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, json.dumps(commands)],
        cwd=home,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=PATIENCE,
        env=environment(home, **settings(home)),
        check=True,
    )
    return done.stdout.decode()


def test_a_terminal_gets_no_control_characters(home: Path) -> None:
    listing = [*READING, *([*command, "--json"] for command in READING)]
    raw = ["show", HOSTILE, "--raw"]
    commands = [*listing, raw, *FAILING, *CHANGING]
    printed = in_a_terminal(home, commands)
    assert OBEYED.findall(printed) == []
    assert printed.count("-> ") == len(commands)
    assert "Traceback" not in printed
    assert "Unexpected" not in printed
    assert printed.count("owned") > 40


@pytest.mark.slow
def test_a_pipe_gets_plain_lines_and_exact_json(home: Path) -> None:
    printed = in_a_pipe(home, [*READING, *FAILING, *CHANGING, *ASKING])
    assert OBEYED.findall(printed) == []
    assert "Traceback" not in printed
    assert "Unexpected" not in printed
    ends = re.findall(r"-> (\d+)", in_a_pipe(home, [*FAILING, *ASKING]))
    assert len(ends) == len(FAILING) + len(ASKING)
    assert set(ends) == {"1", "2", "3"}
    exact = in_a_pipe(home, [["threads", "--json"], ["show", HOSTILE, "--raw"]])
    lines = [json.loads(line) for line in exact.split("\n") if line.startswith("{")]
    assert [lines[0]["thread_id"], lines[1]["payload"]["content"]] == [HOSTILE, f"hello {HOSTILE}"]
    assert "\u202e" in exact
