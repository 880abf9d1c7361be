"""What of a stored history a model service accepts.

OpenAI's chat completions, and services like it, refuse a conversation (HTTP 400) in which a tool result has no call
before it, or a call is not followed at once by its result. Such rows come from a history whose head was cut off by a
window, from a run that crashed or was cancelled between its model calls, and from runs that wrote one session at the
same time. They stay in the store; what is handed to the model follows this policy:

- A result without its call is left out, and so is a second result for one call.
- A call without its result is left out, with the reasoning that led only to it; text beside it stays.
- A result that does not follow its call at once is moved there.
- What still waits stays as it is: calls that the run's input answers, and calls beside a pending approval (the
  framework takes these from the model's input by itself, and needs them when the answer comes).
- Calls that a service carries out by itself, and their results, are left alone.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from agent_framework import Content, Message

_APPROVALS = frozenset({"function_approval_request", "function_approval_response"})


class _Place(NamedTuple):
    at: int
    """Which message."""
    part: int
    """Which of its contents."""
    call_id: str


def valid_history(history: Sequence[Message], inputs: Sequence[Message]) -> list[Message]:
    """The history as a model service accepts it before these inputs; nothing is changed in place."""
    pairs, orphans, unanswered = _pair_up(history)
    waiting = _waiting(history, inputs, unanswered)
    dropped = {place for place in (*orphans, *unanswered) if place.at not in waiting}
    moved: dict[int, list[_Place]] = {}
    for call, result in pairs:
        if any(message.role != "tool" for message in history[call.at + 1 : result.at + 1]):
            moved.setdefault(call.at, []).append(result)
            dropped.add(result)
    return list(_rebuilt(history, dropped, moved)) if dropped else list(history)


def _pair_up(history: Sequence[Message]) -> tuple[list[tuple[_Place, _Place]], list[_Place], list[_Place]]:
    """Pairs of call and result, results without a call, calls without a result."""
    open_calls: dict[str, _Place] = {}
    pairs: list[tuple[_Place, _Place]] = []
    orphans: list[_Place] = []
    unanswered: list[_Place] = []
    for place, content in _linked(history):
        if content.type == "function_result":
            call = open_calls.pop(place.call_id, None)
            if call is None:
                orphans.append(place)
            else:
                pairs.append((call, place))
        else:
            if place.call_id in open_calls:
                unanswered.append(open_calls[place.call_id])
            open_calls[place.call_id] = place
    return pairs, orphans, [*unanswered, *open_calls.values()]


def _linked(history: Sequence[Message]) -> Iterator[tuple[_Place, Content]]:
    for at, message in enumerate(history):
        for part, content in enumerate(message.contents):
            if content.call_id is not None and (content.type == "function_result" or _is_call(content)):
                yield _Place(at, part, content.call_id), content


def _is_call(content: Content) -> bool:
    if content.type != "function_call":
        return False
    return not getattr(content, "informational_only", False) and not getattr(content, "hosted", False)


def _waiting(history: Sequence[Message], inputs: Sequence[Message], unanswered: Sequence[_Place]) -> set[int]:
    """The messages whose calls still wait for an answer, or get it from the input.

    All calls of such a message: the framework holds back the others until all are answered.
    """
    if not unanswered:
        return set()
    answered = {*_approved(history), *_approved(inputs)}
    answered |= {place.call_id for place, content in _linked(inputs) if content.type == "function_result"}
    return {place.at for place in unanswered if place.call_id in answered}


def _approved(messages: Iterable[Message]) -> Iterator[str | None]:
    """The calls that an approval asks for or grants."""
    for message in messages:
        for content in message.contents:
            if content.type in _APPROVALS and content.function_call is not None:
                yield content.function_call.call_id


def _rebuilt(history: Sequence[Message], dropped: set[_Place], moved: dict[int, list[_Place]]) -> Iterator[Message]:
    gone = {(place.at, place.part) for place in dropped}
    for at, message in enumerate(history):
        kept = [content for part, content in enumerate(message.contents) if (at, part) not in gone]
        if len(kept) == len(message.contents):
            yield message
        elif any(content.type != "text_reasoning" for content in kept):
            yield _with(message, kept)
        for result in moved.get(at, ()):
            source = history[result.at]
            yield _with(source, [source.contents[result.part]])


def _with(message: Message, contents: list[Content]) -> Message:
    changed = copy.copy(message)
    changed.contents = contents
    return changed
