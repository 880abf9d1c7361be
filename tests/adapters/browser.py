"""A client of AG-UI, as a page in a browser is one: it keeps the transcript and sends all of it with each run."""

from __future__ import annotations

import json
from typing import Any

import httpx
from agent_framework import Agent
from agent_framework_ag_ui import add_agent_framework_fastapi_endpoint
from fastapi import FastAPI

Json = dict[str, Any]


class Browser:
    """One page on one thread of an agent, behind the framework's own endpoint.

    Args:
        agent: The agent to talk to.
        ids: The ids in the transcript: ``client`` gives each message one of its own, ``users`` only those of the user,
            ``server`` takes the server's for answers, ``none`` gives none.
        user: The user whom the endpoint serves; ``None`` uses ``single_user=True``.
    """

    def __init__(self, agent: Agent, ids: str, user: str | None = None) -> None:
        self._app = FastAPI()
        scope: dict[str, Any] = (
            {"single_user": True} if user is None else {"authorization_scope_resolver": lambda: user}
        )
        add_agent_framework_fastapi_endpoint(self._app, agent, "/agent", **scope)
        self._ids = ids
        self.messages: list[Json] = []
        self.finished: Json = {}

    async def say(self, text: str) -> None:
        """Send one more message of the user, behind the transcript so far."""
        self.messages.append({"role": "user", "content": text} | ({} if self._ids == "none" else self._next_id()))
        await self.run()

    async def approve(self) -> None:
        """Grant what the last run asked for."""
        asked = self.finished["outcome"]["interrupts"][0]["id"]
        await self.run(resume=[{"interruptId": asked, "status": "resolved", "payload": {"approved": True}}])

    async def run(self, **more: Any) -> None:
        """Send the transcript and add what the run answers."""
        body = {"threadId": "trip", "runId": f"run-{len(self.messages)}", "messages": self.messages, "state": {}}
        body |= {"tools": [], "context": [], "forwardedProps": {}} | more
        transport = httpx.ASGITransport(app=self._app)
        async with httpx.AsyncClient(transport=transport, base_url="http://agent") as client:
            response = await client.post("/agent", json=body)
        shown: dict[str, Json] = {}
        for line in response.text.splitlines():
            if line.startswith("data:"):
                self._take(json.loads(line[5:]), shown)

    def _take(self, event: Json, shown: dict[str, Json]) -> None:
        match event["type"]:
            case "TEXT_MESSAGE_START":
                self._show(shown, event["messageId"], {"role": "assistant", "content": ""})
            case "TEXT_MESSAGE_CONTENT":
                shown[event["messageId"]]["content"] += event["delta"]
            case "TOOL_CALL_START":
                function = {"name": event["toolCallName"], "arguments": ""}
                shown[event["toolCallId"]] = function
                message = shown.get(event.get("parentMessageId") or "")
                if message is None:
                    message = self._show(
                        shown, event.get("parentMessageId") or "", {"role": "assistant", "content": ""}
                    )
                call = {"id": event["toolCallId"], "type": "function", "function": function}
                message.setdefault("toolCalls", []).append(call)
            case "TOOL_CALL_ARGS":
                shown[event["toolCallId"]]["arguments"] += event["delta"]
            case "TOOL_CALL_RESULT":
                result = {"role": "tool", "toolCallId": event["toolCallId"], "content": event["content"]}
                self._show(shown, event["messageId"], result)
            case "RUN_FINISHED":
                self.finished = event
            case "RUN_ERROR":
                raise AssertionError(event["message"])
            case _:
                pass

    def _show(self, shown: dict[str, Json], server_id: str, message: Json) -> Json:
        if self._ids == "client":
            message |= self._next_id()
        elif self._ids == "server":
            message |= {"id": server_id}
        shown[server_id] = message
        self.messages.append(message)
        return message

    def _next_id(self) -> Json:
        return {"id": f"shown-{len(self.messages)}"}
