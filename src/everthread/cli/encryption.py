"""Which keys a command opens an encrypted store with: ``file:PATH`` or ``env:NAME``, never the keys themselves."""

from __future__ import annotations

from typing import TYPE_CHECKING

from everthread.errors import ConfigurationError

if TYPE_CHECKING:
    from everthread.contract import Store
    from everthread.wrappers.encrypted import Encrypted, Keyring

VARIABLE = "EVERTHREAD_KEYRING"


def keyring_of(text: str) -> Keyring:
    """The keyring that ``file:PATH`` or ``env:NAME`` names.

    Raises:
        ConfigurationError: It is neither, or the extra ``crypto`` is not installed.
    """
    from everthread.wrappers.encrypted import Keyring
    from everthread.wrappers.master_keys import keys_from_environment, keys_from_file

    check_keyring(text)
    kind, _, rest = text.partition(":")
    return Keyring(keys_from_file(rest) if kind == "file" else keys_from_environment(rest))


def check_keyring(text: str) -> None:
    """Refuses what does not say where keys are.

    Raises:
        ConfigurationError: Without the text, which might be a key.
    """
    kind, _, rest = text.partition(":")
    if kind not in {"file", "env"} or not rest:
        raise ConfigurationError("A keyring is file:PATH or env:NAME, a file or variable that holds master keys.")


def open_with_keys(url: str, keyring: str) -> Store:
    """The store of a URL, encrypted with the keys that ``keyring`` names; if it names none, guarded against that."""
    from everthread.cli.without_keys import WithoutKeys
    from everthread.opening import open_store

    store = open_store(url)
    return with_keys(store, keyring) if keyring else WithoutKeys(store)


def with_keys(store: Store, keyring: str, *, accept_plain: bool = False) -> Encrypted:
    """The store, encrypted with the keys that ``keyring`` names."""
    from everthread.cli.without_keys import WithoutKeys
    from everthread.wrappers.encrypted import Encrypted

    store = store.bare if isinstance(store, WithoutKeys) else store
    return Encrypted(store, keyring_of(keyring), accept_plain=accept_plain)
