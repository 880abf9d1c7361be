"""Compares a tenant's recency index with the threads that are there, by walking through the keys of all servers.

An index lacks threads after it was lost, where only other programs (the betas of Agent Framework, say) wrote, and in a
cluster after a process died between an append and its note. What it has and is not there, listings take out.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from typing import Any, NamedTuple, Protocol

from everthread.engines.redis._keys import Names, list_of, realm_of
from everthread.engines.redis._scripts import NOTE, Script
from everthread.errors import CorruptRecordError, InvalidIdentifierError, SchemaError
from everthread.model import Drift, Thread, ThreadKey

SCORES = Script("scores")

_SPECIAL = re.compile(rb"([*?\[\]\\])")
_MOST_AT_ONCE = 500


class Link(Protocol):
    """Runs scripts on the servers that have the keys, and walks through all keys."""

    def run(self, script: Script, names: bytes, arguments: list[bytes]) -> Awaitable[Any]: ...

    def scan(self, kind: bytes, pattern: bytes) -> AsyncIterator[Sequence[bytes]]: ...


class _Entry(NamedTuple):
    """A thread that the index has at another time than its own, or (``None``) does not have."""

    member: bytes
    updated_ms: int
    listed_ms: int | None
    has_messages: bool


class Reconciliation:
    """One comparison of a tenant's index with its threads.

    Args:
        get_thread: What is known of a thread.
    """

    def __init__(
        self, names: Names, tenant: str, link: Link, get_thread: Callable[[ThreadKey], Awaitable[Thread | None]]
    ) -> None:
        self._beginning = realm_of(names.prefix, tenant).encode() + b":"
        self._index = names.index(tenant)
        self._spread = names.spread
        self._tenant = tenant
        self._link = link
        self._get_thread = get_thread

    async def run(self, *, mend: bool) -> tuple[Drift, ...]:
        """What has drifted apart; with ``mend`` it is put right."""
        unlisted = misplaced = 0
        async for entry in self._entries():
            if entry.listed_ms is None:
                unlisted += 1
            else:
                misplaced += 1
            if mend:
                # Where it was active since it was looked at, the index knows better.
                seen = b"" if entry.listed_ms is None else b"-%d" % entry.listed_ms
                await self._link.run(NOTE, self._index, [b"%d" % entry.updated_ms + seen, entry.member])
        drifts = (
            Drift("threads that no listing shows", unlisted, mended=mend),
            Drift("threads that are listed with another time", misplaced, mended=mend),
        )
        return tuple(drift for drift in drifts if drift.count)

    async def _entries(self) -> AsyncIterator[_Entry]:
        async for names in self._link.scan(b"list", _literal(self._beginning) + b"*"):
            for entry in await self._drifted(names):
                yield entry
        # Of threads without messages there is no list.
        async for names in self._link.scan(b"hash", b"{*}:meta*"):
            for entry in await self._drifted(filter(None, map(list_of, names))):
                if entry.listed_ms is None and not entry.has_messages:
                    yield entry

    async def _drifted(self, lists: Iterable[bytes]) -> Sequence[_Entry]:
        size = len(self._beginning)
        members = [name[size:] for name in lists if name.startswith(self._beginning) and len(name) > size]
        found: list[_Entry] = []
        for start in range(0, len(members), _MOST_AT_ONCE):
            first = await self._compared(members[start : start + _MOST_AT_ONCE])
            # In a cluster the note of an append may be under way: what is so twice is taken for true.
            again = await self._compared([entry.member for entry in first]) if first and self._spread else first
            found += [entry for entry in again if entry in first]
        return found

    async def _compared(self, members: Sequence[bytes]) -> Sequence[_Entry]:
        scores = await self._link.run(SCORES, self._index, list(members))
        # On a single server one script writes both, so times cannot differ.
        pairs = [(m, score) for m, score in zip(members, scores, strict=True) if self._spread or not score]
        threads = await asyncio.gather(*(self._owned(member) for member, _ in pairs))
        entries = [
            _Entry(member, thread.updated_ms, int(float(score)) if score else None, thread.count > 0)
            for (member, score), thread in zip(pairs, threads, strict=True)
            if thread is not None
        ]
        return [entry for entry in entries if entry.listed_ms != entry.updated_ms]

    async def _owned(self, member: bytes) -> Thread | None:
        try:
            return await self._get_thread(ThreadKey(member.decode(), self._tenant))
        except (UnicodeDecodeError, InvalidIdentifierError, CorruptRecordError, SchemaError):
            # Another program's key, a thread of another prefix that begins like this one, or one that cannot be read.
            return None


def _literal(text: bytes) -> bytes:
    return _SPECIAL.sub(rb"\\\1", text)
