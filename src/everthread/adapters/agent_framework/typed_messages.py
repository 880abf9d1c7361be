"""Stored JSON straight into Agent Framework 1.x messages of the most common shapes.

The decoder checks types and field names while it parses, so no dictionaries are made and searched. It takes texts,
reasoning, calls and results of text without fields that a run rarely writes. `messages` reads all others, and all
messages if the installed release builds its objects in another way: see `agrees`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import msgspec
from agent_framework import Content, Message

from everthread.messages.formats.agent_framework import CURRENT_TYPE

State = dict[str, Any]


class UnusualRowError(ValueError):
    """A message has a rare shape."""


UNUSUAL = (UnusualRowError, msgspec.MsgspecError, UnicodeDecodeError, RecursionError)
"""The errors of `read_message`: another way must read the message, or say what is wrong with it."""


class _Content(msgspec.Struct, tag_field="type", forbid_unknown_fields=True, gc=False):
    additional_properties: State | None = None


class _Text(_Content, tag="text", kw_only=True):
    text: str


class _Reasoning(_Content, tag="text_reasoning"):
    text: Any = None
    protected_data: Any = None
    id: Any = None
    status: Any = None


class _Call(_Content, tag="function_call", kw_only=True):
    call_id: str
    name: Any = None
    arguments: Any = None
    hosted: bool | msgspec.UnsetType = msgspec.UNSET
    id: Any = None
    status: Any = None


class _Result(_Content, tag="function_result", kw_only=True):
    call_id: str
    result: Any = None
    items: list[_Text] | None = None


class _Row(msgspec.Struct, tag_field="type", tag=CURRENT_TYPE, forbid_unknown_fields=True, kw_only=True, gc=False):
    role: str
    contents: list[_Text | _Reasoning | _Call | _Result]
    author_name: Any = None
    message_id: Any = None
    additional_properties: State | None = None


_decode: Callable[[bytes], _Row] = msgspec.json.Decoder(_Row).decode
_make = object.__new__
_TEXT = vars(Content("text")).copy()
_REASONING = vars(Content("text_reasoning")).copy()
_CALL = vars(Content("function_call")).copy()
_RESULT = vars(Content("function_result")).copy()


def read_message(payload: bytes) -> Message:
    """Return the message of a payload, equal to ``Message.from_dict`` of its value.

    Raises one of `UNUSUAL` for all but the most common shapes.
    """
    row = _decode(payload)
    contents: list[Any] = row.contents
    # In place: the list of the decoded parts becomes that of the contents.
    for at, part in enumerate(contents):
        kind: object = type(part)  # pyright: ignore[reportUnknownVariableType]
        properties = part.additional_properties
        content = contents[at] = _make(Content)
        # Faster than to copy the template and to set the attribute.
        state = content.__dict__
        if kind is _Text:
            state.update(_TEXT)
            state["text"] = part.text
        elif kind is _Result:
            state.update(_RESULT)
            state["call_id"] = part.call_id
            state["result"] = part.result
            if part.items is not None:
                state["items"] = [_text(item) for item in part.items]
        elif kind is _Call:
            if properties:
                # Legacy properties of calls have a meaning of their own.
                raise UnusualRowError
            state.update(_CALL)
            state["call_id"] = part.call_id
            state["name"] = part.name
            state["arguments"] = part.arguments
            if part.hosted is not msgspec.UNSET:
                _set_known(state, hosted=part.hosted)
            if part.id is not None or part.status is not None:
                _set_known(state, id=part.id, status=part.status)
        else:
            state.update(_REASONING)
            state["text"] = part.text
            _set_known(state, protected_data=part.protected_data, id=part.id, status=part.status)
        state["additional_properties"] = {} if properties is None else properties
    # Attributes that are set one by one need no dictionary.
    message = _make(Message)
    message.role = row.role
    message.contents = contents
    message.author_name = row.author_name
    message.message_id = row.message_id
    properties = row.additional_properties
    message.additional_properties = {} if properties is None else properties
    message.raw_representation = None
    return message


def agrees(samples: Iterable[Message], state_of: Callable[[object], object]) -> bool:
    """Return whether this way and the installed release's own methods build the same objects from these samples.

    Args:
        samples: Messages of any shape. Those of rare shapes are not compared.
        state_of: Returns the whole state of an object.
    """
    compared = set[str]()
    for sample in samples:
        value = sample.to_dict()
        try:
            message = read_message(msgspec.json.encode(value))
        except UNUSUAL:
            continue
        if state_of(message) != state_of(Message.from_dict(value)):
            return False
        compared.update(content.type for content in message.contents)
    return compared == {"text", "text_reasoning", "function_call", "function_result"}


def _text(part: _Text) -> Content:
    content = _make(Content)
    state = content.__dict__
    state.update(_TEXT)
    state["text"] = part.text
    properties = part.additional_properties
    state["additional_properties"] = {} if properties is None else properties
    return content


def _set_known(state: State, **fields: object) -> None:
    for name, value in fields.items():
        if value is not None:
            if name not in state:
                raise UnusualRowError
            state[name] = value
