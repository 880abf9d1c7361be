"""An agent without a model service, and messages for the tests."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from pydantic_ai import Agent, DeferredToolRequests
from pydantic_ai.messages import (
    ModelMessage,
    ModelRequest,
    ModelResponse,
    TextPart,
    ToolCallPart,
    ToolReturnPart,
    UserPromptPart,
)
from pydantic_ai.models.function import AgentInfo, FunctionModel

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def said(text: str) -> ModelMessage:
    return ModelRequest(parts=[UserPromptPart(content=text, timestamp=NOW)])


def answered(text: str) -> ModelMessage:
    return ModelResponse(parts=[TextPart(content=text)], timestamp=NOW)


def called(call_id: str = "c1") -> ModelMessage:
    return ModelResponse(parts=[ToolCallPart("weather", {"city": "Rome"}, call_id)], timestamp=NOW)


def returned(call_id: str = "c1") -> ModelMessage:
    return ModelRequest(parts=[ToolReturnPart("weather", "Sunny", call_id, timestamp=NOW)])


class Planner:
    """An agent whose model calls a tool if the user asks for the weather.

    Attributes:
        requests: The messages that the model got, one list a request.
    """

    def __init__(self, *, approve: bool = False) -> None:
        self.requests: list[list[ModelMessage]] = []
        self.agent: Agent[None, Any] = Agent(FunctionModel(self._reply), output_type=[str, DeferredToolRequests])
        self.agent.tool_plain(requires_approval=approve)(weather)

    def _reply(self, messages: list[ModelMessage], info: AgentInfo) -> ModelResponse:
        self.requests.append(messages)
        last = messages[-1].parts[-1]
        if isinstance(last, UserPromptPart) and "weather" in str(last.content):
            return ModelResponse(parts=[ToolCallPart("weather", {"city": "Rome"}, f"call_{len(messages)}")])
        return ModelResponse(parts=[TextPart(content="Done.")])


def weather(city: str) -> str:
    """The weather of a city."""
    return f"Sunny in {city}."


def unlinked(messages: list[ModelMessage]) -> set[str]:
    """Return the IDs of results without an earlier call, and of calls without a result."""
    calls: set[str] = set()
    faults: set[str] = set()
    for message in messages:
        for part in message.parts:
            if isinstance(part, ToolCallPart):
                calls.add(part.tool_call_id)
            elif isinstance(part, ToolReturnPart):
                (calls.discard if part.tool_call_id in calls else faults.add)(part.tool_call_id)
    return calls | faults
