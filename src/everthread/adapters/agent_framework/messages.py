"""Agent Framework 1.x messages ↔ payload bytes, several times faster than ``Message.to_dict`` and ``from_dict``.

The framework's own methods are the reference. The common shapes (text, tool calls and results, media) are built
directly, from the fields and defaults of the installed release's own objects; all others by the framework. At import a
few samples of both ways are compared: if they differ, only the framework's methods are used. `typed_messages` reads the
most common shapes faster still.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from math import isfinite
from typing import Any, cast

import msgspec

from everthread._extras import missing_extra
from everthread.adapters.agent_framework.stored_rows import FORMAT, NothingForAModelError, row_of
from everthread.adapters.storable import Makers
from everthread.errors import CorruptRecordError, InvalidMessageError
from everthread.messages import codec
from everthread.messages.formats.agent_framework import BETA_TYPE, CURRENT_TYPE
from everthread.messages.strict_json import check_json
from everthread.model import Message as StoredMessage
from everthread.model import NewMessage, ThreadKey

try:
    from agent_framework import Content, Message

    from everthread.adapters.agent_framework.typed_messages import UNUSUAL as UNUSUAL_ROW
    from everthread.adapters.agent_framework.typed_messages import agrees, read_message
except ImportError as error:
    raise missing_extra("agent-framework", error) from error

Json = dict[str, Any]

_encode = msgspec.json.Encoder().encode

_DIRECT_FIELDS = {
    "text": ("text",),
    "text_reasoning": ("text", "protected_data", "id", "status"),
    "uri": ("uri", "media_type"),
    "data": ("uri", "media_type", "name", "file_id"),
    "function_call": ("call_id", "name", "arguments", "hosted", "id", "status"),
    "function_result": ("call_id", "result", "items", "id", "status"),
}
"""The fields that are written and read directly, by content type; any other sends the message to the framework."""

_NESTED_FIELDS = frozenset({"function_call", "screenshot", "items", "inputs", "outputs"})
"""Where ``Content.from_dict`` expects contents within contents."""

_VALUES = frozenset({"additional_properties", "arguments", "result"})
"""The fields of a content in which callers and tools put values of their own."""


class _UnusualError(Exception):
    """A value is not built directly; the framework's own method builds it."""


_UNUSUAL = (_UnusualError, KeyError, TypeError, AttributeError, ValueError)


def to_new_message(message: Message) -> NewMessage:
    """Return a message to append, with ``message.to_dict()`` as its payload.

    Raises:
        InvalidMessageError: It is no ``Message``, or has no JSON form that comes back equal (``NaN``, lone
            surrogates, cycles; objects in arguments, results or properties, which the framework would drop).
    """
    if not isinstance(message, Message):
        raise InvalidMessageError(f"A history stores Message objects, not {type(message).__name__}.")
    if DIRECT:
        calls: list[str] = []
        results: list[str] = []
        try:
            payload = _encode(_message_value(message, calls, results))
        except Exception:  # noqa: S110 - the framework's own method decides about unusual messages
            pass
        else:
            return NewMessage.of_valid_json(payload, FORMAT, tuple(calls), tuple(results))
    try:
        return _by_the_framework(message)
    except InvalidMessageError:
        raise
    except (TypeError, ValueError, AttributeError, RecursionError) as error:
        raise InvalidMessageError(f"The message has no JSON form: {type(error).__name__}.") from None


def from_stored(stored: StoredMessage, key: ThreadKey | None = None) -> Message:
    """Return the message that a stored row holds, equal to ``Message.from_dict`` of its payload.

    Rows of the 1.0 betas and of other formats are converted. Fields that the installed release does not know (a newer
    one wrote them) are left out of the object; the stored row keeps them.

    Raises:
        CorruptRecordError: The row is not JSON, or holds no message; names thread and position.
    """
    if TYPED:
        try:
            return read_message(stored.payload)
        except UNUSUAL_ROW:
            pass
    value = codec.decode_as_text(stored, key)
    try:
        if DIRECT:
            return _direct_message(value)
    except _UNUSUAL:
        pass
    try:
        return _checked(message_from(row_of(value, stored.format)))
    except NothingForAModelError:
        raise
    except Exception as error:
        of = f" of {key}" if key is not None else ""
        raise CorruptRecordError(
            f"The record at position {stored.seq}{of} is not a message of Agent Framework ({type(error).__name__})."
        ) from None


def message_from(value: object) -> Message:
    """Return the message of a decoded payload of either generation, as the framework itself reads it.

    Raises:
        Exception: It is not a message; the framework's constructors raise several kinds.
    """
    known = dict(codec.as_object(value))
    if known.get("type") == BETA_TYPE:
        from everthread.messages.converting.generations import to_current

        known = dict(to_current(known))
    if known.get("type", CURRENT_TYPE) != CURRENT_TYPE:
        raise ValueError("another type")
    try:
        return Message.from_dict(known)
    except TypeError:
        return Message.from_dict(_without_unknown(known))


