"""Which store a command works on, and what to tell people when it cannot be reached."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from urllib.parse import quote, unquote, urlsplit

from everthread.errors import EverthreadError, StoreUnavailableError
from everthread.settings import mask_url, scheme_of

NETWORK_PORTS = {"redis": 6379, "rediss": 6380}


def store_url(option: str | None, environ: Mapping[str, str]) -> str:
    """``--store``, else ``EVERTHREAD_STORE``, else ``REDIS_URL``, else SQLite in the user's data folder."""
    return option or environ.get("EVERTHREAD_STORE") or environ.get("REDIS_URL") or default_store_url()


def default_store_url() -> str:
    """A SQLite file in the user's data folder, which is created, readable by its owner alone."""
    from platformdirs import user_data_path

    folder: Path = user_data_path("everthread", appauthor=False)
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    return "sqlite:///" + quote((folder / "threads.db").as_posix(), safe="/:")


def explain(error: EverthreadError, url: str) -> str:
    """What to tell people about an error of the store at ``url``: what failed, and what to check. No secrets."""
    said = without_secrets(str(error), url)
    if not isinstance(error, StoreUnavailableError):
        return said
    return f"The store {mask_url(url)} cannot be used: {said}\n{_what_to_check(url)}"


def without_secrets(text: str, url: str) -> str:
    """The text with the URL's password, in either spelling, replaced."""
    try:
        password = urlsplit(url).password or ""
    except ValueError:
        password = ""
    for secret in {password, unquote(password)} - {""}:
        text = text.replace(secret, "***")
    return text


def _what_to_check(url: str) -> str:
    scheme = scheme_of(url)
    if scheme not in NETWORK_PORTS:
        return "Check that its folder exists, can be written, and is not full."
    try:
        parts = urlsplit(url)
        host, port = parts.hostname or "localhost", parts.port or 6379
    except ValueError:
        host, port = "the host", NETWORK_PORTS[scheme]
    tls = "and the server speaks TLS there" if scheme == "rediss" else "and the server speaks plain Redis there"
    return (
        f"Check that a server runs at {host}, port {port}, {tls}; that no firewall is between; and the password.\n"
        "Azure Cache for Redis takes TLS only: rediss://:ACCESS-KEY@NAME.redis.cache.windows.net:6380/0"
    )
