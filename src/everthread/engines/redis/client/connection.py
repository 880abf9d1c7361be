"""One connection to one Redis server that carries many calls at the same time.

redis-py makes the connection (URL, TLS, credentials, database). This module then drives its socket. Measured, an append
takes two thirds of the time of redis-py's commands, and a fifth with 64 at a time: calls made in the same turn of the
event loop are written together, and replies are matched by their order.

A connection does not know other servers and does not retry: it returns unanswered calls to its owner.
"""

from __future__ import annotations

import asyncio
import ssl
from collections import deque
from typing import Any, Final, NamedTuple, Protocol, cast

import hiredis

from everthread.engines._sockets import disconnect
from everthread.engines.redis.client.calls import Address, Call
from everthread.engines.redis.errors import ServerError, unconfirmed
from everthread.engines.redis.scripts import PING, Command, request

IDLE_SECONDS: Final = 60.0
"""Idle time after which a connection is tested with a PING; Azure drops one after 10 minutes."""

_BUFFER: Final = 256 * 1024


class Durability(NamedTuple):
    """The number of replicas that must confirm a write, and the maximum wait for them."""

    replicas: int
    milliseconds: int

    @property
    def words(self) -> tuple[bytes, ...]:
        """The command that waits."""
        return b"WAIT", b"%d" % self.replicas, b"%d" % self.milliseconds


class Owner(Protocol):
    """Decides which call goes over which connection."""

    def takes_back(self, connection: Connection, call: Call, error: ServerError) -> bool:
        """Return whether the owner handles a call that the server refused."""
        ...

    def lost(self, connection: Connection, calls: list[Call], reason: str) -> None:
        """Handle the unanswered calls of a connection that ended."""

    def rested(self) -> None:
        """Note that a connection has no call in flight."""


class Connection(asyncio.BufferedProtocol):
    """Carries calls to one server.

    Args:
        writer: A connection that is authenticated and has its database selected.
        address: The server's address in the topology.
        owner: Gets back unanswered calls.
        server: The name of the server in errors.
        timeout: Seconds without a reply after which the server is considered dead.
        durability: The replicas that a write waits for.
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
        # No `isinstance`: the transports of uvloop do not derive from those of asyncio.
        transport = cast(asyncio.Transport, writer.transport)
        self.address = address
        self._owner = owner
        self._server = server
        self._timeout = timeout
        self._durability = durability
        self._wait = None if durability is None else Command(request(durability.words))
        self._loop = asyncio.get_running_loop()
        self._reader = hiredis.Reader(protocolError=hiredis.ProtocolError, replyError=ServerError)
        # One buffer for all reads: asyncio would otherwise allocate a quarter of a megabyte for each reply.
        self._buffer = bytearray(_BUFFER)
        self._unanswered: deque[Call] = deque()
        self._unconfirmed: list[tuple[Call, Any]] = []
        self._outgoing: list[bytes] = []
        self._must_wait = False
        self._heard = self._loop.time()
        self._watch = self._loop.call_later(timeout / 4, self._look_after)
        # The writer is kept, because it closes the transport when it is freed.
        self._writer = writer
        self._transport: asyncio.Transport | None = transport
        transport.set_protocol(self)

    @property
    def is_busy(self) -> bool:
        """Whether replies are outstanding."""
        return bool(self._unanswered or self._unconfirmed)

    @property
    def encryption(self) -> ssl.SSLObject | None:
        """The TLS of the connection, if any."""
        return None if self._transport is None else self._transport.get_extra_info("ssl_object")

    # Sending

    def send(self, call: Call) -> None:
        """Send a call together with the others of this turn of the loop."""
        if not self._unanswered:
            self._heard = self._loop.time()
        data = call.begin()
        self._unanswered.append(call)
        if self._outgoing:
            self._outgoing.append(data)
        elif len(self._unanswered) == 1 and self._wait is None and self._transport is not None:
            self._transport.write(data)
        else:
            # Other calls are in flight, so later ones of this turn of the loop may go with it.
            self._outgoing.append(data)
            self._loop.call_soon(self._flush)
        if call.command.writes:
            self._must_wait = self._wait is not None

    def tell(self, command: Command) -> asyncio.Future[Any]:
        """Send a command of the connection itself; the future gets the reply, or ``None`` if the connection is lost."""
        call = Call(command, command.by_hash, -1, self._loop.create_future())
        if self._transport is None:
            call.succeed(None)
        else:
            self.send(call)
        return call.answer

    def _flush(self) -> None:
        if self._must_wait and self._wait is not None:
            # One for all calls that are sent together; the server answers it when the writes before it are replicated.
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
            call.succeed(reply)
            if call.command is self._wait:
                self._confirm(reply)
        elif not isinstance(reply, ServerError):
            if self._wait is not None and call.command.writes:
                self._unconfirmed.append((call, reply))
            else:
                call.succeed(reply)
        elif reply.code == "NOSCRIPT" and not call.is_abandoned:
            # The server was restarted, or its scripts were flushed.
            call.use_source()
            self.send(call)
        elif not self._owner.takes_back(self, call, reply):
            call.fail(reply)

    def _confirm(self, reply: Any) -> None:
        calls, self._unconfirmed = self._unconfirmed, []
        assert self._durability is not None
        count = 0 if isinstance(reply, ServerError) else cast(int, reply)
        for call, answer in calls:
            if isinstance(reply, ServerError) and reply.code == "NOPERM":
                call.fail(reply)
            elif count < self._durability.replicas:
                call.fail(unconfirmed(self._server, count, *self._durability))
            else:
                call.succeed(answer)

    # Ending

    def connection_lost(self, exc: Exception | None) -> None:
        self.lose("connection lost" if exc is None else type(exc).__name__)

    def close(self) -> None:
        """End the connection without a report to the owner."""
        self._watch.cancel()
        if self._transport is not None:
            # The transport reports its end later.
            self._transport.set_protocol(asyncio.Protocol())
            self._transport.abort()
        self._transport = None

    def release(self) -> None:
        """End the connection without the event loop, which was closed."""
        if self._transport is not None:
            disconnect(self._transport)
        self._transport = None

    def lose(self, reason: str) -> None:
        """End the connection and return unanswered calls to the owner, in their order."""
        if self._transport is None:
            return
        self.close()
        calls = [call for call, _ in self._unconfirmed] + list(self._unanswered)
        self._unconfirmed.clear()
        self._unanswered.clear()
        self._outgoing.clear()
        for call in calls:
            if call.slot < 0:
                call.succeed(None)
        self._owner.lost(self, [call for call in calls if call.slot >= 0], reason)

    def _look_after(self) -> None:
        silent = self._loop.time() - self._heard
        if self.is_busy and silent > self._timeout:
            self.lose(f"no answer in {self._timeout:g} s")
            return
        if not self.is_busy and silent > IDLE_SECONDS:
            self.tell(PING)
        self._watch = self._loop.call_later(self._timeout / 4, self._look_after)
