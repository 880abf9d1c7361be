"""Messages of Agent Framework's betas ↔ stored messages.

The betas' own ``to_dict`` and ``from_dict`` are most of what a turn costs, so plain messages are written
and read directly; the result equals theirs (property tests, on each supported release), and whatever is
not plain goes through theirs. Rows that other generations wrote are converted first.

Written rows differ from ``to_dict`` in one case: a tool's result that it drops without a word, or parts of
(tuples, models, dates), is kept as text, because a call whose result is missing makes model services refuse the thread.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Iterable, Mapping
from functools import cache
from typing import Any, Protocol, cast, get_args

from everthread._extras import import_extra
from everthread.adapters.agent_framework.conversion import KEPT, Json, to_beta, to_current
from everthread.codec import as_list, as_object, decode, encode, view_of
from everthread.errors import CorruptRecordError, InvalidMessageError, UnsupportedError
from everthread.formats import agent_framework as rows
from everthread.model import Message, NewMessage, ThreadKey

FORMAT = "agent-framework"

_PLAIN = frozenset({str, int, float, bool, type(None), list, dict})
_SCALARS = frozenset({str, int, float, bool})
_HIDDEN = frozenset({"raw_representation", "additional_properties"})
# Their constructors store these classes' arguments as they are; the others check or convert them.
_VERBATIM = frozenset({"text", "text_reasoning", "uri", "error", "function_call", "function_result"})
_CLASSES = {
    "text": "TextContent",
    "text_reasoning": "TextReasoningContent",
    "data": "DataContent",
    "uri": "UriContent",
    "error": "ErrorContent",
    "function_call": "FunctionCallContent",
    "function_result": "FunctionResultContent",
    "hosted_file": "HostedFileContent",
    "hosted_vector_store": "HostedVectorStoreContent",
}
_MESSAGE_FIELDS = frozenset({"type", "role", "contents", "author_name", "message_id", "additional_properties"})
_MESSAGE_ATTRIBUTES = (_MESSAGE_FIELDS - {"type"}) | {"raw_representation"}
_NO_FIELDS: Json = {}
_LINKLESS = frozenset({"text", "text_reasoning", "data", "uri", "error", "usage", "hosted_file", "hosted_vector_store"})


class MessageCodec(Protocol):
    """Between one release's message objects and what a store keeps."""

    def encode(self, message: Any) -> NewMessage:
        """A message to append.

        Raises:
            InvalidMessageError: It is no message of the framework, or has no JSON form.
        """
        ...

    def decode(self, stored: Message, key: ThreadKey) -> Any:
        """The framework's message object for a stored row of any generation.

        Raises:
            CorruptRecordError: The row is not a message of Agent Framework; says which it is.
        """
        ...


@cache
def message_codec() -> MessageCodec:
    """The codec for the installed beta.

    Raises:
        ConfigurationError: Agent Framework is not installed.
        UnsupportedError: The installed release is not a beta: it has no chat message stores.
    """
    framework = import_extra("agent_framework", "agent-framework")
    if not hasattr(framework, "AgentThread"):
        raise UnsupportedError(
            "The installed agent-framework-core has no chat message stores (1.0.0b260212 was their end): "
            "use EverthreadHistoryProvider, which reads the same threads."
        )
    return _ClassCodec(framework) if hasattr(framework, "TextContent") else _UnifiedCodec(framework)


def text_of(message: Any) -> str:
    """A message's text as the framework gives it."""
    return str(getattr(message, "text", "") or "")


def role_of(message: Any) -> str:
    """A message's role as text, in every generation."""
    return str(getattr(message.role, "value", message.role))


