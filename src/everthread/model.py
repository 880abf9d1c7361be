"""The value types of everthread: frozen, and validated when they are made. No I/O, no engine, no framework."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Generic, Literal, TypeVar, cast, overload

import msgspec

from everthread.errors import ConfigurationError, InvalidIdentifierError, InvalidMessageError

MAX_IDENTIFIER_BYTES = 512
"""Longest thread id, tenant, append id or document name, in bytes of UTF-8.

Object stores allow keys of 1,024 bytes and Cosmos DB ids of 1,023; escaping needs room.
"""

MAX_SEQ = 2**53 - 1
"""Highest position: the integers that Lua numbers and JSON readers keep exactly."""

_raw = msgspec.json.Decoder(msgspec.Raw)
_set = msgspec.structs.force_setattr
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

T = TypeVar("T")


def check_identifier(value: object, what: str, *, may_be_empty: bool = False) -> str:
    """Return ``value`` if it is a valid identifier.

    Raises:
        InvalidIdentifierError: Not a string, empty, longer than `MAX_IDENTIFIER_BYTES`, or with a
            lone surrogate (which has no UTF-8 form).
    """
    if not isinstance(value, str):
        raise InvalidIdentifierError(f"{what} must be a str, not {type(value).__name__}.")
    if not value and not may_be_empty:
        raise InvalidIdentifierError(f"{what} is empty: give each conversation its own id.")
    try:
        size = len(value) if value.isascii() else len(value.encode())
    except UnicodeEncodeError:
        raise InvalidIdentifierError(f"{what} holds a lone surrogate, which has no UTF-8 form.") from None
    if size > MAX_IDENTIFIER_BYTES:
        raise InvalidIdentifierError(
            f"{what} has {size:,} bytes of UTF-8; at most {MAX_IDENTIFIER_BYTES} are allowed. Hash long ids first."
        )
    return value


class ThreadKey(msgspec.Struct, frozen=True, order=True):
    """Names one thread: ``thread_id`` within ``tenant``.

    Any text is allowed, separators and control characters included; no two different keys ever
    reach the same data.

    Raises:
        InvalidIdentifierError: See `check_identifier`. An empty ``thread_id`` is refused; the empty
            ``tenant`` is the default tenant.
    """

    thread_id: str
    tenant: str = ""

    def __post_init__(self) -> None:
        check_identifier(self.thread_id, "thread_id")
        check_identifier(self.tenant, "tenant", may_be_empty=True)

    def __str__(self) -> str:
        return f"thread {self.thread_id!r}" + (f" of tenant {self.tenant!r}" if self.tenant else "")


class NewMessage(msgspec.Struct, frozen=True):
    """A message to append.

    Most callers let `everthread.messages.codec.new_message` or an adapter make it.

    Attributes:
        payload: The framework's own JSON, as UTF-8. Stored byte for byte.
        format: The name of the codec that reads the payload, such as ``"agent-framework"``.
        calls: Ids of the tool calls that this message makes.
        results: Ids of the tool calls that this message answers. With ``calls`` it shows the store
            where a thread may be cut.
        created_at: When the message was made; ``None`` takes the store's time. For imports.

    Raises:
        InvalidMessageError: The payload is not one JSON value in UTF-8, or a field is not of its type.
            ``NaN`` and ``Infinity`` are not JSON; lone surrogates (also escaped ones) are not text;
            values nested deeper than about a thousand levels are refused.
    """

    payload: bytes
    format: str = "json"
    calls: tuple[str, ...] = ()
    results: tuple[str, ...] = ()
    created_at: datetime | None = None

    def __post_init__(self) -> None:
        payload = self.payload
        if type(payload) is not bytes:
            raise InvalidMessageError(f"payload must be bytes of JSON, not {type(payload).__name__}.")
        try:
            _raw.decode(payload)
            if not payload.isascii():
                payload.decode()
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise InvalidMessageError(f"payload is not JSON in UTF-8: {_without_content(error)}") from None
        self._check_fields()

    @staticmethod
    def of_valid_json(
        payload: bytes,
        format: str,
        calls: tuple[str, ...] = (),
        results: tuple[str, ...] = (),
        created_at: datetime | None = None,
    ) -> NewMessage:
        """Return a message with a payload that the caller has just encoded or decoded; it is not parsed again.

        Raises:
            InvalidMessageError: A field other than the payload is not of its type.
        """
        # A copy is made without __post_init__.
        message = _copy()
        _set(message, "payload", payload)
        _set(message, "format", format)
        if calls or results:
            _set(message, "calls", calls)
            _set(message, "results", results)
        if created_at is not None:
            _set(message, "created_at", created_at)
        message._check_fields()
        return message

    def _check_fields(self) -> None:
        _check_text(self.format, "format")
        for ids in (self.calls, self.results):
            if type(ids) is not tuple:
                raise InvalidMessageError(f"calls and results must be tuples of ids, not {type(ids).__name__}.")
            for call_id in ids:
                _check_text(call_id, "a call id")
        if self.created_at is not None and not isinstance(self.created_at, datetime):
            raise InvalidMessageError(f"created_at must be a datetime, not {type(self.created_at).__name__}.")

    def __repr__(self) -> str:
        return f"NewMessage({len(self.payload)} bytes, format={self.format!r})"


class Message(msgspec.Struct, frozen=True, gc=False):
    """A stored message.

    Attributes:
        seq: Its position in the thread: never reused, not changed by trimming.
        payload: The bytes that were appended.
        format: The name of the codec that reads the payload.
        created_ms: When it was stored, in milliseconds since 1970; ``None`` where another program
            wrote it and the time is not known.
        turn: The position of the first message of its turn (what one append wrote).
    """

    seq: int
    payload: bytes
    format: str
    created_ms: int | None
    turn: int

    @property
    def created_at(self) -> datetime | None:
        """The time at which it was stored, in UTC."""
        return None if self.created_ms is None else from_milliseconds(self.created_ms)

    def __repr__(self) -> str:
        return f"Message(seq={self.seq}, {len(self.payload)} bytes, format={self.format!r})"


class Appended(msgspec.Struct, frozen=True):
    """The result of an append.

    Attributes:
        first_seq: Position of the turn's first message.
        next_seq: Position after the turn's last message.
        replayed: True if this ``append_id`` was stored before and this call wrote nothing.
    """

    first_seq: int
    next_seq: int
    replayed: bool = False


class Truncated(msgspec.Struct, frozen=True):
    """The result of a truncate: the number of dropped messages, and the positions that remain."""

    removed: int
    head_seq: int
    next_seq: int


class MessagePage(msgspec.Struct, frozen=True):
    """A run of messages in ascending order of position; behaves as a sequence.

    Attributes:
        messages: The requested messages.
        head_seq: The thread's oldest kept position (equal to ``next_seq`` if it keeps none).
        next_seq: The position that the thread's next message will get.
    """

    messages: tuple[Message, ...]
    head_seq: int
    next_seq: int

    def __len__(self) -> int:
        return len(self.messages)

    def __iter__(self) -> Iterator[Message]:
        return iter(self.messages)

    @overload
    def __getitem__(self, index: int) -> Message: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Message]: ...
    def __getitem__(self, index: int | slice) -> Message | Sequence[Message]:
        return self.messages[index]


class Retention(msgspec.Struct, frozen=True):
    """The limits beyond which the store deletes data, in the same atomic step as each append.

    Attributes:
        max_messages: Keep at most this number of the newest messages. Fewer are kept if a tool result would
            otherwise be at the head without its call. 0 keeps nothing.
        expire_after: Delete the whole thread this long after its last append.

    Raises:
        ConfigurationError: A negative or non-integer ``max_messages``; an ``expire_after`` of less
            than a millisecond.
    """

    max_messages: int | None = None
    expire_after: timedelta | None = None

    def __post_init__(self) -> None:
        check_count(self.max_messages, "max_messages", optional=True)
        expire = self.expire_after
        if expire is not None and (not isinstance(expire, timedelta) or expire < timedelta(milliseconds=1)):
            raise ConfigurationError("expire_after must be a timedelta of at least a millisecond.")

    @property
    def expire_ms(self) -> int | None:
        """``expire_after`` in whole milliseconds."""
        return None if self.expire_after is None else self.expire_after // timedelta(milliseconds=1)


class Thread(msgspec.Struct, frozen=True):
    """The description of a thread, without its messages.

    Attributes:
        count: The number of kept messages.
        size: The total size of their payloads in bytes.
        updated_ms: The last append or undo (activity), in milliseconds since 1970.
        revision: Counts the changes of title and metadata made by ``update_thread``.
        expires_ms: The time of the whole thread's deletion, or ``None``.
        retention: The retention set by ``update_thread``; ``None`` if the store's applies.
        damage: Names title, metadata or retention if they could not be decoded and are therefore empty; no content.
            `Store.get_thread` raises `CorruptRecordError` instead.
    """

    key: ThreadKey
    head_seq: int
    next_seq: int
    count: int
    size: int
    created_ms: int
    updated_ms: int
    title: str | None = None
    metadata: Mapping[str, object] = {}
    revision: int = 0
    expires_ms: int | None = None
    retention: Retention | None = None
    damage: str = ""

    @property
    def created_at(self) -> datetime:
        """The time of the thread's creation, in UTC."""
        return from_milliseconds(self.created_ms)

    @property
    def updated_at(self) -> datetime:
        """The time of the last activity, in UTC."""
        return from_milliseconds(self.updated_ms)

    @property
    def expires_at(self) -> datetime | None:
        """The time of the whole thread's deletion, in UTC, or ``None``."""
        return None if self.expires_ms is None else from_milliseconds(self.expires_ms)

    def __repr__(self) -> str:
        # Without title and metadata: both may quote the conversation, and reprs end up in logs.
        return f"Thread({self.key}, count={self.count}, head_seq={self.head_seq}, next_seq={self.next_seq})"


