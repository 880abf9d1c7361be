"""Read stored messages of any format as rows of Agent Framework. Imports no framework.

Messages of other formats are converted: see `everthread.messages.converting`. A record that no agent can use is left
out, with a warning that names its position, unless it is empty.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TypeVar, cast

from msgspec import structs

from everthread.adapters.paused_collector import paused_collector
from everthread.errors import CorruptRecordError
from everthread.messages.codec import as_list, as_object, decode_as_text, encode, recognize, view_of
from everthread.messages.converting.convert import Source, convert
from everthread.messages.converting.neutral import Json
from everthread.messages.formats import agent_framework
from everthread.model import Message, MessagePage, ThreadKey

FORMAT = "agent-framework"

M = TypeVar("M")

log = logging.getLogger("everthread.agent_framework")


class NothingForAModelError(CorruptRecordError):
    """A message of another format is empty, or sealed reasoning of a service."""


def row_of(value: object, format: str) -> Json:
    """Return a decoded payload of any format as a row of Agent Framework; its own rows unchanged.

    Raises:
        ValueError: It is no message, or has only contents of unknown types.
        NothingForAModelError: It is empty.
    """
    known = as_object(value)
    if not known:
        raise ValueError("no object")
    if agent_framework.matches(known):
        contents = as_list(known["contents"])
        if str in map(type, contents):
            # The framework's constructors accept a plain text as a content.
            return {**known, "contents": [{"type": "text", "text": c} if isinstance(c, str) else c for c in contents]}
        return cast(Json, known)
    named = recognize(known) if format == FORMAT else format
    rows = [each.value for each in convert([Source(known, named)], FORMAT).messages]
    if rows:
        return {**rows[0], "contents": [content for row in rows for content in as_list(row["contents"])]}
    if format == FORMAT:
        return {"type": agent_framework.CURRENT_TYPE, "contents": [], **known}
    seen = view_of(known, named)
    if seen.role and not (known.get("content") or as_object(known.get("data")).get("content")):
        raise NothingForAModelError("The message is empty.")
    raise ValueError("nothing that a model can get")


def readable(
    stored: MessagePage | Sequence[Message], key: ThreadKey, decode: Callable[[Message, ThreadKey], M]
) -> tuple[list[Message], list[M]]:
    """Return the messages that can be decoded: as stored, and decoded. Logs the position of each other one."""
    # Two lists: a pair for each message would be one more object for the collector to look at.
    rows: list[Message] = []
    found: list[M] = []
    with paused_collector(len(stored)):
        for message in _in_rows(stored):
            try:
                found.append(decode(message, key))
                rows.append(message)
            except NothingForAModelError:
                log.debug("The message at position %s of %s is empty.", message.seq, key)
            except CorruptRecordError as error:
                log.warning("%s The agent gets the history without it.", error)
    return rows, found


def _in_rows(stored: Iterable[Message]) -> Iterator[Message]:
    """Yield the messages, each run of other formats as rows of Agent Framework.

    A run is converted as a whole, because the parts of one answer can be messages of their own in other formats.
    """
    run: list[tuple[Message, Source]] = []
    for message in stored:
        source = None if message.format == FORMAT else _source(message)
        if source is not None:
            run.append((message, source))
            continue
        if run:
            yield from _converted(run)
            run = []
        yield message
    if run:
        yield from _converted(run)


def _source(message: Message) -> Source | None:
    """Return a message of another format; ``None`` if it is one of Agent Framework, or cannot be decoded."""
    try:
        value = decode_as_text(message)
    except CorruptRecordError:
        return None
    return None if agent_framework.matches(as_object(value)) else Source(value, message.format)


def _converted(run: Sequence[tuple[Message, Source]]) -> Iterator[Message]:
    converted = convert([source for _, source in run], FORMAT)
    # Those without a row are reported when they are decoded.
    found = [(at, run[at][0]) for at in converted.unread]
    for each in converted.messages:
        found.append((each.at, structs.replace(run[each.at][0], payload=encode(each.value), format=FORMAT)))
    found.sort(key=lambda each: each[0])
    yield from (message for _, message in found)
