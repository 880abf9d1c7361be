"""The README is right: its examples run, its commands and pages exist."""

from __future__ import annotations

import re
from pathlib import Path

import redis

from tests.openai_server import scripted_openai
from tests.readme import README, ROOT, example, run_example
from tests.servers import Server


def test_the_example_without_a_framework_keeps_what_it_appends(tmp_path: Path) -> None:
    first = run_example(example("store"), tmp_path)
    second = run_example(example("store"), tmp_path)
    assert first == second == "0 user Hello\n1 assistant Where to?\n"


def test_the_example_for_agent_framework_goes_on_with_its_thread(plain_redis_server: Server, tmp_path: Path) -> None:
    url = f"redis://127.0.0.1:{plain_redis_server.port}/11"
    with scripted_openai("Nice to meet you, Ana.", "By train again, Ana.") as openai:
        environment = {"OPENAI_API_KEY": "unused", "OPENAI_BASE_URL": openai.url, "OPENAI_MODEL": "scripted"}
        code = example("agent-framework-1", redis_url=url)
        assert run_example(code, tmp_path, **environment) == "Nice to meet you, Ana.\n"
        assert run_example(code, tmp_path, **environment) == "By train again, Ana.\n"
        handed = [message["content"] for message in openai.requests[1]["messages"]]
    assert "Nice to meet you, Ana." in str(handed)
    with redis.Redis.from_url(url) as client:
        assert client.llen("chat_messages:trip-to-rome") == 4


def test_every_page_that_the_readme_names_exists() -> None:
    named = re.findall(r"\]\((?!https?:)([^)#]+)\)", README)
    assert len(named) > 5
    assert [page for page in named if not (ROOT / page).exists()] == []


def test_every_command_that_the_readme_names_is_in_the_makefile() -> None:
    targets = re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    named = set(re.findall(r"^make ([a-z]+)", README, re.MULTILINE))
    assert {"chat", "test"} <= named <= set(targets)
