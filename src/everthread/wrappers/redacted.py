"""`Redacted`: what must not be kept is taken out before anything is stored.

The hook sees texts, not messages, so it knows nothing of any framework's format, and what it leaves as it is stays
as it was, byte for byte.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Unpack, cast

import msgspec

from everthread._arguments import (
    check_document,
    checked_changes,
    checked_key,
    checked_metadata,
    checked_title,
    checked_turn,
)
from everthread.codec import decode, encode
from everthread.contract import (
    Store,
    SupportsCompaction,
    SupportsDiagnosis,
    SupportsImport,
    SupportsReconciling,
    SupportsRewrite,
    SupportsSealing,
    SupportsSearch,
    SupportsShredding,
)
from everthread.errors import ConfigurationError, InvalidMessageError
from everthread.model import MAX_SEQ, Appended, Document, NewMessage, Rewrite, Thread, ThreadKey
from everthread.wrappers._forwarding import AppendOptions, ForwardingStore, ThreadChanges

Hook = Callable[[str], str]
"""Given a text, what is to be stored in its place: the same text where there is nothing to hide."""

# In JSON a quotation mark begins or ends a text, unless it is escaped; a number stands outside of texts.
_TEXT_OR_NUMBER = re.compile(r'"[^"\\]*(?:\\.[^"\\]*)*"|-?[0-9][0-9.eE+-]*')


class Redacted(ForwardingStore):
    """A store in which nothing is written before a hook has seen it.

        store = Redacted(open_store("sqlite:///threads.db"), lambda text: CARD.sub("<card>", text))

    The hook gets every text and every number (as text) of messages, documents, titles and metadata, names in JSON
    objects and the ids of tool calls included. A number that it changes becomes a text. It is not given thread ids,
    tenants, append ids or names of documents. It runs in the caller's task, so it should be quick, and it must give
    the same for the same text, or a tool's result no longer fits its call.

    What was stored before is not changed, and what is read is not looked at.

    Args:
        inner: Where the rest is kept; this store takes it over.
        hook: See `Hook`. If it raises, nothing is stored and `InvalidMessageError` says so without content.
    """

    carries = frozenset(
        {
            SupportsCompaction,
            SupportsDiagnosis,
            SupportsImport,
            SupportsReconciling,
            SupportsRewrite,
            SupportsSealing,
            SupportsSearch,
            SupportsShredding,
        }
    )

    def __init__(self, inner: Store, hook: Hook) -> None:
        if not callable(hook):
            raise ConfigurationError("The hook of a Redacted store is a function that takes a text and gives one.")
        super().__init__(inner)
        self._hook = hook

    async def append(
        self, key: ThreadKey, messages: Sequence[NewMessage], **options: Unpack[AppendOptions]
    ) -> Appended:
        turn = checked_turn(checked_key(key), messages, MAX_SEQ)
        options["default_title"] = self._title(options.get("default_title"))
        return await super().append(key, [self._message(message) for message in turn], **options)

    async def update_thread(self, key: ThreadKey, **changes: Unpack[ThreadChanges]) -> Thread:
        encoded = checked_metadata(changes.get("metadata"))
        changes["metadata"] = None if encoded is None else _object(self._json(encoded))
        changes["title"] = self._title(changes.get("title"))
        return await super().update_thread(key, **changes)

    async def put_document(
        self, key: ThreadKey, name: str, value: bytes, *, expected_revision: int | None = None
    ) -> Document:
        check_document(value)
        return await super().put_document(key, name, self._json(value), expected_revision=expected_revision)

    async def rewrite(self, key: ThreadKey, changes: Sequence[Rewrite]) -> int:
        """As `SupportsRewrite` says; what is put in the place of another payload goes through the hook first."""
        checked = checked_changes(checked_key(key), changes, MAX_SEQ)
        redacted = [msgspec.structs.replace(change, new=self._json(change.new)) for change in checked]
        return await super().rewrite(key, redacted)

    def _title(self, title: str | None) -> str | None:
        checked = checked_title(title)
        return None if checked is None else self._text(checked)

    def _message(self, message: NewMessage) -> NewMessage:
        return msgspec.structs.replace(
            message,
            payload=self._json(message.payload),
            calls=tuple(map(self._text, message.calls)),
            results=tuple(map(self._text, message.results)),
        )

    def _json(self, data: bytes) -> bytes:
        # Texts are replaced where they stand, so that spaces, numbers and names given twice stay as they were.
        return _TEXT_OR_NUMBER.sub(self._token, data.decode()).encode()

    def _token(self, found: re.Match[str]) -> str:
        token = found[0]
        text: str = json.loads(token, strict=False) if token.startswith('"') else token
        redacted = self._text(text)
        return token if redacted == text else encode(redacted).decode()

    def _text(self, text: str) -> str:
        try:
            redacted = self._hook(text)
        except Exception as error:
            # Without the hook's own words or a cause: both may quote what was to be hidden.
            raise InvalidMessageError(
                f"The redaction hook failed ({type(error).__name__}); nothing was stored."
            ) from None
        if not isinstance(redacted, str):
            raise InvalidMessageError(
                f"The redaction hook gave {type(redacted).__name__}, not text; nothing was stored."
            )
        return redacted


def _object(data: bytes) -> Mapping[str, object]:
    return cast(Mapping[str, object], decode(data))