class _DirectCodec:
    """What the codecs share: writing a usual message without ``to_dict``.

    Args:
        message: The class of messages.
        role: The class of roles, or ``str``.
        contents: The classes of contents whose attributes are what ``to_dict`` writes.
    """

    def __init__(self, message: Any, role: Any, contents: Iterable[Any]) -> None:
        self._message = message
        self._role = role
        self._contents = frozenset(contents)
        self._type = rows.CURRENT_TYPE if role is str else rows.BETA_TYPE

    def encode(self, message: Any) -> NewMessage:
        if not isinstance(message, self._message):
            raise InvalidMessageError(f"A {self._message.__name__} is stored here, not a {type(message).__name__}.")
        value = self._direct_fields(message) if self._is_usual(message) else self._framework_fields(message)
        calls, results = _links(value)
        return NewMessage(encode(value), FORMAT, calls, results)

    def _is_usual(self, message: Any) -> bool:
        return (
            type(message) is self._message
            and type(message.role) is self._role
            and message.__dict__.keys() <= _MESSAGE_ATTRIBUTES
            and _is_plain(message.additional_properties.values())
            and all(type(content) in self._contents for content in message.contents)
        )

    def _direct_fields(self, message: Any) -> Json:
        role = message.role
        value: Json = {
            "type": self._type,
            "role": role if type(role) is str else {"type": "role", "value": role.value},
            "contents": [self._content_fields(content) for content in message.contents],
            "additional_properties": message.additional_properties,
        }
        if message.author_name is not None:
            value["author_name"] = message.author_name
        if message.message_id is not None:
            value["message_id"] = message.message_id
        return value

    def _framework_fields(self, message: Any) -> Json:
        return message.to_dict()

    def _content_fields(self, content: Any) -> Json:
        raise UnsupportedError(f"A {type(content).__name__} has no direct form.")


class _ClassCodec(_DirectCodec):
    """The betas with a class for each content (1.0.0b251001 … b260107)."""

    def __init__(self, framework: Any) -> None:
        classes = {kind: getattr(framework, name) for kind, name in _CLASSES.items()}
        super().__init__(framework.ChatMessage, framework.Role, classes.values())
        self._blanks = {kind: _Blank(classes[kind]) for kind in _VERBATIM}
        # The first betas have no such function.
        self._results_as_text: Any = getattr(framework._types, "prepare_function_call_results", json.dumps)

    def _framework_fields(self, message: Any) -> Json:
        value: Json = message.to_dict()
        written = cast(list[Json], value["contents"])
        if len(written) == len(message.contents):
            for fields, content in zip(written, message.contents, strict=True):
                self._with_result(fields, content)
        return value

    def _content_fields(self, content: Any) -> Json:
        attributes: dict[str, Any] = content.__dict__
        fields: Json = {}
        for name, value in attributes.items():
            # In the order of how often each is met.
            kind = cast(type[object], type(value))
            if kind in _SCALARS:
                fields[name] = value
            elif value is None or name in _HIDDEN:
                continue
            elif (kind is dict and _is_plain(value.values())) or (kind is list and _is_plain(value)):
                fields[name] = value
            else:
                return self._with_result(content.to_dict(), content)
        if content.additional_properties:
            fields.update(content.additional_properties)
        return fields

    def _with_result(self, fields: Json, content: Any) -> Json:
        result: Any = getattr(content, "result", None)
        written = fields.get("result")
        if result is None or result is written:
            return fields
        if written is None or (isinstance(result, (dict, list)) and len(cast(Any, written)) != len(cast(Any, result))):
            fields["result"] = self._as_text(result)
        return fields

    def _as_text(self, result: Any) -> str:
        try:
            return self._results_as_text(result)
        except (TypeError, ValueError):
            return str(result)

    def decode(self, stored: Message, key: ThreadKey) -> Any:
        value = _row(stored, key)
        try:
            message = self._read_plain(value)
            return self._message.from_dict(to_beta(value)) if message is None else message
        except (TypeError, ValueError, AttributeError) as error:
            raise _not_a_message(stored, key, error) from None

    def _read_plain(self, value: Json) -> Any | None:
        role = value.get("role")
        if value["type"] != rows.BETA_TYPE or type(role) is not dict or not value.keys() <= _MESSAGE_FIELDS:
            return None
        name = cast(Json, role).get("value")
        contents: list[Any] = []
        for item in cast(list[Any], value["contents"]):
            fields = cast(Json, item) if type(item) is dict else _NO_FIELDS
            blank = self._blanks.get(cast(str, fields.get("type")))
            content = blank.filled(fields) if blank is not None else None
            if content is None:
                return None
            contents.append(content)
        if type(name) is not str:
            return None
        message = self._message.__new__(self._message)
        message.__dict__ = {
            "role": self._role(name),
            "contents": contents,
            "author_name": value.get("author_name"),
            "message_id": value.get("message_id"),
            "additional_properties": value.get("additional_properties") or {},
            "raw_representation": None,
        }
        return message


