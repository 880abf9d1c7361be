"""Which store a command works on."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from urllib.parse import quote, unquote, urlsplit

from everthread.cli import named_stores
from everthread.cli.encryption import VARIABLE


def store_url(option: str | None, environ: Mapping[str, str]) -> str:
    """``--store``, else ``EVERTHREAD_STORE``, else ``REDIS_URL``, else SQLite in the user's data folder.

    Each may be ``@NAME``, a store of the configuration.

    Raises:
        ConfigurationError: There is no store of that name, or its secret cannot be had.
    """
    chosen = _chosen(option, environ)
    if chosen.startswith("@"):
        return named_stores.load().get(chosen[1:]).full_url(environ)
    return chosen or default_store_url()


def store_tenant(option: str | None, environ: Mapping[str, str]) -> str:
    """The tenant that the configuration gives for the store that `store_url` finds; else the default tenant."""
    chosen = _chosen(option, environ)
    return named_stores.load().get(chosen[1:]).tenant if chosen.startswith("@") else ""


def store_keyring(option: str | None, environ: Mapping[str, str]) -> str:
    """Where the keys of the store that `store_url` finds are: the named store's, else ``EVERTHREAD_KEYRING``."""
    chosen = _chosen(option, environ)
    if chosen.startswith("@"):
        return named_stores.load().get(chosen[1:]).keyring
    return environ.get(VARIABLE, "")


def _chosen(option: str | None, environ: Mapping[str, str]) -> str:
    return option or environ.get("EVERTHREAD_STORE") or environ.get("REDIS_URL") or ""


def default_store_url() -> str:
    """A SQLite file in the user's data folder, which is created, readable by its owner alone."""
    from platformdirs import user_data_path

    folder: Path = user_data_path("everthread", appauthor=False)
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    return "sqlite:///" + quote((folder / "threads.db").as_posix(), safe="/:")


def place_for_people(location: str) -> str:
    """A store's location as people write it: a SQLite file by its path, all else by its URL."""
    from everthread.cli.rendering import sanitise

    path = location.removeprefix("sqlite:///")
    # What was escaped in the URL may be a control character.
    return location if path == location else sanitise(unquote(path))


def without_secrets(text: str, url: str) -> str:
    """The text with the URL's password, in either spelling, replaced: engines leave it out, this makes sure."""
    try:
        password = urlsplit(url).password or ""
    except ValueError:
        password = ""
    for secret in {password, unquote(password)} - {""}:
        text = text.replace(secret, "***")
    return text
