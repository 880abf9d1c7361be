"""One connection to one Redis server, on which many calls are under way at a time.

redis-py makes the connection (URL, TLS, credentials, database); then its socket is driven here. Measured, this
does an append in two thirds of the time that redis-py's commands take, and 64 at a time in a fifth: calls that
are made in the same turn of the event loop are written together, and answers are matched by their order.

A line does not know other servers and does not try again: what cannot be answered here goes back to its owner.
"""

from __future__ import annotations

import asyncio
import itertools
import ssl
from collections import deque
from typing import Any, Final, NamedTuple, Protocol, cast

import hiredis

from everthread.engines.redis._errors import ServerError, unconfirmed
from everthread.engines.redis._scripts import ASKING, PING, Command
from everthread.engines.redis._wire import request

IDLE_SECONDS: Final = 60.0
"""A connection that is idle for so long is tried with a PING; Azure drops one after 10 minutes."""

_BUFFER: Final = 256 * 1024
_numbers = itertools.count()

Address = tuple[str, int]


class Durability(NamedTuple):
    """How many replicas must have a write before it counts as done, and how long they are waited for."""

    replicas: int
    milliseconds: int

    @property
    def words(self) -> tuple[bytes, ...]:
        """The command that waits."""
        return b"WAIT", b"%d" % self.replicas, b"%d" % self.milliseconds


class Call:
    """What is sent, and who waits for the answer: for the last of several, where commands go as a transaction.

    Attributes:
        slot: Decides which server it goes to.
        number: Calls are sent in the order of their numbers, also when they are sent again.
        attempts: How often it was sent.
        in_doubt: It may have taken effect although no answer came.
        ask: A server that takes it for this time only, while its slot moves there.
        until: When to give up, by the loop's clock; set when it cannot be sent at once.
    """

    __slots__ = (
        "answer", "ask", "attempts", "command", "error", "in_doubt", "left", "number", "packed", "replies", "slot",
        "until", "was_redirected",
    )  # fmt: skip

    def __init__(
        self, command: Command, packed: bytes, slot: int, answer: asyncio.Future[Any], replies: int = 1
    ) -> None:
        self.command = command
        self.packed = packed
        self.slot = slot
        self.number = next(_numbers)
        self.answer = answer
        self.replies = self.left = replies
        self.error: ServerError | None = None
        self.attempts = 0
        self.in_doubt = False
        self.ask: Address | None = None
        self.was_redirected = False
        self.until = 0.0

    def begin(self) -> bytes:
        """What to send."""
        self.attempts += 1
        self.error = None
        if self.ask is None:
            self.left = self.replies
            return self.packed
        # The permission lasts for one command, or for the transaction that it begins.
        self.ask = None
        self.left = self.replies + 1
        return ASKING.by_hash + self.packed

    def reply(self, reply: Any) -> Any:
        """The answer if this is its last part, and the error that is to blame if it is one."""
        if self.replies > 1 and isinstance(reply, ServerError):
            self.error = self.error or reply
            return self.error
        return reply


class Owner(Protocol):
    """Whoever says which call goes over which line."""

    def takes_back(self, line: Line, call: Call, error: ServerError) -> bool:
        """Whether it deals with a call that the server refused."""
        ...

    def lost(self, line: Line, calls: list[Call], reason: str) -> None:
        """The line is no more; these calls got no answer."""

    def rested(self) -> None:
        """Nothing is under way on a line."""


