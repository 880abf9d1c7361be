"""An object of the log as items: their partition and IDs, and the parts of an object that is too large for an item.

All items of a thread have one partition key. An item's ID begins with the kind of the object (the first letter of its
folder): ``t:`` entries, ``s:`` joined turns, ``d:`` documents, ``r:`` markers, and ``x:{kind}:{name}:`` the parts of a
large object. No kind and no name contains a colon, so IDs are unique.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Collection, Sequence
from typing import Any, NamedTuple

from everthread.engines._segments.names import maker_of, nonce, uninverted
from everthread.engines._segments.records import GONE

ITEM_BYTES = 2_000_000
"""The largest item, as JSON. The service's limit is 2 MB, decimal or binary
(https://learn.microsoft.com/azure/cosmos-db/concepts-limits)."""

_SYSTEM_BYTES = 2_000  # what the service adds to an item
_PART_BYTES = 1_400_000  # as base64, with room for the item's own fields
_MOST_ESCAPED = 3  # bytes of the request's ASCII for one of UTF-8: é is \u00e9
_FOR_EVER = -1
_ONE_DAY = 24 * 3600
MARKERS = "r"
DOCUMENTS = "d"
ENTRIES = "t"
SEGMENTS = "s"
"""The kinds of objects: the first letters of their folders."""
_GHOST = ".parts~"


class Partition(NamedTuple):
    """The partition of a folder, and the start of the IDs of its items."""

    key: str
    kind: str

    def id_of(self, name: str) -> str:
        """Return the ID of an object's item."""
        return f"{self.kind}:{name}"

    def name_of(self, item_id: str) -> str:
        """Return the name of an item's object."""
        return item_id[len(self.kind) + 1 :]

    def part_ids(self, name: str, unique: str, count: int) -> list[str]:
        """Return the IDs of the parts of one write."""
        return [f"x:{self.kind}:{name}:{unique}:{number}" for number in range(count)]

    def parts_range(self, names: Collection[str]) -> tuple[str, str]:
        """Return the ID range with all parts of these objects, and possibly some of others."""
        return (
            min(f"x:{self.kind}:{name}:" for name in names),
            max(f"x:{self.kind}:{name};" for name in names),
        )


def partition_of(folder: str) -> Partition:
    """Return the partition of a folder."""
    kind, _, rest = folder.partition("/")
    return Partition(folder if kind == MARKERS else f"{ENTRIES}/{rest}", kind)


class Ghost(NamedTuple):
    """Parts of an object that was not written or was replaced: their writer is still at work, or has died.

    They are listed with the joined turns, by names with the number of their entry. So the deletion of unreferenced
    objects finds them too.
    """

    kind: str
    owner: str
    unique: str

    @classmethod
    def of_part(cls, part_id: str) -> Ghost:
        """Return the ghost of a part."""
        _, kind, owner, unique, _ = part_id.split(":")
        return cls(kind, owner, unique)

    @classmethod
    def of_name(cls, name: str) -> Ghost | None:
        """Parse the name of a ghost; return ``None`` for the name of an object."""
        _, mark, rest = name.partition(_GHOST)
        kind, _, rest = rest.partition("~")
        owner, _, unique = rest.rpartition("~")
        return cls(kind, owner, unique) if mark else None

    @property
    def name(self) -> str:
        """Its name in listings."""
        # A document is written after the entry that began its thread, and belongs to the life that this entry began.
        made_for = uninverted(self.owner) if self.kind == ENTRIES else maker_of(self.owner) + (self.kind == DOCUMENTS)
        return f"{max(made_for or 0, 0):012x}{_GHOST}{self.kind}~{self.owner}~{self.unique}"

    @property
    def parts_range(self) -> tuple[str, str]:
        """The ID range of its parts."""
        return f"x:{self.kind}:{self.owner}:{self.unique}:", f"x:{self.kind}:{self.owner}:{self.unique};"


class Written(NamedTuple):
    """An object as items.

    Attributes:
        item: The item that makes it visible.
        parts: The parts that it refers to, to be written first.
    """

    item: dict[str, Any]
    parts: Sequence[dict[str, Any]]


def items_of(partition: Partition, name: str, data: bytes) -> Written:
    """Return the items for an object.

    Each has a time to live, so that the container's default cannot delete it. Only an emptied entry expires: it just
    reserves its name, which takes an hour at most (`Fence`).
    """
    life = _ONE_DAY if data == GONE and partition.kind == ENTRIES else _FOR_EVER
    item: dict[str, Any] = {"id": partition.id_of(name), "pk": partition.key, "ttl": life, "size": len(data)}
    whole = {**item, "body": data.decode()} if len(data) <= ITEM_BYTES else None
    if whole is not None and _fits(whole, len(data)):
        return Written(whole, ())
    unique = nonce()
    pieces = [data[at : at + _PART_BYTES] for at in range(0, len(data), _PART_BYTES)]
    parts = [
        {
            "id": part_id,
            "pk": partition.key,
            "ttl": _FOR_EVER,
            "size": len(piece),
            "body": base64.b64encode(piece).decode(),
        }
        for part_id, piece in zip(partition.part_ids(name, unique, len(pieces)), pieces, strict=True)
    ]
    return Written({**item, "body": "", "of": unique, "parts": len(parts)}, parts)


def request_bytes(item: Any) -> int:
    """Return an item's size in a request, which escapes all but ASCII: never less than as UTF-8."""
    return len(json.dumps(item, separators=(",", ":")))


def _fits(item: dict[str, Any], size: int) -> bool:
    most = ITEM_BYTES - _SYSTEM_BYTES
    return size * _MOST_ESCAPED < most - _SYSTEM_BYTES or request_bytes(item) <= most


def joined(parts: Sequence[dict[str, Any]]) -> bytes:
    """Join the parts of an object."""
    return b"".join(base64.b64decode(part["body"]) for part in parts)
