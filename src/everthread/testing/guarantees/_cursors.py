"""Cursors that no call returned: forged from one that a call did return."""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Iterator
from typing import cast

import msgspec

_GARBAGE = ("", "x", "=", "made up", "é", "\0", "\ud800", "A" * 10_000, "bnVsbA", "W10", "e30", "W1tbW1tb")
_NUMBERS = (0, -1, 2**53, 2**63, 2**64, 10**400, -(2**63), 1.5, 1e300)
_CONTAINERS = cast(list[object], json.loads("[[], [[]], {}]"))
_LEAVES = (*_NUMBERS, True, None, "", "x", "\0", "é" * 600, *_CONTAINERS)


def forged(cursor: str) -> Iterator[str]:
    """Give garbage, and what a cursor becomes when each value in it is replaced by others."""
    yield from _GARBAGE
    for cut in (1, 3, len(cursor) // 2):
        yield cursor[:-cut]
    try:
        parts = msgspec.json.decode(base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)))
    except (msgspec.MsgspecError, binascii.Error, ValueError):
        return
    for other in _replaced(parts):
        # msgspec does not write integers of any size.
        yield base64.urlsafe_b64encode(json.dumps(other).encode()).decode().rstrip("=")


def _replaced(value: object) -> Iterator[object]:
    yield from _LEAVES
    if isinstance(value, list):
        parts = cast(list[object], value)
        yield parts[:-1]
        yield [*parts, 0]
        for index, part in enumerate(parts):
            for other in _replaced(part):
                yield [*parts[:index], other, *parts[index + 1 :]]
