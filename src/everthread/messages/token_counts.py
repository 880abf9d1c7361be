"""Count the tokens of a text: with a cheap estimate, or exactly with tiktoken."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from everthread._extras import import_extra
from everthread.errors import ConfigurationError

if TYPE_CHECKING:
    from tiktoken import Encoding

CountTokens = Callable[[str], int]
"""Returns the number of tokens of a text."""


def guess_tokens(text: str) -> int:
    """Return a quarter of the characters, rounded up: about right for English, too low for many other scripts."""
    return -(-len(text) // 4)


def tiktoken_counter(encoding: str | Encoding = "o200k_base") -> CountTokens:
    """Return a function that counts as OpenAI's models do. Needs the extra ``tokens``.

    Args:
        encoding: An encoding or its name. tiktoken downloads the table of a named one at its first use, and caches it.

    Raises:
        ConfigurationError: tiktoken is not installed, or does not know the encoding.
    """
    tiktoken = import_extra("tiktoken", "tokens")
    try:
        known: Encoding = tiktoken.get_encoding(encoding) if isinstance(encoding, str) else encoding
    except ValueError:
        raise ConfigurationError(f"tiktoken knows no encoding {encoding!r}.") from None

    def count(text: str) -> int:
        # Text that looks like a control token is text of the conversation.
        return len(known.encode(text, disallowed_special=()))

    return count
