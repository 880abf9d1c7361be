"""Threads that the betas and 1.x of Agent Framework write by turns: real releases, each in its own environment."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import warnings
from pathlib import Path
from typing import Any

import pytest
from agent_framework import Agent, AgentSession, Content, Message, tool
from hypothesis import given, settings

from everthread.adapters.agent_framework import EverthreadHistoryProvider
from everthread.adapters.agent_framework.messages import to_new_message
from everthread.messages.converting.generations import to_beta, to_current
from tests.adapters.agent_framework.test_messages import messages
from tests.adapters.meaning import meaning
from tests.adapters.scripted import Call, ScriptedClient
from tests.servers import Server

ROOT = Path(__file__).parents[2]
BETA = Path(os.environ.get("EVERTHREAD_BETA_PYTHON", ROOT / ".venv-beta" / "bin" / "python"))

pytestmark = pytest.mark.skipif(not BETA.exists(), reason=f"no environment with a beta at {BETA}: make test makes it")


def beta(doing: str, **details: Any) -> Any:
    """What a beta of the framework does, in a process of its own."""
    command = [str(BETA), "-m", "tests.beta.generation", doing]
    done = subprocess.run(
        command, cwd=ROOT, input=json.dumps(details), capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.fixture(params=["sqlite", "redis"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'threads.db'}"
    server: Server = request.getfixturevalue("plain_redis_server")
    return f"redis://127.0.0.1:{server.port}/0"


@tool(approval_mode="never_require")
def weather(city: str) -> str:
    """The weather of a city."""
    return f"Sunny in {city}."


def every_content() -> list[Content]:
    asked = Content.from_function_call("c9", "book", arguments='{"city": "Rome"}')
    image = Content.from_data(b"\x89PNG", "image/png")
    return [
        Content.from_text("Grüße 🌍"),
        Content.from_text_reasoning(text=None, protected_data="opaque"),
        image,
        Content.from_data(b"moving", "video/mp4"),
        Content.from_uri("https://example.com/a.png", media_type="image/png"),
        Content.from_error(message="failed", error_code="E1", error_details="details"),
        Content.from_usage({"input_token_count": 3, "output_token_count": None, "cached": 1}),
        Content.from_function_call("c1", "weather", arguments={"city": "Rome"}),
        Content.from_function_result("c1", result=[Content.from_text("see"), image]),
        Content.from_hosted_file("f1", media_type="text/plain", name="a.txt"),
        Content.from_hosted_vector_store("v1"),
        Content.from_function_approval_request("a1", asked),
        Content.from_function_approval_response(True, "a1", asked),
        Content.from_text("cited", annotations=[{"type": "citation", "title": "T", "url": "https://example.com"}]),
        Content("code_interpreter_tool_call", call_id="h1", inputs=[Content.from_text("1+1")]),
    ]


async def test_every_content_goes_from_a_beta_to_1x_and_back(url: str, request: pytest.FixtureRequest) -> None:
    thread = request.node.name
    written = beta("write", url=url, thread_id=thread)
    async with EverthreadHistoryProvider(url) as provider:
        assert meaning(await provider.get_messages(thread)) == written
        new = [Message("assistant", every_content(), author_name="B", message_id="m2"), Message("user", ["done"])]
        await provider.save_messages(thread, new)
        whole = meaning(await provider.get_messages(thread))
    assert whole == [*written, *meaning(new)]
    assert beta("read", url=url, thread_id=thread) == whole


async def test_a_conversation_continues_across_both_generations(url: str, request: pytest.FixtureRequest) -> None:
    thread = request.node.name
    beta("run", url=url, thread_id=thread, said="in the beta")
    client = ScriptedClient([Call("weather", {"city": "Oslo"}, id="call_1x")], "Sunny too.")
    async with EverthreadHistoryProvider(url) as provider:
        before = meaning(await provider.get_messages(thread))
        assert [each["text"] for each in before] == ["in the beta", "", "", "Sunny."]
        agent = Agent(client=client, tools=[weather], context_providers=[provider])
        await agent.run("in 1.x", session=AgentSession(session_id=thread))
        assert meaning(client.seen[0]) == [*before, *meaning([Message("user", ["in 1.x"])])]
        whole = meaning(await provider.get_messages(thread))
    assert [each["text"] for each in whole[4:]] == ["in 1.x", "", "", "Sunny too."]
    assert beta("read", url=url, thread_id=thread) == whole
    seen = beta("run", url=url, thread_id=thread, said="back again")
    assert seen[:-1] == whole
    assert seen[-1]["text"] == "back again"


def test_any_row_of_the_beta_means_the_same_in_1x() -> None:
    rows = beta("rows", count=300)
    assert len(rows) > 200
    for row, meant in rows:
        message = Message.from_dict(to_current(row))
        assert meaning([message])[0] == meant
        assert to_current(message.to_dict()) == message.to_dict()


def test_any_row_of_1x_means_the_same_in_the_beta() -> None:
    found: list[Message] = []

    @given(messages())
    @settings(max_examples=300, database=None, deadline=None)
    def collect(message: Message) -> None:
        found.append(message)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        collect()
        found.append(Message("assistant", every_content()))
        payloads = [to_new_message(message).payload for message in found]
        expected = meaning([Message.from_dict(json.loads(payload)) for payload in payloads])
    assert beta("decode", payloads=[base64.b64encode(payload).decode() for payload in payloads]) == expected
    for payload in payloads:
        row = json.loads(payload)
        assert to_current(to_beta(row)) == row
