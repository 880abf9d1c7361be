"""What of a stored history a model service accepts.

OpenAI's chat completions, and services like it, refuse a conversation (HTTP 400) in which a tool result has no call
before it, or a call is not followed at once by its result. Such rows come from a history whose head was cut off by a
window, from a run that crashed or was cancelled between its model calls, and from runs that wrote one session at the
same time. They stay in the store; what is handed to the model follows this policy:

- A result without its call is left out, and so is a second result for one call.
- A call without its result is left out, with the reasoning that led only to it; text beside it stays.
- A result that does not follow its call at once is moved there, and a call that the run's input answers to the end.
- What still waits stays: calls that the run's input answers and, if it grants or refuses an approval, calls that wait
  for another. Without an approval in the input, all approvals are left out for this run: no model is shown them.
- Calls that a service carries out by itself, and their results, are left alone.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import NamedTuple

from agent_framework import Content, Message

_APPROVALS = frozenset({"function_approval_request", "function_approval_response"})


class _Place(NamedTuple):
    at: int
    """Which message."""
    part: int
    """Which of its contents."""
    call_id: str


_NOWHERE = _Place(-1, -1, "")


def valid_history(history: Sequence[Message], inputs: Sequence[Message]) -> list[Message]:
    """The history as a model service accepts it before these inputs; nothing is changed in place."""
    linked, approvals = _scan(history)
    if not linked and not approvals:
        return list(history)
    answers, approved_now = _scan(inputs)
    pairs, orphans, unanswered = _pair_up(linked)
    answered = {place.call_id for place, is_call in answers if not is_call}
    approved = {place.call_id for place in approved_now}
    pending = {place.call_id for place in approvals} if approved else set[str]()
    now = answered | approved
    # All calls of a message wait together: the framework holds back the others until all are answered.
    waiting = {place.at for place in unanswered if place.call_id in now | pending}
    last = {place.at for place in unanswered if place.call_id in now and _is_passed(history, place.at)}
    dropped = {place for place in (*orphans, *unanswered) if place.at not in waiting}
    settled = {result.call_id: result for _, result in pairs}
    dropped.update(place for place in approvals if not approved or place < settled.get(place.call_id, _NOWHERE))
    moved: dict[int, list[_Place]] = {}
    for call, result in pairs:
        if call.at in last or _is_passed(history[: result.at + 1], call.at):
            moved.setdefault(call.at, []).append(result)
            dropped.add(result)
    return _rebuilt(history, dropped, moved, last) if dropped or last else list(history)


def _is_passed(history: Sequence[Message], at: int) -> bool:
    """Whether anything but tool results follows a message."""
    return any(message.role != "tool" for message in history[at + 1 :])


def _scan(messages: Sequence[Message]) -> tuple[list[tuple[_Place, bool]], list[_Place]]:
    """Calls and results in order, each with whether it is a call; and approvals asked for, granted or refused."""
    linked: list[tuple[_Place, bool]] = []
    approvals: list[_Place] = []
    for at, message in enumerate(messages):
        for part, content in enumerate(message.contents):
            kind = content.type
            if kind == "text":
                continue
            if kind == "function_result":
                if content.call_id is not None:
                    linked.append((_Place(at, part, content.call_id), False))
            elif kind == "function_call":
                if content.call_id is not None and _is_ours(content):
                    linked.append((_Place(at, part, content.call_id), True))
            elif kind in _APPROVALS and content.function_call is not None:
                approvals.append(_Place(at, part, content.function_call.call_id or ""))
    return linked, approvals


def _is_ours(content: Content) -> bool:
    """Whether the caller of the model has to answer this call."""
    return not getattr(content, "informational_only", False) and not getattr(content, "hosted", False)


def _pair_up(
    linked: Sequence[tuple[_Place, bool]],
) -> tuple[list[tuple[_Place, _Place]], list[_Place], list[_Place]]:
    """Pairs of call and result, results without a call, calls without a result."""
    open_calls: dict[str, _Place] = {}
    pairs: list[tuple[_Place, _Place]] = []
    orphans: list[_Place] = []
    unanswered: list[_Place] = []
    for place, is_call in linked:
        earlier = open_calls.pop(place.call_id, None)
        if is_call:
            open_calls[place.call_id] = place
            if earlier is not None:
                unanswered.append(earlier)
        elif earlier is None:
            orphans.append(place)
        else:
            pairs.append((earlier, place))
    return pairs, orphans, [*unanswered, *open_calls.values()]


def _rebuilt(
    history: Sequence[Message], dropped: set[_Place], moved: dict[int, list[_Place]], last: set[int]
) -> list[Message]:
    gone = {(place.at, place.part) for place in dropped}
    rebuilt: list[Message] = []
    at_the_end: list[Message] = []
    for at, message in enumerate(history):
        kept = [content for part, content in enumerate(message.contents) if (at, part) not in gone]
        target = at_the_end if at in last else rebuilt
        if len(kept) == len(message.contents):
            target.append(message)
        elif any(content.type != "text_reasoning" for content in kept):
            target.append(_with(message, kept))
        for result in moved.get(at, ()):
            source = history[result.at]
            target.append(_with(source, [source.contents[result.part]]))
    return rebuilt + at_the_end


def _with(message: Message, contents: list[Content]) -> Message:
    changed = copy.copy(message)
    changed.contents = contents
    return changed
