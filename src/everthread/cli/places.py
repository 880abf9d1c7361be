"""The store and tenant that a command works on."""

from __future__ import annotations

import os
import shlex
from pathlib import Path
from urllib.parse import quote

import msgspec

from everthread._extras import import_extra
from everthread.cli import named_stores
from everthread.cli.keyrings import VARIABLE
from everthread.errors import ConfigurationError
from everthread.model import ThreadKey
from everthread.urls import mask_url


class Place(msgspec.Struct, frozen=True):
    """A store and a tenant in it. The URL may hold a password: never show it.

    Attributes:
        keyring: ``file:PATH`` or ``env:NAME`` of the keys of an encrypted store; empty without keys.
        accept_plain: Read unencrypted records of an encrypted store too.
        again: The options that name this place on a command line; empty for the defaults and for a URL with a secret.
        read_only: Open the store without creating, migrating or writing anything.
        may_create: Create a store that does not exist. Otherwise that is an error, so a wrong path creates nothing.
    """

    url: str
    tenant: str = ""
    keyring: str = ""
    accept_plain: bool = False
    again: str = ""
    read_only: bool = False
    may_create: bool = False

    def __repr__(self) -> str:
        return f"Place(tenant={self.tenant!r})"

    def key(self, thread_id: str) -> ThreadKey:
        """Return the key of a thread in this place."""
        return ThreadKey(thread_id, self.tenant)

    def to_read(self) -> Place:
        """Return this place, opened read-only."""
        return msgspec.structs.replace(self, read_only=True)

    def to_begin(self) -> Place:
        """Return this place, created if it does not exist."""
        return msgspec.structs.replace(self, may_create=True)


def find_place(store: str | None, tenant: str | None = None) -> Place:
    """Return the place that ``--store`` and ``--tenant`` name.

    Args:
        store: A URL, or ``@NAME`` for a store of the configuration. Default: ``EVERTHREAD_STORE``, else ``REDIS_URL``,
            else SQLite in the user's data folder. The variables may hold ``@NAME`` too.
        tenant: Default: the tenant of the named store, else the default tenant.

    Raises:
        ConfigurationError: The configuration has no store of that name, or its secret cannot be fetched.
        InvalidIdentifierError: The tenant is reserved.
    """
    from everthread._validation import check_not_reserved

    chosen = store or os.environ.get("EVERTHREAD_STORE") or os.environ.get("REDIS_URL") or ""
    named = named_stores.load().get(chosen[1:]) if chosen.startswith("@") else None
    keyring = (named.keyring if named else "") or os.environ.get(VARIABLE, "")
    again = _named_again(store, tenant)
    if tenant is None:
        tenant = named.tenant if named else ""
    check_not_reserved(tenant)
    url = named.full_url(os.environ) if named else chosen or default_store_url()
    return Place(url, tenant, keyring, again=again)


def _named_again(store: str | None, tenant: str | None) -> str:
    words: list[str] = []
    if store is not None and mask_url(store) == store:
        words = [store] if store.startswith("@") else ["--store", store]
    return shlex.join(words + ([] if tenant is None else ["--tenant", tenant]))


def default_store_url() -> str:
    """Return the URL of the SQLite file in the user's data folder, which is created for its owner alone."""
    return "sqlite:///" + quote((data_folder() / "threads.db").as_posix(), safe="/:")


def input_history_path() -> Path | None:
    """Return the file of the lines typed in earlier chats, or ``None`` if the data folder cannot be created."""
    try:
        return data_folder() / "input-history.jsonl"
    except ConfigurationError:
        return None


def data_folder() -> Path:
    """Return the user's data folder, made for its owner alone."""
    folder: Path = import_extra("platformdirs", "cli").user_data_path("everthread", appauthor=False)
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigurationError(
            f"Cannot create the data folder {folder}: {error.strerror}. Name a store with --store or EVERTHREAD_STORE."
        ) from None
    return folder
