"""The example client for 1.x, in processes of its own on a real Redis, also by turns with the one for the betas."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests import lab11
from tests.adapters.test_generations import BETA
from tests.cli.driving import Tty
from tests.servers import Server, redis_server


def test_a_conversation_continues_in_another_process() -> None:
    with redis_server("redis") as server:
        lab11.holds_a_conversation_across_processes("current", f"redis://127.0.0.1:{server.port}/0", "current")


@pytest.mark.slow
def test_ctrl_c_ends_it_cleanly(plain_redis_server: Server, tmp_path: Path) -> None:
    command = f"cd {lab11.ROOT}/examples/lab11 && exec {sys.executable} -m current.app"
    url = f"redis://127.0.0.1:{plain_redis_server.port}/13"
    with Tty("-c", command, home=tmp_path, program=("/bin/sh",), REDIS_URL=url) as tty:
        tty.expect("Choose an option: ")
        tty.interrupt("Goodbye.")
        assert tty.exit_status() == 130
        assert "Traceback" not in tty.raw


def test_a_missing_redis_is_reported() -> None:
    lab11.refuses_what_it_cannot_reach("current")


@pytest.mark.skipif(not BETA.exists(), reason=f"no environment with a beta at {BETA}: make test makes it")
def test_the_two_generations_go_on_with_each_others_threads() -> None:
    with redis_server("redis") as server:
        url = f"redis://127.0.0.1:{server.port}/0"
        lab11.talk("beta", url, "1", "My name is Ana", python=str(BETA))
        _, said = lab11.talk("current", url, "3", "1", "1", "I love trains", "1", "What is my name?")
        assert "Ana" in said.rpartition("TravelPlanner: ")[2]
        _, said = lab11.talk("beta", url, "3", "1", "1", "What do I love?", python=str(BETA))
        assert "trains" in said.rpartition("TravelPlanner: ")[2]
