"""Store all messages of a run, also those that a store cannot hold unchanged.

The run has asked the model and carried out tools by then: refusing its messages would lose the user's message and the
answer. A text that gives the reason replaces each content that cannot be stored, and messages that are too much for one
append become several. Tool results stay linked to their calls, so that model services accept the thread.
"""

from __future__ import annotations

import copy
import json
import logging
from collections.abc import Callable, Sequence
from hashlib import sha256
from typing import Any, NamedTuple
from uuid import uuid4

from everthread.adapters.contents import contents_of, title_of, with_contents
from everthread.adapters.retrying import append_with_retries
from everthread.contract import Store
from everthread.errors import InvalidMessageError, LimitExceededError
from everthread.model import NewMessage, Retention, ThreadKey

log = logging.getLogger("everthread.agent_framework")


class Makers(NamedTuple):
    """Functions that make messages and contents of one release of a framework.

    Attributes:
        encode: Makes a message to append; raises `InvalidMessageError` if the message cannot be stored.
        message: Makes a message from ``role`` and ``contents``.
        text: Makes a content from a text.
        result: Makes a tool's result from ``call_id`` and ``result``, a text.
    """

    encode: Callable[[Any], NewMessage]
    message: Callable[..., Any]
    text: Callable[[str], Any]
    result: Callable[..., Any]


async def append_messages(
    store: Store,
    key: ThreadKey,
    messages: Sequence[Any],
    makers: Makers,
    *,
    append_id: str | None,
    retention: Retention | None,
    in_a_run: bool,
) -> None:
    """Append messages of the framework as one turn, which takes effect once in several attempts.

    In a run, a text replaces each content that cannot be stored, and messages that are too much for one append become
    several turns.

    Raises:
        InvalidMessageError: Outside a run: one is not a message, or cannot be stored losslessly.
        LimitExceededError: Outside a run: they are too large for the store.
        StoreUnavailableError: The store did not answer, also when tried again.
    """
    turn = None if in_a_run else [makers.encode(message) for message in messages]
    title = title_of(messages)
    if turn is not None:
        await append_with_retries(store, key, turn, append_id=append_id, retention=retention, default_title=title)
        return
    run_id = append_id or uuid4().hex

    async def append(start: int, stop: int) -> None:
        # Repeated appends are divided at the same places, so each part has the same id again.
        part_id = run_id if start == 0 else sha256(f"{run_id}/{start}".encode()).hexdigest()
        while True:
            part = run.messages[start:stop]
            try:
                await append_with_retries(store, key, part, append_id=part_id, retention=retention, default_title=title)
            except LimitExceededError as error:
                too_large = (start, error) if len(part) == 1 else await run.too_large(store, start, stop)
                if too_large is None:
                    break
                if not run.shrink(*too_large):
                    raise
            else:
                return
        middle = (start + stop) // 2
        await append(start, middle)
        await append(middle, stop)

    run = _StorableRun(key, messages, makers)
    await append(0, len(run.messages))


class _StorableRun:
    """The messages of a run in a form that can be stored.

    Attributes:
        messages: The encoded messages to append.
    """

    def __init__(self, key: ThreadKey, messages: Sequence[Any], makers: Makers) -> None:
        self._key = key
        self._make = makers
        self._answered = {content.call_id for content in contents_of(messages, "function_result")}
        self._replaced: set[tuple[int, int]] = set()
        self._sources = list(messages)
        self.messages = [self._encoded(at) for at in range(len(messages))]

    async def too_large(self, store: Store, start: int, stop: int) -> tuple[int, LimitExceededError] | None:
        """Return the first message that alone is too large for an append, with the store's error."""
        for at in range(start, stop):
            try:
                await store.check_append(self._key, [self.messages[at]])
            except LimitExceededError as error:
                return at, error
        return None

    def shrink(self, at: int, error: LimitExceededError) -> bool:
        """Replace the largest content of a message; return whether there was one to replace."""
        sizes = [
            (len(self._make.encode(self._alone(content)).payload), part)
            for part, content in enumerate(self._sources[at].contents)
            if (at, part) not in self._replaced
        ]
        if not sizes:
            return False
        size, part = max(sizes)
        contents = list(self._sources[at].contents)
        contents[part] = self._note(
            contents[part], f"it has {size:,} bytes, and the store takes at most {error.limit:,}."
        )
        self._replaced.add((at, part))
        self._sources[at] = with_contents(self._sources[at], contents)
        self.messages[at] = self._encoded(at)
        return True

    def _encoded(self, at: int) -> NewMessage:
        message = self._sources[at]
        try:
            return self._make.encode(message)
        except InvalidMessageError as error:
            if not hasattr(message, "contents"):
                raise
            reasons = [self._why_invalid(self._alone(content)) for content in message.contents]
            contents = [
                self._note(each, why) if why else each for each, why in zip(message.contents, reasons, strict=True)
            ]
            kept = with_contents(message, contents)
            if self._why_invalid(kept):
                # The message itself is at fault: its properties, its name or its id.
                log.warning("The properties of a message of %s are not stored: %s", self._key, error)
                kept = self._make.message(role=message.role, contents=contents)
            self._sources[at] = kept
            return self._make.encode(kept)

    def _note(self, content: Any, reason: str) -> Any:
        log.warning("A content of type %s of %s is not stored: %s", content.type, self._key, reason)
        text = f"[This content was not stored: {reason}]"
        note = self._make.text(text)
        call_id = getattr(content, "call_id", None)
        if content.type == "function_result" and call_id:
            note = self._make.result(call_id=call_id, result=text)
        elif content.type == "function_call" and call_id in self._answered and content.name:
            # A call that still waits becomes a text: it must not be carried out with other arguments.
            note = copy.copy(content)
            note.arguments, note.additional_properties = json.dumps({"not_stored": reason}), {}
        return self._make.text(text) if self._why_invalid(self._alone(note)) else note

    def _alone(self, content: Any) -> Any:
        return self._make.message(role="assistant", contents=[content])

    def _why_invalid(self, message: Any) -> str:
        try:
            self._make.encode(message)
        except InvalidMessageError as error:
            return str(error)
        return ""
