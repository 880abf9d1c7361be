"""Threads in tables of other programs: where a row can be added without changing the numbers of others. No I/O."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import NamedTuple

import msgspec

from everthread.errors import ConfigurationError
from everthread.operations._targets import Change, Target

ROOM = 1000


class Item(NamedTuple):
    """A row.

    Attributes:
        data: Its message.
        created: The time of its insertion, as text.
        more: Other columns that a row beside it needs too.
    """

    id: int
    data: bytes
    created: str | None = None
    more: tuple[tuple[str, str | None], ...] = ()


class RowsTarget(Target):
    """A thread in rows, which are ordered by their number, or by their time and then their number.

    A row is added only where a number is free, or at the end. If rows are ordered by time, a row with a new number and
    the time of the row before it has room in front of each later time.
    """

    is_by_time = False

    def __init__(self, name: str, items: list[Item]) -> None:
        self.name = name
        self.items = items
        self.payloads = [item.data for item in items]

    @abstractmethod
    def free(self, first: int, stop: int) -> list[int]:
        """Return numbers in a range that no row of the table has, at most `ROOM`."""

    @abstractmethod
    def following(self) -> list[int | None]:
        """Return numbers that a row at the end can have; ``None`` lets the table choose."""

    def position(self, at: int) -> int:
        return self.items[at].id

    def room(self, before: int | None, after: int | None) -> int:
        if self._is_end(before, after):
            return ROOM
        return len(self._between(before, after))

    def _is_end(self, before: int | None, after: int | None) -> bool:
        if after is None or before is None:
            return after is None
        # A time can be missing only where it does not matter.
        first, later = self.items[before].created, self.items[after].created
        return self.is_by_time and first is not None and later is not None and first < later

    def _between(self, before: int | None, after: int | None) -> list[int]:
        # A result follows its call, so nothing is added before the first row.
        if before is None or after is None:
            return []
        first = self.items[before].id + 1
        stop = min(self.items[after].id, first + ROOM)
        return self.free(first, stop) if first < stop else []

    def added(self, changes: Sequence[Change]) -> list[Change]:
        numbered: list[Change] = []
        # Each addition follows the records that stay before it, as in the plan.
        removed = {change.at for change in changes if change.new is None}
        between: dict[tuple[int | None, int | None], list[int]] = {}
        following: list[int | None] | None = None
        for change in changes:
            if change.old is not None:
                item = self.items[change.at]
                more = {"created_at": item.created, **dict(item.more)}
                numbered.append(msgspec.structs.replace(change, row=item.id, more=more))
                continue
            before = next((at for at in range(change.at - 1, -1, -1) if at not in removed), None)
            after = next((at for at in range(change.at, len(self.items)) if at not in removed), None)
            if self._is_end(before, after):
                following = self.following() if following is None else following
                row = following.pop(0) if following else None
            else:
                row = between.setdefault((before, after), self._between(before, after)).pop(0)
            beside = self.items[before] if before is not None else None
            more = {} if beside is None else {"created_at": beside.created, **dict(beside.more)}
            numbered.append(msgspec.structs.replace(change, row=row, more=more))
        return numbered

    def in_order(self, changes: Sequence[Change]) -> list[Change]:
        """Return the changes in an order in which no number is used twice, with the numbers of the present rows.

        Raises:
            ConfigurationError: The thread cannot be changed.
        """
        if self.refusal:
            raise ConfigurationError(self.refusal)
        named = [
            change if change.old is None else msgspec.structs.replace(change, row=self.items[change.at].id)
            for change in changes
        ]
        return sorted(named, key=lambda change: change.new is not None)
