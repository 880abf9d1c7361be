"""Send every call to the server that has its keys at the moment.

Only the router decides where a command goes: to the single server, to the primary that sentinels name, or to the server
of a key's slot in a cluster. A call waits with the others of its slot if it cannot be sent, if the server redirects or
temporarily refuses it, or if its connection breaks. Then the router looks for the servers again and sends these calls.
That is safe because append scripts recognize their append IDs. `Writes` keeps the order of a thread's writes. Calls to
other slots continue at the same time.
"""

from __future__ import annotations

import asyncio
import random
import ssl
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any, Final, NamedTuple

from everthread.engines.batching import later
from everthread.engines.redis.client.calls import Address, Call, Writes
from everthread.engines.redis.client.connection import Connection, Durability
from everthread.engines.redis.client.dialing import Dialer
from everthread.engines.redis.client.entra import keep_signed_in
from everthread.engines.redis.client.topology import ANYWHERE, Topology, address_in
from everthread.engines.redis.errors import TRANSIENT, ServerError, broken, unreachable
from everthread.engines.redis.keys import ThreadNames, slot_of
from everthread.engines.redis.scripts import EXEC, MULTI, PING, TRANSACTION, Command, Script, packed, request
from everthread.errors import EverthreadError, StoreUnavailableError

_FIRST_PAUSE: Final = 0.05
_LONGEST_PAUSE: Final = 1.0


class Limits(NamedTuple):
    """Limits of a call.

    Attributes:
        timeout: Seconds to connect, and without a reply after which a server is considered dead.
        retries: How often a call is sent again, and how often in a row the search for the servers may fail.
        patience: Maximum seconds for which a call waits to be sent.
        durability: The replicas that a write waits for.
    """

    timeout: float
    retries: int
    patience: float
    durability: Durability | None = None


