"""Messages of Pydantic AI from stored messages, and back."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from pydantic import ValidationError
from pydantic_ai.messages import ModelMessage, ModelMessagesTypeAdapter
from pydantic_core import PydanticSerializationError

from everthread.adapters.pydantic_ai.marks import FORMAT
from everthread.errors import CorruptRecordError, InvalidMessageError, UnsupportedError
from everthread.messages import codec
from everthread.model import Message, NewMessage, ThreadKey


def encode(message: ModelMessage) -> bytes:
    """Return the framework's JSON of a message.

    Raises:
        InvalidMessageError: The framework has no JSON for a part of it.
    """
    try:
        return ModelMessagesTypeAdapter.dump_json([message])[1:-1]
    except (PydanticSerializationError, ValueError, RecursionError) as error:
        # The framework's error quotes the content.
        reason = type(error).__name__
        raise InvalidMessageError(f"The framework has no JSON for a part of the message ({reason}).") from None


def new_messages(messages: Iterable[ModelMessage]) -> list[NewMessage]:
    """Return messages to append.

    Raises:
        InvalidMessageError: The framework has no JSON for a part of one.
    """
    return [codec.new_message(encode(message), format=FORMAT) for message in messages]


def decode(messages: Sequence[Message], key: ThreadKey) -> list[ModelMessage]:
    """Return the framework's messages.

    Raises:
        CorruptRecordError: A record is not JSON, or no message that the framework reads.
        UnsupportedError: A message has another format.
    """
    for message in messages:
        check_format(message, key)
    try:
        return ModelMessagesTypeAdapter.validate_json(b"[" + b",".join(each.payload for each in messages) + b"]")
    except ValidationError:
        pass
    return [_decoded(message, key) for message in messages]


def check_format(message: Message, key: ThreadKey) -> None:
    """Raise `UnsupportedError` if a message has another format."""
    if message.format == FORMAT:
        return
    if message.format != "json" or codec.recognize(codec.decode(message, key)) != FORMAT:
        raise UnsupportedError(
            f"The message at position {message.seq} of {key} has the format {message.format!r}, not that of Pydantic "
            "AI: continue this thread with the framework that wrote it."
        )


def _decoded(message: Message, key: ThreadKey) -> ModelMessage:
    codec.decode(message, key)
    try:
        return ModelMessagesTypeAdapter.validate_json(b"[" + message.payload + b"]")[0]
    except ValidationError:
        raise CorruptRecordError(
            f"The record at position {message.seq} of {key} is no message that this release of Pydantic AI reads."
        ) from None
