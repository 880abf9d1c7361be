"""The top level of a JSON object that cannot be parsed as a whole, so that its sender can be answered."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from typing import Any, Self, cast

_TOKENS = re.compile(rb'\\.|["{}\[\]]|[^"\\{}\[\]]+', re.DOTALL)
_MOST_BYTES = 4096


class Outline:
    """Collects the top level of an object from parts of its JSON, with zeros in place of nested values.

    Needs bounded memory for JSON of any length.
    """

    def __init__(self) -> None:
        self._depth = 0
        self._in_text = False
        self._rest = b""
        self._kept = bytearray()

    @classmethod
    def of(cls, parts: Iterable[bytes]) -> Self:
        """Return the outline of JSON in parts."""
        outline = cls()
        for part in parts:
            outline.add(part)
        return outline

    def add(self, part: bytes) -> None:
        """Add the next part of the JSON."""
        part = self._rest + part
        # A backslash and the character after it stay together.
        self._rest = b"\\" if (len(part) - len(part.rstrip(b"\\"))) % 2 else b""
        for found in _TOKENS.finditer(part[: len(part) - len(self._rest)]):
            self._token(found[0])

    def _token(self, token: bytes) -> None:
        if token == b'"':
            self._in_text = not self._in_text
        elif not self._in_text and token in b"{[":
            self._depth += 1
            token = b"0" if self._depth == 2 else token
            if self._depth > 2:
                return
        elif not self._in_text and token in b"}]":
            self._depth -= 1
            if self._depth == 1:
                return
        elif self._depth > 1:
            return
        if (self._depth <= 1 or token == b"0") and len(self._kept) <= _MOST_BYTES:
            self._kept += token[:_MOST_BYTES]

    def value(self) -> dict[str, Any] | None:
        """Return the top level, or ``None`` if it is no object or too long itself."""
        try:
            # Not msgspec, which refuses lone surrogates.
            value = json.loads(self._kept.decode(errors="replace"))
        except ValueError:
            return None
        return cast(dict[str, Any], value) if isinstance(value, dict) else None
