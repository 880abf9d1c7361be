"""Names of the records in which checkpoints are stored.

All are plain names (see `Store.list_documents`), so that a page of them is cheap on every engine:

``lg.c.{namespace}.{id}``
    A checkpoint. The newest comes first: checkpoint IDs are compared as text, and are stored inverted.
``lg.w.{namespace}.{id}``
    The pending writes of a checkpoint.
``lg.b.{namespace}.{channel and version}``
    The value of a channel, for all checkpoints that have this version.
``lg.v.{random}``
    A large value of a pending write.
"""

from __future__ import annotations

import base64
from hashlib import blake2b
from uuid import uuid4

from everthread.errors import CorruptRecordError

PREFIX = "lg."
CHECKPOINTS = "lg.c."
WRITES = "lg.w."
BLOBS = "lg.b."
VALUES = "lg.v."

_INVERTED = str.maketrans("0123456789abcdef", "fedcba9876543210")
# Above all digits: of two IDs that begin alike, the longer one comes first.
_LAST = "z"


def checkpoint_name(namespace: str, checkpoint_id: str) -> str:
    """Return the name of a checkpoint."""
    return f"{CHECKPOINTS}{_hash(namespace)}.{_inverted(checkpoint_id)}"


def checkpoints_of(namespace: str) -> str:
    """Return the beginning of the names of a namespace's checkpoints."""
    return f"{CHECKPOINTS}{_hash(namespace)}."


def id_in(name: str) -> str:
    """Return the ID in the name of a checkpoint.

    Raises:
        CorruptRecordError: It is no such name.
    """
    digits = name.rpartition(".")[2].removesuffix(_LAST).translate(_INVERTED)
    try:
        return bytes.fromhex(digits).decode()
    except ValueError:
        raise CorruptRecordError(f"The document {name!r} is no checkpoint: delete it.") from None


def writes_name(checkpoint: str) -> str:
    """Return the name of the writes of a checkpoint, by the name of the checkpoint."""
    return WRITES + checkpoint.removeprefix(CHECKPOINTS)


def blob_name(namespace: str, channel: str, version: str | float) -> str:
    """Return the name of a channel's value. The type of the version is part of it."""
    return f"{BLOBS}{_hash(namespace)}.{_hash(channel, repr(version))}"


def blobs_beside(checkpoint: str) -> str:
    """Return the beginning of the names of the blobs of a checkpoint's namespace."""
    return BLOBS + checkpoint.removeprefix(CHECKPOINTS).partition(".")[0] + "."


def value_name() -> str:
    """Return a new name for a large value of a write."""
    return VALUES + uuid4().hex


def _inverted(checkpoint_id: str) -> str:
    return checkpoint_id.encode().hex().translate(_INVERTED) + _LAST


def _hash(*texts: str) -> str:
    # Each text is preceded by its length, so that different texts never give the same input.
    digest = blake2b(digest_size=16 if len(texts) > 1 else 10)
    for text in texts:
        data = text.encode(errors="surrogatepass")
        digest.update(b"%d:%s" % (len(data), data))
    return base64.b32encode(digest.digest()).decode().rstrip("=").lower()
