"""An object of the log as items: where they lie, and how one that is too large for an item is cut.

All that belongs to a thread has one partition key, so it is one logical partition. An item's id begins with the kind of
the object (the first letter of its folder): ``t:`` entries, ``s:`` joined turns, ``d:`` documents, ``r:`` markers, and
``x:{kind}:{name}:`` the parts of a large object. No kind and no name holds a colon, so nothing meets.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Collection, Sequence
from typing import Any, NamedTuple

from everthread.engines._segments.names import maker_of, nonce, uninverted
from everthread.engines._segments.records import GONE

ITEM_BYTES = 2_000_000
"""What an item may have as JSON. The service's limit is 2 MB, be it decimal or binary
(https://learn.microsoft.com/azure/cosmos-db/concepts-limits)."""

_SYSTEM_BYTES = 2_000  # what the service adds to an item
_PART_BYTES = 1_400_000  # as base64, with room for the item's own fields
_MOST_ESCAPED = 3  # bytes of the request's ASCII for one of UTF-8: é is \u00e9
_FOR_EVER = -1
_ONE_DAY = 24 * 3600
_MARKERS = "r"
_DOCUMENTS = "d"
_ENTRIES = "t"
_SEGMENTS = "s"
_GHOST = ".parts~"


class Place(NamedTuple):
    """Where the objects of a folder are: a partition, and how the ids of their items begin."""

    partition: str
    kind: str

    def id_of(self, name: str) -> str:
        """The id of an object's item."""
        return f"{self.kind}:{name}"

    def name_of(self, item_id: str) -> str:
        """The object of an item."""
        return item_id[len(self.kind) + 1 :]

    def part_ids(self, name: str, unique: str, count: int) -> list[str]:
        """The ids of the parts that one write made."""
        return [f"x:{self.kind}:{name}:{unique}:{number}" for number in range(count)]

    def parts_range(self, names: Collection[str]) -> tuple[str, str]:
        """Between which ids all parts of these objects lie, and possibly some of others."""
        return (
            min(f"x:{self.kind}:{name}:" for name in names),
            max(f"x:{self.kind}:{name};" for name in names),
        )

    @property
    def has_parts(self) -> bool:
        """Whether objects here can be large; markers are empty."""
        return self.kind != _MARKERS

    @property
    def lists_ghosts(self) -> bool:
        """Whether what killed writers left in this partition is listed here."""
        return self.kind == _SEGMENTS

    @property
    def is_rewritten(self) -> bool:
        """Whether a name may be written again after it was deleted."""
        return self.kind == _DOCUMENTS


def place_of(folder: str) -> Place:
    """Where the objects of this folder are."""
    kind, _, rest = folder.partition("/")
    return Place(folder if kind == _MARKERS else f"{_ENTRIES}/{rest}", kind)


def owner_of(part_id: str) -> str:
    """The name of the object that a part belongs to."""
    return part_id.split(":")[2]


class Ghost(NamedTuple):
    """Parts of an object that is not there, or is another by now: a writer has not come further yet, or has died.

    They are listed with the joined turns, by names that say for which entry they were made. So whoever removes what no
    entry refers to finds them too.
    """

    kind: str
    owner: str
    unique: str

    @classmethod
    def of_part(cls, part_id: str) -> Ghost:
        """What a part belongs to."""
        _, kind, owner, unique, _ = part_id.split(":")
        return cls(kind, owner, unique)

    @classmethod
    def of_name(cls, name: str) -> Ghost | None:
        """What the name of a ghost means; ``None`` for that of an object."""
        _, mark, rest = name.partition(_GHOST)
        kind, _, rest = rest.partition("~")
        owner, _, unique = rest.rpartition("~")
        return cls(kind, owner, unique) if mark else None

    @property
    def name(self) -> str:
        """The name that it is listed by."""
        # A document is written after the entry that began its thread, and must not go with what was before that.
        made_for = uninverted(self.owner) if self.kind == _ENTRIES else maker_of(self.owner) + (self.kind == _DOCUMENTS)
        return f"{max(made_for or 0, 0):012x}{_GHOST}{self.kind}~{self.owner}~{self.unique}"

    @property
    def parts_range(self) -> tuple[str, str]:
        """Between which ids the parts lie."""
        return f"x:{self.kind}:{self.owner}:{self.unique}:", f"x:{self.kind}:{self.owner}:{self.unique};"


class Written(NamedTuple):
    """An object as items.

    Attributes:
        item: The one that makes it visible.
        parts: What it refers to, to be written before it.
    """

    item: dict[str, Any]
    parts: Sequence[dict[str, Any]]


def items_of(place: Place, name: str, data: bytes) -> Written:
    """The items for an object.

    Each says how long it lives, so that a container's default cannot take it away. Only an entry that was emptied goes
    by itself: all it does is to keep its name from being given again, which takes an hour at most (`Fence`).
    """
    life = _ONE_DAY if data == GONE and place.kind == _ENTRIES else _FOR_EVER
    item: dict[str, Any] = {"id": place.id_of(name), "pk": place.partition, "ttl": life, "size": len(data)}
    whole = {**item, "body": data.decode()} if len(data) <= ITEM_BYTES else None
    if whole is not None and _fits(whole, len(data)):
        return Written(whole, ())
    unique = nonce()
    pieces = [data[at : at + _PART_BYTES] for at in range(0, len(data), _PART_BYTES)]
    parts = [
        {
            "id": part_id,
            "pk": place.partition,
            "ttl": _FOR_EVER,
            "size": len(piece),
            "body": base64.b64encode(piece).decode(),
        }
        for part_id, piece in zip(place.part_ids(name, unique, len(pieces)), pieces, strict=True)
    ]
    return Written({**item, "body": "", "of": unique, "parts": len(parts)}, parts)


def request_bytes(item: Any) -> int:
    """An item's size in a request, where all but ASCII is escaped: never less than as UTF-8."""
    return len(json.dumps(item, separators=(",", ":")))


def _fits(item: dict[str, Any], size: int) -> bool:
    most = ITEM_BYTES - _SYSTEM_BYTES
    return size * _MOST_ESCAPED < most - _SYSTEM_BYTES or request_bytes(item) <= most


def joined(parts: Sequence[dict[str, Any]]) -> bytes:
    """The object that was cut into these parts."""
    return b"".join(base64.b64decode(part["body"]) for part in parts)
