"""Store the messages of a run that is cancelled or fails before its answer is complete.

The framework calls ``after_run`` for finished runs only. So a run gets two middlewares, which follow its calls to the
model and its tools. The first one that sees the run end stores its messages by the policy of the history provider:

- ``close``: the input, the finished answers, the started text of an unfinished one, and the tool results. A call
  without a result gets one that says that its outcome is unknown: the tool may have run.
- ``keep``: the same without such results. Models do not get these calls: see `sequence`.
- ``drop``: the input.

A run that waits for an approval is finished. The last stored message has the property `ENDED`: ``cancelled`` or
``failed``. What the framework's persistence gate withholds stays unstored.
"""

from __future__ import annotations

import asyncio
import copy
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, cast

from agent_framework import ChatMiddleware, ChatResponse, Content, FunctionMiddleware, Message, ResponseStream

from everthread.adapters.contents import call_ids, contents_of, with_contents
from everthread.messages.formats.agent_framework import ENDED

try:
    from agent_framework._sessions import (
        _defer_run_persistence as is_withheld,  # pyright: ignore[reportPrivateUsage]
    )
except ImportError:

    def is_withheld(persist: Callable[[], Awaitable[None]]) -> bool:
        """Return False: early releases of 1.x have no persistence gate."""
        return False


if TYPE_CHECKING:
    from agent_framework import ChatContext, FunctionInvocationContext

OnIncomplete = Literal["close", "keep", "drop"]
POLICIES = ("close", "keep", "drop")
UNKNOWN = "The run ended before this call returned. Its outcome is unknown: the tool may have run."

Next = Callable[[], Awaitable[None]]

log = logging.getLogger("everthread.agent_framework")
_storing: set[asyncio.Task[None]] = set()


class UnfinishedRun:
    """The messages of a run so far.

    Args:
        policy: See the module.
        store: Appends the outputs of a run that has ended; each message of its input comes before them.
    """

    def __init__(self, policy: OnIncomplete, store: Callable[[Sequence[Message], str], Awaitable[None]]) -> None:
        self._policy = policy
        self._store = store
        self._started: list[str] = []
        self._results: dict[str, Content] = {}
        self._has_ended = False
        self._stored: Sequence[Message] | None = None
        self._outputs: list[Message] = []
        self._updates: Sequence[Any] = ()

    @property
    def middleware(self) -> Sequence[ChatMiddleware | FunctionMiddleware]:
        """The middlewares that follow the run."""
        return [_Calls(self), _Tools(self)]

    def finish(self) -> Sequence[Message] | None:
        """Note that the run has not ended early after all. Return the outputs that were stored, if some were."""
        self._has_ended, self._store, self._outputs, self._updates = True, _nothing, [], ()
        return self._stored

    @property
    def outputs(self) -> list[Message]:
        """The messages of the model and the tools."""
        if self._updates:
            # Only now: they are rarely needed.
            self._outputs += ChatResponse.from_updates(self._updates).messages
            self._updates = ()
        return self._outputs

    def end_call(self, updates: Sequence[Any]) -> None:
        """Note a streamed answer."""
        self._updates = updates

    def begin_call(self, messages: Sequence[Message]) -> None:
        """Take the results of the tools from the messages of the next request."""
        if not self.outputs and not self._started:
            return
        asked = {*call_ids(self.outputs, "function_call"), *self._started}
        open_calls = asked - call_ids(self.outputs, "function_result")
        results: list[Message] = []
        for message in reversed(messages):
            if message.role != "tool":
                break
            if not open_calls.isdisjoint(call_ids([message], "function_result")):
                results.append(message)
        self.outputs.extend(results[::-1])
        self._started, self._results = [], {}

    def only_call_of(self, name: str) -> str | None:
        """Return the id of the open call of a tool, if there is one: early releases of 1.x do not pass it."""
        answered = call_ids(self.outputs, "function_result")
        calls = [call.call_id for call in contents_of(self.outputs, "function_call") if call.name == name]
        calls = [call_id for call_id in calls if call_id not in answered]
        return calls[0] if len(calls) == 1 else None

    def begin_tool(self, call_id: str) -> None:
        """Note that a tool is about to run."""
        self._started.append(call_id)

    def end_tool(self, call_id: str, result: Any) -> None:
        """Note the result of a tool, until the next request has it."""
        self._results[call_id] = Content.from_function_result(call_id, result=result)

    async def end(self, error: BaseException) -> None:
        """Store the messages. Never fails, and continues if the caller is cancelled again."""
        if self._has_ended:
            return
        self._has_ended = True
        how = "cancelled" if isinstance(error, (asyncio.CancelledError, GeneratorExit)) else "failed"
        outputs = self._closed()
        if is_withheld(partial(self._store, outputs, how)):
            return
        task = asyncio.ensure_future(self._store_outputs(outputs, how))
        _storing.add(task)
        task.add_done_callback(_storing.discard)
        await asyncio.shield(task)

    async def _store_outputs(self, outputs: Sequence[Message], how: str) -> None:
        try:
            await self._store(outputs, how)
        except Exception as error:
            # Not its text, and not raised: the run's own error is the one to see.
            log.warning("The messages of a run that ended early were not stored (%s).", type(error).__name__)
        else:
            self._stored = outputs

    def _closed(self) -> list[Message]:
        if self._policy == "drop":
            return []
        called = [content.call_id for content in contents_of(self.outputs, "function_call")]
        answered = call_ids(self.outputs, "function_result")
        missing = [
            call_id for call_id in dict.fromkeys([*called, *self._started]) if call_id and call_id not in answered
        ]
        if self._policy == "keep":
            results = [self._results[call_id] for call_id in missing if call_id in self._results]
        else:
            unknown = partial(Content.from_function_result, result=UNKNOWN)
            results = [self._results.get(call_id) or unknown(call_id) for call_id in missing]
        return [*self.outputs, *([Message("tool", results)] if results else ())]


