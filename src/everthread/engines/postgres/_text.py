"""Any text ↔ PostgreSQL's ``text``, which lacks NUL. Keeps the order of texts, so that listings sort as they should."""

from __future__ import annotations


def pack(text: str) -> str:
    """Writes U+0000 as U+0001 U+0001 and U+0001 as U+0001 U+0002; all other text stays as it is."""
    if "\0" not in text and "\1" not in text:
        return text
    return text.replace("\1", "\1\2").replace("\0", "\1\1")


def unpack(text: str) -> str:
    """The text that `pack` was given."""
    if "\1" not in text:
        return text
    # No pair overlaps another: U+0001 begins one, and what follows it is its second half.
    return "".join(_UNPACKED.get(part, part) for part in _pairs(text))


_UNPACKED = {"\1\1": "\0", "\1\2": "\1"}


def _pairs(text: str) -> list[str]:
    parts: list[str] = []
    at = 0
    while at < len(text):
        size = 2 if text[at] == "\1" else 1
        parts.append(text[at : at + size])
        at += size
    return parts
