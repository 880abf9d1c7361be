"""All exceptions that everthread raises.

    EverthreadError
    ├ ConfigurationError       bad URL, setting or argument, missing extra (names the install command); also ValueError
    ├ InvalidIdentifierError   also ValueError
    ├ InvalidMessageError      also ValueError: cannot be stored losslessly
    ├ ThreadNotFoundError      also LookupError
    ├ ConflictError            carries the actual position or revision
    ├ LimitExceededError       gives size and limit
    ├ UnsupportedError         this engine lacks the capability
    ├ SchemaError              the data is of a newer or older version: says what to run
    │  └ MissingSchemaError    opened read-only, and opening it for writing would create the tables
    ├ CorruptRecordError       says where
    ├ SummaryError             a model gave no summary; nothing was changed
    ├ EncryptionKeyError       a key is missing, wrong or destroyed
    └ StoreUnavailableError    transient; safe to try again
       └ OutcomeUnknownError   the write may have landed: repeat it with the same append_id

A message says what failed, on which thread, and what to do next. It never contains message content or credentials.
Driver exceptions do not escape; they are the ``__cause__`` only if they are known to contain no secret.
"""

from __future__ import annotations


class EverthreadError(Exception):
    """The base class of all errors of everthread."""


class ConfigurationError(EverthreadError, ValueError):
    """A URL, setting or argument is wrong, or an optional dependency is not installed."""


class InvalidIdentifierError(EverthreadError, ValueError):
    """A thread id, tenant or name is empty, too long, not text, or not encodable as UTF-8."""


class InvalidMessageError(EverthreadError, ValueError):
    """A message cannot be stored so that it comes back equal; nothing was written."""


class ThreadNotFoundError(EverthreadError, LookupError):
    """A call tried to change a thread that does not exist."""


class ConflictError(EverthreadError):
    """Another writer was first; nothing was written.

    Attributes:
        actual: The thread's next position (for ``expected_seq``) or the record's revision
            (for ``expected_revision``) as the store has it now.
    """

    def __init__(self, message: str, actual: int) -> None:
        super().__init__(message, actual)
        self.actual = actual

    @classmethod
    def at_position(cls, key: object, actual: int, expected: int | None) -> ConflictError:
        """Return the error for a thread that has another next position than expected."""
        return cls(f"The next position of {key} is {actual}, not {expected}.", actual)

    @classmethod
    def at_revision(cls, what: object, actual: int, expected: int | None) -> ConflictError:
        """Return the error for a thread or document that has another revision than expected."""
        return cls(f"{what} has revision {actual}, not {expected}.", actual)

    def __str__(self) -> str:
        return str(self.args[0])


class LimitExceededError(EverthreadError):
    """A value is larger than the engine or its settings allow; nothing was written.

    Attributes:
        size: The size of the value, in the unit that the message names.
        limit: The largest allowed size, in the same unit.
    """

    def __init__(self, message: str, size: int, limit: int) -> None:
        super().__init__(message, size, limit)
        self.size = size
        self.limit = limit

    def __str__(self) -> str:
        return str(self.args[0])


class UnsupportedError(EverthreadError):
    """This engine, server or framework release lacks the capability."""


class SchemaError(EverthreadError):
    """The stored data is of a newer or older version than this release reads."""


class MissingSchemaError(SchemaError):
    """A database has no tables yet, and was opened read-only. Opening it for writing creates them."""


class CorruptRecordError(EverthreadError):
    """A stored record cannot be decoded. It is never skipped silently."""


class EncryptionKeyError(EverthreadError):
    """A required encryption key is missing, wrong or destroyed. The message has its id, never the key."""


class SummaryError(EverthreadError):
    """A model returned no summary of a thread; nothing was changed."""


class StoreUnavailableError(EverthreadError):
    """The store could not be reached or did not answer; nothing was written, try again."""


class OutcomeUnknownError(StoreUnavailableError):
    """The connection broke after a write was sent: it may have landed.

    Repeat it with the same ``append_id``: it takes effect once.
    """