class _Blank:
    """Makes contents of one class without running its constructor, where that would only store its arguments."""

    def __init__(self, content_class: Any) -> None:
        self._class = content_class
        parameters = inspect.signature(content_class.__init__).parameters.values()
        required = {
            p.name for p in parameters if p.default is p.empty and p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)
        }
        self._required = required - {"self"}
        self._template: Json = content_class(**dict.fromkeys(self._required, "")).__dict__
        self._allowed = self._template.keys() - {"annotations", "raw_representation"}

    def filled(self, fields: Json) -> Any | None:
        """The content that ``from_dict`` would make, or ``None`` where its constructor would do more."""
        if not (self._required <= fields.keys() <= self._allowed):
            return None
        content = self._class.__new__(self._class)
        content.__dict__ = {**self._template, **fields}
        content.additional_properties = fields.get("additional_properties") or {}
        return content


class _UnifiedCodec(_DirectCodec):
    """The betas with one class for all contents: 1.0.0b260114 … b260130, and as of b260210 with plain roles."""

    def __init__(self, framework: Any) -> None:
        is_older = hasattr(framework, "ChatMessage")
        message = framework.ChatMessage if is_older else framework.Message
        super().__init__(message, framework.Role if is_older else str, [framework.Content])
        self._fields = frozenset(inspect.signature(framework.Content.__init__).parameters) - {"self"}
        self._kinds = frozenset(get_args(framework._types.ContentType))

    def _content_fields(self, content: Any) -> Json:
        attributes: dict[str, Any] = content.__dict__
        fields: Json = {}
        for name, value in attributes.items():
            if type(value) in _SCALARS:
                fields[name] = value
            elif name == "additional_properties" and not value:
                fields[name] = {}
            elif value is not None and name != "raw_representation":
                return content.to_dict()
        return fields if fields.keys() <= self._fields else content.to_dict()

    def decode(self, stored: Message, key: ThreadKey) -> Any:
        value = _row(stored, key)
        fitting = value if value["type"] == self._type and self._fits(value) else self._fitted(value)
        try:
            return self._message.from_dict(fitting)
        except (TypeError, ValueError, AttributeError) as error:
            raise _not_a_message(stored, key, error) from None

    def _fits(self, value: Json) -> bool:
        contents = map(as_object, as_list(value["contents"]))
        return all(content.get("type") in self._kinds and content.keys() <= self._fields for content in contents)

    def _fitted(self, value: Json) -> Json:
        """The row without what came after this release, which its constructors refuse; kept whole beside it."""
        current = to_current(value)
        known = [c for c in map(as_object, as_list(current["contents"])) if c.get("type") in self._kinds]
        contents = [{name: field for name, field in content.items() if name in self._fields} for content in known]
        fitted: Json = {**current, "contents": contents, "type": self._type}
        if contents != current["contents"]:
            fitted["raw_representation"] = {KEPT: value}
        return fitted


def _row(stored: Message, key: ThreadKey) -> Json:
    value = decode(stored, key)
    if not isinstance(value, dict) or not rows.matches(cast(Json, value)):
        raise _not_a_message(stored, key)
    row = cast(Json, value)
    if not isinstance(row["contents"], list):
        raise _not_a_message(stored, key)
    return row


def _not_a_message(stored: Message, key: ThreadKey, error: Exception | None = None) -> CorruptRecordError:
    # Not the error's text: it quotes what it could not read.
    reason = f" ({type(error).__name__})" if error is not None else ""
    return CorruptRecordError(
        f"The record at position {stored.seq} of {key} is not a message of Agent Framework that this release reads"
        f"{reason}: its format is {stored.format!r}."
    )


def _links(value: Mapping[str, object]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The tool calls that a row makes and answers, as its view has them."""
    calls: list[str] = []
    results: list[str] = []
    for content in cast(list[Json], value["contents"]):
        kind, call_id = content.get("type"), content.get("call_id")
        if kind in _LINKLESS:
            continue
        if kind == "function_call" and call_id:
            calls.append(str(call_id))
        elif kind == "function_result" and call_id:
            results.append(str(call_id))
        else:
            seen = view_of(value, FORMAT)
            return tuple(call.id for call in seen.calls), tuple(result.id for result in seen.results)
    return tuple(calls), tuple(results)


def _is_plain(values: Any) -> bool:
    return all(type(value) in _PLAIN for value in values)
