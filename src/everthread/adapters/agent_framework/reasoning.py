"""Reasoning in a stored history that a model service accepts.

OpenAI's responses refuse reasoning that no other part of the same answer follows: an interrupted run ends with it. And
clients can send reasoning again only if it is sealed (``protected_data``). Reasoning of a conversation that a service
kept is not sealed, and the framework's client refuses to send it with tool calls. So the model does not get:

- reasoning that no other part of an answer follows;
- unsealed reasoning of earlier turns. In the current turn it stays: some models need it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from everthread.adapters.contents import APPROVALS, role_name, with_contents

if TYPE_CHECKING:
    from agent_framework import Content, Message

_THOUGHT = "text_reasoning"
_NO_ANSWER = frozenset({_THOUGHT, "usage", *APPROVALS})


def without_loose_reasoning(history: Sequence[Message], inputs: Sequence[Message]) -> list[Message]:
    """Return a history without the reasoning that a service refuses; changes nothing in place."""
    if not any(content.type == _THOUGHT for message in history for content in message.contents):
        return list(history)
    finished = _start_of_turn(history, inputs)
    kept: list[Message] = []
    follows = False
    for at in range(len(history) - 1, -1, -1):
        message = history[at]
        follows = follows and message.role == "assistant"
        contents: list[Content] = []
        for content in reversed(message.contents):
            if content.type != _THOUGHT:
                follows = follows or (message.role == "assistant" and _is_answer(content))
                contents.append(content)
            elif follows and (at >= finished or _is_sealed(content)):
                contents.append(content)
        if len(contents) == len(message.contents):
            kept.append(message)
        elif any(content.type != "usage" for content in contents):
            kept.append(with_contents(message, contents[::-1]))
    return kept[::-1]


def thoughts_before(history: Sequence[Message], at: int) -> Iterator[int]:
    """Give the places of the messages of reasoning alone that lead to a message."""
    for before in range(at - 1, -1, -1):
        message = history[before]
        if role_name(message) != "assistant" or any(
            content.type not in {_THOUGHT, "usage"} for content in message.contents
        ):
            return
        yield before


def _start_of_turn(history: Sequence[Message], inputs: Sequence[Message]) -> int:
    """Return where the turn begins that the inputs continue; the end if they begin another."""
    if any(message.role != "tool" for message in inputs):
        return len(history)
    return max((at for at, message in enumerate(history) if message.role == "user"), default=0)


def _is_sealed(content: Content) -> bool:
    return bool(content.protected_data or content.additional_properties.get("encrypted_content"))


def _is_answer(content: Content) -> bool:
    return content.type not in _NO_ANSWER and (content.type != "text" or bool(content.text))
