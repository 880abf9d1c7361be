"""A workflow that waits for an answer, and the values that its checkpoints hold.

Annotations are objects here: early releases of the framework do not read them as text.
"""

import asyncio
import json
import sys
from collections import Counter, OrderedDict, defaultdict, deque
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from enum import Enum
from typing import Any
from uuid import UUID

from agent_framework import (
    Executor,
    Message,
    Workflow,
    WorkflowBuilder,
    WorkflowContext,
    handler,
    response_handler,
)

from everthread.adapters.agent_framework import EverthreadCheckpointStorage


class Color(Enum):
    RED = "red"


class Place(str):
    """A text with a type of its own."""


@dataclass
class Order:
    """A value of the application."""

    number: int
    color: Color = Color.RED


@dataclass
class Approval:
    """A request to a person."""

    order: Order


STANDARD: dict[str, Any] = {
    "texts": ["", "é\U0001f4be", "\ud800"],
    "numbers": [0, -1, 10**30, 0.1, 1e-300, float("inf"), True, None],
    "tuple": (1, (2, [3])),
    "sets": [{1, 2}, frozenset({"a"})],
    "bytes": [b"\x00\xff", bytearray(b"x")],
    "times": [datetime(2026, 11, 30, 12, tzinfo=UTC), date(2026, 1, 1), timedelta(days=1)],
    "others": [Decimal("1.10"), UUID(int=1), complex(1, 2), range(3)],
    "collections": [OrderedDict(a=1), defaultdict(list, a=[1]), deque([1], 3), Counter("aab")],
    "names": {1: "a", "1": "b", (1, 2): "c"},
    "reserved": {"__pickled__": "x", "__type__": "y"},
    "types": [bool, list[Message], dict[str, Any]],
}


class Clerk(Executor):
    """Asks a person to approve an order, then reports the answer."""

    def __init__(self) -> None:
        super().__init__(id="clerk")

    @handler
    async def ask(self, order: Order, context: WorkflowContext[Any, str]) -> None:
        await context.request_info(Approval(order), bool)

    @response_handler
    async def done(self, asked: Approval, granted: bool, context: WorkflowContext[Any, str]) -> None:
        await context.yield_output(f"{asked.order.number} {asked.order.color.name} {granted}")


def workflow(storage: EverthreadCheckpointStorage) -> Workflow:
    return WorkflowBuilder(name="orders", start_executor=Clerk(), checkpoint_storage=storage).build()


ALLOWED = (Order, Color, Approval)


async def main(how: str, url: str) -> None:
    """One step of the workflow in this process: ``ask`` or ``answer``."""
    async with EverthreadCheckpointStorage(url, "order-1", allowed_types=ALLOWED) as storage:
        if how == "ask":
            result = await workflow(storage).run(Order(4711))
            sys.stdout.write(json.dumps([event.request_id for event in result.get_request_info_events()]))
            return
        latest = await storage.get_latest(workflow_name="orders")
        assert latest is not None
        asked = list(latest.pending_request_info_events)
        result = await workflow(storage).run(responses=dict.fromkeys(asked, True), checkpoint_id=latest.checkpoint_id)
        sys.stdout.write(json.dumps(result.get_outputs()))


def message() -> Message:
    return Message("user", ["Hello"], message_id="m1", additional_properties={"a": 1})


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
