"""Sends every call to the server that has its keys, whichever that is at the moment.

The one place where it is decided where a command goes: to the only server, to the primary that sentinels name,
or to the server of a key's slot in a cluster. A call that cannot be sent, that a server redirects or refuses for the
time being, or whose line broke, is held with what else goes to its slot; the servers are looked for anew, and then
what is held is sent in the order in which it was made. That is safe because scripts that append know what they
have seen (append ids). Calls to other slots go on meanwhile.
"""

from __future__ import annotations

import asyncio
import random
import ssl
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping, Sequence
from typing import Any, Final, NamedTuple, Protocol

from everthread.engines.redis._errors import TRANSIENT, ServerError, broken, unreachable
from everthread.engines.redis._keys import ThreadNames, slot_of
from everthread.engines.redis._line import Address, Call, Durability, Line
from everthread.engines.redis._places import Places, address_in
from everthread.engines.redis._scripts import EXEC, MULTI, PING, TRANSACTION, Command, Script
from everthread.engines.redis._wire import begun_request, packed, request
from everthread.errors import EverthreadError, StoreUnavailableError

_FIRST_PAUSE: Final = 0.05
_LONGEST_PAUSE: Final = 1.0


KeepSignedIn = Callable[[Callable[[Command], None]], Coroutine[Any, Any, None]]


class Limits(NamedTuple):
    """What a call may take.

    Attributes:
        timeout: Seconds in which a connection must be made, and after which a server that says nothing is dead.
        retries: How often a call is sent again, and how often in a row servers are looked for in vain.
        patience: Seconds for which a call that cannot be sent is held at most.
        durability: What a write waits for.
    """

    timeout: float
    retries: int
    patience: float
    durability: Durability | None = None


class Dialer(Protocol):
    """Makes connections."""

    async def dial(self, address: Address) -> asyncio.StreamWriter: ...


