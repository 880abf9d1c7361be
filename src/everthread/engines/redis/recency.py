"""The recency indexes of a cluster, in other slots than the threads, so that scripts on threads cannot update them.

A store notes each activity and sends all waiting notes in one call right afterwards. An append does not wait for that;
a listing by the same store and closing do. If the index cannot be reached, the store tries again. If the process
dies before, the thread's next activity repairs the index.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Awaitable, Callable
from typing import Any, Final

from everthread.engines.batching import later
from everthread.engines.redis.errors import ServerError
from everthread.engines.redis.keys import ThreadNames
from everthread.engines.redis.scripts import NOTE, Script
from everthread.errors import EverthreadError

_MAX_AT_ONCE: Final = 1000
_PAUSE: Final = 1.0

Run = Callable[[Script, bytes, list[bytes]], Awaitable[Any]]


class Recency:
    """Update indexes. A time is missing if a script has updated the index: then there is nothing to note.

    Args:
        run: Runs a script on the server of a key.
    """

    def __init__(self, run: Run) -> None:
        self._run = run
        self._noted: dict[tuple[bytes, bytes], bytes] = {}
        self._sending = asyncio.Lock()
        self._task: asyncio.Task[None] | None = None

    def was_active(self, names: ThreadNames, at_ms: int) -> None:
        """Note a write to a thread."""
        self._note(names, b"%d" % at_ms)

    def was_gone(self, names: ThreadNames, at_ms: int) -> None:
        """Note that a thread did not exist at this time: it is not listed unless it was active then or since."""
        self._note(names, b"-%d" % at_ms)

    def was_restored(self, names: ThreadNames, at_ms: int, before_ms: int) -> None:
        """Note a new time of a thread's last activity, and the time before."""
        self._note(names, b"%d-%d" % (at_ms, before_ms))

    async def settled(self) -> None:
        """Return when the indexes have all notes.

        Raises:
            EverthreadError: An index cannot be reached.
        """
        async with self._sending:
            noted, self._noted = self._noted, {}
            try:
                await self._send(noted)
            except BaseException:
                # A note that is sent twice changes nothing.
                self._noted = noted | {at: _joined(noted.get(at), note) for at, note in self._noted.items()}
                raise

    async def close(self) -> None:
        """Send the remaining notes. If that fails, the threads' next activity repairs the index."""
        try:
            await self.settled()
        except (EverthreadError, ServerError):
            self._noted.clear()
        if self._task is not None:
            self._task.cancel()

    def _note(self, names: ThreadNames, note: bytes) -> None:
        at = names.index, names.member
        self._noted[at] = _joined(self._noted.get(at), note)
        if self._task is None:
            self._task = later(self._settle())

    async def _settle(self) -> None:
        try:
            while self._noted:
                try:
                    await self.settled()
                except (EverthreadError, ServerError):
                    await asyncio.sleep(_PAUSE)
        finally:
            self._task = None

    async def _send(self, noted: dict[tuple[bytes, bytes], bytes]) -> None:
        notes = defaultdict[bytes, list[bytes]](list)
        for (index, member), note in noted.items():
            notes[index] += (note, member)
        for index, words in notes.items():
            for start in range(0, len(words), 2 * _MAX_AT_ONCE):
                await self._run(NOTE, index, words[start : start + 2 * _MAX_AT_ONCE])


def _joined(older: bytes | None, newer: bytes) -> bytes:
    """Return the note with the effect of two on one thread.

    A listing dates its note of a deletion by the index, so an append may have noted a later time before.
    """
    if older is None:
        return newer
    is_gone, was_gone = newer.startswith(b"-"), older.startswith(b"-")
    if is_gone and not was_gone:
        known_ms = int(older.rpartition(b"-")[2])
        return older if known_ms >= int(newer[1:]) else newer
    if is_gone or b"-" not in newer or b"-" not in older[1:]:
        return newer
    at, _, before = newer.partition(b"-")
    return b"%b-%d" % (at, max(int(before), int(older.partition(b"-")[2])))