class Line(asyncio.BufferedProtocol):
    """Carries calls to one server.

    Args:
        writer: A connection that is authenticated and has its database selected.
        address: The server's place as the owner knows it.
        owner: Gets back what cannot be answered here.
        server: What errors call the server.
        timeout: Seconds after which a server that says nothing is taken for dead.
        durability: What a write waits for.
    """

    def __init__(
        self,
        writer: asyncio.StreamWriter,
        address: Address,
        owner: Owner,
        *,
        server: str,
        timeout: float,
        durability: Durability | None = None,
    ) -> None:
        transport = writer.transport
        assert isinstance(transport, asyncio.Transport)
        self.address = address
        self._owner = owner
        self._server = server
        self._timeout = timeout
        self._durability = durability
        self._wait = None if durability is None else Command(request(durability.words))
        self._loop = asyncio.get_running_loop()
        self._reader = hiredis.Reader(protocolError=hiredis.ProtocolError, replyError=ServerError)
        # One buffer for all reads: asyncio would otherwise allocate a quarter of a megabyte for each answer.
        self._buffer = bytearray(_BUFFER)
        self._unanswered: deque[Call] = deque()
        self._unconfirmed: list[tuple[Call, Any]] = []
        self._outgoing: list[bytes] = []
        self._must_wait = False
        self._heard = self._loop.time()
        self._watch = self._loop.call_later(timeout / 4, self._look_after)
        # The writer is kept, for when it goes it closes the transport.
        self._writer = writer
        self._transport: asyncio.Transport | None = transport
        transport.set_protocol(self)

    @property
    def is_busy(self) -> bool:
        """Whether answers are to come."""
        return bool(self._unanswered or self._unconfirmed)

    @property
    def encryption(self) -> ssl.SSLObject | None:
        """Its TLS, if it has it."""
        return None if self._transport is None else self._transport.get_extra_info("ssl_object")

    # Sending

    def send(self, call: Call) -> None:
        """Sends a call off with what else is sent in this turn of the loop."""
        if not self._unanswered:
            self._heard = self._loop.time()
        data = call.begin()
        self._unanswered.append(call)
        if self._outgoing:
            self._outgoing.append(data)
        elif len(self._unanswered) == 1 and self._wait is None and self._transport is not None:
            self._transport.write(data)
        else:
            # Others are under way, so what else is sent in this turn of the loop may go with it.
            self._outgoing.append(data)
            self._loop.call_soon(self._flush)
        if call.command.writes:
            self._must_wait = self._wait is not None

    def tell(self, command: Command) -> asyncio.Future[Any]:
        """Sends a command of the connection itself; its future is done when the server came to it, or never will."""
        call = Call(command, command.by_hash, -1, self._loop.create_future())
        if self._transport is None:
            call.answer.set_result(None)
        else:
            self.send(call)
        return call.answer

    def _flush(self) -> None:
        if self._must_wait and self._wait is not None:
            # One for all that are sent together; the server answers it when what stands before it is replicated.
            self._must_wait = False
            self.tell(self._wait)
        if self._transport is not None and self._outgoing:
            self._transport.write(b"".join(self._outgoing))
        self._outgoing.clear()

    # Receiving

    def get_buffer(self, sizehint: int) -> memoryview:
        # A view, because TLS fills it piece by piece, and a slice of a bytearray is a copy.
        return memoryview(self._buffer)

    def buffer_updated(self, nbytes: int) -> None:
        self._heard = self._loop.time()
        self._reader.feed(cast(Any, self._buffer), 0, nbytes)
        while self._transport is not None:
            try:
                reply = self._reader.gets()
            except hiredis.ProtocolError:
                self.lose("unreadable reply")
                return
            if reply is False:
                break
            self._answer(reply)
        if not self._unanswered:
            self._owner.rested()

    def _answer(self, reply: Any) -> None:
        call = self._unanswered[0]
        call.left -= 1
        reply = call.reply(reply)
        if call.left:
            return
        self._unanswered.popleft()
        if call.slot < 0:
            if not call.answer.done():
                call.answer.set_result(reply)
            if call.command is self._wait:
                self._confirm(reply)
        elif not isinstance(reply, ServerError):
            if self._wait is not None and call.command.writes:
                self._unconfirmed.append((call, reply))
            elif not call.answer.done():
                call.answer.set_result(reply)
        elif reply.code == "NOSCRIPT":
            # The server was restarted or told to forget scripts. Sent again here and now, it stays in order.
            call.packed = call.packed.replace(call.command.by_hash, call.command.by_source, 1)
            self.send(call)
        elif not self._owner.takes_back(self, call, reply) and not call.answer.done():
            call.answer.set_exception(reply)

    def _confirm(self, reply: Any) -> None:
        calls, self._unconfirmed = self._unconfirmed, []
        assert self._durability is not None
        count = 0 if isinstance(reply, ServerError) else cast(int, reply)
        for call, answer in calls:
            if call.answer.done():
                continue
            if isinstance(reply, ServerError) and reply.code == "NOPERM":
                call.answer.set_exception(reply)
            elif count < self._durability.replicas:
                call.answer.set_exception(unconfirmed(self._server, count, *self._durability))
            else:
                call.answer.set_result(answer)

    # Its end

    def connection_lost(self, exc: Exception | None) -> None:
        self.lose("connection lost" if exc is None else type(exc).__name__)

    def close(self) -> None:
        """Ends the connection; nothing more is heard of it."""
        self._watch.cancel()
        if self._transport is not None:
            # It tells of its end later.
            self._transport.set_protocol(asyncio.Protocol())
            self._transport.abort()
        self._transport = None

    def lose(self, reason: str) -> None:
        """Gives the connection up: unanswered calls go back to the owner, in their order."""
        if self._transport is None:
            return
        self.close()
        calls = [call for call, _ in self._unconfirmed] + list(self._unanswered)
        self._unconfirmed.clear()
        self._unanswered.clear()
        self._outgoing.clear()
        calls = [call for call in calls if not call.answer.done()]
        for call in calls:
            if call.slot < 0:
                call.answer.set_result(None)
        self._owner.lost(self, [call for call in calls if call.slot >= 0], reason)

    def _look_after(self) -> None:
        silent = self._loop.time() - self._heard
        if self.is_busy and silent > self._timeout:
            self.lose(f"no answer in {self._timeout:g} s")
            return
        if not self.is_busy and silent > IDLE_SECONDS:
            self.tell(PING)
        self._watch = self._loop.call_later(self._timeout / 4, self._look_after)
