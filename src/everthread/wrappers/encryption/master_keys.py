"""Sources of master keys: a file, an environment variable, or your own function that asks a vault.

A master key seals tenants' keys, never messages, so changing it rewrites a few small records only.
"""

from __future__ import annotations

import binascii
import os
import re
from base64 import b64decode, b64encode
from collections.abc import Awaitable, Callable
from pathlib import Path

import msgspec

from everthread.errors import ConfigurationError

ENVIRONMENT_VARIABLE = "EVERTHREAD_KEYS"
KEY_BYTES = 32

_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")


class MasterKey(msgspec.Struct, frozen=True):
    """A key that seals tenants' keys.

    Attributes:
        id: Its name in the records that it sealed; letters, digits, ``_`` and ``-``.
        secret: 32 random bytes.

    Raises:
        ConfigurationError: The id or the secret's length is wrong.
    """

    id: str
    secret: bytes

    def __post_init__(self) -> None:
        if not isinstance(self.id, str) or not _ID.fullmatch(self.id):
            raise ConfigurationError("A master key's id is 1 to 64 letters, digits, _ and -.")
        if not isinstance(self.secret, bytes) or len(self.secret) != KEY_BYTES:
            raise ConfigurationError(f"The master key {self.id!r} must have {KEY_BYTES} bytes.")

    def __repr__(self) -> str:
        return f"MasterKey({self.id!r})"

    def to_line(self) -> str:
        """Return the key as a line for `keys_from_file`."""
        return f"{self.id}:{b64encode(self.secret).decode()}"


KeySource = Callable[[str | None], MasterKey | Awaitable[MasterKey | None] | None]
"""Return the master key of an id (``None`` if there is no such key); for ``None``, the key to seal with.

May be async. It is called rarely: at the first use of a tenant, and when keys are changed.
"""


def new_master_key(key_id: str) -> MasterKey:
    """Return a new random master key."""
    return MasterKey(key_id, os.urandom(KEY_BYTES))


def keys_from_file(path: str | os.PathLike[str]) -> KeySource:
    """Read master keys from a text file: one ``ID:BASE64`` per line, the sealing key first; ``#`` begins a comment.

    The file is read again each time, so that a key can be added while programs run. Only its owner should be able to
    read it.
    """
    place = Path(path).expanduser()

    def source(key_id: str | None) -> MasterKey | None:
        try:
            text = place.read_text("utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigurationError(f"The key file {place} cannot be read: {type(error).__name__}.") from None
        return _pick(_parsed(text, f"the key file {place}"), key_id)

    return source


def keys_from_environment(name: str = ENVIRONMENT_VARIABLE) -> KeySource:
    """Read master keys from an environment variable: ``ID:BASE64``, split by spaces or commas; the first seals."""

    def source(key_id: str | None) -> MasterKey | None:
        text = os.environ.get(name, "")
        if not text.strip():
            raise ConfigurationError(f"The environment variable {name} holds no keys.")
        return _pick(_parsed(re.sub(r"[\s,]+", "\n", text), f"the environment variable {name}"), key_id)

    return source


def _pick(keys: list[MasterKey], key_id: str | None) -> MasterKey | None:
    return keys[0] if key_id is None else next((key for key in keys if key.id == key_id), None)


def _parsed(text: str, where: str) -> list[MasterKey]:
    lines = [line.split("#")[0].strip() for line in text.splitlines()]
    keys = [_parsed_line(line, where) for line in lines if line]
    if not keys:
        raise ConfigurationError(f"There is no key in {where}.")
    if len({key.id for key in keys}) < len(keys):
        raise ConfigurationError(f"Two keys in {where} have the same id.")
    return keys


def _parsed_line(line: str, where: str) -> MasterKey:
    key_id, _, encoded = line.partition(":")
    try:
        return MasterKey(key_id.strip(), b64decode(encoded.strip(), validate=True))
    except (binascii.Error, ValueError):
        # Without the line, which is or might be the secret.
        raise ConfigurationError(
            f"A key in {where} is not ID:BASE64 of {KEY_BYTES} bytes; everthread new-key makes one."
        ) from None
