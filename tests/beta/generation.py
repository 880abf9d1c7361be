"""A beta in a process of its own, for tests of the other generation. Arguments: what to do, and its details as JSON."""

from __future__ import annotations

import asyncio
import base64
import json
import sys
from typing import Any

from hypothesis import given, settings

from everthread import Message, ThreadKey
from everthread.adapters.agent_framework_beta import EverthreadChatMessageStore
from everthread.adapters.agent_framework_beta.messages import message_codec
from tests.adapters.meaning import meaning
from tests.beta import betas
from tests.openai_server import Call


def weather(city: str) -> str:
    """The weather of a city."""
    return f"Sunny in {city}."


async def write(url: str, thread_id: str) -> Any:
    """Writes a message with each content, and a run with a tool; tells what they mean."""
    async with EverthreadChatMessageStore(url, thread_id) as store:
        await store.add_messages(
            [
                betas.message("user", "all of it"),
                betas.message("assistant", *betas.every_content(), author_name="A", message_id="m1"),
                betas.message("assistant", "x", additional_properties={"kept": [1]}),
            ]
        )
        return meaning(await store.list_messages())


async def run(url: str, thread_id: str, said: str) -> Any:
    """One turn with a tool of an agent; tells what the model was given, without instructions."""
    client = betas.scripted([Call("weather", {"city": "Rome"}, id=f"call_{said}")], "Sunny.")
    async with EverthreadChatMessageStore(url, thread_id) as store:
        who = betas.agent(client, lambda: store, tools=[betas.tool(weather)])
        await betas.run(who, said, who.get_new_thread())
    return [each for each in meaning(client.seen[0]) if each["role"] != "system"]


async def read(url: str, thread_id: str) -> Any:
    async with EverthreadChatMessageStore(url, thread_id) as store:
        return meaning(await store.list_messages())


async def rows(count: int) -> Any:
    """Any rows that this beta writes, with what they mean."""
    from tests.beta.test_messages import MESSAGES

    found: list[tuple[Any, Any]] = []

    @given(MESSAGES)
    @settings(max_examples=count, database=None, deadline=None)
    def collect(message: Any) -> None:
        found.append((json.loads(message_codec().encode(message).payload), meaning([message])[0]))

    collect()
    return found


async def decode(payloads: list[str]) -> Any:
    """What rows of the other generation mean here."""
    stored = [Message(0, base64.b64decode(each), "agent-framework", None, 0) for each in payloads]
    return meaning([message_codec().decode(each, ThreadKey("t")) for each in stored])


DOING = {"write": write, "run": run, "read": read, "rows": rows, "decode": decode}
json.dump(asyncio.run(DOING[sys.argv[1]](**json.load(sys.stdin))), sys.stdout)
