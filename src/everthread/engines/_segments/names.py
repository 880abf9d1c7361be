"""Names of objects and folders from identifiers and numbers. Different identifiers never share a name."""

from __future__ import annotations

import base64
import hashlib
import re
import secrets
from typing import NamedTuple

from everthread.model import ThreadKey

_TOP = 16**12 - 1
_INVERTED = re.compile(r"[0-9a-f]{12}")
# No upper case: some file systems ignore case. No dot at an end: Azure drops it.
_PLAIN = re.compile(r"[a-z0-9](?:[a-z0-9._-]{0,98}[a-z0-9_-])?")
_OTHER = re.compile(r"[^a-z0-9._-]")
_ALPHABET = "-.0123456789_abcdefghijklmnopqrstuvwxyz"
_DEFAULT_TENANT = "~"


def name_of(identifier: str) -> str:
    """Return the identifier itself if it is short and plain, else a readable start, ``~`` and 200 bits of its SHA-256.

    Object stores allow 1,024 bytes for a whole key and file systems 255 for a name; escaping could need three
    times the identifier's length. The object of that name contains the identifier.
    """
    if _PLAIN.fullmatch(identifier):
        return identifier
    if not identifier:
        return _DEFAULT_TENANT
    digest = base64.b32encode(hashlib.sha256(identifier.encode()).digest()[:25]).decode().lower()
    return f"{readable_start(identifier)}~{digest}"


def readable_start(identifier: str) -> str:
    """Return the start of the shortened name. That of a prefix is a prefix of that of the identifier."""
    return re.sub(r"[^a-z0-9_-]", "", identifier.lower())[:40]


def before_plain(start: str) -> str:
    """Return a text that is below all plain names not below ``start``, and above most that are below it.

    It consists of characters of names.
    """
    plain = _OTHER.split(start, maxsplit=1)[0]
    if plain != start or not plain:
        return plain
    # "~" is above all characters of plain names.
    at = _ALPHABET.index(plain[-1])
    return plain[:-1] + (f"{_ALPHABET[at - 1]}~" if at else "")


def inverted(number: int) -> str:
    """Return a fixed-width name that sorts the highest number first: storages list in ascending order only."""
    return f"{_TOP - number:012x}"


def uninverted(name: str) -> int | None:
    """Return the number of an `inverted` name; ``None`` for any other name."""
    return _TOP - int(name, 16) if _INVERTED.fullmatch(name) else None


def nonce() -> str:
    """Return a short unique name."""
    return secrets.token_hex(8)


class LogPrefix(NamedTuple):
    """The folders of a thread's log, by the names of its tenant and its ID."""

    tenant: str
    thread: str

    @property
    def entries(self) -> str:
        """The folder of entries."""
        return f"t/{self.tenant}/{self.thread}"

    @property
    def segments(self) -> str:
        """The folder of objects that entries refer to: joined turns, snapshots, large metadata."""
        return f"s/{self.tenant}/{self.thread}"

    @property
    def documents(self) -> str:
        """The folder of documents."""
        return f"d/{self.tenant}/{self.thread}"


def prefix_of(key: ThreadKey) -> LogPrefix:
    """Return the prefix of a thread."""
    return LogPrefix(name_of(key.tenant), name_of(key.thread_id))


def recency_folder(tenant: str) -> str:
    """Return the folder of a tenant's markers."""
    return f"r/{tenant}"


class Marker(NamedTuple):
    """An empty object with the last activity of a thread in its name."""

    updated_ms: int
    thread: str
    nonce: str

    @property
    def name(self) -> str:
        """The object's name, which sorts the newest first."""
        return f"{inverted(self.updated_ms)}~{self.thread}~{self.nonce}"

    @classmethod
    def of(cls, name: str) -> Marker | None:
        """Parse a name; return ``None`` if it is no marker's."""
        time, _, rest = name.partition("~")
        thread, _, unique = rest.rpartition("~")
        updated_ms = uninverted(time)
        return None if updated_ms is None or not thread else cls(updated_ms, thread, unique)


def made_by(number: int) -> str:
    """Return a unique name for an object that entry ``number`` will refer to."""
    return f"{number:012x}-{nonce()}"


def maker_of(name: str) -> int:
    """Return the number in a name of `made_by` or `document_name`; -1 for any other name."""
    number = name[:12]
    return int(number, 16) if _INVERTED.fullmatch(number) else -1


def document_name(born: int, name: str) -> str:
    """Return the name of a document's object in the life of a thread that entry ``born`` began."""
    return document_life(born) + name_of(name)


def document_life(born: int) -> str:
    """Return the start of the names of all documents of one life of a thread."""
    return f"{born:012x}-"
