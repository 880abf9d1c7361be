"""The example client for 1.x, in processes of its own on a real Redis, also by turns with the one for the betas."""

from __future__ import annotations

import pytest

from tests import lab11
from tests.adapters.test_generations import BETA
from tests.servers import redis_server


def test_a_conversation_goes_on_in_another_process() -> None:
    with redis_server("redis") as server:
        lab11.holds_a_conversation_across_processes("current", f"redis://127.0.0.1:{server.port}/0", "current")


def test_without_redis_it_says_so() -> None:
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
