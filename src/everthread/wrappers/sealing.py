"""The cipher of `Encrypted`: one value ↔ one token. No I/O, no keys of its own.

A token is ``v1.KEY.DATA``: the id of the tenant's key, and base64 of nonce, ciphertext and tag of AES-256-GCM.

Every thread has an AES key of its own, HKDF-Expand (RFC 5869) of the tenant's key and the thread's name. Nonces are
96 random bits. NIST SP 800-38D (8.3) allows 2^32 of them with one key: here that is the messages of one thread while
its tenant's key is in use, not those of all threads. What counts nonces instead must not forget after a crash, a
restored backup or a fork, and writers on several machines would have to share the count.

The name of the key, the tenant, the thread, and what the value is (message, title, metadata, or which document) are
associated data, so a token is void anywhere else.
"""

from __future__ import annotations

import binascii
import hmac
import os
from functools import lru_cache

import msgspec

from everthread._arguments import SEALED
from everthread._extras import missing_extra
from everthread.codec import encode
from everthread.errors import CorruptRecordError
from everthread.model import ThreadKey

try:
    from cryptography.exceptions import InvalidTag
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM
except ImportError as error:
    raise missing_extra("crypto", error) from error

KEY_BYTES = 32
NONCE_BYTES = 12
_TAG_BYTES = 16
_VERSION = "v1"
_TITLE = f"{SEALED}:"


class DataKey(msgspec.Struct, frozen=True):
    """A tenant's key: ``id`` is not secret, ``secret`` is 32 random bytes, ``made`` when in seconds since 1970."""

    id: str
    secret: bytes
    made: int = 0

    def __repr__(self) -> str:
        return f"DataKey({self.id!r})"


class Seal(msgspec.Struct, frozen=True):
    """Where a value belongs: it opens there only.

    Attributes:
        kind: ``"message"``, ``"title"``, ``"metadata"`` or ``"document"``.
        name: The document's.
    """

    key: ThreadKey
    kind: str
    name: str = ""

    def close(self, data_key: DataKey, value: bytes) -> str:
        """The token of a value."""
        nonce = os.urandom(NONCE_BYTES)
        sealed = _cipher(data_key, self.key).encrypt(nonce, value, self._belongs(data_key.id))
        return f"{_VERSION}.{data_key.id}.{binascii.b2a_base64(nonce + sealed, newline=False).decode()}"

    def open(self, data_key: DataKey, token: str, where: str = "") -> bytes:
        """The value of a token.

        Raises:
            CorruptRecordError: It was changed, cut off, or made for another place.
        """
        try:
            data = binascii.a2b_base64(token.rpartition(".")[2], strict_mode=True)
            if len(data) < NONCE_BYTES + _TAG_BYTES:
                raise InvalidTag
            cipher = _cipher(data_key, self.key)
            return cipher.decrypt(data[:NONCE_BYTES], data[NONCE_BYTES:], self._belongs(data_key.id))
        except (InvalidTag, binascii.Error, ValueError):
            raise self._broken(where) from None

    def _broken(self, where: str) -> CorruptRecordError:
        what = f"document {self.name!r}" if self.kind == "document" else self.kind
        return CorruptRecordError(
            f"The sealed {what}{where} of {self.key} does not open: it was changed, or was sealed for another place."
        )

    def _belongs(self, key_id: str) -> bytes:
        return msgspec.json.encode((_VERSION, key_id, self.key.tenant, self.key.thread_id, self.kind, self.name))


@lru_cache(maxsize=1024)
def _cipher(data_key: DataKey, key: ThreadKey) -> AESGCM:
    # HKDF-Expand with one block: the tenant's key is random already, so it needs no extracting (RFC 5869, 3.3).
    about = msgspec.json.encode(("everthread thread key", key.tenant, key.thread_id))
    return AESGCM(hmac.digest(data_key.secret, about + b"\x01", "sha256"))


def key_id_of(token: str) -> str | None:
    """The id of the key that sealed a token, or ``None`` if it is none of this release's."""
    version, _, rest = token.partition(".")
    key_id, dot, _ = rest.partition(".")
    return key_id if version == _VERSION and dot and key_id else None


def as_json(token: str) -> bytes:
    """A token as the JSON object that stands where a payload or a document would."""
    return encode({SEALED: token})


def from_json(data: bytes) -> str | None:
    """The token in what `as_json` made, or ``None`` for any other JSON."""
    if not data.startswith(b'{"' + SEALED.encode()):
        return None
    try:
        return msgspec.json.decode(data, type=_Sealed).token
    except msgspec.MsgspecError:
        return None


class _Sealed(msgspec.Struct, forbid_unknown_fields=True):
    token: str = msgspec.field(name=SEALED)


def as_title(token: str) -> str:
    """A token as a title."""
    return _TITLE + token


def from_title(title: str) -> str | None:
    """The token in what `as_title` made, or ``None`` for any other title."""
    return title.removeprefix(_TITLE) if title.startswith(_TITLE) else None


def forget_ciphers() -> None:
    """Drops the threads' keys that are remembered."""
    _cipher.cache_clear()
