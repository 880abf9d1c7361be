"""Compare a tenant's recency index with its threads, by a scan of the keys of all servers.

An index lacks threads if it was lost, if only other programs wrote them (such as the betas of Agent Framework), and in
a cluster if a process died between an append and its note. Listings remove index entries without a thread.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, NamedTuple

from everthread._escaping import unescape
from everthread.engines.redis.keys import Names, list_of, realm_of
from everthread.engines.redis.scripts import NOTE, SCORES
from everthread.errors import CorruptRecordError, InvalidIdentifierError, SchemaError
from everthread.model import Inconsistency, Thread, ThreadKey

if TYPE_CHECKING:
    from everthread.engines.redis.client.router import Router

_SPECIAL = re.compile(rb"([*?\[\]\\])")
_MAX_AT_ONCE = 500
# In a cluster, a store sends the note of an append after the append. It tries again after a second.
_NOTES_S = 3.0


async def tenants_of(names: Names, router: Router) -> set[str]:
    """Return the tenants that have a recency index."""
    beginning, end = b"{" + names.prefix.encode() + b"@", b"}:recent"
    found = set[str]()
    async for keys in router.scan(b"zset", _literal(beginning) + b"*" + end):
        # A sorted set of another program may have such a key.
        for key in keys:
            with suppress(UnicodeDecodeError):
                tenant = unescape(key[len(beginning) : -len(end)].decode())
                if tenant and names.index(tenant) == key:
                    found.add(tenant)
    return found


class _Entry(NamedTuple):
    """A thread that the index has with a wrong time, or (``None``) does not have."""

    member: bytes
    updated_ms: int
    listed_ms: int | None
    has_messages: bool


class Reconciliation:
    """One comparison of a tenant's index with its threads.

    Args:
        get_thread: Returns a thread.
    """

    def __init__(
        self,
        names: Names,
        tenant: str,
        router: Router,
        get_thread: Callable[[ThreadKey], Awaitable[Thread | None]],
    ) -> None:
        self._beginning = realm_of(names.prefix, tenant).encode() + b":"
        self._index = names.index(tenant)
        self._spread = names.spread
        self._tenant = tenant
        self._router = router
        self._get_thread = get_thread

    async def run(self, *, repair: bool) -> tuple[Inconsistency, ...]:
        """Return the inconsistencies; with ``repair``, correct the index."""
        # A scan may return a key more than once.
        entries = await self._unchanged(list(dict.fromkeys([entry async for entry in self._entries()])))
        unlisted = sum(entry.listed_ms is None for entry in entries)
        misplaced = len(entries) - unlisted
        for entry in entries if repair else ():
            # If the thread was active since then, the index has a newer time.
            seen = b"" if entry.listed_ms is None else b"-%d" % entry.listed_ms
            await self._router.run(NOTE, self._index, [b"%d" % entry.updated_ms + seen, entry.member])
        found = (
            Inconsistency("threads that no listing shows", unlisted, repaired=repair),
            Inconsistency("threads that are listed with another time", misplaced, repaired=repair),
        )
        return tuple(each for each in found if each.count)

    async def _entries(self) -> AsyncIterator[_Entry]:
        async for names in self._router.scan(b"list", _literal(self._beginning) + b"*"):
            for entry in await self._inconsistent(names):
                yield entry
        # Threads without messages have no list.
        async for names in self._router.scan(b"hash", b"{*}:meta*"):
            for entry in await self._inconsistent(filter(None, map(list_of, names))):
                if entry.listed_ms is None and not entry.has_messages:
                    yield entry

    async def _inconsistent(self, lists: Iterable[bytes]) -> Sequence[_Entry]:
        size = len(self._beginning)
        return await self._compared(
            [name[size:] for name in lists if name.startswith(self._beginning) and len(name) > size]
        )

    async def _unchanged(self, before: Sequence[_Entry]) -> list[_Entry]:
        """Return the entries that no concurrent write explains: those that are the same at a second look."""
        if before and self._spread:
            await asyncio.sleep(_NOTES_S)
        after = set(await self._compared([entry.member for entry in before]))
        return [entry for entry in before if entry in after]

    async def _compared(self, members: Sequence[bytes]) -> Sequence[_Entry]:
        found: list[_Entry] = []
        for start in range(0, len(members), _MAX_AT_ONCE):
            found += await self._compared_at_once(members[start : start + _MAX_AT_ONCE])
        return found

    async def _compared_at_once(self, members: Sequence[bytes]) -> Sequence[_Entry]:
        scores = await self._router.run(SCORES, self._index, list(members))
        # On a single server, one script writes both, so times cannot differ.
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
            # Another program's key, a thread of a prefix that begins like this one, or an unreadable thread.
            return None


def _literal(text: bytes) -> bytes:
    return _SPECIAL.sub(rb"\\\1", text)
