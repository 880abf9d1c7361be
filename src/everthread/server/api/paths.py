"""Thread IDs in paths. An ID may be any text, so it has two forms there: percent-encoded, and ``~`` with Base64url.

Servers and proxies decode and normalize paths: ``a%2Fb`` becomes two segments, and ``..`` disappears. The second form
passes through all of them.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import unquote, unquote_to_bytes

from everthread.errors import InvalidIdentifierError

LONGEST_PATH = 8_192
"""The most bytes of a path with its escapes."""
FIXED = frozenset({"openapi.json", "search"})
"""The first segments that are not IDs. Threads with these IDs have the second form."""
_MOST_SEGMENTS = 64
_PLAIN = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]*")


def segment_of(thread_id: str) -> str:
    """Return a thread's ID as a segment of a path."""
    if _PLAIN.fullmatch(thread_id) and thread_id not in FIXED:
        return thread_id
    return "~" + base64.urlsafe_b64encode(thread_id.encode()).decode().rstrip("=")


def thread_id_of(segment: str) -> str:
    """Return the ID that a decoded segment stands for.

    Raises:
        InvalidIdentifierError: It begins with ``~`` and what follows is not Base64url of UTF-8.
    """
    if not segment.startswith("~"):
        return segment
    encoded = segment[1:]
    try:
        if re.search(r"[^A-Za-z0-9_-]", encoded):
            raise ValueError
        return base64.urlsafe_b64decode(encoded + "=" * (-len(encoded) % 4)).decode()
    except (ValueError, binascii.Error):
        raise InvalidIdentifierError("A thread ID that begins with ~ must be Base64url of UTF-8.") from None


def segments_of(scope: Mapping[str, Any]) -> list[str] | None:
    """Return the decoded segments of a request's path below the place where the API is mounted.

    Takes them from the path as the client sent it, if the server passes it on, so that an encoded slash separates no
    segments. ``None``: the path is not below that place, or too long.

    Raises:
        InvalidIdentifierError: A segment is not UTF-8.
    """
    route = _route(scope)
    raw: bytes = scope.get("raw_path") or b""
    if route is None or max(len(route), len(raw)) > LONGEST_PATH:
        return None
    sent = raw.partition(b"?")[0].decode("latin-1")
    start = -1
    for _ in range(_MOST_SEGMENTS):
        start = sent.find("/", start + 1)
        if start < 0:
            break
        if unquote(sent[start:]) == route:
            return [_decoded(segment) for segment in sent[start + 1 :].split("/")]
    return route[1:].split("/")


def _route(scope: Mapping[str, Any]) -> str | None:
    path: str = scope["path"]
    root: str = scope.get("root_path", "")
    # A proxy that removes a prefix leaves it in the root path only.
    for prefix in (root, root.removeprefix(scope.get("app_root_path", ""))):
        if path == prefix:
            return "/"
        if path.startswith(prefix + "/"):
            return path[len(prefix) :]
    return None


def _decoded(segment: str) -> str:
    try:
        return unquote_to_bytes(segment.encode("latin-1")).decode()
    except UnicodeDecodeError:
        raise InvalidIdentifierError("The path is not UTF-8.") from None
