"""Sizes and times as people write them."""

from __future__ import annotations

from datetime import datetime, timedelta


def file_size(size: int) -> str:
    """Return a number of bytes as people write it: ``34 kB``."""
    if size < 1000:
        return f"{size} B"
    if size < 999_500:
        return f"{size / 1000:.0f} kB"
    return f"{size / 1_000_000:.1f} MB"


def local_time(when: datetime, now: datetime) -> datetime:
    """Return a time in the time zone of ``now``."""
    try:
        return when.astimezone(now.tzinfo)
    except (OverflowError, ValueError):
        # At the ends of the calendar another zone has no such day.
        return when


def ago(when: datetime, now: datetime) -> str:
    """Return how long ago a time was; a time in the future (another machine's clock) is ``just now``."""
    passed = now - when
    if passed < timedelta(seconds=10):
        return "just now"
    if passed >= timedelta(days=60):
        return f"on {local_time(when, now):%Y-%m-%d}"
    for unit, length in (("day", 86_400), ("hour", 3600), ("minute", 60), ("second", 1)):
        count = int(passed.total_seconds() // length)
        if count:
            return f"{count} {unit}{'' if count == 1 else 's'} ago"
    return "just now"
