"""Durations as people write them: ``90d``. Imports nothing heavy: ``--help`` loads it."""

from __future__ import annotations

from datetime import timedelta

LONGEST = 6
"""Characters: a duration before now stays in the calendar."""

_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}


def duration_of(text: str) -> timedelta:
    """Return the duration that the text names: ``30s``, ``90m``, ``24h``, ``7d``, ``2w``.

    Raises:
        ValueError: The text names none.
    """
    unit = _UNITS.get(text[-1:])
    count = int(text[:-1]) if text.isascii() and text[:-1].isdecimal() and len(text) <= LONGEST else 0
    if unit is None or not count:
        raise ValueError(f"{text!r} is not a duration. Examples: 30s, 90m, 24h, 7d, 2w.")
    return timedelta(**{unit: count})


def in_words(duration: timedelta) -> str:
    """Return the duration in the longest unit of which it is a whole number; ``1.5s`` if it is of none."""
    for letter, unit in reversed(_UNITS.items()):
        count, rest = divmod(duration, timedelta(**{unit: 1}))
        if count and not rest:
            return f"{count}{letter}"
    return f"{duration.total_seconds()}s"
