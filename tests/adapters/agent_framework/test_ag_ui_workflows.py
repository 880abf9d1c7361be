"""A workflow behind the framework's AG-UI endpoint, with checkpoints and snapshots on a store.

Annotations are objects here: some releases of the framework do not read them as text.
"""

import inspect
import json
from typing import Any

import httpx
import pytest
from agent_framework import Executor, Message, WorkflowBuilder, WorkflowContext, handler, response_handler
from agent_framework_ag_ui import add_agent_framework_fastapi_endpoint
from fastapi import FastAPI

from everthread import Store
from everthread.adapters.agent_framework import Everthread

if "checkpoint_storage" not in inspect.signature(add_agent_framework_fastapi_endpoint).parameters:
    pytest.skip("this release of agent-framework-ag-ui has no checkpoints", allow_module_level=True)


class Clerk(Executor):
    """Asks a person, then reports the answer."""

    @handler
    async def ask(self, messages: list[Message], context: WorkflowContext[Any, str]) -> None:
        await context.request_info(messages[-1].text, bool)

    @response_handler
    async def done(self, asked: str, granted: bool, context: WorkflowContext[Any, str]) -> None:
        await context.yield_output(f"{asked}: {granted}")


async def post(store: Store, user: str, **body: Any) -> list[dict[str, Any]]:
    """Send a request to a freshly started server."""
    app, stores = FastAPI(), Everthread(store)
    workflow = WorkflowBuilder(name="orders", start_executor=Clerk(id="clerk")).build()
    add_agent_framework_fastapi_endpoint(
        app,
        workflow,
        "/orders",
        checkpoint_storage=stores.checkpoints("ag-ui", max_checkpoints=100),
        snapshot_store=stores.snapshots(),
        snapshot_scope_resolver=lambda request: user,
    )
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url="http://agent") as client:
        response = await client.post("/orders", json={"threadId": "trip", "runId": "r", **body})
    return [json.loads(line[5:]) for line in response.text.splitlines() if line.startswith("data:")]


async def test_an_approval_survives_a_restart_of_the_endpoint(store: Store) -> None:
    asked = await post(store, "ana", messages=[{"id": "m1", "role": "user", "content": "Book Rome"}])
    (interrupt,) = asked[-1]["outcome"]["interrupts"]
    latest = await Everthread(store).checkpoints("ag-ui").get_latest(workflow_name="orders")
    assert latest is not None
    assert list(latest.pending_request_info_events) == [interrupt["id"]]
    answer = {
        "messages": [],
        "resume": [{"interruptId": interrupt["id"], "status": "resolved", "payload": True}],
        "forwardedProps": {"checkpoint_id": latest.checkpoint_id},
    }
    stolen = await post(store, "bob", **answer)
    assert [event["type"] for event in stolen][-1] == "RUN_ERROR"
    finished = await post(store, "ana", **answer)
    assert "Book Rome: True" in [event.get("delta") for event in finished]
    assert finished[-1]["type"] == "RUN_FINISHED"
