"""Writes and reads sessions with the releases that users have: ``PYTHON foreign_writer.py JOB PLACE``.

``PYTHON`` has the packages of ``constraints-foreign.txt``. A job that is "killed" ends with SIGKILL.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from typing import Any

NAME = "s1"
QUESTION = {"role": "user", "content": "weather in Rome? — é💾"}
REASONING = {"type": "reasoning", "id": "rs_1", "summary": []}
CALLS = [
    {"type": "function_call", "id": f"fc_{n}", "call_id": f"call_0000000000{n}", "name": "weather", "arguments": "{}"}
    for n in (1, 2)
]
OUTPUTS = [{"type": "function_call_output", "call_id": call["call_id"], "output": "22 °C"} for call in CALLS]
ANSWER = {"type": "message", "id": "msg_1", "role": "assistant", "content": [{"type": "output_text", "text": "22 °C"}]}
TURN = [QUESTION, REASONING, *CALLS, *OUTPUTS, ANSWER]
AGAIN = {"role": "user", "content": "are you there?"}


def killed() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def session_of(place: str, name: str = NAME) -> Any:
    from agents import SQLiteSession

    if place.startswith("postgresql:"):
        from agents.extensions.memory import SQLAlchemySession

        url = place.replace("postgresql:", "postgresql+asyncpg:", 1)
        return SQLAlchemySession.from_url(name, url=url, create_tables=True)
    if place.startswith("redis:"):
        from agents.extensions.memory import RedisSession

        return RedisSession.from_url(name, url=place)
    if place.startswith("sqlalchemy:"):
        from agents.extensions.memory import SQLAlchemySession

        url = f"sqlite+aiosqlite:///{place.removeprefix('sqlalchemy:')}"
        return SQLAlchemySession.from_url(name, url=url, create_tables=True)
    return SQLiteSession(name, place)


async def healthy(place: str) -> None:
    session = session_of(place, "healthy")
    await session.add_items([QUESTION])
    await session.add_items(TURN[1:])


async def killed_before_the_result(place: str) -> None:
    await session_of(place).add_items([QUESTION, REASONING, *CALLS])
    killed()


async def failed_parallel_call(place: str) -> None:
    await session_of(place).add_items([QUESTION, REASONING, *CALLS, OUTPUTS[1]])
    killed()


async def asked_again(place: str) -> None:
    await session_of(place).add_items([AGAIN])


async def replayed(place: str) -> None:
    session = session_of(place)
    await session.add_items(TURN)
    await session.add_items([*TURN, AGAIN])


async def items(place: str) -> None:
    for item in await session_of(place).get_items():
        sys.stdout.write(json.dumps(item) + "\n")


def conversation() -> list[Any]:
    from agent_framework import Content, Message

    call_id = CALLS[0]["call_id"]
    return [
        Message("user", ["weather?"]),
        Message("assistant", [Content.from_function_call(call_id, "weather", arguments={})]),
        Message("tool", [Content.from_function_result(call_id, result="22 °C")]),
        Message("assistant", ["22 °C"]),
    ]


async def trimmed_by_count(place: str) -> None:
    from agent_framework_redis import RedisHistoryProvider

    provider = RedisHistoryProvider(redis_url=place, application_id="app", max_messages=2)
    await provider.save_messages(NAME, conversation())


async def two_writers(place: str) -> None:
    from agent_framework import Message
    from agent_framework_redis import RedisHistoryProvider

    one, two = [RedisHistoryProvider(redis_url=place, application_id="app") for _ in range(2)]
    await one.save_messages(NAME, conversation()[:2])
    await two.save_messages(NAME, [Message("user", ["and Paris?"])])
    await one.save_messages(NAME, conversation()[2:])


async def history(place: str) -> None:
    from agent_framework_redis import RedisHistoryProvider

    provider = RedisHistoryProvider(redis_url=place, application_id="app")
    for message in await provider.get_messages(NAME):
        sys.stdout.write(json.dumps(message.to_dict()) + "\n")


def postgres_history(place: str) -> Any:
    from agent_framework_community_postgres import PostgresHistoryProvider

    return PostgresHistoryProvider(application_id="app", connection_string=place)


async def postgres_killed(place: str) -> None:
    from agent_framework import Message
    from agent_framework_community_postgres import PostgresPersistence

    async with PostgresPersistence(application_id="app", connection_string=place) as persistence:
        await persistence.migrate()
    provider = postgres_history(place)
    await provider.save_messages("healthy", conversation())
    await provider.save_messages(NAME, conversation()[:2])
    await provider.save_messages(NAME, [Message("user", ["again"])])
    await provider.save_messages("last", conversation()[:2])
    killed()


async def postgres_items(place: str) -> None:
    for name in ("healthy", NAME, "last"):
        messages = await postgres_history(place).get_messages(name)
        sys.stdout.write(json.dumps([message.role for message in messages]) + "\n")


def checkpoint() -> Any:
    from langchain_core.messages import AIMessage, HumanMessage
    from langgraph.checkpoint.base import empty_checkpoint

    call = {"name": "weather", "args": {}, "id": CALLS[0]["call_id"]}
    made = empty_checkpoint()
    made["channel_values"] = {"messages": [HumanMessage("q"), AIMessage("", tool_calls=[call]), HumanMessage("r")]}
    made["channel_versions"] = {"messages": "1"}
    return made


async def graph_in_postgres(place: str) -> None:
    from langgraph.checkpoint.postgres import PostgresSaver

    with PostgresSaver.from_conn_string(place) as saver:
        saver.setup()
        config: Any = {"configurable": {"thread_id": NAME, "checkpoint_ns": ""}}
        saver.put(config, checkpoint(), {"source": "loop", "step": 1, "parents": {}}, {"messages": "1"})
    killed()


async def graph(place: str) -> None:
    from langgraph.checkpoint.sqlite import SqliteSaver

    with SqliteSaver.from_conn_string(place) as saver:
        saver.setup()
        config: Any = {"configurable": {"thread_id": NAME, "checkpoint_ns": ""}}
        saver.put(config, checkpoint(), {"source": "loop", "step": 1, "parents": {}}, {"messages": "1"})
    killed()


if __name__ == "__main__":
    asyncio.run(globals()[sys.argv[1]](sys.argv[2]))
    sys.stdout.flush()
    # Threads of drivers that these libraries leave open would keep the process alive.
    os._exit(0)
