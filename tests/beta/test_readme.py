"""The README's example for the betas."""

from __future__ import annotations

from pathlib import Path

import redis

from tests.openai_server import scripted_openai
from tests.readme import example, run_example
from tests.servers import Server


def test_the_example_for_the_betas_continues_its_thread(plain_redis_server: Server, tmp_path: Path) -> None:
    url = f"redis://127.0.0.1:{plain_redis_server.port}/12"
    with scripted_openai("Nice to meet you, Ana.", "By train again, Ana.") as openai:
        environment = {"OPENAI_API_KEY": "unused", "OPENAI_BASE_URL": openai.url, "OPENAI_CHAT_MODEL_ID": "scripted"}
        code = example("agent-framework-beta", redis_url=url)
        assert run_example(code, tmp_path, **environment) == "Nice to meet you, Ana.\n"
        assert run_example(code, tmp_path, **environment) == "By train again, Ana.\n"
        assert "Nice to meet you, Ana." in str(openai.requests[1]["messages"])
    with redis.Redis.from_url(url) as client:
        assert client.llen("chat_messages:trip-to-rome") == 4