class Document(msgspec.Struct, frozen=True):
    """A small JSON value stored with a thread: a session snapshot, a summary, a checkpoint.

    Attributes:
        value: JSON as UTF-8, byte for byte as the caller put it.
        revision: 1 after the first put; each further put adds 1.
    """

    name: str
    value: bytes
    revision: int
    updated_ms: int

    def __repr__(self) -> str:
        return f"Document({self.name!r}, {len(self.value)} bytes, revision={self.revision})"


class Rewrite(msgspec.Struct, frozen=True):
    """The replacement of a payload.

    Attributes:
        seq: The message's position.
        old: The payload that the caller read.
        new: The payload that replaces it: JSON as UTF-8.
    """

    seq: int
    old: bytes
    new: bytes

    def __repr__(self) -> str:
        return f"Rewrite(seq={self.seq}, {len(self.old)} to {len(self.new)} bytes)"


class SearchHit(msgspec.Struct, frozen=True):
    """A message that a search found.

    Attributes:
        seq: Its position in the thread ``key``.
        snippet: Some of its text around the first match, on one line.
        created_ms: The time at which it was stored, in milliseconds since 1970; ``None`` if unknown.
        role: The role of its author, such as ``"user"``.
        damage: Reports a record that is not JSON and therefore has no snippet; no content.
    """

    key: ThreadKey
    seq: int
    snippet: str
    created_ms: int | None
    role: str = ""
    damage: str = ""

    def __repr__(self) -> str:
        # Without the snippet, which is content.
        return f"SearchHit({self.key}, seq={self.seq})"


