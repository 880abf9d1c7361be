"""Threads to repair, of any store: their records in their stored form, and changes of single records."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from hashlib import blake2b

import msgspec

from everthread.messages.rules.rows import Row, row_of_payload


class Change(msgspec.Struct, frozen=True):
    """A change of one record.

    Attributes:
        at: The index of the record in the thread before all changes; of an addition, that of the record it precedes.
        old: The payload before; ``None`` for an addition.
        new: The payload after; ``None`` for a removal.
        row: What names the record in its store, if it has a name: a number or an ID.
        more: Other fields of a removed record, for an undo.
    """

    at: int
    old: bytes | None
    new: bytes | None
    row: int | str | None = None
    more: dict[str, str | int | float | None] = {}


class Target(ABC):
    """A thread that was read, and can be changed if it is still the same.

    Attributes:
        name: What names the thread in its store.
        payloads: Its records as JSON, in order.
        is_running: The calls of its last turn may still get their results.
        refusal: Why it cannot be repaired; empty if it can.
        is_in_place: Records can be replaced only, not added or removed.
        is_report_only: It is reported and never repaired.
    """

    name: str
    payloads: Sequence[bytes]
    is_running: bool = False
    refusal: str = ""
    is_in_place: bool = False
    is_report_only: bool = False

    def rows(self) -> list[Row]:
        """Return its messages as the rules see them."""
        return [row_of_payload(payload) for payload in self.payloads]

    def position(self, at: int) -> int | str:
        """Return what names a record for people: its position, row or index."""
        return at

    def room(self, before: int | None, after: int | None) -> int:
        """Return how many records can be added between two, given by their index; ``None`` is an end."""
        return 0

    def added(self, changes: Sequence[Change]) -> list[Change]:
        """Return the changes with the row of each record that is added."""
        return list(changes)

    def digest(self, payloads: Sequence[bytes]) -> str:
        """Return a digest of records, the same for all forms in which the store may return them."""
        return digest_of(payloads)

    @abstractmethod
    async def apply(self, changes: Sequence[Change]) -> None:
        """Make all changes in one step, if the thread has not changed since it was read.

        Raises:
            ConflictError: Another program changed it.
        """

    async def for_backup(self, changes: Sequence[Change]) -> list[Change]:
        """Return the changes in the form that a backup holds."""
        return list(changes)


def digest_of(payloads: Sequence[bytes]) -> str:
    """Return a digest of records in order."""
    digest = blake2b(digest_size=16)
    for payload in payloads:
        digest.update(len(payload).to_bytes(8, "big") + payload)
    return digest.hexdigest()


def applied(payloads: Sequence[bytes], changes: Sequence[Change]) -> list[bytes]:
    """Return the records after changes."""
    after: list[bytes] = []
    done = 0
    for change in changes:
        after += payloads[done : change.at]
        done = change.at + (change.old is not None)
        if change.new is not None:
            after.append(change.new)
    return after + list(payloads[done:])


def reversed_changes(changes: Sequence[Change]) -> list[Change]:
    """Return the changes that undo others, relative to the thread after those."""
    offset = 0
    undone: list[Change] = []
    for change in changes:
        undone.append(msgspec.structs.replace(change, at=change.at + offset, old=change.new, new=change.old))
        offset += (change.new is not None) - (change.old is not None)
    return undone
