"""Locations of stores are shown as people write them."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from everthread import ThreadKey, new_message, open_store
from everthread.cli.plain import readable_location
from everthread.engines.sqlite import SqliteStore
from tests.cli.driving import PROGRAM, Tty, environment


@pytest.mark.parametrize(
    ("location", "shown"),
    [
        ("sqlite:////var/lib/threads.db", "/var/lib/threads.db"),
        ("sqlite:///C:/data/threads.db", "C:/data/threads.db"),
        ("sqlite:////tmp/100%25%3F.db", "/tmp/100%?.db"),
        ("sqlite:////tmp/a%1Bb.db", "/tmp/a␛b.db"),
        ("file:///srv/threads", "file:///srv/threads"),
        ("redis://localhost:6379/0", "redis://localhost:6379/0"),
        ("memory:", "memory:"),
    ],
)
def test_a_file_is_its_path_and_all_else_its_url(location: str, shown: str) -> None:
    assert readable_location(location) == shown


def test_a_location_becomes_its_path(tmp_path: Path) -> None:
    path = tmp_path / "ann's % threads é.db"
    assert readable_location(SqliteStore(path).location) == str(path)


async def test_show_and_threads_print_the_path(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/t.db"
    async with open_store(url) as store:
        await store.append(ThreadKey("trip"), [new_message({"role": "user", "content": "Hello"})])
    with Tty("trip", "--store", url, home=tmp_path, program=(PROGRAM, "show")) as terminal:
        terminal.expect("Hello")
        assert terminal.exit_status() == 0
        assert f"{tmp_path}/t.db" in terminal.raw
        assert "sqlite:" not in terminal.raw
    async with open_store(f"sqlite:///{tmp_path}/empty.db"):
        pass
    command = [PROGRAM, "threads", "--store", f"sqlite:///{tmp_path}/empty.db"]
    run = subprocess.run(command, capture_output=True, text=True, env=environment(tmp_path), check=True)
    assert f"in {tmp_path}/empty.db yet" in run.stderr
