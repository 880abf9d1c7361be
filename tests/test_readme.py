"""The README is right: its examples run, its commands and pages exist."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import redis

from tests.openai_server import scripted_openai
from tests.readme import README, ROOT, example, install_line, installed, run_example, uv
from tests.servers import Server


def test_the_example_without_a_framework_stores_its_turn_once(tmp_path: Path) -> None:
    first = run_example(example("store"), tmp_path)
    second = run_example(example("store"), tmp_path)
    assert first == second == "0 user Hello\n1 assistant Where to?\n"


def test_the_example_for_agent_framework_resumes_its_thread(plain_redis_server: Server, tmp_path: Path) -> None:
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


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The built package."""
    folder = tmp_path_factory.mktemp("dist")
    uv("build", "--quiet", "--wheel", "--out-dir", str(folder), str(ROOT))
    return next(folder.glob("*.whl"))


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize(("name", "model"), [("agent-framework-1", "MODEL"), ("agent-framework-beta", "CHAT_MODEL_ID")])
def test_each_install_line_installs_what_its_example_needs(
    name: str, model: str, wheel: Path, plain_redis_server: Server, tmp_path: Path
) -> None:
    python = installed(install_line(name), wheel, tmp_path)
    url = f"redis://127.0.0.1:{plain_redis_server.port}/11"
    with redis.Redis.from_url(url) as client:
        client.flushdb()
    with scripted_openai("Nice to meet you, Ana.") as openai:
        environment = {"OPENAI_API_KEY": "unused", "OPENAI_BASE_URL": openai.url, f"OPENAI_{model}": "scripted"}
        ran = run_example(example(name, redis_url=url), tmp_path, python=python, **environment)
    assert ran == "Nice to meet you, Ana.\n"
    assert run_example(example("store"), tmp_path, python=python) == "0 user Hello\n1 assistant Where to?\n"
    command = [str(Path(python).with_name("everthread")), "threads", "--store", url]
    listed = subprocess.run(command, capture_output=True, text=True, check=False)
    if name == "agent-framework-1":
        assert (listed.returncode, "trip-to-rome" in listed.stdout) == (0, True)
    else:
        assert (listed.returncode, len(listed.stderr.splitlines())) == (1, 1)
        assert "pip install 'everthread[cli]'" in listed.stderr


def test_the_commands_print_the_thread_of_the_example(tmp_path: Path) -> None:
    run_example(example("store"), tmp_path)
    found = re.search(r"<!-- commands -->\n```sh\n(.*?)```", README, re.DOTALL)
    assert found is not None
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    command = ["bash", "-euc", found[1]]
    ran = subprocess.run(
        command, cwd=tmp_path, env=environment, input="0\n", capture_output=True, text=True, check=False, timeout=120
    )
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.count("trip-to-rome") >= 3
    assert '"Where to?"' in (tmp_path / "backup.jsonl").read_text()


def test_every_page_that_the_readme_links_exists() -> None:
    named = re.findall(r"\]\((?!https?:)([^)#]+)\)", README)
    assert len(named) > 5
    assert [page for page in named if not (ROOT / page).exists()] == []
