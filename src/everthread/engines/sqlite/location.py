"""Convert ``sqlite:`` URLs to file paths and back. Reads only the current and the home folder."""

from __future__ import annotations

import os
import re
from pathlib import Path
from urllib.parse import quote, unquote_to_bytes

import msgspec

from everthread.errors import ConfigurationError

_FORM = "write sqlite:///threads.db (relative), sqlite:////var/lib/threads.db or sqlite:///~/threads.db"
_TO_ESCAPE = re.compile("[%?#\x00-\x1f\x7f\udc80-\udcff]")


class DatabaseFile(msgspec.Struct, frozen=True):
    """A file, and the settings to open it with.

    Attributes:
        path: Absolute.
        synchronous: ``"full"`` or ``"normal"``.
        busy_timeout: Seconds to wait for another process's lock.
        read_only: Nothing is created, migrated or written.
    """

    path: Path
    synchronous: str
    busy_timeout: float
    read_only: bool = False

    @property
    def url(self) -> str:
        """The URL that names the file."""
        return url_of(self.path)


def path_from_url(url: str) -> str:
    """Return the path in a URL without options; it may be relative.

    Raises:
        ConfigurationError: The URL has a host, an unknown option, or no file.
    """
    head, _, query = url.partition("?")
    if query:
        names = ", ".join(option.partition("=")[0] for option in query.split("&"))
        raise ConfigurationError(f"The sqlite engine has no option {names}.")
    rest = head.partition(":")[2]
    if rest in {"", "//", "///", "///:memory:", "//:memory:", ":memory:"}:
        raise ConfigurationError(f"This URL names no file: {_FORM}. For threads in memory, open memory: instead.")
    if not rest.startswith("///"):
        raise ConfigurationError(f"A sqlite URL has three slashes before the path, and no host: {_FORM}.")
    return os.fsdecode(unquote_to_bytes(rest[3:]))


def absolute_path(path: str | os.PathLike[str]) -> Path:
    """Return the absolute path, with a leading ``~`` expanded.

    Raises:
        ConfigurationError: The text cannot be a path, or is ``:memory:``.
    """
    text = os.fspath(path)
    if not isinstance(text, str) or not text or "\0" in text:
        raise ConfigurationError("The path of an SQLite file must be text that is not empty and holds no NUL.")
    if text == ":memory:":
        raise ConfigurationError("This engine stores threads in a file; for threads in memory, open memory: instead.")
    try:
        return Path(text).expanduser().absolute() if text.startswith("~/") else Path(text).absolute()
    except (RuntimeError, OSError) as error:
        raise ConfigurationError(f"The path of the SQLite file cannot be resolved: {type(error).__name__}.") from None


def url_of(path: Path) -> str:
    """Return the URL of an absolute path, with as few escapes as possible."""
    return "sqlite:///" + _TO_ESCAPE.sub(lambda found: quote(os.fsencode(found[0])), path.as_posix())
