"""Records what other programs write, by having them write it: for ``test_recorded.py``.

    PYTHON tests/transfer/record.py openai-agents
    PYTHON tests/transfer/record.py REDIS_PORT agent-framework-redis | agent-framework-beta | langchain-community

``PYTHON`` is one into which that package is installed, in the version that is to be recorded. Of Redis the database 15
is emptied first. The result lies in ``recorded``, named by package and version; times and random ids in it are as
they came.
"""

from __future__ import annotations

import asyncio
import json
import sqlite3
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent / "recorded"
SESSIONS = ("plain", "A|b: é/💾", "~odd")


def main() -> None:
    kind = sys.argv[-1]
    if kind == "openai-agents":
        with tempfile.TemporaryDirectory() as folder:
            save("openai-agents", ".sql", asyncio.run(openai_agents(Path(folder, "sessions.db"))))
        return
    url = f"redis://127.0.0.1:{sys.argv[1]}/15"
    writers = {
        "agent-framework-redis": agent_framework,
        "agent-framework-beta": agent_framework_beta,
        "langchain-community": langchain,
    }
    lists = asyncio.run(redis_lists(url, writers[kind]))
    package = "agent-framework-redis" if kind == "agent-framework-beta" else kind
    save(package, ".json", json.dumps(lists, indent=1, ensure_ascii=False) + "\n")


def save(package: str, suffix: str, text: str) -> None:
    FOLDER.mkdir(exist_ok=True)
    (FOLDER / f"{package}-{version(package)}{suffix}").write_text(text, encoding="utf-8")


async def openai_agents(path: Path) -> str:
    from agents import SQLiteSession

    items: list[Any] = [
        {"role": "user", "content": "weather in Rome? — é💾"},
        {"type": "reasoning", "id": "rs_1", "summary": [{"type": "summary_text", "text": "I ask the tool."}]},
        {"type": "function_call", "id": "fc_1", "call_id": "call_1", "name": "weather", "arguments": '{"city":"Rome"}'},
        {"type": "function_call_output", "call_id": "call_1", "output": "22 °C"},
        {
            "type": "message",
            "id": "msg_1",
            "role": "assistant",
            "status": "completed",
            "content": [{"type": "output_text", "text": "It is 22 °C.", "annotations": []}],
        },
    ]
    for name in SESSIONS:
        session = SQLiteSession(name, path)
        await session.add_items(items[:1])
        await session.add_items(items[1:])
        session.close()
    popped = SQLiteSession(SESSIONS[0], path)
    await popped.add_items([{"role": "user", "content": "never mind"}])
    await popped.pop_item()
    popped.close()
    with sqlite3.connect(path) as database:
        return "\n".join(database.iterdump()) + "\n"


async def redis_lists(url: str, write: Any) -> dict[str, list[str]]:
    import redis

    with redis.Redis.from_url(url, decode_responses=True) as client:
        client.flushdb()
        await write(url)
        return {key: client.lrange(key, 0, -1) for key in sorted(client.scan_iter())}


def current_messages() -> list[Any]:
    from agent_framework import Content, Message

    return [
        Message("user", ["weather in Rome? — é💾"]),
        Message("assistant", [Content.from_function_call("call_1", "weather", arguments={"city": "Rome"})]),
        Message("tool", [Content.from_function_result("call_1", result="22 °C")]),
        Message("assistant", ["It is 22 °C."], author_name="Guide"),
    ]


async def agent_framework(url: str) -> None:
    from agent_framework_redis import RedisHistoryProvider

    messages = current_messages()
    providers = [
        RedisHistoryProvider(redis_url=url, application_id="app", tenant_id="Acme", agent_id="a1"),
        RedisHistoryProvider("notes", redis_url=url, application_id="app", tenant_id="Acme", agent_id="a1"),
        RedisHistoryProvider(redis_url=url, application_id="Other app"),
        RedisHistoryProvider(redis_url=url, key_format="legacy"),
    ]
    for provider in providers:
        for name in SESSIONS:
            await provider.save_messages(name, messages[:1])
            await provider.save_messages(name, messages[1:])
        await provider.aclose()


async def agent_framework_beta(url: str) -> None:
    from agent_framework_redis import RedisChatMessageStore

    messages = beta_messages()
    for name in SESSIONS:
        store = RedisChatMessageStore(redis_url=url, thread_id=name)
        await store.add_messages(messages[:1])
        await store.add_messages(messages[1:])
        await store.aclose()


def beta_messages() -> list[Any]:
    try:
        from agent_framework import ChatMessage, FunctionCallContent, FunctionResultContent, Role
    except ImportError:
        # The last betas already have the messages of 1.x.
        return current_messages()

    call = FunctionCallContent(call_id="call_1", name="weather", arguments='{"city":"Rome"}')
    return [
        ChatMessage(role=Role.USER, text="weather in Rome? — é💾"),
        ChatMessage(role=Role.ASSISTANT, contents=[call]),
        ChatMessage(role=Role.TOOL, contents=[FunctionResultContent(call_id="call_1", result="22 °C")]),
        ChatMessage(role=Role.ASSISTANT, text="It is 22 °C.", author_name="Guide"),
    ]


async def langchain(url: str) -> None:
    from langchain_community.chat_message_histories import RedisChatMessageHistory
    from langchain_core.messages import AIMessage, HumanMessage, ToolMessage

    for name in SESSIONS:
        history = RedisChatMessageHistory(name, url=url)
        history.add_messages([HumanMessage("weather in Rome? — é💾")])
        call = {"name": "weather", "args": {"city": "Rome"}, "id": "call_1"}
        history.add_messages([AIMessage("", tool_calls=[call]), ToolMessage("22 °C", tool_call_id="call_1")])
        history.add_messages([AIMessage("It is 22 °C.", name="Guide")])


if __name__ == "__main__":
    main()
