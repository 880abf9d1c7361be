"""Durable conversation storage for AI agents.

    async with open_store("sqlite:///threads.db") as store:
        await store.append(ThreadKey("trip-to-rome"), [new_message({"role": "user", "content": "Hello"})])

The guarantees are in `everthread.contract`, the errors in `everthread.errors`.
"""

from everthread.capabilities import SupportsRewrite, SupportsSearch, capability
from everthread.contract import Store, read_all
from everthread.errors import (
    ConfigurationError,
    ConflictError,
    CorruptRecordError,
    EncryptionKeyError,
    EverthreadError,
    InvalidIdentifierError,
    InvalidMessageError,
    LimitExceededError,
    OutcomeUnknownError,
    SchemaError,
    StoreUnavailableError,
    ThreadNotFoundError,
    UnsupportedError,
)
from everthread.messages.codec import View, new_message, view
from everthread.model import (
    Appended,
    Document,
    Message,
    MessagePage,
    NewMessage,
    Page,
    Retention,
    Rewrite,
    SearchHit,
    Thread,
    ThreadKey,
    Truncated,
)
from everthread.opening import open_store

__version__ = "0.1.0"

__all__ = [
    "Appended",
    "ConfigurationError",
    "ConflictError",
    "CorruptRecordError",
    "Document",
    "EncryptionKeyError",
    "EverthreadError",
    "InvalidIdentifierError",
    "InvalidMessageError",
    "LimitExceededError",
    "Message",
    "MessagePage",
    "NewMessage",
    "OutcomeUnknownError",
    "Page",
    "Retention",
    "Rewrite",
    "SchemaError",
    "SearchHit",
    "Store",
    "StoreUnavailableError",
    "SupportsRewrite",
    "SupportsSearch",
    "Thread",
    "ThreadKey",
    "ThreadNotFoundError",
    "Truncated",
    "UnsupportedError",
    "View",
    "capability",
    "new_message",
    "open_store",
    "read_all",
    "view",
]
