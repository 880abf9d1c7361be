"""Messages of Agent Framework's betas ↔ stored messages.

The betas' own ``to_dict`` is most of the cost of a turn, so plain messages are written directly. The result equals
its own (property tests, on each supported release); messages that are not plain go through it. Rows of other
generations are converted before they are read.

Written rows differ from ``to_dict`` in one case: a tool's result that it drops silently, whole or in part
(tuples, models, dates), is stored as text, because model services refuse a thread in which a call has no result.
"""

from __future__ import annotations

import inspect
import json
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from functools import cache
from typing import Any, cast, get_args

from everthread._extras import import_extra
from everthread.adapters.agent_framework.stored_rows import FORMAT, row_of
from everthread.adapters.storable import Makers
from everthread.errors import CorruptRecordError, InvalidMessageError, UnsupportedError
from everthread.messages.codec import as_list, as_object, decode_as_text, encode, view_of
from everthread.messages.converting.generations import KEPT, Json, to_beta, to_current
from everthread.messages.formats import agent_framework as rows
from everthread.messages.strict_json import check_json
from everthread.model import Message, NewMessage, ThreadKey

_PLAIN = frozenset({str, int, float, bool, type(None), list, dict})
_SCALARS = frozenset({str, int, float, bool})
_HIDDEN = frozenset({"raw_representation", "additional_properties"})
# The constructors of these classes store their arguments unchanged; the others check or convert them.
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
_TEXTS = frozenset({str, type(None)})
_LINKLESS = frozenset({"text", "text_reasoning", "data", "uri", "error", "usage", "hosted_file", "hosted_vector_store"})


_JSON_TYPES = (str, int, float, dict, list, tuple, type(None))


@cache
def message_codec() -> MessageCodec:
    """Return the codec for the installed beta.

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


class MessageCodec(ABC):
    """Convert between one release's message objects and stored messages.

    Args:
        framework: The package.
        message: The class of messages.
        role: The class of roles, or ``str``.
        contents: The classes of contents for which ``to_dict`` writes the attributes.

    Attributes:
        makers: Functions that make messages and contents of the release.
    """

    def __init__(self, framework: Any, message: Any, role: Any, contents: Iterable[Any]) -> None:
        # The first betas have no such function.
        self._results_as_text: Any = getattr(framework._types, "prepare_function_call_results", json.dumps)
        self._message = message
        self._role = role
        self._contents = frozenset(contents)
        self._type = rows.CURRENT_TYPE if role is str else rows.BETA_TYPE
        text, result = self._content_makers(framework)
        self.makers = Makers(self.encode, message, text, result)

    def _content_makers(self, framework: Any) -> tuple[Any, Any]:
        """Return the functions that make a text and a tool's result."""
        return framework.Content.from_text, framework.Content.from_function_result

    @abstractmethod
    def decode(self, stored: Message, key: ThreadKey) -> Any:
        """Return the framework's message object for a stored row of any generation.

        Raises:
            CorruptRecordError: The row is not a message of Agent Framework; names thread and position.
        """

    def encode(self, message: Any) -> NewMessage:
        """Return a message to append, written without ``to_dict`` if it is a usual one.

        Raises:
            InvalidMessageError: It is no message of the framework, or has no JSON form that comes back equal.
        """
        if not isinstance(message, self._message):
            raise InvalidMessageError(f"A {self._message.__name__} is stored here, not a {type(message).__name__}.")
        try:
            value = self._direct_fields(message) if self._is_usual(message) else self._checked_fields(message)
            calls, results = _links(value)
        except (AttributeError, TypeError, ValueError) as error:
            if isinstance(error, InvalidMessageError):
                raise
            raise InvalidMessageError(f"The message has no JSON form: {type(error).__name__}.") from None
        return NewMessage(encode(value), FORMAT, calls, results)

    def _is_usual(self, message: Any) -> bool:
        role = message.role
        return (
            type(message) is self._message
            and type(role) is self._role
            and type(getattr(role, "value", role)) is str
            and message.__dict__.keys() <= _MESSAGE_ATTRIBUTES
            and _is_plain(message.additional_properties.values())
            and all(type(content) in self._contents for content in message.contents)
        )

    def _checked_fields(self, message: Any) -> Json:
        check_json(message.additional_properties, "additional_properties")
        value = self._framework_fields(message)
        if message.additional_properties:
            # They are JSON, and the framework would drop tuples from them.
            value["additional_properties"] = message.additional_properties
        if not _has_role(value):
            raise InvalidMessageError("The message has no role.")
        return value

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
        for content in message.contents:
            _check_kept(content)
        return message.to_dict()

    @abstractmethod
    def _content_fields(self, content: Any) -> Json: ...

    def _as_text(self, result: Any) -> str:
        try:
            return self._results_as_text(result)
        except (TypeError, ValueError):
            return str(result)


