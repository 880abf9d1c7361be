"""`Encrypted`: a store with records that are unreadable without the keys of their tenant."""

from everthread.wrappers.encryption.encrypted import Encrypted, Keyring

__all__ = ["Encrypted", "Keyring"]