class HealthCheck(msgspec.Struct, frozen=True):
    """One result of a store's health check. Contains no secret and no message content.

    Attributes:
        status: ``"ok"``; ``"warning"``: works, but see ``advice``; ``"error"``: does not work.
        advice: What to do about it.
    """

    name: str
    value: str
    status: Literal["ok", "warning", "error"] = "ok"
    advice: str = ""


class Inconsistency(msgspec.Struct, frozen=True):
    """A contradiction between two parts of a store's data.

    Attributes:
        what: A description, such as ``"threads that no listing shows"``.
        count: The number of occurrences.
        repaired: Whether they were repaired.
    """

    what: str
    count: int
    repaired: bool = False


class Page(msgspec.Struct, Generic[T], frozen=True):
    """A part of a list. Pass ``cursor`` to get the next part; ``None`` means that this was the last."""

    items: tuple[T, ...]
    cursor: str | None = None

    def __len__(self) -> int:
        return len(self.items)

    def __iter__(self) -> Iterator[T]:
        return iter(self.items)


def check_count(value: object, what: str, *, optional: bool = False, least: int = 0) -> None:
    """Check that ``value`` is a whole number from ``least`` to `MAX_SEQ` (or ``None`` if optional).

    Raises:
        ConfigurationError: It is not; the error names the value and the allowed range.
    """
    if value is None and optional:
        return
    if type(value) is not int or not least <= value <= MAX_SEQ:
        shown = value if isinstance(value, int) and abs(value) <= 2**64 else type(value).__name__
        raise ConfigurationError(f"{what} must be a whole number of at least {least}, not {shown}.")


def from_milliseconds(value: int) -> datetime:
    """Convert milliseconds since 1970 to a datetime in UTC."""
    return _EPOCH + timedelta(milliseconds=value)


def to_milliseconds(value: datetime) -> int:
    """A datetime (UTC where it names no zone) as milliseconds since 1970."""
    aware = value if value.tzinfo is not None else value.replace(tzinfo=UTC)
    return (aware - _EPOCH) // timedelta(milliseconds=1)


def _check_text(value: object, what: str) -> None:
    if type(value) is not str:
        raise InvalidMessageError(f"{what} must be a str, not {type(value).__name__}.")
    if not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError:
            raise InvalidMessageError(f"{what} holds a lone surrogate, which has no UTF-8 form.") from None


def _without_content(error: Exception) -> str:
    # A UnicodeDecodeError's text quotes bytes of the message, and content stays out of errors.
    return error.reason if isinstance(error, UnicodeDecodeError) else str(error)


# Structs have this method; the type checker does not know it.
_copy = cast("Callable[[], NewMessage]", getattr(NewMessage(b"0"), "__copy__"))  # noqa: B009
