"""The cipher of `Encrypted`: one value ↔ one token. It does no I/O and stores no keys.

A token is ``v2.KEY.DATA``: the id of the tenant's key, and base64 of nonce, ciphertext and tag of AES-256-GCM.

Every thread has its own AES key: HKDF-Expand (RFC 5869) of the tenant's key and the thread's name. Nonces are 96
random bits. NIST SP 800-38D (8.3) allows 2^32 of them with one key: here this limits the messages of one thread while
its tenant's key is in use, not those of all threads. Counted nonces are rejected: the count would have to survive a
crash, a restored backup and a fork, and writers on several machines would have to share it.

The name of the key, the tenant, the thread, the kind of the value (message, title, metadata, or which document) and a
message's format are associated data, so a token is invalid anywhere else. A message's position is not: the store
assigns it after the message is sealed. Tokens of ``v1`` lack the format; they open, and `rewrap` seals them anew.
"""

from __future__ import annotations

import binascii
import hmac
import os
from functools import lru_cache

import msgspec

from everthread._extras import missing_extra
from everthread._validation import SEALED, is_sealed
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
_VERSION = "v2"
_WITHOUT_FORMAT = "v1"
_TITLE = f"{SEALED}:"


class DataKey(msgspec.Struct, frozen=True):
    """A tenant's key: ``id`` is not secret, ``secret`` is 32 random bytes, ``made`` when in seconds since 1970."""

    id: str
    secret: bytes
    made: int = 0

    def __repr__(self) -> str:
        return f"DataKey({self.id!r})"


class Seal(msgspec.Struct, frozen=True):
    """The place of a value: its token opens there only.

    Attributes:
        kind: ``"message"``, ``"title"``, ``"metadata"`` or ``"document"``.
        name: The document's.
        format: The message's.
    """

    key: ThreadKey
    kind: str
    name: str = ""
    format: str = ""

    def close(self, data_key: DataKey, value: bytes) -> str:
        """Return the token of a value."""
        nonce = os.urandom(NONCE_BYTES)
        sealed = _cipher(data_key, self.key).encrypt(nonce, value, self._belongs(_VERSION, data_key.id))
        return f"{_VERSION}.{data_key.id}.{binascii.b2a_base64(nonce + sealed, newline=False).decode()}"

    def open(self, data_key: DataKey, token: str, where: str = "") -> bytes:
        """Return the value of a token.

        Raises:
            CorruptRecordError: It was changed, cut off, or made for another place.
        """
        try:
            data = binascii.a2b_base64(token.rpartition(".")[2], strict_mode=True)
            if len(data) < NONCE_BYTES + _TAG_BYTES:
                raise InvalidTag
            cipher = _cipher(data_key, self.key)
            return cipher.decrypt(
                data[:NONCE_BYTES], data[NONCE_BYTES:], self._belongs(token.partition(".")[0], data_key.id)
            )
        except (InvalidTag, binascii.Error, ValueError):
            what = f"document {self.name!r}" if self.kind == "document" else self.kind
            raise CorruptRecordError(
                f"The sealed {what}{where} of {self.key} does not open: it was changed, or sealed for another place."
            ) from None

    def _belongs(self, version: str, key_id: str) -> bytes:
        place = (version, key_id, self.key.tenant, self.key.thread_id, self.kind, self.name)
        return msgspec.json.encode(place if version == _WITHOUT_FORMAT else (*place, self.format))


@lru_cache(maxsize=1024)
def _cipher(data_key: DataKey, key: ThreadKey) -> AESGCM:
    # HKDF-Expand with one block: the tenant's key is random already, so it needs no extracting (RFC 5869, 3.3).
    about = msgspec.json.encode(("everthread thread key", key.tenant, key.thread_id))
    return AESGCM(hmac.digest(data_key.secret, about + b"\x01", "sha256"))


def key_id_of(token: str) -> str | None:
    """Return the id of the key that sealed a token; ``None`` if this release cannot read it."""
    version, _, rest = token.partition(".")
    key_id, dot, _ = rest.partition(".")
    return key_id if version in {_VERSION, _WITHOUT_FORMAT} and dot and key_id else None


def is_current(token: str, key_id: str) -> bool:
    """Return whether this key sealed a token in this release's format."""
    return token.startswith(f"{_VERSION}.{key_id}.")


def as_json(token: str) -> bytes:
    """Return a token as the JSON object that replaces a payload or a document."""
    return f'{{"{SEALED}":"{token}"}}'.encode()


def from_json(data: bytes) -> str | None:
    """Return the token in the output of `as_json`; ``None`` for any other JSON."""
    if not is_sealed(data):
        return None
    try:
        return msgspec.json.decode(data, type=_Sealed).token
    except msgspec.MsgspecError:
        return None


class _Sealed(msgspec.Struct, forbid_unknown_fields=True):
    token: str = msgspec.field(name=SEALED)


def as_title(token: str) -> str:
    """Return a token as a title."""
    return _TITLE + token


def from_title(title: str) -> str | None:
    """Return the token in the output of `as_title`; ``None`` for any other title."""
    return title.removeprefix(_TITLE) if title.startswith(_TITLE) else None


def forget_ciphers() -> None:
    """Drop the cached keys of threads."""
    _cipher.cache_clear()