def _by_the_framework(message: Message) -> NewMessage:
    _check_kept(message)
    # A subclass names another type, which no release reads.
    value = {**message.to_dict(), "type": CURRENT_TYPE}
    if message.additional_properties:
        # They are JSON, and the framework would drop tuples from them.
        value["additional_properties"] = message.additional_properties
    try:
        new = codec.new_message(value, format=FORMAT)
    except InvalidMessageError:
        # Early releases of 1.x leave a service's own objects in annotations; later ones leave them out.
        new = codec.new_message(_without_objects(value), format=FORMAT)
    _checked(message_from(codec.decode(new.payload)))
    return new


def _check_kept(message: Message) -> None:
    """Refuse values that the framework would silently drop or turn into text."""
    check_json(message.additional_properties, "additional_properties")
    for index, content in enumerate(message.contents):
        _check_content(content, f"contents[{index}]")


def _check_content(content: Content, path: str) -> None:
    for name, item in vars(content).items():
        if name in _VALUES:
            check_json(item, f"{path}.{name}")
        elif isinstance(item, Content):
            _check_content(item, f"{path}.{name}")
        elif name in _NESTED_FIELDS and isinstance(item, list):
            for index, part in enumerate(cast(list[object], item)):
                if isinstance(part, Content):
                    _check_content(part, f"{path}.{name}[{index}]")


def _checked(message: Message) -> Message:
    """Return the message, if its role, types, ids and texts are text: the framework raises later for others.

    Raises:
        TypeError: One of them is not text.
    """
    _check_text(message.role, message.author_name or "", message.message_id or "")
    for content in message.contents:
        call_id: object = getattr(content, "call_id", None)
        _check_text(content.type, "" if call_id is None else call_id)
        if content.type in {"text", "text_reasoning"}:
            _check_text(content.text or "")
    return message


def _check_text(*values: object) -> None:
    for value in values:
        if not isinstance(value, str):
            raise TypeError(f"not text but {type(value).__name__}")


def _without_objects(value: Any) -> Any:
    if isinstance(value, dict):
        items = cast(dict[Any, Any], value).items()
        return {name: _without_objects(item) for name, item in items if isinstance(item, _JSON_TYPES)}
    if isinstance(value, (list, tuple)):
        return [_without_objects(item) for item in cast(list[Any], value) if isinstance(item, _JSON_TYPES)]
    return value


def _without_unknown(value: Mapping[str, Any]) -> Json:
    kept: Json = {name: item for name, item in value.items() if name in _MESSAGE_NAMES}
    contents = codec.as_list(kept.get("contents"))
    if contents:
        kept["contents"] = [_known_content(content) for content in contents]
    return kept


def _known_content(content: object) -> object:
    if not isinstance(content, dict):
        return content
    kept: Json = {}
    for name, item in cast(Json, content).items():
        if name in _NESTED_FIELDS:
            parts = codec.as_list(item)
            kept[name] = [_known_content(part) for part in parts] if parts else _known_content(item)
        elif name in _CONTENT_NAMES:
            kept[name] = item
    return kept


# From objects to JSON


def _message_value(message: Message, calls: list[str], results: list[str]) -> Json:
    state = message.__dict__
    role, author, message_id = state["role"], state["author_name"], state["message_id"]
    if type(message) is not Message or len(state) != len(_MESSAGE) or type(role) is not str:
        raise _UnusualError
    contents = [_content_value(content, calls, results) for content in state["contents"]]
    value: Json = {"type": CURRENT_TYPE, "role": role, "contents": contents}
    for name, item in (("author_name", author), ("message_id", message_id)):
        if item is not None:
            if type(item) is not str:
                raise _UnusualError
            value[name] = item
    properties = state["additional_properties"]
    value["additional_properties"] = _plain(properties) if properties else {}
    return value


def _content_value(content: Content, calls: list[str], results: list[str]) -> Json:
    state = content.__dict__
    kind: str = state["type"]
    fields = _DIRECT_FIELDS[kind]
    value: Json = {"type": kind}
    for name in fields:
        item = state.get(name)
        if item is not None:
            if type(item) is str:
                value[name] = item
            elif name == "text":
                raise _UnusualError
            elif name == "items":
                value[name] = [_content_value(part, calls, results) for part in item]
            else:
                value[name] = _plain(item)
    properties = state["additional_properties"]
    value["additional_properties"] = _plain(properties) if properties else {}
    raw = state["raw_representation"] is not None
    # Everything else that to_dict would write must be unset. Counting is much cheaper than looking at each field.
    if list(state.values()).count(None) != len(state) - len(value) - _SILENT[kind] - raw:
        raise _UnusualError
    if kind == "function_call":
        if state.get("informational_only"):
            raise _UnusualError
        _note(calls, state["call_id"])
    elif kind == "function_result":
        _note(results, state["call_id"])
    return value


def _note(ids: list[str], call_id: object) -> None:
    if type(call_id) is not str:
        raise _UnusualError
    if call_id:
        ids.append(call_id)


