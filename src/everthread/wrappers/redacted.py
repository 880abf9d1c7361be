"""`Redacted`: removes private data before it is stored.

The hook gets texts, not messages, so it is independent of any framework's format. Texts that it does not change stay
unchanged, byte for byte.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Unpack, cast

import msgspec

from everthread._validation import (
    check_document,
    checked_changes,
    checked_key,
    checked_metadata,
    checked_title,
    checked_turn,
)
from everthread.capabilities import (
    SupportsCompaction,
    SupportsDiagnosis,
    SupportsImport,
    SupportsReconciling,
    SupportsRewrite,
    SupportsSealing,
    SupportsSearch,
    SupportsTenantList,
)
from everthread.contract import Store
from everthread.errors import ConfigurationError, InvalidMessageError
from everthread.messages.codec import decode, encode
from everthread.messages.strict_json import as_strict
from everthread.model import MAX_SEQ, Appended, Document, NewMessage, Rewrite, Thread, ThreadKey
from everthread.wrappers.forwarding import AppendOptions, ForwardingStore, ThreadChanges

Hook = Callable[[str], str]
"""Return the text to store in place of the given one: the same text if there is nothing to hide."""

# A text that escapes characters as JSON does.
_ESCAPES = re.compile(r"(?:\\u[0-9a-fA-F]{4})+")

# In JSON a quotation mark begins or ends a text, unless it is escaped; a number stands outside of texts.
_TEXT_OR_NUMBER = re.compile(r'"[^"\\]*(?:\\.[^"\\]*)*"|-?[0-9][0-9.eE+-]*')


class Redacted(ForwardingStore):
    """A store that passes all content through a hook before it is written.

        store = Redacted(open_store("sqlite:///threads.db"), lambda text: CARD.sub("<card>", text))

    The hook gets every text and every number (as text) of messages, documents, titles and metadata, names in JSON
    objects and the ids of tool calls included. A number that it changes becomes a text. It does not get thread ids,
    tenants, append ids, or names of documents and formats. It runs in the caller's task, so it should be fast. It must
    return the same for the same text, or a tool's result no longer has the id of its call.

    It gets texts without JSON's escapes. If a text is JSON itself, such as the arguments of a tool call, the hook gets
    the texts within it at any depth, then the whole; it stays JSON. Text in other encodings (Base64, such as an image;
    URL-encoded; compressed) is passed unchanged.

    Stored records do not change, and reads do not call the hook.

    Args:
        inner: The store of the redacted records; this store closes it.
        hook: See `Hook`. If it raises, nothing is stored and `InvalidMessageError` says so without content.
    """

    carries = frozenset(
        {
            SupportsTenantList,
            SupportsCompaction,
            SupportsDiagnosis,
            SupportsImport,
            SupportsReconciling,
            SupportsRewrite,
            SupportsSealing,
            SupportsSearch,
            SupportsSealing,
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

    async def check_append(self, key: ThreadKey, messages: Sequence[NewMessage]) -> None:
        turn = checked_turn(checked_key(key), messages, MAX_SEQ)
        await super().check_append(key, [self._message(message) for message in turn])

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
        """Replace payloads as `SupportsRewrite` does; new payloads go through the hook first."""
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
        # Texts are replaced in place, so that spaces, numbers and duplicate names stay unchanged.
        return _TEXT_OR_NUMBER.sub(self._token, data.decode()).encode()

    def _token(self, found: re.Match[str]) -> str:
        token = found[0]
        text: str = json.loads(token, strict=False) if token.startswith('"') else token
        redacted = self._text(text)
        return token if redacted == text else encode(redacted).decode()

    def _text(self, text: str) -> str:
        if _is_json(text):
            return self._json_text(text)
        redacted = self._hooked(text)
        # JSON within other text, or cut off.
        plain = _ESCAPES.sub(_unescaped, redacted)
        if plain == redacted:
            return redacted
        seen = self._hooked(plain)
        return redacted if seen == plain else seen

    def _json_text(self, text: str) -> str:
        """Redact JSON that is kept as a text, such as a tool's arguments, so that it stays JSON."""
        inner = _TEXT_OR_NUMBER.sub(self._token, text)
        whole = self._hooked(inner)
        return whole if whole == inner or _is_json(whole) else encode(whole).decode()

    def _hooked(self, text: str) -> str:
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


def _unescaped(found: re.Match[str]) -> str:
    return str(as_strict(json.loads(f'"{found[0]}"')))


def _is_json(text: str) -> bool:
    """Return whether a text holds a JSON object, array or text, in which escapes may hide characters."""
    if text.lstrip()[:1] not in {"{", "[", '"'}:
        return False
    try:
        json.loads(text, strict=False)
    except (ValueError, RecursionError):
        return False
    return True


def _object(data: bytes) -> Mapping[str, object]:
    return cast(Mapping[str, object], decode(data))
