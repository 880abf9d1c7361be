"""The JSON of a workflow checkpoint: values that JSON lacks are pickled, and only data types are unpickled.

The form is that of Agent Framework's own storages: a pickle in base64 and its type. Its workflows need it, because
messages between executors are objects. A pickle can call any function that the reader lets it find. Here it finds only
the types of `is_data_type` and those that the application names, also with releases of the framework that allow
more. See docs/decisions/0016-records-beside-a-thread-and-unpickled-data.md.
"""

from __future__ import annotations

import base64
import dataclasses
import io
import json
import math
import pickle
from collections.abc import Iterable, Mapping
from enum import Enum
from typing import Any, cast

from agent_framework import Content, Message, WorkflowCheckpointException
from agent_framework._serialization import SerializationMixin
from agent_framework._workflows import _checkpoint_encoding

from everthread.errors import ConfigurationError

_PICKLED, _TYPE = "__pickled__", "__type__"

# Types of the standard library that are data. Not among them are `getattr` and `type`, which lead to any function.
_STANDARD = frozenset(
    {
        *(
            f"builtins:{name}"
            for name in ("bool", "bytearray", "bytes", "complex", "dict", "float", "frozenset", "int")
        ),
        *(f"builtins:{name}" for name in ("list", "range", "set", "slice", "str", "tuple")),
        *(f"collections:{name}" for name in ("Counter", "OrderedDict", "defaultdict", "deque")),
        *(f"datetime:{name}" for name in ("date", "datetime", "time", "timedelta", "timezone")),
        "decimal:Decimal",
        # A request to a person names the type of the answer, such as list[Message] or dict[str, Any].
        "types:GenericAlias",
        "typing:Any",
        "uuid:UUID",
    }
)
_OPENAI = "openai.types."
_FRAMEWORK = ("agent_framework.", "agent_framework_orchestrations.")
_FRAMEWORK_DATA = frozenset(
    {
        "agent_framework._sessions:AgentSession",
        "agent_framework._workflows._events:WorkflowEvent",
        "agent_framework_orchestrations._magentic:MagenticResetSignal",
    }
)


def type_keys(types: Iterable[type | str]) -> frozenset[str]:
    """Return the ``module:qualname`` of each type.

    Raises:
        ConfigurationError: One is neither a class nor such a text.
    """
    keys: list[str] = []
    for each in types:
        key = _key_of(each) if isinstance(each, type) else each
        if not isinstance(key, str) or key.count(":") != 1:
            raise ConfigurationError(f"An allowed type is a class or a text 'module:qualname', not {each!r}.")
        keys.append(key)
    return frozenset(keys)


def encode_values(value: Mapping[str, Any], allowed: frozenset[str]) -> bytes:
    """Return the fields of a checkpoint as strict JSON.

    Raises:
        WorkflowCheckpointException: A value cannot be pickled, or `decode_values` would refuse it.
    """
    try:
        data = json.dumps(_encoded(dict(value)), ensure_ascii=False, separators=(",", ":")).encode()
    except Exception as error:
        # Pickling runs code of the application, which may raise anything.
        raise WorkflowCheckpointException(
            f"The checkpoint holds a value that cannot be stored ({type(error).__name__})."
        ) from error
    decode_values(data, allowed)
    return data


def decode_values(data: bytes, allowed: frozenset[str]) -> dict[str, Any]:
    """Return the fields of a checkpoint: new objects.

    Raises:
        WorkflowCheckpointException: A pickle needs a type that is not allowed, or the data is damaged.
    """
    try:
        value = _decoded(json.loads(data), allowed | _registered_types())
    except WorkflowCheckpointException:
        raise
    except Exception as error:
        raise WorkflowCheckpointException(f"The checkpoint cannot be decoded ({type(error).__name__}).") from error
    if not isinstance(value, dict):
        raise WorkflowCheckpointException("The record is no checkpoint.")
    return cast(dict[str, Any], value)


def is_data_type(found: object) -> bool:
    """Return whether an object of the framework or of the OpenAI SDK is a type that only holds data.

    These are dataclasses, enumerations, Pydantic models, contents, messages and responses. Others, such as a file
    store, act when they are made.
    """
    if not isinstance(found, type):
        return False
    kind = cast(type[object], found)
    is_model = dataclasses.is_dataclass(kind) or issubclass(kind, Enum) or hasattr(kind, "model_fields")
    if kind.__module__.startswith(_FRAMEWORK):
        is_message = issubclass(kind, SerializationMixin | Content) and kind.__module__ == Message.__module__
        return is_model or is_message or _key_of(kind) in _FRAMEWORK_DATA
    return is_model and kind.__module__.startswith(_OPENAI)


class _DataUnpickler(pickle.Unpickler):
    def __init__(self, data: bytes, allowed: frozenset[str]) -> None:
        super().__init__(io.BytesIO(data))
        self._allowed = allowed

    def find_class(self, module_name: str, global_name: str, /) -> Any:
        key = f"{module_name}:{global_name}"
        is_known = key in _STANDARD or key in self._allowed
        if is_known or (module_name.startswith((*_FRAMEWORK, _OPENAI)) and "." not in global_name):
            found = super().find_class(module_name, global_name)
            # A module also holds functions, and types that it imported from elsewhere.
            if (isinstance(found, type) and is_known) or is_data_type(found):
                return found
        raise WorkflowCheckpointException(
            f"A value of the checkpoint needs {key!r}, which is not allowed. If your workflow stores such values, add "
            f"{key!r} to allowed_types."
        )


def _registered_types() -> frozenset[str]:
    """Return the types of ``register_checkpoint_type``, which early releases of 1.x lack."""
    return frozenset(getattr(_checkpoint_encoding, "_REGISTERED_CHECKPOINT_TYPE_KEYS", ()))


def _encoded(value: object) -> object:
    kind = type(value)
    if kind is list:
        return [_encoded(item) for item in cast(list[object], value)]
    if kind is dict:
        items = cast(dict[object, object], value)
        if not {_PICKLED, _TYPE} & items.keys() and all(type(key) is str and _is_text(key) for key in items):
            return {key: _encoded(item) for key, item in items.items()}
    return value if _is_plain(value) else _pickled(value)


def _pickled(value: object) -> dict[str, str]:
    return {_PICKLED: base64.b64encode(pickle.dumps(value, protocol=5)).decode(), _TYPE: _type_of(value)}


def _is_plain(value: object) -> bool:
    """Return whether strict JSON returns a scalar with its type, which it does not for subclasses of str and int."""
    if type(value) is str:
        return _is_text(value)
    return type(value) in {int, bool, type(None)} or (type(value) is float and math.isfinite(value))


def _is_text(value: str) -> bool:
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def _decoded(tree: Any, allowed: frozenset[str]) -> Any:
    if isinstance(tree, list):
        return [_decoded(item, allowed) for item in cast(list[Any], tree)]
    if not isinstance(tree, dict):
        return tree
    values = cast(dict[str, Any], tree)
    if _PICKLED not in values or _TYPE not in values:
        return {name: _decoded(item, allowed) for name, item in values.items()}
    found = _DataUnpickler(base64.b64decode(values[_PICKLED], validate=True), allowed).load()
    if _type_of(found) != values[_TYPE]:
        raise WorkflowCheckpointException(f"A value of the checkpoint is not of its type {values[_TYPE]!r}.")
    return found


def _type_of(value: object) -> str:
    return _key_of(type(value))


def _key_of(kind: type[Any]) -> str:
    return f"{kind.__module__}:{kind.__qualname__}"