def _plain(value: Any) -> Any:
    """Return a value of JSON's own types only, which the framework would write unchanged, and without ``NaN``."""
    kind: object = type(value)  # pyright: ignore[reportUnknownVariableType]
    if kind is dict:
        for name, item in value.items():
            if type(name) is not str:
                raise _UnusualError
            _plain(item)
    elif kind is list:
        for item in value:
            _plain(item)
    elif kind not in _SCALARS or (kind is float and not isfinite(value)):
        raise _UnusualError
    return value


# From JSON to objects


def _direct_message(value: Any) -> Message:
    if value["type"] != CURRENT_TYPE or type(value["role"]) is not str:
        raise _UnusualError
    state = _MESSAGE.copy()
    state.update(value)
    del state["type"]
    contents: list[Any] = state["contents"]
    if len(state) != len(_MESSAGE) or type(contents) is not list:
        raise _UnusualError
    state["contents"] = [_direct_content(content) for content in contents]
    # Also where there are none: the template's own must not be shared.
    state["additional_properties"] = value.get("additional_properties") or {}
    message = Message.__new__(Message)
    message.__dict__ = state
    return message


def _direct_content(value: Any) -> Content:
    kind: str = value["type"]
    template, readable = _CONTENTS[kind]
    if not readable.issuperset(value):
        raise _UnusualError
    state = template.copy()
    state.update(value)
    properties: Json = value.get("additional_properties") or {}
    state["additional_properties"] = properties
    if kind == "text":
        if type(state["text"]) is not str:
            raise _UnusualError
    elif kind == "function_call":
        # Legacy properties of calls have a meaning of their own, which the framework's constructor knows.
        if properties or state.get("hosted", False) is None:
            raise _UnusualError
        if type(state["call_id"]) is not str:
            raise _UnusualError
    elif kind == "function_result":
        if type(state["call_id"]) is not str:
            raise _UnusualError
        if state.get("items") is not None:
            state["items"] = [_direct_content(part) for part in state["items"]]
    content = Content.__new__(Content)
    content.__dict__ = state
    return content


# The shape of the installed release's objects


_JSON_TYPES = (str, int, float, bool, type(None), dict, list, tuple)
_SCALARS = frozenset({str, int, float, bool, type(None)})
_MESSAGE: Json = vars(Message("user", [])).copy()
_CONTENTS: dict[str, tuple[Json, frozenset[str]]] = {
    kind: (vars(Content(cast(Any, kind))).copy(), frozenset({"type", "additional_properties", *fields}))
    for kind, fields in _DIRECT_FIELDS.items()
}
"""A bare content's state, and the fields that are read directly, by content type."""
_SILENT = {
    kind: sum(item is not None for item in vars(content).values()) - len(content.to_dict())
    for kind, content in ((kind, Content(cast(Any, kind))) for kind in _DIRECT_FIELDS)
}
"""The number of fields of a bare content that are set and not written."""
_MESSAGE_NAMES = frozenset({"type", *inspect.signature(Message.__init__).parameters}) - {"self"}
_CONTENT_NAMES = frozenset({"type", "data", *inspect.signature(Content.__init__).parameters}) - {"self"}


def _samples() -> list[Message]:
    call = Content.from_function_call("c1", "find", arguments='{"a": 1}')
    return [
        Message("user", ["hello", Content.from_uri("https://example.com/a.png", media_type="image/png")]),
        Message("user", [Content.from_data(b"\x00\x01", media_type="image/png")], message_id="m1", author_name="Ana"),
        Message("assistant", [Content.from_text_reasoning(text="so"), call, Content.from_text("")]),
        Message("assistant", [Content.from_function_call("c2", "f", arguments={"a": [1, None, {"b": "c"}]})]),
        Message("tool", [Content.from_function_result("c1", result={"d": 2.5})], additional_properties={"e": [True]}),
        Message("tool", [Content.from_function_result("c2", result=None)]),
        Message("tool", [Content.from_function_result("c3", result="text")]),
    ]


def _agrees() -> bool:
    """Return whether the direct way and this release's own methods give the same for each sample."""
    for message in _samples():
        value = message.to_dict()
        if _message_value(message, [], []) != value:
            return False
        if _state(_direct_message(value)) != _state(Message.from_dict(value)):
            return False
    return True


def _succeeds(check: Callable[[], bool]) -> bool:
    try:
        return check()
    except Exception:
        return False


def _state(value: Any) -> Any:
    """Return an object's whole state, with its contents, to compare."""
    if isinstance(value, (Message, Content)):
        return {name: _state(item) for name, item in vars(value).items()}
    if isinstance(value, list):
        return [_state(item) for item in cast(list[Any], value)]
    return value


DIRECT = _succeeds(_agrees)
"""Whether messages of the installed release are built directly."""
TYPED = DIRECT and _succeeds(lambda: agrees(_samples(), _state))
"""Whether the most common of them are decoded straight into objects."""


MAKERS = Makers(to_new_message, Message, Content.from_text, Content.from_function_result)
