"""The same scripts over a caller's own ``redis.asyncio`` client, through its public commands and its pool.

Slower than a connection of our own, but it takes whatever the caller has set up: Sentinel, instrumentation,
retries, a pool with limits.
"""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any, Final, NamedTuple

from redis import exceptions
from redis.asyncio import Redis

from everthread.engines._coalescing import Coalescer
from everthread.engines.redis._errors import ServerError, broken, unconfirmed, unreachable
from everthread.engines.redis._keys import ThreadNames
from everthread.engines.redis._line import Durability
from everthread.engines.redis._scripts import Script
from everthread.errors import EverthreadError, StoreUnavailableError

# redis-py takes the code from the text of the errors that it has a class for.
_CODES: Final = {
    exceptions.NoScriptError: "NOSCRIPT",
    exceptions.BusyLoadingError: "LOADING",
    exceptions.ReadOnlyError: "READONLY",
    exceptions.OutOfMemoryError: "OOM",
    exceptions.NoPermissionError: "NOPERM",
    exceptions.MasterDownError: "MASTERDOWN",
    exceptions.ClusterDownError: "CLUSTERDOWN",
    exceptions.TryAgainError: "TRYAGAIN",
    exceptions.MovedError: "MOVED",
    exceptions.AskError: "ASK",
}


class _Call(NamedTuple):
    """One command, or several that are carried out in one step."""

    commands: Sequence[Sequence[bytes]]
    script: Script | None = None

    @property
    def writes(self) -> bool:
        return self.script is not None and self.script.writes

    def by_source(self) -> _Call:
        assert self.script is not None
        return _Call([[b"EVAL", self.script.source, *self.commands[0][2:]]], self.script)


class ClientLink:
    """Runs scripts through a client, all that wait at the same time in one pipeline."""

    def __init__(self, client: Redis, server: str, durability: Durability | None = None) -> None:
        self._client: Any = client
        self._durability = durability
        self._server = server
        self._calls: Coalescer[_Call, Any] = Coalescer(self._run_all)

    async def open(self) -> None:
        """Checks that the server answers."""
        try:
            await self._client.execute_command("PING")
        except exceptions.RedisError as error:
            typed = self._typed(error)
            raise unreachable(self._server, error) if isinstance(typed, StoreUnavailableError) else typed from None

    async def close(self) -> None:
        """Waits for what is under way; the client stays open, for it is the caller's."""
        await self._calls.drain()

    async def run(self, script: Script, names: ThreadNames | bytes, arguments: list[bytes]) -> Any:
        """Runs a script and returns its reply.

        Raises:
            ServerError: The server refused it.
            EverthreadError: It cannot be reached.
        """
        keys = names.names if isinstance(names, ThreadNames) else (names,)
        command = [b"EVALSHA", script.sha, b"%d" % len(keys), *keys, *arguments]
        return await self._submit(_Call([command], script))

    async def transact(self, names: ThreadNames, commands: Sequence[Sequence[bytes]]) -> Any:
        """Carries out reading commands on a thread in one step and returns their replies."""
        return await self._submit(_Call([[b"MULTI"], *commands, [b"EXEC"]]))

    async def primaries(self) -> Mapping[str, int]:
        """The one server that is known."""
        return {self._server: 0}

    def encryption(self) -> Sequence[ssl.SSLObject]:
        """None is known: the connections are the client's."""
        return ()

    async def scan(self, kind: bytes, pattern: bytes) -> AsyncIterator[Sequence[bytes]]:
        """The keys of a type that match a pattern, some at a time; one may be given twice."""
        cursor = b""
        while cursor != b"0":
            words = [b"SCAN", cursor or b"0", b"MATCH", pattern, b"COUNT", b"1000", b"TYPE", kind]
            cursor, names = await self._submit(_Call([words]))
            cursor = b"%d" % int(cursor)
            yield names

    async def _submit(self, call: _Call) -> Any:
        reply = await self._calls.submit(call)
        if isinstance(reply, ServerError):
            raise reply
        return reply

    async def _run_all(self, calls: Sequence[_Call]) -> Sequence[Any]:
        replies = await self._pipelined(calls)
        unknown = [at for at, reply in enumerate(replies) if isinstance(reply, exceptions.NoScriptError)]
        if unknown:
            again = await self._pipelined([calls[at].by_source() for at in unknown])
            for at, reply in zip(unknown, again, strict=True):
                replies[at] = reply
        return [self._typed(reply) if isinstance(reply, Exception) else reply for reply in replies]

    async def _pipelined(self, calls: Sequence[_Call]) -> list[Any]:
        """The last reply to each call, or the first that is an error."""
        pipeline = self._client.pipeline(transaction=False)
        for call in calls:
            for command in call.commands:
                # Payloads stay bytes, also where the client decodes.
                pipeline.execute_command(*command, NEVER_DECODE=True)
        durability = self._durability if any(call.writes for call in calls) else None
        if durability is not None:
            pipeline.execute_command(*durability.words)
        try:
            flat = iter(await pipeline.execute(raise_on_error=False))
        except exceptions.RedisError as error:
            raise self._typed(error, in_doubt=any(call.writes for call in calls)) from None
        replies = [[next(flat) for _ in call.commands] for call in calls]
        found = [next((part for part in each if isinstance(part, Exception)), each[-1]) for each in replies]
        return found if durability is None else self._confirmed(calls, found, next(flat), durability)

    def _confirmed(self, calls: Sequence[_Call], replies: list[Any], count: Any, durability: Durability) -> list[Any]:
        """The replies, but for the writes that too few replicas have."""
        if isinstance(count, exceptions.NoPermissionError):
            error: Exception | None = ServerError(f"NOPERM {count}")
        else:
            number = 0 if isinstance(count, Exception) else int(count)
            error = None if number >= durability.replicas else unconfirmed(self._server, number, *durability)
        return [
            error if error and call.writes and not isinstance(reply, Exception) else reply
            for call, reply in zip(calls, replies, strict=True)
        ]

    def _typed(self, error: Exception, *, in_doubt: bool = False) -> Exception:
        if isinstance(error, ServerError):
            return error
        if isinstance(error, exceptions.AuthenticationError):
            return ServerError("WRONGPASS")
        code = next((code for kind, code in _CODES.items() if isinstance(error, kind)), None)
        if code is not None or isinstance(error, exceptions.ResponseError):
            return ServerError(f"{code} {error}" if code else str(error))
        if isinstance(error, EverthreadError):
            return error
        return broken(self._server, type(error).__name__, in_doubt=in_doubt)
