"""Store URLs and their options → validated settings. Secrets are masked before anybody sees them.

Drivers parse their own URLs; only the options that are everthread's are taken out of the query first.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import Any
from urllib.parse import parse_qsl, urlencode

from everthread.errors import ConfigurationError
from everthread.model import Retention

_SECRET_NAME = re.compile(r"pass|secret|token|key$|credential|sig$|pwd", re.IGNORECASE)
_HOST = re.compile(r"(\[[^\]]*\]|[^\[\]:@]*)(:\d+)?")
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:")


def scheme_of(url: str) -> str:
    """The URL's scheme in lower case.

    Raises:
        ConfigurationError: There is none. A one-letter scheme is taken for a Windows drive.
    """
    if not isinstance(url, str):
        raise ConfigurationError(f"A store is named by a URL, not by {type(url).__name__}.")
    found = _SCHEME.match(url)
    if found is None or len(found[0]) == 2:
        raise ConfigurationError(
            "A store is named by a URL such as sqlite:///threads.db or redis://localhost:6379/0; this has no scheme."
        )
    return found[0][:-1].lower()


def mask_url(url: str) -> str:
    """The URL with every password and secret option replaced by ``***``."""
    scheme, slashes, rest = url.partition("://")
    if not slashes or rest.startswith("/"):
        return _mask_options(url)
    # The password ends at the last "@" of all, since it may hold an unescaped "@", "/" or "?": where an "@"
    # stands elsewhere, more is masked rather than less.
    user, at, place = rest.rpartition("@")
    name, colon, _ = user.partition(":")
    return f"{scheme}://{name}:***{at}{_mask_options(place)}" if colon else f"{scheme}://{_mask_options(rest)}"


def _mask_options(url: str) -> str:
    place, mark, query = url.partition("?")
    return place + mark + "&".join(_mask_option(option) for option in query.split("&"))


def without_credentials(url: str) -> str:
    """The URL without user, password and secret options: enough to reconnect where the secrets come from elsewhere.

    Raises:
        ConfigurationError: Where the password ends cannot be told, so nothing could be left out for certain.
    """
    scheme, slashes, rest = url.partition("://")
    if not slashes:
        return url
    place, mark, query = rest.partition("?")
    authority, slash, path = place.partition("/")
    host = authority.rpartition("@")[2]
    # An unescaped "/", "?" or "#" in a password ends the authority early, and the rest of it stands elsewhere.
    hosts_are_plain = all(_HOST.fullmatch(each) for each in host.split(","))
    if not hosts_are_plain or "#" in url or ("@" in path and "@" not in authority):
        raise ConfigurationError("The user and password in this URL must be percent-encoded (/ as %2F, ? as %3F).")
    options = [option for option in query.split("&") if not _is_secret(option.partition("=")[0])]
    return f"{scheme}://{host}{slash}{path}" + (mark + "&".join(options) if any(options) else "")


def _is_secret(name: str) -> bool:
    return name == "username" or _SECRET_NAME.search(name) is not None


def _mask_option(option: str) -> str:
    name, equals, _ = option.partition("=")
    return f"{name}=***" if equals and _SECRET_NAME.search(name) else option


def take_options(url: str, known: Mapping[str, Callable[[str], Any]]) -> tuple[str, dict[str, Any]]:
    """Takes everthread's own options out of a URL's query; the rest stays for the driver, in order.

    Args:
        known: A parser for each option's text; it raises ``ValueError`` for what it refuses.

    Raises:
        ConfigurationError: An option's value is refused, or an option is given twice.
    """
    head, mark, query = url.partition("?")
    if not mark:
        return url, {}
    taken: dict[str, Any] = {}
    left: list[tuple[str, str]] = []
    for name, text in parse_qsl(query, keep_blank_values=True):
        if name not in known:
            left.append((name, text))
        elif name in taken:
            raise ConfigurationError(f"The option {name} is given twice in the URL.")
        else:
            taken[name] = _parsed(name, text, known[name])
    return head + ("?" + urlencode(left) if left else ""), taken


def engine_options(
    url: str, overrides: Mapping[str, Any], own: Mapping[str, Callable[[str], Any]] | None = None
) -> tuple[str, dict[str, Any]]:
    """The options that every engine takes from its URL, and those of its own, with keyword overrides.

    In a URL: ``max_messages`` (count), ``expire_after`` (seconds), ``max_message_bytes``.

    Args:
        url: The store's URL.
        overrides: Keyword arguments given beside the URL; they win.
        own: Parsers for the options that only this engine has.

    Returns:
        The URL for the driver, and keyword arguments for the engine's constructor.
    """
    shared: dict[str, Callable[[str], Any]] = {
        "max_messages": int,
        "expire_after": lambda text: timedelta(seconds=float(text)),
        "max_message_bytes": int,
    }
    rest, settings = take_options(url, {**shared, **(own or {})})
    limits = {name: settings.pop(name) for name in ("max_messages", "expire_after") if name in settings}
    if limits:
        settings["retention"] = Retention(**limits)
    settings.update({name: value for name, value in overrides.items() if value is not None})
    return rest, settings


def flag(text: str) -> bool:
    """An on/off option's text."""
    lowered = text.strip().lower()
    if lowered in {"1", "true", "yes", "on"}:
        return True
    if lowered in {"0", "false", "no", "off"}:
        return False
    raise ValueError("use true or false")


def _parsed(name: str, text: str, parse: Callable[[str], Any]) -> Any:
    try:
        return parse(text)
    except ConfigurationError:
        raise
    except (ValueError, OverflowError) as error:
        raise ConfigurationError(f"The option {name} in the URL has a wrong value: {error}") from None
