"""Ranges of document names."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

_HIGHEST = "\U0010ffff"


class NameRange(NamedTuple):
    """The names that begin with ``prefix`` and are not below ``start``, in the order of their UTF-8.

    Attributes:
        prefix: The beginning of each name.
        start: The lowest name; not below the prefix.
        stop: The lowest name above all names with the prefix; ``None`` if there is none.
        limit: The maximum number of names; ``None``: all.
    """

    prefix: str = ""
    start: str = ""
    stop: str | None = None
    limit: int | None = None

    @classmethod
    def of(cls, prefix: str, after: str | None, limit: int | None) -> NameRange:
        """Return the range of at most ``limit`` names with a prefix that are above ``after``."""
        # No text is between a text and the same with U+0000 at its end.
        start = prefix if after is None else max(prefix, after + "\0")
        return cls(prefix, start, _above(prefix), limit)

    def pick(self, names: Iterable[str]) -> tuple[str, ...]:
        """Return the names of the range, sorted, at most ``limit`` of them."""
        return tuple(sorted(name for name in names if name >= self.start and name.startswith(self.prefix)))[
            : self.limit
        ]


def _above(prefix: str) -> str | None:
    kept = prefix.rstrip(_HIGHEST)
    if not kept:
        return None
    # UTF-8 has no surrogates.
    following = 0xE000 if kept[-1] == "\ud7ff" else ord(kept[-1]) + 1
    return kept[:-1] + chr(following)
