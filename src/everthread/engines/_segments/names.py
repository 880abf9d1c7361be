"""Identifiers and numbers → names of objects and folders. Different identifiers never share a name."""

from __future__ import annotations

import base64
import hashlib
import re
import secrets
from typing import NamedTuple

from everthread.model import ThreadKey

_TOP = 16**12 - 1
_INVERTED = re.compile(r"[0-9a-f]{12}")
# No upper case: some file systems do not tell it apart. No dot at an end: Azure drops it.
_PLAIN = re.compile(r"[a-z0-9](?:[a-z0-9._-]{0,98}[a-z0-9_-])?")
_DEFAULT_TENANT = "~"


def name_of(identifier: str) -> str:
    """The identifier itself if it is short and plain, else a readable beginning, ``~`` and 200 bits of its SHA-256.

    Object stores allow 1,024 bytes for a whole key and file systems 255 for a name; escaping could need three
    times the identifier's length. The identifier is kept inside what the name leads to.
    """
    if _PLAIN.fullmatch(identifier):
        return identifier
    if not identifier:
        return _DEFAULT_TENANT
    digest = base64.b32encode(hashlib.sha256(identifier.encode()).digest()[:25]).decode().lower()
    readable = re.sub(r"[^a-z0-9_-]", "", identifier.lower())[:40]
    return f"{readable}~{digest}"


def inverted(number: int) -> str:
    """A fixed-width name that sorts the highest number first: storages list in ascending order only."""
    return f"{_TOP - number:012x}"


def uninverted(name: str) -> int | None:
    """The number that `inverted` made a name from; ``None`` for a name that it did not make."""
    return _TOP - int(name, 16) if _INVERTED.fullmatch(name) else None


def nonce() -> str:
    """A short name that nobody else has thought of."""
    return secrets.token_hex(8)


class Place(NamedTuple):
    """Where a thread is kept."""

    tenant: str
    thread: str

    @property
    def entries(self) -> str:
        """The folder of the log's entries."""
        return f"t/{self.tenant}/{self.thread}"

    @property
    def segments(self) -> str:
        """The folder of what entries refer to: joined turns, snapshots, large metadata."""
        return f"s/{self.tenant}/{self.thread}"

    @property
    def documents(self) -> str:
        """The folder of the thread's documents."""
        return f"d/{self.tenant}/{self.thread}"


def place_of(key: ThreadKey) -> Place:
    """Where the thread of this key is kept."""
    return Place(name_of(key.tenant), name_of(key.thread_id))


def recency_folder(tenant: str) -> str:
    """The folder of a tenant's markers, given the tenant's name."""
    return f"r/{tenant}"


class Marker(NamedTuple):
    """An empty object whose name says when a thread was last active."""

    updated_ms: int
    thread: str
    nonce: str

    @property
    def name(self) -> str:
        """Sorts the newest first."""
        return f"{inverted(self.updated_ms)}~{self.thread}~{self.nonce}"

    @classmethod
    def of(cls, name: str) -> Marker | None:
        """The marker of this name; ``None`` for a foreign one."""
        time, _, rest = name.partition("~")
        thread, _, unique = rest.rpartition("~")
        updated_ms = uninverted(time)
        return None if updated_ms is None or not thread else cls(updated_ms, thread, unique)


def made_by(number: int) -> str:
    """A name for an object that entry ``number`` will refer to; nobody else makes the same."""
    return f"{number:012x}-{nonce()}"


def maker_of(name: str) -> int:
    """The number of the entry for which `made_by` or `document_name` made the name; -1 for a foreign name."""
    number = name[:12]
    return int(number, 16) if _INVERTED.fullmatch(number) else -1


def document_name(born: int, name: str) -> str:
    """A document's object, given the number of the entry that began its thread: it belongs to that life only."""
    return document_life(born) + name_of(name)


def document_life(born: int) -> str:
    """How the names of all documents of a thread's life begin."""
    return f"{born:012x}-"
