"""Turn a stored history into one that a model service accepts.

OpenAI's chat completions, and services like it, refuse a conversation (HTTP 400) in which a tool result has no call
before it, or a call is not directly followed by its result. Such rows come from a window that cuts off the head of a
history, from a run that crashed or was cancelled between its model calls, and from runs that wrote one session at the
same time. They stay in the store. The model gets the history by this policy:

- A result without its call is left out, and so is a second result for one call.
- A call without its result is left out, with the reasoning that led only to it; text of the same message stays.
- A result that does not directly follow its call is moved there, and a call that the run's input answers to the end.
- Waiting calls stay: those that the run's input answers and, if it grants or refuses an approval, those that wait
  for another. Without an approval in the input, all approvals are left out for this run: models do not get them.
- Calls that a service executes itself, and their results, stay unchanged.
- Reasoning: see `reasoning`.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Sequence, Set
from typing import TYPE_CHECKING, NamedTuple, cast

from everthread.adapters.agent_framework.reasoning import thoughts_before, without_loose_reasoning
from everthread.adapters.contents import APPROVALS, CALLS, call_ids, role_name, with_contents
from everthread.messages.rules.pairing import Place, pair_up

if TYPE_CHECKING:
    from agent_framework import Content, Message


_NONE: frozenset[str] = frozenset()
_NOWHERE = Place(-1, -1, "")
# Half the time of the named tuple's own constructor, which is Python code.
_place = cast("Callable[[type[Place], tuple[int, int, str]], Place]", getattr(tuple, "__new__"))  # noqa: B009


def valid_history(history: Sequence[Message], inputs: Sequence[Message], approved: Set[str] = _NONE) -> list[Message]:
    """Return the history as a model service accepts it before these inputs; nothing is changed in place.

    Args:
        history: The stored messages.
        inputs: The input of the run.
        approved: The ids of the calls that the inputs grant or refuse and the framework will carry out or answer.
    """
    return _valid(history, inputs, approved, _scan(history))


def ready_history(
    history: Sequence[Message],
    inputs: Sequence[Message],
    approved: Set[str],
    without_settled: Callable[[Sequence[Message]], Sequence[Message]],
) -> list[Message]:
    """Return the `valid_history` of the messages that the framework's filter of approvals leaves.

    The filter leaves out settled approvals and messages without contents. It is not called if there are none.
    """
    found = _scan(history)
    if found.needs_filter:
        return valid_history(without_settled(history), inputs, approved)
    return _valid(history, inputs, approved, found)


def with_valid_calls(
    history: Sequence[Message], inputs: Sequence[Message], approved: Set[str] = _NONE
) -> Sequence[Message]:
    """Return the history with the tool calls and results that a service accepts, also of messages of the betas."""
    found = _scan(history)
    return _valid_calls(history, inputs, approved, found) if found.linked or found.approvals else history


def messages_of_calls(history: Sequence[Message], wanted: Set[str]) -> list[Message]:
    """Return the messages that make these calls, the reasoning before them, and all that answers calls of theirs."""
    made = [at for at, message in enumerate(history) if not wanted.isdisjoint(call_ids([message], *CALLS))]
    kept = {*made, *(thought for at in made for thought in thoughts_before(history, at))}
    linked = call_ids((history[at] for at in made), *CALLS)
    return [
        message
        for at, message in enumerate(history)
        if at in kept or not linked.isdisjoint(call_ids([message], "function_result", *APPROVALS))
    ]


class _Found(NamedTuple):
    """The result of one pass over messages. Each pass over a long history costs more than the work on a message.

    Attributes:
        linked: Calls and results in order, each with whether it is a call.
        approvals: Requests of approvals, and responses.
        others: The places of the messages that are not of tool results, and the end.
        has_reasoning: A content is reasoning.
        needs_filter: A message has no contents, or a content is a request or response of an approval.
    """

    linked: list[tuple[Place, bool]]
    approvals: list[Place]
    others: list[int]
    has_reasoning: bool
    needs_filter: bool


def _valid(history: Sequence[Message], inputs: Sequence[Message], approved: Set[str], found: _Found) -> list[Message]:
    if found.linked or found.approvals:
        history = _valid_calls(history, inputs, approved, found)
    return without_loose_reasoning(history, inputs) if found.has_reasoning else list(history)


def _valid_calls(
    history: Sequence[Message], inputs: Sequence[Message], approved: Set[str], found: _Found
) -> Sequence[Message]:
    pairs, orphans, unanswered = pair_up(found.linked)
    answered = {place.call_id for place, is_call in _scan(inputs).linked if not is_call}
    pending = {place.call_id for place in found.approvals} if approved else set[str]()
    now = answered | approved
    # All calls of a message wait together: the framework holds back the others until all are answered.
    waiting = {place.at for place in unanswered if place.call_id in now | pending}
    others = found.others
    last = {place.at for place in unanswered if place.call_id in now and _passed_at(others, place.at) < len(history)}
    last |= {thought for at in last for thought in thoughts_before(history, at)}
    dropped = {place for place in (*orphans, *unanswered) if place.at not in waiting}
    settled = {result.call_id: result for _, result in pairs} if found.approvals else {}
    dropped.update(place for place in found.approvals if not approved or place < settled.get(place.call_id, _NOWHERE))
    moved: dict[int, list[Place]] = {}
    for call, result in pairs:
        if call.at in last or _passed_at(others, call.at) <= result.at:
            moved.setdefault(call.at, []).append(result)
            dropped.add(result)
    return _rebuilt(history, dropped, moved, last) if dropped or last else history


def _passed_at(others: Sequence[int], at: int) -> int:
    """Return where the next message stands that is not of tool results; the end if there is none."""
    return others[bisect_right(others, at)]


def _scan(messages: Sequence[Message]) -> _Found:
    linked: list[tuple[Place, bool]] = []
    approvals: list[Place] = []
    others: list[int] = []
    has_reasoning = needs_filter = False
    for at, message in enumerate(messages):
        role = message.role
        if (role if type(role) is str else role_name(message)) != "tool":
            others.append(at)
        contents = message.contents
        needs_filter = needs_filter or not contents
        part = -1
        for content in contents:
            part += 1
            kind = content.type
            if kind == "text":
                continue
            if kind == "function_result":
                if content.call_id is not None:
                    linked.append((_place(Place, (at, part, content.call_id)), False))
            elif kind == "function_call":
                if content.call_id is not None and _is_ours(content):
                    linked.append((_place(Place, (at, part, content.call_id)), True))
            elif kind == "text_reasoning":
                has_reasoning = True
            elif kind in APPROVALS:
                needs_filter = True
                if content.function_call is not None:
                    approvals.append(Place(at, part, content.function_call.call_id or ""))
    others.append(len(messages))
    return _Found(linked, approvals, others, has_reasoning, needs_filter)


def _is_ours(content: Content) -> bool:
    """Return whether the caller of the model has to answer this call."""
    return not getattr(content, "informational_only", False) and not getattr(content, "hosted", False)


def _rebuilt(
    history: Sequence[Message], dropped: set[Place], moved: dict[int, list[Place]], last: set[int]
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
            target.append(with_contents(message, kept))
        for result in moved.get(at, ()):
            source = history[result.at]
            target.append(with_contents(source, [source.contents[result.part]]))
    return rebuilt + at_the_end
