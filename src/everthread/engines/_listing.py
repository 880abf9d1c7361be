"""Pages of threads that are bounded in bytes too: metadata is what makes a thread's description large."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, TypeVar, cast

import msgspec

from everthread.errors import ConfigurationError
from everthread.model import Thread, ThreadKey

PAGE_BYTES = 1024 * 1024
"""A page of threads ends once their metadata has as many bytes of JSON."""

_AT_ONCE = 50

K = TypeVar("K")
S = TypeVar("S")
T = TypeVar("T")

Listed = tuple[Sequence[Thread], bool]
"""Threads, and whether more follow."""


_UNDECODABLE = (msgspec.MsgspecError, ValueError, TypeError, ConfigurationError)


class Parts:
    """Decodes parts of a stored thread. A part that cannot be decoded is empty, and `damage` names it."""

    def __init__(self, key: ThreadKey) -> None:
        self._key = key
        self.damage = ""

    def decode(self, what: str, stored: S | None, decoder: Callable[[S], T], empty: T) -> T:
        """Return the decoded part, or ``empty`` if it is missing or cannot be decoded."""
        if stored is None:
            return empty
        try:
            return decoder(stored)
        except _UNDECODABLE:
            damage = f"The {what} of {self._key} cannot be decoded: replace it with update_thread({what}=…)."
            self.damage = f"{self.damage} {damage}".lstrip()
            return empty


def decode_metadata(stored: bytes | str | msgspec.Raw) -> Mapping[str, object]:
    """Return a JSON object."""
    return cast(Mapping[str, object], msgspec.json.decode(stored, type=dict[str, Any]))


def metadata_bytes(thread: Thread) -> int:
    """Return the size of a thread's metadata as JSON."""
    return len(msgspec.json.encode(thread.metadata)) if thread.metadata else 0


async def looked_at(
    places: Sequence[K], look: Callable[[K], Awaitable[Thread | None]], room: int = PAGE_BYTES
) -> tuple[list[Thread | None], int]:
    """Look at threads, a part at a time, until their metadata fills the page.

    Returns:
        The threads of the first of ``places``, ``None`` for those that are gone, and the room that is left.
    """
    found: list[Thread | None] = []
    for start in range(0, len(places), _AT_ONCE):
        for thread in await asyncio.gather(*map(look, places[start : start + _AT_ONCE])):
            found.append(thread)
            room -= 0 if thread is None else metadata_bytes(thread)
            if room <= 0:
                return found, room
    return found, room
