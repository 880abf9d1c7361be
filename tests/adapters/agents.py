"""Agents of Agent Framework 1.x, their tools, and runs in sessions as another process would have them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import agent_framework
import pytest
from agent_framework import Agent, AgentSession, ContextProvider, Message, tool

from tests.adapters.scripted import ScriptedClient

since_1_19 = pytest.mark.skipif(
    tuple(map(int, agent_framework.__version__.split(".")[:2])) < (1, 19),
    reason="early releases of 1.x send the call that still waits to the model by themselves",
)

PIXEL = b"\x89PNG\r\n\x1a\n\x00\xff"


@tool(approval_mode="never_require")
def weather(city: str) -> str:
    """The weather of a city."""
    return f"Sunny in {city}."


@tool(approval_mode="always_require")
def book(city: str) -> str:
    """Books a journey."""
    return f"Booked {city}."


def agent_with(client: ScriptedClient, *providers: ContextProvider, **options: Any) -> Agent:
    return Agent(client=client, name="TravelPlanner", context_providers=list(providers), **options)


async def run(agent: Agent, said: Any, session_id: str = "trip", *, stream: bool = False) -> str:
    """One run in a session as another process would have it: only the id is known."""
    session = AgentSession(session_id=session_id)
    if not stream:
        return (await agent.run(said, session=session)).text
    return (await agent.run(said, session=session, stream=True).get_final_response()).text


def texts(messages: Sequence[Message]) -> list[tuple[str, str]]:
    return [(message.role, message.text) for message in messages]


def kinds(messages: Sequence[Message]) -> list[tuple[str, list[str]]]:
    return [(message.role, [content.type for content in message.contents]) for message in messages]
