"""A run that was cancelled or failed is reported; titles of an encrypted store are not shown as they are stored."""

from __future__ import annotations

import json
from pathlib import Path

from everthread import ThreadKey, new_message, open_store
from everthread._validation import SEALED
from everthread.messages.formats.agent_framework import ENDED
from tests.cli.driving import PROGRAM, piped


async def store_threads(url: str) -> None:
    message = {"type": "message", "role": "user", "contents": [{"type": "text", "text": "q"}]}
    async with open_store(url) as store:
        for name, properties in (("whole", {}), ("cut", {ENDED: "cancelled"})):
            payload = new_message({**message, "additional_properties": properties})
            await store.append(ThreadKey(name), [payload])
        await store.append(
            ThreadKey("continued"), [new_message({**message, "additional_properties": {ENDED: "failed"}})]
        )
        await store.append(ThreadKey("continued"), [new_message(message)])
        await store.update_thread(ThreadKey("whole"), title=f"{SEALED}:abcdefgh")


async def test_threads_and_the_doctor_report_how_the_last_run_ended(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/threads.db"
    await store_threads(url)
    listed = piped("", "--store", url, home=tmp_path, program=(PROGRAM, "threads")).stdout.splitlines()
    cells = {line.split("\t")[1]: line.split("\t") for line in listed}
    assert {name: row[6] for name, row in cells.items()} == {"whole": "", "cut": "cancelled", "continued": ""}
    assert cells["whole"][2] == "(sealed)"
    objects = piped("", "--store", url, "--json", home=tmp_path, program=(PROGRAM, "threads")).stdout.splitlines()
    assert {each["thread_id"]: each["ended"] for each in map(json.loads, objects)} == {
        "whole": "",
        "cut": "cancelled",
        "continued": "",
    }
    program = (PROGRAM, "doctor", "--store", url, "--repair", "--dry-run")
    report = piped("", home=tmp_path, program=program)
    assert report.returncode == 0
    assert report.stdout.split("\t")[:4] == ["found", "cut", "0", "unfinished"]
    assert report.stdout.count("\n") == 1
    shown = piped("", "whole", "--store", url, home=tmp_path, program=(PROGRAM, "show")).stdout
    assert "(sealed)" in shown
    assert "abcdefgh" not in shown


async def test_a_question_without_a_terminal_says_what_to_do(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/threads.db"
    await store_threads(url)
    done = piped("", "cut", "--store", url, home=tmp_path, program=(PROGRAM, "delete"))
    assert done.returncode == 2
    assert "Standard input is not a terminal, so nothing was changed: give --yes to confirm." in done.stderr
