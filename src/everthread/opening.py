"""`open_store`: from a URL to a store. Engines are found by URL scheme through entry points.

Another package adds an engine with an entry point in the group ``everthread.engines``, named after
the scheme, that loads an object with ``from_url(url, **options)``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from everthread.contract import Store
from everthread.errors import ConfigurationError
from everthread.settings import scheme_of

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

GROUP = "everthread.engines"


def open_store(url: str, **options: Any) -> Store:
    """The store that a URL names, not yet connected: use it with ``async with``, or just use it.

        async with open_store("sqlite:///threads.db") as store: ...

    Args:
        url: ``sqlite:///threads.db``, ``redis://host:6379/0``, ``memory:``, … The query may hold the
            engine's options and, for all engines, ``max_messages``, ``expire_after`` (seconds) and
            ``max_message_bytes``.
        options: The same as keyword arguments (they win), and what text cannot express, such as
            ``retention=Retention(…)``.

    Raises:
        ConfigurationError: The scheme is unknown, an option is wrong, or the engine's driver is not
            installed (the message is the command that installs it).
    """
    scheme = scheme_of(url)
    engine = _engine(scheme)
    try:
        return engine.from_url(url, **options)
    except TypeError as error:
        raise ConfigurationError(f"The {scheme} engine does not take these options: {error}") from None


def schemes() -> tuple[str, ...]:
    """The URL schemes for which an engine is installed."""
    from importlib.metadata import entry_points

    return tuple(sorted({entry.name for entry in entry_points(group=GROUP)}))


def _engine(scheme: str) -> Any:
    try:
        return _entry_point(scheme).load()
    except (ImportError, AttributeError) as error:
        raise ConfigurationError(f"The {scheme} engine cannot be loaded: {error}") from error


def _entry_point(scheme: str) -> EntryPoint:
    # Imported here: it costs a quarter of the time that `import everthread` may take.
    from importlib.metadata import entry_points

    for entry in entry_points(group=GROUP, name=scheme):
        return entry
    known = ", ".join(schemes()) or "none: is everthread installed?"
    raise ConfigurationError(f"No engine for the URL scheme {scheme!r}; there are: {known}.")
