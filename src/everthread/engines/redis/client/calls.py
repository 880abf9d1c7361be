"""Calls to a server, and the order in which the writes of a thread are sent.

One write of a thread is in flight at a time. Writes that wait behind it are sent together as one transaction. So no
later write overtakes an earlier one that is sent again: after ``NOSCRIPT``, a redirection (``MOVED``, ``ASK``), a
temporary refusal or a lost connection.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Final

from everthread.engines.redis.errors import TRANSIENT, ServerError
from everthread.engines.redis.scripts import ASKING, EXEC, MULTI, Command

Address = tuple[str, int]

MAX_TRANSACTION: Final = 64
"""Writes in one transaction: other clients wait for about 3 ms while the server runs them."""

_MAX_BYTES: Final = 1024 * 1024
_SENT_AGAIN: Final = TRANSIENT | {"NOSCRIPT"}


class Call:
    """Data to send to a server, and the future of its reply.

    Attributes:
        slot: Decides which server the call goes to; -1 for a command of the connection itself.
        answer: Gets the reply: the last of several if the commands are a transaction.
        parts: The calls that this one sends as one transaction; each has its own answer.
        attempts: Number of times that it was sent.
        in_doubt: It may have taken effect although no reply came.
        ask: A server that accepts it once, while its slot moves there.
        until: When to give up, by the loop's clock; 0 until it has to wait.
        at_end: Called once, when the call is answered or given up.
    """

    __slots__ = (
        "answer", "ask", "at_end", "attempts", "command", "error", "in_doubt", "left", "packed", "parts", "replies",
        "slot", "until", "was_redirected",
    )  # fmt: skip

    def __init__(
        self, command: Command, packed: bytes, slot: int, answer: asyncio.Future[Any], replies: int = 1
    ) -> None:
        self.command = command
        self.packed = packed
        self.slot = slot
        self.answer = answer
        self.parts: Sequence[Call] = ()
        self.replies = self.left = replies
        self.error: ServerError | None = None
        self.attempts = 0
        self.in_doubt = False
        self.ask: Address | None = None
        self.was_redirected = False
        self.until = 0.0
        self.at_end: Callable[[], object] | None = None

    @classmethod
    def joined(cls, parts: Sequence[Call]) -> Call:
        """Return a transaction of calls of one script on one thread: no other client's command comes in between."""
        first = parts[0]
        data = b"".join([MULTI, *[call.packed for call in parts], EXEC])
        call = cls(first.command, data, first.slot, first.answer, len(parts) + 2)
        call.parts, call.until = parts, first.until
        return call

    def begin(self) -> bytes:
        """Return the data to send."""
        self.attempts += 1
        self.error = None
        self.left = self.replies
        if self.ask is None:
            return self.packed
        # ASKING is valid for one command, or for the transaction that it begins.
        self.ask = None
        self.left += 1
        return ASKING.by_hash + self.packed

    def use_source(self) -> None:
        """Send the script itself the next time, instead of its hash."""
        self.packed = self.packed.replace(self.command.by_hash, self.command.by_source, 1)

    def reply(self, reply: Any) -> Any:
        """Return a reply, or the error that explains it."""
        if self.replies > 1 and isinstance(reply, ServerError):
            self.error = self.error or reply
            return self.error
        if self.parts and not self.left:
            # A server that refuses one of them for such a reason refuses all: then all are sent again.
            refusals = [part for part in reply if isinstance(part, ServerError) and part.code in _SENT_AGAIN]
            return refusals[0] if refusals else reply
        return reply

    @property
    def is_abandoned(self) -> bool:
        """Return whether no caller waits for the reply."""
        return all(part.is_abandoned for part in self.parts) if self.parts else self.answer.done()

    def succeed(self, reply: Any) -> None:
        if self.parts:
            for part, own in zip(self.parts, reply, strict=True):
                part.fail(own) if isinstance(own, ServerError) else part.succeed(own)
        elif not self.answer.done():
            self.answer.set_result(reply)
        self.end()

    def fail(self, error: Exception) -> None:
        for part in self.parts:
            # A copy, because raising one object in many tasks mixes their tracebacks.
            part.fail(type(error)(*error.args))
        if not self.answer.done():
            self.answer.set_exception(error)
        self.end()

    def end(self) -> None:
        """Let the next write of the thread be sent."""
        if self.at_end is not None:
            at_end, self.at_end = self.at_end, None
            at_end()


class Writes:
    """Send the writes of each thread in the order in which they were added.

    Args:
        send: Sends a call.
        deadline: Returns when to give up a call that begins to wait now.
    """

    def __init__(self, send: Callable[[Call], None], deadline: Callable[[], float]) -> None:
        self._send = send
        self._deadline = deadline
        self._waiting: dict[bytes, deque[Call]] = {}

    def add(self, key: bytes, call: Call) -> None:
        """Send a write of the thread with this list key, after its earlier writes."""
        waiting = self._waiting.get(key)
        if waiting is not None:
            call.until = self._deadline()
            waiting.append(call)
            return
        self._waiting[key] = deque()
        call.at_end = lambda: self._send_next(key)
        self._send(call)

    def _send_next(self, key: bytes) -> None:
        waiting = self._waiting[key]
        calls = _next_transaction(waiting)
        if not calls:
            del self._waiting[key]
            return
        call = calls[0] if len(calls) == 1 else Call.joined(calls)
        call.at_end = lambda: self._send_next(key)
        self._send(call)


def _next_transaction(waiting: deque[Call]) -> list[Call]:
    """Remove and return the next call that is not abandoned, and the following ones that can be sent with it."""
    calls: list[Call] = []
    size = 0
    while waiting and len(calls) < MAX_TRANSACTION:
        call = waiting[0]
        if not call.is_abandoned:
            size += len(call.packed)
            is_alike = call.command.repeatable and (not calls or call.command is calls[0].command)
            if calls and not (is_alike and size <= _MAX_BYTES):
                break
            calls.append(call)
        waiting.popleft()
    return calls
