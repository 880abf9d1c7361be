"""Keeps what never changes in memory, the least recently used going first."""

from __future__ import annotations

from collections import OrderedDict
from typing import Generic, TypeVar

V = TypeVar("V")
Name = tuple[str, str]


class Cache(Generic[V]):
    """Values of at most ``capacity`` bytes together.

    Args:
        capacity: 0 keeps nothing.
    """

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._size = 0
        self._values: OrderedDict[Name, tuple[V, int]] = OrderedDict()

    def get(self, name: Name) -> V | None:
        """A value, or ``None`` if it is not kept."""
        found = self._values.get(name)
        if found is None:
            return None
        self._values.move_to_end(name)
        return found[0]

    def add(self, name: Name, value: V, size: int) -> None:
        """Keeps a value of this many bytes if there is room for it."""
        self.drop(name)
        if size > self._capacity:
            return
        self._values[name] = (value, size)
        self._size += size
        while self._size > self._capacity:
            _, (_, dropped) = self._values.popitem(last=False)
            self._size -= dropped

    def drop(self, name: Name) -> None:
        """Forgets a value."""
        found = self._values.pop(name, None)
        if found is not None:
            self._size -= found[1]
