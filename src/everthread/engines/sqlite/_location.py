"""From a ``sqlite:`` URL to the path of a file and back. No I/O but asking for the current and the home folder."""

from __future__ import annotations

import os
import re
from pathlib import Path
from urllib.parse import quote, unquote_to_bytes

from everthread.errors import ConfigurationError

_FORM = "write sqlite:///threads.db (relative), sqlite:////var/lib/threads.db or sqlite:///~/threads.db"
_TO_ESCAPE = re.compile("[%?#\x00-\x1f\x7f\udc80-\udcff]")


def path_from_url(url: str) -> str:
    """The path that a URL without options names, still relative if it was.

    Raises:
        ConfigurationError: The URL names a host, an option that is not known, or no file.
    """
    head, _, query = url.partition("?")
    if query:
        names = ", ".join(option.partition("=")[0] for option in query.split("&"))
        raise ConfigurationError(f"The sqlite engine has no option {names}.")
    rest = head.partition(":")[2]
    if rest in {"", "//", "///", "///:memory:", "//:memory:", ":memory:"}:
        raise ConfigurationError(f"This URL names no file: {_FORM}. To keep nothing, open memory: instead.")
    if not rest.startswith("///"):
        raise ConfigurationError(f"A sqlite URL has three slashes before the path, and no host: {_FORM}.")
    return os.fsdecode(unquote_to_bytes(rest[3:]))


def absolute_path(path: str | os.PathLike[str]) -> Path:
    """The path from the root, with a leading ``~`` expanded, so that a later change of folder does not matter.

    Raises:
        ConfigurationError: It cannot be a path, or names memory.
    """
    text = os.fspath(path)
    if not isinstance(text, str) or not text or "\0" in text:
        raise ConfigurationError("The path of an SQLite file must be text that is not empty and holds no NUL.")
    if text == ":memory:":
        raise ConfigurationError("This engine keeps threads in a file; to keep nothing, open memory: instead.")
    try:
        return Path(text).expanduser().absolute() if text.startswith("~/") else Path(text).absolute()
    except (RuntimeError, OSError) as error:
        raise ConfigurationError(f"The path of the SQLite file cannot be resolved: {type(error).__name__}.") from None


def url_of(path: Path) -> str:
    """The URL that names a path from the root, as readable as it can be."""
    return "sqlite:///" + _TO_ESCAPE.sub(lambda found: quote(os.fsencode(found[0])), path.as_posix())
