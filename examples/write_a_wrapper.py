"""A wrapper that reports every change of a thread to a callback."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar, Unpack

from everthread import Appended, NewMessage, Store, SupportsSearch, ThreadKey
from everthread.wrappers import AppendOptions, ForwardingStore

T = TypeVar("T")


class Announcing(ForwardingStore):
    """Calls ``announce(key, next_seq)`` after each append, and counts all calls."""

    # The other abilities of the inner store are withheld.
    carries = frozenset({SupportsSearch})

    def __init__(self, inner: Store, announce: Callable[[ThreadKey, int], None]) -> None:
        super().__init__(inner)
        self._announce = announce
        self.calls: dict[str, int] = {}

    async def append(
        self, key: ThreadKey, messages: Sequence[NewMessage], **options: Unpack[AppendOptions]
    ) -> Appended:
        appended = await super().append(key, messages, **options)
        if not appended.replayed:
            self._announce(key, appended.next_seq)
        return appended

    async def _around(self, call: str, proceed: Callable[[], Awaitable[T]]) -> T:
        self.calls[call] = self.calls.get(call, 0) + 1
        return await proceed()
