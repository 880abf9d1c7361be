"""How many tokens a text is to a model: a guess that costs nothing, or an exact count with tiktoken."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from everthread._extras import import_extra
from everthread.errors import ConfigurationError

if TYPE_CHECKING:
    from tiktoken import Encoding

CountTokens = Callable[[str], int]
"""Gives the number of tokens of a text."""


def guess_tokens(text: str) -> int:
    """A quarter of the characters, rounded up: near the truth for English, too low for scripts of other kinds."""
    return -(-len(text) // 4)


def tiktoken_counter(encoding: str | Encoding = "o200k_base") -> CountTokens:
    """Counts as OpenAI's models do. Needs the extra ``tokens``.

    Args:
        encoding: An encoding, or the name of one, whose table tiktoken downloads at its first use and then caches.

    Raises:
        ConfigurationError: tiktoken is not installed, or does not know the encoding.
    """
    tiktoken = import_extra("tiktoken", "tokens")
    try:
        known: Encoding = tiktoken.get_encoding(encoding) if isinstance(encoding, str) else encoding
    except ValueError:
        raise ConfigurationError(f"tiktoken knows no encoding {encoding!r}.") from None

    def count(text: str) -> int:
        # What looks like a control token is text of the conversation.
        return len(known.encode(text, disallowed_special=()))

    return count
