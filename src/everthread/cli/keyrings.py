"""The keys of encrypted stores, named as ``file:PATH`` or ``env:NAME``: a command never takes the keys themselves."""

from __future__ import annotations

from typing import TYPE_CHECKING

from everthread.errors import ConfigurationError

if TYPE_CHECKING:
    from everthread.wrappers.encryption.encrypted import Keyring

VARIABLE = "EVERTHREAD_KEYRING"


def keyring_of(text: str) -> Keyring:
    """Return the keyring that ``file:PATH`` or ``env:NAME`` names.

    Raises:
        ConfigurationError: It is neither, or the extra ``crypto`` is not installed.
    """
    from everthread.wrappers.encryption.encrypted import Keyring
    from everthread.wrappers.encryption.master_keys import keys_from_environment, keys_from_file

    check_keyring(text)
    kind, _, rest = text.partition(":")
    return Keyring(keys_from_file(rest) if kind == "file" else keys_from_environment(rest))


def check_keyring(text: str) -> None:
    """Refuse text that does not name a place of keys.

    Raises:
        ConfigurationError: Without the text, which might be a key.
    """
    kind, _, rest = text.partition(":")
    if kind not in {"file", "env"} or not rest:
        raise ConfigurationError("A keyring is file:PATH or env:NAME: a file or variable that holds master keys.")
