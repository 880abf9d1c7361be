"""The recency indexes of a cluster: they lie in other slots than the threads, so scripts on threads cannot change them.

What happened to a thread is noted here and brought to its tenant's index right afterwards, what waits at the same time
together. An append does not wait for it; a listing by the same store does, and so does closing. If the index cannot
be reached it is tried again; if the process dies in between, the thread's next activity mends it.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Awaitable, Callable
from typing import Any, Final

from everthread.engines.redis._errors import ServerError
from everthread.engines.redis._scripts import NOTE, Script
from everthread.errors import EverthreadError

_MOST_AT_ONCE: Final = 1000
_PAUSE: Final = 1.0

Run = Callable[[Script, bytes, list[bytes]], Awaitable[Any]]


class Recency:
    """Brings indexes up to date.

    Args:
        run: Runs a script on the server of a key.
    """

    def __init__(self, run: Run) -> None:
        self._run = run
        self._noted = _nothing()
        self._sending = asyncio.Lock()
        self._task: asyncio.Task[None] | None = None

    def was_active(self, index: bytes, member: bytes, at_ms: int) -> None:
        """A thread was written to."""
        self._note(index, member, b"%d" % at_ms)

    def was_gone(self, index: bytes, member: bytes, at_ms: int) -> None:
        """There was no such thread at this time, so it is not listed unless it was active since."""
        self._note(index, member, b"-%d" % at_ms)

    def was_restored(self, index: bytes, member: bytes, at_ms: int, before_ms: int) -> None:
        """A thread was given another time of its last activity, which it had had at ``before_ms``."""
        self._note(index, member, b"%d-%d" % (at_ms, before_ms))

    async def settled(self) -> None:
        """Returns when all that was noted is in the indexes.

        Raises:
            EverthreadError: An index cannot be reached.
        """
        async with self._sending:
            noted, self._noted = self._noted, _nothing()
            while noted:
                index, notes = noted.popitem()
                try:
                    await self._send(index, notes)
                except BaseException:
                    for name, older in {**noted, index: notes}.items():
                        # What came meanwhile is newer.
                        newer = self._noted[name]
                        self._noted[name] = older | {at: _joined(older.get(at), note) for at, note in newer.items()}
                    raise

    async def close(self) -> None:
        """Brings the rest to the indexes; what cannot be brought is mended by the threads' next activity."""
        try:
            await self.settled()
        except (EverthreadError, ServerError):
            self._noted.clear()
        if self._task is not None:
            self._task.cancel()

    def _note(self, index: bytes, member: bytes, note: bytes) -> None:
        notes = self._noted[index]
        notes[member] = _joined(notes.get(member), note)
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._settle())

    async def _settle(self) -> None:
        try:
            while self._noted:
                try:
                    await self.settled()
                except (EverthreadError, ServerError):
                    await asyncio.sleep(_PAUSE)
        finally:
            self._task = None

    async def _send(self, index: bytes, notes: dict[bytes, bytes]) -> None:
        pairs = list(notes.items())
        for start in range(0, len(pairs), _MOST_AT_ONCE):
            some = pairs[start : start + _MOST_AT_ONCE]
            await self._run(NOTE, index, [part for member, note in some for part in (note, member)])


def _joined(older: bytes | None, newer: bytes) -> bytes:
    """What is left to say after two notes on a thread: the newer, which takes the place of what the older was to."""
    if older is None or not (_is_restored(older) and _is_restored(newer)):
        return newer
    at, _, before = newer.partition(b"-")
    return b"%b-%d" % (at, max(int(before), int(older.partition(b"-")[2])))


def _is_restored(note: bytes) -> bool:
    return b"-" in note[1:]


def _nothing() -> defaultdict[bytes, dict[bytes, bytes]]:
    return defaultdict(dict)