class Router:
    """Runs scripts on the servers that have the keys.

    Args:
        places: Where the servers are.
        dialer: Makes connections to them.
        server: What errors call the server or servers.
        limits: What a call may take.
        keep_signed_in: Sends new credentials over all connections for as long as it runs.
    """

    def __init__(
        self, places: Places, dialer: Dialer, server: str, limits: Limits, keep_signed_in: KeepSignedIn | None = None
    ) -> None:
        self._places = places
        self._dialer = dialer
        self._server = server
        self._limits = limits
        self._loop = asyncio.get_running_loop()
        self._lines: dict[Address | None, Line] = {}
        self._held: dict[int, list[Call]] = {}
        self._redirecting: set[Line] = set()
        self._settling: asyncio.Task[None] | None = None
        self._at_rest = asyncio.Event()
        self._keep_signed_in = keep_signed_in
        self._keeping: asyncio.Task[None] | None = None

    async def open(self) -> None:
        """Finds the servers and connects to one.

        Raises:
            StoreUnavailableError: None can be reached.
            ConfigurationError: It refuses the credentials.
        """
        # Before the first credentials are asked for: providers that nobody listens to do not renew them.
        if self._keep_signed_in is not None:
            self._keeping = self._loop.create_task(self._keep_signed_in(self._tell_all))
        try:
            await self._reach_one()
        except BaseException:
            self._stop_keeping()
            raise

    async def close(self) -> None:
        """Waits for what is under way and closes the connections."""
        while self._settling is not None or any(line.is_busy for line in self._lines.values()):
            self._at_rest.clear()
            await self._at_rest.wait()
        self._stop_keeping()
        for line in self._lines.values():
            line.close()
        self._lines.clear()

    def run(self, script: Script, names: ThreadNames | bytes, arguments: list[bytes]) -> asyncio.Future[Any]:
        """Sends a script off at once; the future gets its reply or an `EverthreadError` or `ServerError`.

        Args:
            names: A thread's keys, or a single key.
        """
        if isinstance(names, ThreadNames):
            count, keys, slot = names.words, names.packed, names.slot
        else:
            count, keys, slot = 2, packed([b"1", names]), slot_of(names) if self._places.spread else 0
        data = begun_request(2 + count + len(arguments), (script.by_hash, keys), arguments)
        return self._submit(Call(script, data, slot, self._loop.create_future()))

    def transact(self, names: ThreadNames, commands: Sequence[Sequence[bytes]]) -> asyncio.Future[Any]:
        """Sends commands that read a thread off at once, to be done in one step; the future gets their replies."""
        data = MULTI + b"".join(map(request, commands)) + EXEC
        return self._submit(Call(TRANSACTION, data, names.slot, self._loop.create_future(), len(commands) + 2))

    async def primaries(self) -> Mapping[str, int]:
        """A slot of each server that takes writes, by what the server is called; looked for anew.

        Raises:
            StoreUnavailableError: None can be reached, or not all keys have a server.
        """
        try:
            slots = await self._places.one_slot_each()
        except EverthreadError:
            raise
        except Exception as error:
            raise unreachable(self._server, error) from None
        return {_named(self._places.of(slot)): slot for slot in slots}

    def encryption(self) -> Sequence[ssl.SSLObject]:
        """The TLS of each open connection that has it."""
        return [tls for line in self._lines.values() if (tls := line.encryption) is not None]

    async def scan(self, kind: bytes, pattern: bytes) -> AsyncIterator[Sequence[bytes]]:
        """The keys of a type that match a pattern, of all servers, some at a time; one may be given twice.

        None is missed that was there all the time, unless its slot moved to another server meanwhile.

        Raises:
            StoreUnavailableError: A server cannot be reached or was lost, so it is not known what else there is.
            ServerError: A server refused it.
        """
        for slot in (await self.primaries()).values():
            # Makes the connection, if there is none.
            await self._submit(Call(PING, PING.by_hash, slot, self._loop.create_future()))
            line, cursor = self._lines.get(self._places.of(slot)), b""
            while cursor != b"0":
                words = [b"SCAN", cursor or b"0", b"MATCH", pattern, b"COUNT", b"1000", b"TYPE", kind]
                reply = None if line is None else await line.tell(Command(request(words)))
                if isinstance(reply, ServerError):
                    raise reply
                if reply is None:
                    # Another server would not know how far this one had come.
                    raise broken(self._server, "connection lost", in_doubt=False)
                cursor, names = reply
                yield names

    def _tell_all(self, command: Command) -> None:
        for line in self._lines.values():
            line.tell(command)

    def _stop_keeping(self) -> None:
        if self._keeping is not None:
            self._keeping.cancel()

    def _submit(self, call: Call) -> asyncio.Future[Any]:
        line = self._lines.get(self._places.of(call.slot))
        if line is None or call.slot in self._held:
            self._hold(call)
        else:
            line.send(call)
        return call.answer

    # What lines give back

    def takes_back(self, line: Line, call: Call, error: ServerError) -> bool:
        """Holds a call that the server redirects, or refuses for the time being."""
        code = error.code
        is_redirected = self._places.spread and code in {"MOVED", "ASK"}
        if not is_redirected and code not in TRANSIENT:
            return False
        if self._is_exhausted(call):
            if call.in_doubt or is_redirected:
                call.answer.set_exception(broken(self._server, code, in_doubt=call.in_doubt))
            return call.answer.done()
        if is_redirected:
            self._note_redirection(call, code, address_in(str(error), line.address))
        self._hold(call)
        if is_redirected or code == "TRYAGAIN":
            # The line is well; what follows on it for this slot comes back too.
            self._redirecting.add(line)
        else:
            line.lose(code)
        return True

    def _note_redirection(self, call: Call, code: str, address: Address) -> None:
        if code == "ASK":
            call.ask = address
        else:
            self._places.moved(call.slot, address)
        if not call.was_redirected:
            # The first time is no failure, so that no pause follows.
            call.was_redirected = True
            call.attempts -= 1

    def lost(self, line: Line, calls: list[Call], reason: str) -> None:
        """Holds the unanswered calls of a line, unless they had enough."""
        if self._lines.get(line.address) is line:
            del self._lines[line.address]
            self._places.lost(line.address)
        # A server that refuses for the time being has done nothing.
        was_sent = reason not in TRANSIENT
        for call in calls:
            call.in_doubt = call.command.writes and (call.in_doubt or was_sent)
            if self._is_exhausted(call) or (call.in_doubt and not call.command.repeatable):
                call.answer.set_exception(broken(self._server, reason, in_doubt=call.in_doubt))
            else:
                self._hold(call)
        self.rested()

    def rested(self) -> None:
        """Wakes who waits for the end of all that is under way."""
        self._at_rest.set()

    def _is_exhausted(self, call: Call) -> bool:
        return call.attempts > self._limits.retries or 0 < call.until <= self._loop.time()

    def _hold(self, call: Call) -> None:
        call.until = call.until or self._loop.time() + self._limits.patience
        self._held.setdefault(call.slot, []).append(call)
        if self._settling is None:
            self._settling = self._loop.create_task(self._settle())

    # Looking for the servers anew

    async def _settle(self) -> None:
        """Sends what is held when its servers are found, or fails it when its time is over."""
        rounds = 0
        try:
            while self._held:
                tries = rounds + max((call.attempts for calls in self._held.values() for call in calls), default=0)
                if tries:
                    await asyncio.sleep(_pause(tries))
                await self._all_answered()
                failures = await self._release()
                rounds = rounds + 1 if failures else 0
                for slot, error in failures.items():
                    self._give_up(slot, error, rounds)
        finally:
            self._settling = None
            # Only if this task itself was cancelled (the loop is being torn down) is anything left.
            for slot in list(self._held):
                self._give_up(slot, StoreUnavailableError("The store was stopped before this was sent."), rounds)
            self.rested()

    async def _all_answered(self) -> None:
        """Waits until the servers that redirect have come to all that was sent: it would be overtaken otherwise."""
        lines, self._redirecting = self._redirecting, set()
        await asyncio.gather(*(line.tell(PING) for line in lines if line in self._lines.values()))

    async def _release(self) -> dict[int, Exception]:
        """Sends what is held, but for the slots whose servers cannot be found or reached: these and why."""
        try:
            await self._places.find()
        except Exception as error:
            return dict.fromkeys(self._held, error)
        targets = {call.ask or self._places.of(slot) for slot, calls in self._held.items() for call in calls}
        wanted = [target for target in targets if target not in self._lines]
        errors = dict(zip(wanted, await asyncio.gather(*(self._reach(target) for target in wanted)), strict=True))
        failures: dict[int, Exception] = {}
        for slot, calls in list(self._held.items()):
            lines = [self._lines.get(call.ask or self._places.of(slot)) for call in calls]
            if all(lines):
                self._send_held(slot)
            elif error := next(filter(None, (errors.get(call.ask or self._places.of(slot)) for call in calls)), None):
                failures[slot] = error
        return failures

    def _send_held(self, slot: int) -> None:
        for call in sorted(self._held.pop(slot), key=lambda call: call.number):
            if not call.answer.done():
                self._lines[call.ask or self._places.of(slot)].send(call)

    async def _reach(self, address: Address | None) -> Exception | None:
        if address is None:
            return ConnectionError("no server has this part of the keys")
        try:
            async with asyncio.timeout(self._limits.timeout):
                writer = await self._dialer.dial(address)
        except Exception as error:
            self._places.lost(address)
            return error
        limits = self._limits
        self._lines[address] = Line(
            writer, address, self, server=self._server, timeout=limits.timeout, durability=limits.durability
        )
        return None

    async def _reach_one(self) -> None:
        rounds, deadline = 0, self._loop.time() + self._limits.timeout
        while error := await self._reach_any():
            rounds += 1
            if isinstance(error, EverthreadError):
                raise error
            if rounds > self._limits.retries or self._loop.time() >= deadline:
                raise unreachable(self._server, error)
            await asyncio.sleep(_pause(rounds))

    async def _reach_any(self) -> Exception | None:
        try:
            await self._places.find()
        except Exception as error:
            return error
        return None if self._lines else await self._reach(self._places.any())

    def _give_up(self, slot: int, error: Exception, rounds: int) -> None:
        is_final = isinstance(error, EverthreadError) or rounds > self._limits.retries
        now = self._loop.time()
        left: list[Call] = []
        for call in self._held.pop(slot, ()):
            if not is_final and now < call.until:
                left.append(call)
            elif not call.answer.done():
                call.answer.set_exception(self._failure(call, error))
        if left:
            self._held[slot] = left

    def _failure(self, call: Call, error: Exception) -> EverthreadError:
        if call.in_doubt:
            return broken(self._server, "and cannot be reached again", in_doubt=True)
        # Each caller gets an error of its own: raising one object in many tasks mixes their tracebacks.
        return type(error)(*error.args) if isinstance(error, EverthreadError) else unreachable(self._server, error)


def _named(address: Address | None) -> str:
    return "" if address is None else f"{address[0]}:{address[1]}"


def _pause(attempt: int) -> float:
    # With a random part, so that all clients of a server that comes back do not come at once.
    return min(_FIRST_PAUSE * 2 ** (min(attempt, 10) - 1), _LONGEST_PAUSE) * random.uniform(0.75, 1.25)  # noqa: S311
