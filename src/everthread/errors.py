"""Every exception that everthread raises.

    EverthreadError
    ├ ConfigurationError       bad URL, setting or argument, missing extra (names the install command); also ValueError
    ├ InvalidIdentifierError   also ValueError
    ├ InvalidMessageError      also ValueError: cannot be stored losslessly
    ├ ThreadNotFoundError      also LookupError
    ├ ConflictError            carries the actual position or revision
    ├ LimitExceededError       gives size and limit
    ├ UnsupportedError         this engine lacks the capability
    ├ SchemaError              the data is of a newer or older version: says what to run
    ├ CorruptRecordError       says where
    ├ SummaryError             a model gave no summary; nothing was changed
    ├ EncryptionKeyError       a key is missing, wrong or destroyed
    └ StoreUnavailableError    transient; safe to try again
       └ OutcomeUnknownError   the write may have landed: send it again with the same append_id

A message says what failed, on which thread, and what to do next. It never holds message content
or credentials. Driver exceptions do not escape; they are the ``__cause__`` only where they are
known to hold no secret.
"""

from __future__ import annotations


class EverthreadError(Exception):
    """The base of all errors raised here."""


class ConfigurationError(EverthreadError, ValueError):
    """A URL, setting or argument is wrong, or an optional dependency is not installed."""


class InvalidIdentifierError(EverthreadError, ValueError):
    """A thread id, tenant or name is empty, too long, not text, or not encodable as UTF-8."""


class InvalidMessageError(EverthreadError, ValueError):
    """A message cannot be stored so that it comes back equal; nothing was written."""


class ThreadNotFoundError(EverthreadError, LookupError):
    """A change was asked of a thread that does not exist."""


class ConflictError(EverthreadError):
    """Somebody else wrote first; nothing was written.

    Attributes:
        actual: The thread's next position (for ``expected_seq``) or the record's revision
            (for ``expected_revision``) as the store has it now.
    """

    def __init__(self, message: str, actual: int) -> None:
        super().__init__(message, actual)
        self.actual = actual

    def __str__(self) -> str:
        return str(self.args[0])


class LimitExceededError(EverthreadError):
    """Something is larger than the engine or its settings allow; nothing was written.

    Attributes:
        size: What was asked for, in bytes or pieces as the message says.
        limit: The most that is allowed, in the same unit.
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


class CorruptRecordError(EverthreadError):
    """A stored record cannot be decoded. It is never skipped in silence."""


class EncryptionKeyError(EverthreadError):
    """A key that is needed to read or write is missing, wrong or destroyed; says which, never what it is."""


class SummaryError(EverthreadError):
    """A model gave no summary of a thread; nothing was changed."""


class StoreUnavailableError(EverthreadError):
    """The store could not be reached or did not answer; nothing was written, try again."""


class OutcomeUnknownError(StoreUnavailableError):
    """The connection broke after a write was sent: it may have landed.

    Send it again with the same ``append_id``; it takes effect once.
    """
