"""Which part of a run's input repeats what is stored already.

Some callers (AG-UI clients, workflows) send the whole conversation with each run. What of it is stored must not be
stored again; and what a user says again (a second "yes") must be. So:

- What a run answers is new, always.
- A message whose ``message_id`` is stored, with the same content, is a replay, and so is what stands before it.
- An input without known ids can only be a replay if it holds an answer (a message of the assistant) and its leading
  part repeats the *end* of the history, at least two messages of it: a client that keeps the transcript has also seen
  the newest answer. What follows is new. So an agent that is handed the same question and the same answer of
  another agent twice keeps both.
- Without known ids, a last message of the user is new.

Clients seldom give a message back exactly as it was. Two messages are taken for the same if role, text, media and tool
calls agree, or without tool traffic, which many clients do not show, if more is found so.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from agent_framework import Message


class Replay(NamedTuple):
    """What an input repeats.

    Attributes:
        messages: The leading input messages that are stored already.
        history_before: How many messages of the history precede the first that is repeated: the others reach the
            model with the input.
    """

    messages: Sequence[Message]
    history_before: int


class _Sight(NamedTuple):
    """What of a message is compared, and where it stands."""

    at: int
    content: tuple[object, ...]


def is_transcript(inputs: Sequence[Message]) -> bool:
    """Whether an input can be a replay by its form alone: it holds an answer."""
    return any(message.role == "assistant" for message in inputs)


def find_replay(inputs: Sequence[Message], history: Sequence[Message], *, complete: bool) -> Replay:
    """What part of an input repeats a history.

    Args:
        inputs: What a run was given.
        history: The stored messages, oldest first; at least their newest part.
        complete: The history begins with the thread's first message.
    """
    nothing = Replay((), len(history))
    if not inputs or not history:
        return nothing
    found = _by_id(inputs, history)
    if found is None and is_transcript(inputs):
        ways = (_by_content(inputs, history, complete, with_tools=seen) for seen in (True, False))
        found = max((way for way in ways if way is not None), default=None)
    if found is None:
        return nothing
    count, history_before = found
    return Replay(inputs[:count], history_before)


def _by_id(inputs: Sequence[Message], history: Sequence[Message]) -> tuple[int, int] | None:
    if not any(message.message_id for message in inputs):
        return None
    stored = {message.message_id: index for index, message in enumerate(history) if message.message_id}
    known = [
        (index, stored[message.message_id])
        for index, message in enumerate(inputs)
        if message.message_id in stored and _same(message, history[stored[message.message_id]])
    ]
    return (known[-1][0] + 1, min(at for _, at in known)) if known else None


def _by_content(
    inputs: Sequence[Message], history: Sequence[Message], complete: bool, *, with_tools: bool
) -> tuple[int, int] | None:
    given, stored = _sights(inputs, with_tools), _sights(history, with_tools)
    if inputs[-1].role == "user" and given and given[-1].at == len(inputs) - 1:
        given.pop()
    best_length, best_end = 0, -1
    for end in range(len(given)):
        length = _overlap(given[: end + 1], stored)
        whole = length == len(stored)
        if not (whole or length == end + 1) or (length < 2 and not (whole and complete)):
            continue
        # Of equal overlaps the later repeats the newest messages, unless the whole thread is known to be no longer.
        if length > best_length or (length == best_length and not (whole and complete)):
            best_length, best_end = length, end
    if not best_length:
        return None
    return given[best_end].at + 1, stored[len(stored) - best_length].at


def _overlap(given: Sequence[_Sight], stored: Sequence[_Sight]) -> int:
    """How many messages agree, compared backward from both ends."""
    length = 0
    for one, other in zip(reversed(given), reversed(stored), strict=False):
        if one.content != other.content:
            break
        length += 1
    return length


def _same(one: Message, other: Message) -> bool:
    return _seen(one, with_tools=False) == _seen(other, with_tools=False)


def _sights(messages: Sequence[Message], with_tools: bool) -> list[_Sight]:
    seen = ((index, _seen(message, with_tools=with_tools)) for index, message in enumerate(messages))
    return [_Sight(index, content) for index, content in seen if any(content[1:])]


def _seen(message: Message, *, with_tools: bool) -> tuple[object, ...]:
    """Role, text, and what else identifies a message: without reasoning, usage and what only the framework needs."""
    texts: list[str] = []
    others: list[tuple[str, object]] = []
    for content in message.contents:
        if content.type == "text":
            texts.append(content.text or "")
        elif content.type in {"data", "uri"}:
            others.append(("media", content.uri))
        elif content.type == "hosted_file":
            others.append((content.type, content.file_id))
        elif with_tools and content.call_id:
            others.append((content.type, content.call_id))
        elif with_tools and content.type.startswith("function_approval"):
            others.append((content.type, content.id))
    return message.role, "".join(texts).strip(), tuple(others)
