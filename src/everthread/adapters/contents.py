"""Read the contents of Agent Framework's messages, of 1.x and of the betas. Imports no framework."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator
from typing import Any

from everthread.messages.codec import shorten

TITLE_CHARACTERS = 80
CALLS = ("function_call", "function_approval_request")
APPROVALS = ("function_approval_request", "function_approval_response")


def contents_of(messages: Iterable[Any], *kinds: str) -> Iterator[Any]:
    """Give the contents of some types, in order."""
    return (content for each in messages for content in getattr(each, "contents", ()) if content.type in kinds)


def call_id_of(content: Any) -> str | None:
    """Return the id of the tool call that a content makes or answers, or asks, grants or refuses to carry out."""
    if content.type in APPROVALS:
        return content.function_call.call_id if content.function_call is not None else None
    return content.call_id if content.type in {"function_call", "function_result"} else None


def call_ids(messages: Iterable[Any], *kinds: str) -> set[str]:
    """Return the ids of the tool calls that contents of some types make, answer or approve."""
    return {call_id for content in contents_of(messages, *kinds) if (call_id := call_id_of(content))}


def with_contents(message: Any, contents: list[Any]) -> Any:
    """Return a copy of a message with other contents."""
    changed = copy.copy(message)
    changed.contents = contents
    return changed


def role_name(message: Any) -> str:
    """Return a message's role as text; the betas have a class for it."""
    role = getattr(message, "role", "")
    return str(getattr(role, "value", role))


def title_of(messages: Iterable[Any]) -> str | None:
    """Return the title of a thread that begins with these messages: the first text of a user."""
    for message in messages:
        text = " ".join(content.text or "" for content in contents_of([message], "text"))
        if role_name(message) == "user" and text.strip():
            return shorten(text, TITLE_CHARACTERS)
    return None
