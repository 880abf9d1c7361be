"""Store URLs and their options → validated settings.

Drivers parse their own URLs; only the options that are everthread's are taken out of the query first.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import Any
from urllib.parse import parse_qsl, urlencode

from everthread.errors import ConfigurationError
from everthread.model import Retention
from everthread.urls import check_url


def take_options(url: str, known: Mapping[str, Callable[[str], Any]]) -> tuple[str, dict[str, Any]]:
    """Takes everthread's own options out of a URL's query; the rest stays for the driver, in order.

    Args:
        known: A parser for each option's text; it raises ``ValueError`` for a wrong text.

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
    """The options of an engine from its URL: those of every engine and its own, with keyword overrides.

    In a URL: ``max_messages`` (count), ``expire_after`` (seconds), ``max_message_bytes``, ``read_only``.

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
        "read_only": flag,
    }
    rest, settings = take_options(check_url(url), {**shared, **(own or {})})
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
        # Errors of int and float quote the text.
        why = "it must be a number" if text in str(error) else str(error)
    # Raised here, so that the error that quotes the text, which may be a piece of a secret, is not its context.
    raise ConfigurationError(f"The option {name} in the URL has a wrong value: {why}.")
