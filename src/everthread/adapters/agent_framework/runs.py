"""State of one run of Agent Framework 1.x between the hooks of the history provider."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from typing import TYPE_CHECKING, Any, cast
from uuid import uuid4

from agent_framework import Message

from everthread.adapters.agent_framework.replays import Replay
from everthread.adapters.contents import call_ids

if TYPE_CHECKING:
    from agent_framework import AgentResponse, SessionContext, SupportsAgentRun

    from everthread.adapters.agent_framework.compaction import Compaction
    from everthread.adapters.agent_framework.unfinished import UnfinishedRun

_RESULT, _APPROVAL = "function_result", "function_approval_response"


@dataclass(eq=False)
class Run:
    """One run: its unchanged input, and the part of it that is stored already.

    Args:
        replay: The stored part of the input.
        inputs: The whole input.
        answer: The stored answer to the input, if the input is stored up to its last message: the run is repeated.
        compaction: The messages for a `CompactionProvider`.
        unfinished: The messages so far, to store if the run ends early.
    """

    replay: Replay
    inputs: Sequence[Message]
    answer: Sequence[Message] = ()
    compaction: Compaction | None = None
    unfinished: UnfinishedRun | None = None
    _given: dict[int, Message] = field(default_factory=dict[int, Message])

    def __post_init__(self) -> None:
        # The framework turns an approval into the tool's result, in place. Later releases answer with the result, too.
        self.inputs = list(self.inputs)
        for message in self.inputs:
            if call_ids([message], _APPROVAL):
                self._given[id(message)] = copied = copy.copy(message)
                copied.contents = list(message.contents)

    @property
    def new_inputs(self) -> list[Message]:
        """The input without its stored part."""
        return list(self.inputs[len(self.replay.messages) :])

    def unstored(self, messages: Sequence[Message], outputs: Sequence[Message]) -> list[Message]:
        """Return input messages to store, without the stored part of the input: not by equality."""
        waiting = [id(message) for message in self.replay.messages]
        kept: list[Message] = []
        for message in messages:
            if id(message) in waiting:
                waiting.remove(id(message))
            else:
                kept.append(message)
        answered = call_ids(outputs, _RESULT)
        return [self._as_given(message) if call_ids([message], _RESULT) <= answered else message for message in kept]

    def _as_given(self, message: Message) -> Message:
        return message if call_ids([message], _APPROVAL) else self._given.get(id(message), message)

    def is_stored(self, outputs: Sequence[Message]) -> bool:
        """Return whether a repeated run gives the stored answer again: the same contents, the same ids or none."""
        return bool(outputs) and not self.new_inputs and _canonical(outputs) == _canonical(self.answer)

    def append_id(self, outputs: Sequence[Message]) -> str:
        """Return the id of this run's turn: the same for each repetition of the run with the same ids and contents.

        It covers the stored part of the input as well. A repetition that has loaded this run's turn gets the same id
        as one that has not.
        """
        inputs = [self._as_given(message) for message in self.inputs]
        if not _has_ids(inputs, outputs):
            return uuid4().hex
        return sha256(_canonical([*inputs, *outputs]).encode("utf-8", "backslashreplace")).hexdigest()


def without_stored(response: AgentResponse | None, stored: Sequence[Message]) -> AgentResponse | None:
    """Return a response without the outputs that were stored when its run seemed to end."""
    if response is None:
        return None
    rest, known = copy.copy(response), {_canonical([message]) for message in stored}
    rest.messages = [message for message in response.messages if _canonical([message]) not in known]
    return rest


def is_kept_by_a_service(context: SessionContext, agent: SupportsAgentRun) -> bool:
    """Return whether a service keeps the conversation of a run, and so has its messages."""
    if context.service_session_id or context.options.get("conversation_id"):
        return True
    defaults = getattr(agent, "default_options", None)
    return isinstance(defaults, dict) and bool(cast(dict[str, Any], defaults).get("conversation_id"))


def history_before(
    history: Sequence[Message], stored: Sequence[Message], replay: Replay, *, changeable: int
) -> Sequence[Message]:
    """Return the loaded messages that precede the stored messages which the input repeats.

    Messages that an override of `get_messages` has changed are found by their ``message_id``. One without an id counts
    as the newest stored message of its role in front of the next one that is found; if the override also returns
    stored messages, only as the one directly in front of it.

    Args:
        history: The messages that the run has loaded.
        stored: The stored messages that the input was compared with.
        replay: The part of them that the input repeats.
        changeable: The number of the newest stored messages that an override may have changed.
    """
    if replay.history_before >= len(stored):
        return history
    places = {message.message_id: at for at, message in enumerate(stored) if message.message_id}
    objects = {id(message): at for at, message in enumerate(stored)}
    are_copies = not any(id(message) in objects for message in history)
    first, at = len(history), len(stored)
    least = max(replay.history_before, len(stored) - changeable)
    for index in range(len(history) - 1, -1, -1):
        message = history[index]
        place = objects.get(id(message), places.get(message.message_id or ""))
        if place is None:
            earlier = range(at - 1, least - 1, -1)
            earlier = earlier if are_copies else earlier[:1]
            place = next((each for each in earlier if stored[each].role == message.role), -1)
        if place >= replay.history_before:
            first, at = index, place
    return history[:first]


def _has_ids(inputs: Sequence[Message], outputs: Sequence[Message]) -> bool:
    """Return whether ids distinguish this run from another one with the same texts."""
    answer = max((at for at, message in enumerate(inputs) if message.role == "assistant"), default=-1)
    said = inputs[answer + 1 :] or inputs[-1:]
    return bool(said) and all(message.message_id or message.role == "tool" for message in (*said, *outputs))


def _canonical(messages: Iterable[Message]) -> str:
    return json.dumps([_identity(message) for message in messages], sort_keys=True, default=str)


def _identity(message: Message) -> list[object]:
    """Return a message's id and contents, without the framework's ids of calls, which differ in a repeated run."""
    return [message.role, message.message_id, [_without_id(content.to_dict()) for content in message.contents]]


def _without_id(content: Mapping[str, Any]) -> dict[str, Any]:
    kept = {name: value for name, value in content.items() if name != "id"}
    if isinstance(call := kept.get("function_call"), dict):
        kept["function_call"] = _without_id(cast(dict[str, Any], call))
    return kept