class _ClassCodec(MessageCodec):
    """The betas with a class for each content (1.0.0b251001 … b260107)."""

    def __init__(self, framework: Any) -> None:
        classes = {kind: getattr(framework, name) for kind, name in _CLASSES.items()}
        super().__init__(framework, framework.ChatMessage, framework.Role, classes.values())
        self._required = {classes[kind]: _required(classes[kind]) for kind in _VERBATIM}

    def _content_makers(self, framework: Any) -> tuple[Any, Any]:
        return framework.TextContent, framework.FunctionResultContent

    def _framework_fields(self, message: Any) -> Json:
        value = super()._framework_fields(message)
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
                if value is None and name in self._required.get(type(content), ()):
                    raise InvalidMessageError(f"A content of type {content.type!r} has no {name}.")
            elif (kind is dict and _is_plain(value.values())) or (kind is list and _is_plain(value)):
                fields[name] = value
            else:
                _check_kept(content)
                return self._with_result(content.to_dict(), content)
        _check_texts(fields)
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

    def decode(self, stored: Message, key: ThreadKey) -> Any:
        value = _row(stored, key)
        try:
            return self._message.from_dict(value if _is_plain_row(value) else to_beta(value))
        except (TypeError, ValueError, AttributeError) as error:
            raise _not_a_message(stored, key, error) from None


class _UnifiedCodec(MessageCodec):
    """The betas with one class for all contents: 1.0.0b260114 … b260130, and as of b260210 with plain roles."""

    def __init__(self, framework: Any) -> None:
        is_older = hasattr(framework, "ChatMessage")
        message = framework.ChatMessage if is_older else framework.Message
        super().__init__(framework, message, framework.Role if is_older else str, [framework.Content])
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
                _check_kept(content)
                return self._written(content)
        _check_texts(fields)
        return fields if fields.keys() <= self._fields else content.to_dict()

    def _framework_fields(self, message: Any) -> Json:
        value = super()._framework_fields(message)
        value["contents"] = [self._written(content) for content in message.contents]
        return value

    def _written(self, content: Any) -> Json:
        fields: Json = content.to_dict()
        # The framework leaves a tool's result unchanged, also one that has no JSON form.
        if not isinstance(fields.get("result"), _JSON_TYPES):
            fields["result"] = self._as_text(fields["result"])
        return fields

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
        """Return the row without later fields, which this release's constructors refuse. Keep the whole row as well."""
        current = to_current(value)
        known = [c for c in map(as_object, as_list(current["contents"])) if c.get("type") in self._kinds]
        contents = [{name: field for name, field in content.items() if name in self._fields} for content in known]
        fitted: Json = {**current, "contents": contents, "type": self._type}
        if contents != current["contents"]:
            fitted["raw_representation"] = {KEPT: value}
        return fitted


def _required(content_class: Any) -> frozenset[str]:
    """Return the names of the constructor's parameters that have no default."""
    parameters = inspect.signature(content_class.__init__).parameters.values()
    kinds = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    return frozenset(p.name for p in parameters if p.default is p.empty and p.kind in kinds) - {"self"}


def _is_plain_row(value: Json) -> bool:
    """Return whether a row is one of this generation that needs no conversion."""
    return value["type"] == rows.BETA_TYPE and all(
        type(content) is dict and content.get("type") in _VERBATIM for content in cast(list[Any], value["contents"])
    )


def _check_kept(content: Any) -> None:
    """Refuse values that the framework would silently drop, except in results, which are stored as text."""
    _check_texts(content.__dict__)
    for name in ("additional_properties", "arguments"):
        check_json(getattr(content, name, None), name)
    call = getattr(content, "function_call", None)
    if call is not None:
        _check_kept(call)


def _check_texts(fields: Mapping[str, object]) -> None:
    """Refuse texts and ids that are not text: the framework raises later for them."""
    for name in ("text", "call_id"):
        if type(fields.get(name)) not in _TEXTS:
            raise InvalidMessageError(f"The {name} of a content is no text.")


def _row(stored: Message, key: ThreadKey) -> Json:
    try:
        row = row_of(decode_as_text(stored, key), stored.format)
    except ValueError as error:
        raise _not_a_message(stored, key, error) from None
    if not isinstance(row["contents"], list) or not _has_role(row):
        raise _not_a_message(stored, key)
    return row


def _has_role(value: Json) -> bool:
    role = value.get("role")
    return isinstance(role, str) or isinstance(as_object(role).get("value"), str)


def _not_a_message(stored: Message, key: ThreadKey, error: Exception | None = None) -> CorruptRecordError:
    # Not the error's text: it quotes the record.
    reason = f" ({type(error).__name__})" if error is not None else ""
    return CorruptRecordError(
        f"The record at position {stored.seq} of {key} is not a message of Agent Framework that this release reads"
        f"{reason}: its format is {stored.format!r}."
    )


def _links(value: Mapping[str, object]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the ids of the tool calls that a row makes and answers, as its view has them."""
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
