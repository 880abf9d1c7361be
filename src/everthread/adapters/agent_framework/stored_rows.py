"""Convert stored messages of any format to rows of Agent Framework. Imports no framework.

Messages of other formats (OpenAI's chat completions and responses, Anthropic, LangChain) are converted through their
views: text, reasoning, media, tool calls and results with their ids. A record that no agent can use is left out, with a
warning that names its position, unless it is empty.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TypeVar, cast

from msgspec import structs

from everthread.adapters.agent_framework.conversion import Json
from everthread.adapters.paused_collector import paused_collector
from everthread.errors import CorruptRecordError
from everthread.messages.codec import Media, View, as_list, as_object, decode_as_text, encode, view_of
from everthread.messages.formats import agent_framework
from everthread.model import Message, MessagePage, ThreadKey

FORMAT = "agent-framework"

M = TypeVar("M")

_ITEMS = "openai-responses"
_NOTHING = View()
_ROLES = {"developer": "system", "system": "system", "assistant": "assistant"}

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
    seen = view_of(known, None if format == FORMAT else format)
    contents = _contents(seen)
    if contents:
        author = {"author_name": seen.author} if seen.author else {}
        return {"type": agent_framework.CURRENT_TYPE, "role": _role(seen), "contents": contents, **author}
    if format == FORMAT:
        return {"type": agent_framework.CURRENT_TYPE, "contents": [], **known}
    if seen.role and not (known.get("content") or as_object(known.get("data")).get("content")):
        raise NothingForAModelError("The message is empty.")
    raise ValueError("nothing that a model can get")


def readable(
    stored: MessagePage | Sequence[Message], key: ThreadKey, decode: Callable[[Message, ThreadKey], M]
) -> list[tuple[Message, M]]:
    """Return the messages that can be decoded, each with its stored form. Logs the position of each other one."""
    found: list[tuple[Message, M]] = []
    with paused_collector(len(stored)):
        for message in _as_model_services_want(stored):
            try:
                found.append((message, decode(message, key)))
            except NothingForAModelError:
                log.debug("The message at position %s of %s is empty.", message.seq, key)
            except CorruptRecordError as error:
                log.warning("%s The agent gets the history without it.", error)
    return found


def _as_model_services_want(stored: Iterable[Message]) -> Iterator[Message]:
    """Join the items of one answer of OpenAI's responses, and give tool results of Anthropic a message of their own.

    Model services refuse a call that another message than its result follows. In the form of OpenAI's responses each
    call is an item, and in that of Anthropic results are part of the user's message.
    """
    parts: list[Message] = []
    for message in stored:
        seen = _NOTHING if message.format == FORMAT else _seen(message)
        if message.format == _ITEMS and (seen.calls or (seen.role == "assistant" and seen.reasoning)):
            parts.append(message)
            continue
        yield from _joined(parts)
        parts = []
        if seen.results and (seen.text or seen.media or seen.reasoning):
            yield _as_row(message, {"role": "tool", "contents": _contents(View(results=seen.results))})
            others = structs.replace(seen, results=())
            yield _as_row(message, {"role": _role(others), "contents": _contents(others)})
        else:
            yield message
    yield from _joined(parts)


def _seen(message: Message) -> View:
    """Return the view of a message of another format; an empty one for messages of Agent Framework."""
    try:
        value = decode_as_text(message)
    except CorruptRecordError:
        return _NOTHING
    return _NOTHING if agent_framework.matches(as_object(value)) else view_of(value, message.format)


def _joined(parts: Sequence[Message]) -> Sequence[Message]:
    if len(parts) < 2:
        return parts
    contents = [content for message in parts for content in _contents(_seen(message))]
    return [_as_row(parts[0], {"role": "assistant", "contents": contents})]


def _as_row(message: Message, fields: Json) -> Message:
    row = {"type": agent_framework.CURRENT_TYPE, **fields}
    return structs.replace(message, payload=encode(row), format=FORMAT)


def _role(seen: View) -> str:
    if seen.results:
        return "tool"
    # A model refuses other roles, and a tool's message that answers no call.
    return "assistant" if seen.calls or seen.reasoning else _ROLES.get(seen.role, "user")


def _contents(seen: View) -> list[Json]:
    contents: list[Json] = []
    if seen.reasoning:
        contents.append({"type": "text_reasoning", "text": seen.reasoning})
    if seen.text:
        contents.append({"type": "text", "text": seen.text})
    contents += map(_media, seen.media)
    for call in seen.calls:
        if call.id:
            facts: Json = {"call_id": call.id, "name": call.name or "tool", "arguments": call.arguments or "{}"}
            contents.append({"type": "function_call", **facts})
    for result in seen.results:
        if result.id:
            contents.append({"type": "function_result", "call_id": result.id, "result": result.text})
    return contents


def _media(media: Media) -> Json:
    if not (media.data or media.uri):
        return {"type": "text", "text": f"[{media.media_type or 'file'}: not included]"}
    kind = "data" if media.data else "uri"
    return {"type": kind, "uri": media.data or media.uri, "media_type": media.media_type or "application/octet-stream"}