async def _nothing(*_: object) -> None: ...


class _Calls(ChatMiddleware):
    def __init__(self, run: UnfinishedRun) -> None:
        self._run = run

    async def process(self, context: ChatContext, call_next: Next) -> None:
        self._run.begin_call(context.messages)
        try:
            await call_next()
        except BaseException as error:
            await self._run.end(error)
            raise
        if isinstance(context.result, ResponseStream):
            inner = context.result
            context.result = ResponseStream(self._followed(inner), finalizer=lambda _: inner.get_final_response())
        elif context.result is not None:
            self._run.outputs.extend(context.result.messages)

    async def _followed(self, stream: ResponseStream[Any, ChatResponse]) -> AsyncIterator[Any]:
        updates: list[Any] = []
        try:
            async for update in stream:
                updates.append(update)
                yield update
        except BaseException as error:
            # The arguments of its calls may be incomplete.
            for message in ChatResponse.from_updates(updates).messages:
                if texts := list(contents_of([message], "text")):
                    self._run.outputs.append(with_contents(message, texts))
            await self._run.end(error)
            raise
        self._run.end_call(updates)


class _Tools(FunctionMiddleware):
    def __init__(self, run: UnfinishedRun) -> None:
        self._run = run

    async def process(self, context: FunctionInvocationContext, call_next: Next) -> None:
        call_id = cast(str | None, context.metadata.get("call_id")) or self._run.only_call_of(context.function.name)
        if call_id:
            self._run.begin_tool(call_id)
        try:
            await call_next()
        except asyncio.CancelledError as error:
            await self._run.end(error)
            raise
        if call_id:
            self._run.end_tool(call_id, context.result)


def marked(messages: Sequence[Message], how: str) -> list[Message]:
    """Return the messages of a run; a copy of the last one has the property that says how the run ended."""
    last = copy.copy(messages[-1])
    last.additional_properties = {**last.additional_properties, ENDED: how}
    return [*messages[:-1], last]
