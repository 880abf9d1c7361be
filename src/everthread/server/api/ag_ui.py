"""Messages in the form of AG-UI, so that a page shows an existing thread (``@ag-ui/core``, ``MessageSchema``).

A stored message is any number of AG-UI messages: the model's reasoning and each result of a tool are separate ones.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, Literal

import msgspec
from msgspec import UNSET, Meta, UnsetType

from everthread.contract import Store
from everthread.messages import codec
from everthread.messages.codec import Media, View
from everthread.model import ThreadKey
from everthread.operations.records import get_record

SNAPSHOT_RECORD = "agent-framework:ag-ui-snapshot"
"""The record of a thread's newest AG-UI snapshot, which the adapter for Agent Framework writes."""
_TALKING = frozenset({"user", "assistant", "system", "developer"})
_KINDS = frozenset({"image", "audio", "video"})


class AgUiFunction(msgspec.Struct):
    """The tool of a call, and its arguments as JSON text."""

    name: str
    arguments: str


class AgUiCall(msgspec.Struct, kw_only=True):
    """A tool call."""

    id: str
    type: Literal["function"] = "function"
    function: AgUiFunction


class AgUiMessage(msgspec.Struct, kw_only=True, rename="camel"):
    """A message of AG-UI."""

    id: Annotated[str, Meta(description="The position, with a suffix for further parts of a stored message.")]
    role: Literal["user", "assistant", "system", "developer", "tool", "reasoning"]
    content: Annotated[
        str | list[dict[str, Any]] | UnsetType, Meta(description="Its text; a list if a user sent media.")
    ] = UNSET
    name: str | UnsetType = UNSET
    tool_calls: list[AgUiCall] | UnsetType = UNSET
    tool_call_id: str | UnsetType = UNSET


def ag_ui_messages(seq: int, seen: View) -> Iterator[AgUiMessage]:
    """Yield the AG-UI messages of a stored message. One of an unknown role is none."""
    if seen.reasoning:
        yield AgUiMessage(id=f"{seq}-reasoning", role="reasoning", content=seen.reasoning)
    calls = [AgUiCall(id=call.id, function=AgUiFunction(call.name, call.arguments)) for call in seen.calls]
    if seen.role in _TALKING and (seen.text or seen.media or calls):
        message = AgUiMessage(id=str(seq), role=seen.role, content=_content(seen))  # pyright: ignore[reportArgumentType]
        message.name = seen.author or UNSET
        message.tool_calls = calls or UNSET
        yield message
    for number, result in enumerate(seen.results):
        yield AgUiMessage(id=f"{seq}-{number}", role="tool", content=result.text, tool_call_id=result.id)


def _content(seen: View) -> str | list[dict[str, Any]]:
    if seen.role != "user" or not seen.media:
        return seen.text
    parts: list[dict[str, Any]] = [{"type": "text", "text": seen.text}] if seen.text else []
    return parts + [part for media in seen.media for part in _parts(media)]


def _parts(media: Media) -> Iterator[dict[str, Any]]:
    kind = media.media_type.partition("/")[0]
    header, _, data = media.data.partition(";base64,")
    source: dict[str, Any] | None = None
    if media.uri:
        source = {"type": "url", "value": media.uri} | ({"mimeType": media.media_type} if media.media_type else {})
    elif data and header.startswith("data:"):
        source = {"type": "data", "value": data, "mimeType": media.media_type}
    if source is not None:
        yield {"type": kind if kind in _KINDS else "document", "source": source}


async def shared_state(store: Store, key: ThreadKey) -> Any:
    """Return the shared state of the thread's newest snapshot, or ``None``.

    Raises:
        CorruptRecordError: The record is no snapshot.
    """
    data = await get_record(store, key, SNAPSHOT_RECORD)
    # The private state of the session, which the record has too, stays in the store.
    return None if data is None else codec.as_object(codec.decode(data, key)).get("state")
