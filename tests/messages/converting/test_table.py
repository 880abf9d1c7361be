"""The table of the documentation says what a conversion does."""

from __future__ import annotations

from tests.messages.converting.conversations import FORMATS, converted, rows  # noqa: F401
