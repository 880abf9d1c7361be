"""Recognize stores of other programs: files by their content, Redis by its keys, PostgreSQL by its tables."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from everthread.errors import ConfigurationError
from everthread.messages.codec import as_object, as_text
from everthread.transfer.foreign.redis_lists import (
    AgentsLists,
    AnyLists,
    LangChainLists,
    PlainLists,
    ScopedLists,
    prefix_of,
)

SCANS = 50
"""The most steps of a scan of Redis, of about 1,000 keys each."""

SAMPLES = 200
"""The most lists of which one element is read."""

_MOST_SHOWN = 5
_LARGEST = 16 * 1024 * 1024
# The index of the threads of a tenant.
_OWN = "{*}:recent"


class Recognized(NamedTuple):
    """A store that was recognized.

    Attributes:
        kind: The kind of store.
        prefix: The beginning of its keys or tables.
    """

    kind: str
    prefix: str | None = None


class Findings(NamedTuple):
    """What was found at a URL.

    Attributes:
        foreign: The stores of other programs.
        has_own: everthread stores threads there.
    """

    foreign: list[Recognized]
    has_own: bool


def recognized_kind(path: Path) -> str | None:
    """Return the kind of store that a file or folder is; ``None`` if it is not one of another program.

    Raises:
        ConfigurationError: It cannot be read.
    """
    from everthread.operations.foreign.history_files import SUFFIXES
    from everthread.operations.foreign.sqlite_sessions import tables_of

    if path.is_dir():
        return "agent-framework-files" if any(each.suffix in SUFFIXES for each in path.iterdir()) else None
    if path.suffix in SUFFIXES:
        return "agent-framework-files"
    tables = tables_of(path)
    if "agent_messages" in tables:
        return "openai-agents"
    return "langgraph" if {"checkpoints", "writes"} <= tables else None


async def findings_in_redis(url: str) -> Findings:
    """Look for stores of other programs in a part of a database: at most 50,000 keys, 200 elements of lists.

    Raises:
        ConfigurationError: The URL cannot be used, or the user may not scan.
        StoreUnavailableError: The server cannot be reached.
    """
    found: dict[Recognized, None] = {}
    samples = 0
    async with AnyLists(url) as lists:
        async for _ in lists.keys(_OWN, steps=SCANS):
            return Findings([], has_own=True)
        async for name in lists.keys("*", "list", steps=SCANS):
            recognized = by_key(name)
            if recognized is None and samples < SAMPLES and await lists.size_of(name) <= _LARGEST:
                samples += 1
                recognized = by_element(name, await lists.elements(name, 0, 1))
            if recognized is not None:
                found[recognized] = None
            if len(found) > _MOST_SHOWN:
                break
    return Findings(list(found), has_own=False)


def by_key(name: bytes) -> Recognized | None:
    """Return the store of a list whose key alone tells it."""
    text = name.decode(errors="replace")
    parts = text.split("|")
    if len(parts) == 7 and parts[1] == "v2":
        return Recognized("agent-framework-redis", _unless(prefix_of(text), ScopedLists.default_prefix))
    prefix = AgentsLists.default_prefix
    if text.startswith(f"{prefix}:") and text.endswith(":messages"):
        return Recognized("openai-agents-redis")
    return None


def by_element(name: bytes, elements: Sequence[bytes]) -> Recognized | None:
    """Return the store of a list, by its key and its first element."""
    try:
        value = as_object(json.loads(elements[0]) if elements else None)
    except (ValueError, RecursionError):
        return None
    text = name.decode(errors="replace")
    if as_object(value.get("data")) and as_text(value.get("type")):
        default = LangChainLists.default_prefix
        return Recognized("langchain-redis", None if text.startswith(default) else text.partition(":")[0] + ":")
    if ":" in text and value.get("type") in {"chat_message", "message"} and "contents" in value:
        return Recognized("redis-lists", _unless(text.partition(":")[0], PlainLists.default_prefix))
    if text.endswith(":messages") and ("role" in value or "type" in value):
        return Recognized("openai-agents-redis", text.removesuffix(":messages").rpartition(":")[0])
    return None


def _unless(prefix: str, default: str) -> str | None:
    return None if prefix == default else prefix


async def findings_in_postgres(url: str) -> Findings:
    """Return the stores of other programs in a database, by its tables.

    Raises:
        ConfigurationError: The URL cannot be used.
        StoreUnavailableError: The server cannot be reached.
    """
    from everthread.operations.foreign.postgres import Database

    async with Database(url) as database:
        places = await database.places()
    foreign = {Recognized(place.kind, place.prefix or None): None for place in places if place.kind}
    return Findings(list(foreign), any(not place.kind for place in places))


async def findings_at(url: str) -> Findings:
    """Return what is stored at a URL of Redis or PostgreSQL, as the functions for each do."""
    is_redis = url.lower().startswith(("redis", "unix"))
    return await (findings_in_redis if is_redis else findings_in_postgres)(url)


def only_one(findings: Findings) -> Recognized | None:
    """Return the only store of another program; ``None`` if everthread stores threads there, or there is none.

    Raises:
        ConfigurationError: There are several.
    """
    if findings.has_own or not findings.foreign:
        return None
    if len(findings.foreign) > 1:
        raise ConfigurationError(f"There are stores of several programs. Choose one: {choices(findings.foreign)}.")
    return findings.foreign[0]


def choices(foreign: Iterable[Recognized]) -> str:
    """Return the options that choose each of several stores."""
    shown = [
        f"--as {each.kind}" + ("" if each.prefix is None else f" --prefix {each.prefix!r}")
        for each in list(foreign)[:_MOST_SHOWN]
    ]
    return ", ".join(shown)
