"""Know when a run of the betas reads and writes its thread.

A message store cannot see whether a run calls it, nor the run's input. So the two methods in which an agent's run
reads and writes its thread are wrapped. A release that lacks one of them works without what follows:

- A run gets only tool calls and results that model services accept, by the rules of 1.x: a list may begin with a tool's
  result, because another program has trimmed it, or hold calls of runs that crashed.
- An input that cannot be stored is refused before the model is asked. An answer is always stored: see
  `everthread.adapters.storable`.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextvars import ContextVar
from functools import wraps
from typing import Any

from everthread.adapters.agent_framework.sequence import with_valid_calls
from everthread.adapters.contents import APPROVALS, call_ids

_READ, _WRITE = "_prepare_thread_and_messages", "_notify_thread_of_new_messages"

run_input: ContextVar[Sequence[Any] | None] = ContextVar("run_input", default=None)
"""The input of the run that reads its thread; ``None`` outside a run."""
is_saving: ContextVar[bool] = ContextVar("is_saving", default=False)
"""Whether a run writes its thread."""


def for_a_run(messages: list[Any]) -> list[Any]:
    """Return stored messages without what a model service refuses, if a run reads them; otherwise all of them."""
    inputs = run_input.get()
    return messages if inputs is None else list(with_valid_calls(messages, inputs, call_ids(inputs, APPROVALS[1])))


def note_runs(agent_class: Any) -> None:
    """Wrap the methods in which an agent's run reads and writes its thread."""
    read, write = getattr(agent_class, _READ, None), getattr(agent_class, _WRITE, None)
    if read is not None:

        @wraps(read)
        async def reading(self: Any, *, input_messages: Any = None, **kwargs: Any) -> Any:
            token = run_input.set(input_messages or [])
            try:
                return await read(self, input_messages=input_messages, **kwargs)
            finally:
                run_input.reset(token)

        setattr(agent_class, _READ, reading)
    if write is not None:

        @wraps(write)
        async def writing(self: Any, *args: Any, **kwargs: Any) -> Any:
            token = is_saving.set(True)
            try:
                return await write(self, *args, **kwargs)
            finally:
                is_saving.reset(token)

        setattr(agent_class, _WRITE, writing)