class Router:
    """Run scripts on the servers that have the keys.

    Args:
        topology: Knows the servers.
        dialer: Makes connections to them.
        server: The name of the server or servers in errors.
        limits: The limits of a call.
    """

    def __init__(self, topology: Topology, dialer: Dialer, server: str, limits: Limits) -> None:
        self._topology = topology
        self._dialer = dialer
        self._server = server
        self._limits = limits
        self._loop = asyncio.get_running_loop()
        self._connections: dict[Address | None, Connection] = {}
        self._held: dict[int, list[Call]] = {}
        self._writes = Writes(self._submit, lambda: self._loop.time() + limits.patience)
        self._is_stopped = False
        self._settling: asyncio.Task[None] | None = None
        self._at_rest = asyncio.Event()
        self._background: list[asyncio.Task[None]] = []

    async def open(self) -> None:
        """Find the servers and connect to one.

        Raises:
            StoreUnavailableError: No server can be reached.
            ConfigurationError: The server refuses the credentials.
        """
        # First, because streaming providers renew no credentials without a listener.
        self._background.append(later(keep_signed_in(self._dialer.provider, self._tell_all)))
        self._background.append(later(self._topology.watch(self._leave)))
        try:
            await self._ping(ANYWHERE, self._limits.timeout)
        except BaseException:
            self._stop()
            raise

    async def close(self) -> None:
        """Wait for calls in flight, then close the connections."""
        while self._settling is not None or any(each.is_busy for each in self._connections.values()):
            self._at_rest.clear()
            await self._at_rest.wait()
        self._stop()

    def release(self) -> None:
        """End the connections without the event loop, which was closed."""
        for connection in self._connections.values():
            connection.release()
        self._connections.clear()

    def run(self, script: Script, names: ThreadNames | bytes, arguments: list[bytes]) -> asyncio.Future[Any]:
        """Send a script now; the future gets its reply, an `EverthreadError` or a `ServerError`.

        Args:
            names: A thread's keys, or a single key.
        """
        if isinstance(names, ThreadNames):
            count, keys, slot = names.words, names.packed, names.slot
        else:
            count, keys, slot = 2, packed([b"1", names]), slot_of(names) if self._topology.spread else 0
        beginning = (b"*%d" % (2 + count + len(arguments)), script.by_hash, keys)
        data = packed(arguments, beginning, b"\r\n")
        call = Call(script, data, slot, self._loop.create_future())
        if script.writes and isinstance(names, ThreadNames):
            self._writes.add(names.names[0], call)
        else:
            self._submit(call)
        return call.answer

    def transact(self, names: ThreadNames, commands: Sequence[Sequence[bytes]]) -> asyncio.Future[Any]:
        """Send commands that read a thread as one transaction; the future gets their replies."""
        data = MULTI + b"".join(map(request, commands)) + EXEC
        call = Call(TRANSACTION, data, names.slot, self._loop.create_future(), len(commands) + 2)
        self._submit(call)
        return call.answer

    async def primaries(self) -> Mapping[str, int]:
        """Look for the primaries again and return a slot of each, by the server's name.

        Raises:
            StoreUnavailableError: No server can be reached, or some slots have no server.
        """
        try:
            slots = await self._topology.one_slot_each()
        except EverthreadError:
            raise
        except Exception as error:
            raise unreachable(self._server, error) from None
        return {_named(self._topology.of(slot)): slot for slot in slots}

    def encryption(self) -> Sequence[ssl.SSLObject]:
        """Return the TLS of each open connection that has it."""
        return [tls for each in self._connections.values() if (tls := each.encryption) is not None]

    async def scan(self, kind: bytes, pattern: bytes) -> AsyncIterator[Sequence[bytes]]:
        """Yield the keys of a type that match a pattern, on all servers, in parts; a key may appear twice.

        A key that exists all the time is missed only if its slot moves to another server during the scan.

        Raises:
            StoreUnavailableError: A server cannot be reached or was lost, so keys may be missing.
            ServerError: A server refuses the scan.
        """
        for slot in (await self.primaries()).values():
            await self._ping(slot, self._limits.patience)
            connection, cursor = self._connections.get(self._topology.of(slot)), b""
            while cursor != b"0":
                words = [b"SCAN", cursor or b"0", b"MATCH", pattern, b"COUNT", b"1000", b"TYPE", kind]
                reply = None if connection is None else await connection.tell(Command(request(words)))
                if isinstance(reply, ServerError):
                    raise reply
                if reply is None:
                    # The cursor is not valid on another server.
                    raise broken(self._server, "connection lost", in_doubt=False)
                cursor, names = reply
                yield names

    def _tell_all(self, command: Command) -> None:
        for connection in self._connections.values():
            connection.tell(command)

    def _leave(self) -> None:
        """End the connections to a server that is being replaced."""
        for address, connection in list(self._connections.items()):
            if address != self._topology.of(0):
                connection.lose("another server replaces it")

    def _stop(self) -> None:
        for task in (*self._background, self._settling):
            if task is not None:
                task.cancel()
        for connection in self._connections.values():
            connection.close()
        self._connections.clear()

    async def _ping(self, slot: int, seconds: float) -> None:
        """Connect to the server of a slot, if necessary."""
        ping = Call(PING, PING.by_hash, slot, self._loop.create_future())
        ping.until = self._loop.time() + seconds
        self._submit(ping)
        await ping.answer

    def _submit(self, call: Call) -> None:
        connection = self._connections.get(self._topology.of(call.slot))
        if connection is None or call.slot in self._held:
            self._hold(call)
        else:
            connection.send(call)

    # Calls that connections return

    def takes_back(self, connection: Connection, call: Call, error: ServerError) -> bool:
        """Hold a call that the server redirects or temporarily refuses."""
        code = error.code
        is_redirected = self._topology.spread and code in {"MOVED", "ASK"}
        if not is_redirected and code not in TRANSIENT:
            return False
        if self._is_exhausted(call):
            if not (call.in_doubt or is_redirected):
                return False
            call.fail(broken(self._server, code, in_doubt=call.in_doubt))
            return True
        if is_redirected:
            self._note_redirection(call, code, address_in(str(error), connection.address))
        self._hold(call)
        if not is_redirected and code != "TRYAGAIN":
            connection.lose(code)
        return True

    def _note_redirection(self, call: Call, code: str, address: Address) -> None:
        if code == "ASK":
            call.ask = address
        else:
            self._topology.moved(call.slot, address)
        if not call.was_redirected:
            # The first redirection is no failure, so no pause follows.
            call.was_redirected = True
            call.attempts -= 1

    def lost(self, connection: Connection, calls: list[Call], reason: str) -> None:
        """Hold the unanswered calls of a connection, or fail those that may not be sent again."""
        if self._connections.get(connection.address) is connection:
            del self._connections[connection.address]
            self._topology.lost(connection.address)
        # A temporary refusal means that the server did nothing.
        was_sent = reason not in TRANSIENT
        for call in calls:
            call.in_doubt = call.command.writes and (call.in_doubt or was_sent)
            if call.is_abandoned:
                call.end()
            elif self._is_exhausted(call) or (call.in_doubt and not call.command.repeatable):
                call.fail(broken(self._server, reason, in_doubt=call.in_doubt))
            else:
                self._hold(call)
        self.rested()

    def rested(self) -> None:
        """Wake a `close` that waits for calls in flight."""
        self._at_rest.set()

    def _is_exhausted(self, call: Call) -> bool:
        return call.attempts > self._limits.retries or 0 < call.until <= self._loop.time()

    def _hold(self, call: Call) -> None:
        if self._is_stopped:
            call.fail(StoreUnavailableError("The store was stopped before this was sent."))
            return
        call.until = call.until or self._loop.time() + self._limits.patience
        self._held.setdefault(call.slot, []).append(call)
        if self._settling is None:
            self._settling = later(self._settle())

    # Looking for the servers again

    async def _settle(self) -> None:
        """Send the calls that are held when their servers are found, or fail them at their deadline."""
        rounds = 0
        try:
            while self._held:
                tries = rounds + max((call.attempts for calls in self._held.values() for call in calls), default=0)
                if tries:
                    await asyncio.sleep(_pause(tries))
                failures = await self._release()
                rounds = rounds + 1 if failures else 0
                for slot, error in failures.items():
                    self._give_up(slot, error, rounds)
        finally:
            self._settling = None
            # Calls are left only if this task was cancelled, because the loop ends.
            self._is_stopped = bool(self._held)
            for slot in list(self._held):
                self._give_up(slot, StoreUnavailableError("The store was stopped before this was sent."), rounds)
            self.rested()

    async def _release(self) -> dict[int, Exception]:
        """Send the calls that are held; return the error of each slot without a server that can be reached."""
        try:
            await self._topology.find()
        except Exception as error:
            return dict.fromkeys(self._held, error)
        # From before the attempts: a topology may forget a server that could not be reached.
        targets = {slot: [self._target(call) for call in calls] for slot, calls in self._held.items()}
        wanted = {target for each in targets.values() for target in each} - self._connections.keys()
        errors = dict(zip(wanted, await asyncio.gather(*(self._reach(target) for target in wanted)), strict=True))
        failures: dict[int, Exception] = {}
        for slot, calls in list(self._held.items()):
            if all(self._target(call) in self._connections for call in calls):
                self._send_held(slot)
            elif error := next(filter(None, map(errors.get, targets.get(slot, ()))), None):
                failures[slot] = error
        return failures

    def _send_held(self, slot: int) -> None:
        for call in self._held.pop(slot):
            if call.is_abandoned:
                call.end()
            else:
                self._connections[self._target(call)].send(call)

    def _target(self, call: Call) -> Address | None:
        return call.ask or self._topology.of(call.slot)

    async def _reach(self, address: Address | None) -> Exception | None:
        if address is None:
            return ConnectionError("no server has this slot")
        try:
            async with asyncio.timeout(self._limits.timeout):
                writer = await self._dialer.dial(address)
        except Exception as error:
            self._topology.lost(address)
            return error
        limits = self._limits
        self._connections[address] = Connection(
            writer, address, self, server=self._server, timeout=limits.timeout, durability=limits.durability
        )
        return None

    def _give_up(self, slot: int, error: Exception, rounds: int) -> None:
        is_final = isinstance(error, EverthreadError) or rounds > self._limits.retries
        now = self._loop.time()
        left: list[Call] = []
        for call in self._held.pop(slot, ()):
            if not is_final and now < call.until:
                left.append(call)
            else:
                call.fail(self._failure(call, error))
        if left:
            self._held.setdefault(slot, []).extend(left)

    def _failure(self, call: Call, error: Exception) -> EverthreadError:
        if call.in_doubt:
            return broken(self._server, "and cannot be reached again", in_doubt=True)
        # Raising one object in many tasks would mix their tracebacks.
        return type(error)(*error.args) if isinstance(error, EverthreadError) else unreachable(self._server, error)


def _named(address: Address | None) -> str:
    return "" if address is None else f"{address[0]}:{address[1]}"


def _pause(attempt: int) -> float:
    # With a random part, so that the clients of a server that comes back do not connect at the same time.
    return min(_FIRST_PAUSE * 2 ** (min(attempt, 10) - 1), _LONGEST_PAUSE) * random.uniform(0.75, 1.25)  # noqa: S311
