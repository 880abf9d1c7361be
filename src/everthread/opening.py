"""`open_store`: from a URL to a store. Engines are found by URL scheme through entry points.

Another package adds an engine with an entry point in the group ``everthread.engines``, named after
the scheme, that loads an object with ``from_url(url, **options)``.
"""

from __future__ import annotations

import contextlib
import re
from typing import TYPE_CHECKING, Any

from everthread.contract import Store
from everthread.errors import ConfigurationError
from everthread.urls import as_url, check_url, scheme_of

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint
    from os import PathLike

GROUP = "everthread.engines"


def open_store(url: str | PathLike[str], **options: Any) -> Store:
    """The store that a URL names, not yet connected: use it with ``async with``, or just use it.

        async with open_store("sqlite:///threads.db") as store: ...

    Args:
        url: ``sqlite:///threads.db``, ``redis://host:6379/0``, ``memory:``, … The query may hold the
            engine's options and, for all engines, ``max_messages``, ``expire_after`` (seconds),
            ``max_message_bytes`` and ``read_only``. A path that ends in ``.db``, ``.sqlite`` or ``.sqlite3``
            stands for that SQLite file.
        options: The same as keyword arguments (they win), and what text cannot express, such as
            ``retention=Retention(…)``. ``read_only=True`` opens the store without creating, migrating or
            writing anything: calls that write raise `UnsupportedError`, and a file or folder that does
            not exist raises `ConfigurationError`.

    Raises:
        ConfigurationError: The scheme is unknown, an option is wrong, or the engine's driver is not
            installed (the message is the command that installs it).
    """
    url = as_url(url)
    scheme = scheme_of(url)
    check_url(url)
    engine = _engine(scheme)
    try:
        return engine.from_url(url, **options)
    except TypeError as error:
        raise ConfigurationError(f"The {scheme} engine does not take these options: {error}") from None


def schemes() -> tuple[str, ...]:
    """Return the URL schemes for which an engine is installed."""
    return tuple(sorted({entry.name for entry in _entry_points()}))


def _engine(scheme: str) -> Any:
    entry = _entry_point(scheme)
    try:
        engine = entry.load()
    except ConfigurationError:
        raise
    except Exception as error:
        # Another package's module can raise anything while it is imported.
        raise ConfigurationError(f"The {scheme} engine ({entry.value}) cannot be loaded: {error}") from error
    if not callable(getattr(engine, "from_url", None)):
        raise ConfigurationError(f"The {scheme} engine ({entry.value}) has no from_url(url, **options).")
    return engine


def _entry_point(scheme: str) -> EntryPoint:
    found = {entry.value: entry for entry in _entry_points() if entry.name == scheme}
    own = [entry for entry in found.values() if re.split("[.:]", entry.value)[0] == "everthread"]
    if own:
        # Another package cannot take the place of an engine of ours.
        return own[0]
    if len(found) > 1:
        raise ConfigurationError(
            f"Several packages have an engine for {scheme}: {', '.join(sorted(found))}. Uninstall all but one."
        )
    if not found:
        known = ", ".join(schemes()) or "none: is everthread installed?"
        raise ConfigurationError(f"No engine is installed for this URL's scheme. Installed schemes: {known}.")
    return next(iter(found.values()))


def _entry_points() -> list[EntryPoint]:
    # Imported here: it costs a quarter of the time that `import everthread` may take.
    from importlib.metadata import distributions, entry_points

    try:
        return list(entry_points(group=GROUP))
    except Exception:
        # One package's metadata cannot be read: those of the others can.
        found: list[EntryPoint] = []
        for distribution in distributions():
            with contextlib.suppress(Exception):
                found += distribution.entry_points.select(group=GROUP)
        return found
