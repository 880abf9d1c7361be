"""Identifiers → physical names, injectively: two different identifiers never give the same name."""

from __future__ import annotations

from urllib.parse import quote, unquote_to_bytes


def escape(identifier: str, *, also_plain: str = "") -> str:
    """Percent-encodes an identifier so that ``: / | { } * ? # % ~``, NUL, spaces and all but ASCII are escaped.

    Injective, reversible by `unescape`, and sorts the empty identifier to the empty name. Letters,
    digits and ``_ . -`` stay as they are, so ordinary ids remain readable.
    """
    escaped = quote(identifier, safe=also_plain)
    # quote() leaves "~" alone; it is kept free as a separator.
    return escaped if "~" in also_plain else escaped.replace("~", "%7E")


def unescape(name: str) -> str:
    """The identifier that `escape` made ``name`` from."""
    return unquote_to_bytes(name).decode()
