"""LangChain's `BaseChatMessageHistory` on any store: one thread a history, one stored message a message."""

from __future__ import annotations

from collections.abc import Sequence

from langchain_core.chat_history import BaseChatMessageHistory
from langchain_core.messages import BaseMessage, message_to_dict, messages_from_dict

from everthread.adapters.portal import shared_portal
from everthread.adapters.retrying import append_with_retries, retried
from everthread.adapters.using_store import UsesStore
from everthread.contract import Store, read_all
from everthread.errors import CorruptRecordError, ThreadNotFoundError, UnsupportedError
from everthread.messages import codec
from everthread.model import Message, Retention, ThreadKey

FORMAT = "langchain"


class EverthreadChatMessageHistory(UsesStore, BaseChatMessageHistory):
    """The messages of a conversation for LangChain, for example in ``RunnableWithMessageHistory``.

        history = EverthreadChatMessageHistory("trip-to-rome", "sqlite:///threads.db")

    Each message is LangChain's own JSON. The messages of one call are stored together, and once. The synchronous
    methods need the URL of a store; they also work inside a running event loop, which then waits.

    Args:
        session_id: The ID of the thread.
        store: A `Store`, which stays the caller's to close and works in one event loop, or the URL of one, which works
            in every loop: each loop connects at its first use, until it ends or `aclose` (or ``async with``) closes it.
        tenant: The owner of the thread.
        retention: Applies to the messages added here instead of the retention of the thread and of the store.

    Raises:
        ConfigurationError: A URL of an unknown scheme or with a wrong option.
        InvalidIdentifierError: The session ID or the tenant is empty, too long or not text.
    """

    def __init__(
        self, session_id: str, store: Store | str, *, tenant: str = "", retention: Retention | None = None
    ) -> None:
        super().__init__(store)
        self.session_id = session_id
        self._key = ThreadKey(session_id, tenant)
        self._retention = retention

    @property
    def messages(self) -> list[BaseMessage]:  # pyright: ignore[reportIncompatibleVariableOverride]
        """All messages, oldest first. Reads them at each access."""
        return shared_portal().call(self.aget_messages)

    async def aget_messages(self) -> list[BaseMessage]:
        """Return all messages, oldest first.

        Raises:
            CorruptRecordError: A message cannot be decoded.
            UnsupportedError: Another framework stored one of the messages.
        """

        async def read() -> list[Message]:
            return [message async for message in read_all(self._store, self._key)]

        return [self._decoded(message) for message in await retried(read)]

    async def aadd_messages(self, messages: Sequence[BaseMessage]) -> None:
        """Store messages, all or none of them.

        Raises:
            InvalidMessageError: A message cannot be stored as JSON.
            LimitExceededError: A message is larger than the engine stores.
            StoreUnavailableError: The store did not answer, also when tried again.
        """
        if not messages:
            return
        values = [message_to_dict(message) for message in messages]
        title = codec.title_from(codec.view_of(value, FORMAT) for value in values)
        stored = [codec.new_message(value, format=FORMAT) for value in values]
        await append_with_retries(self._store, self._key, stored, retention=self._retention, default_title=title)

    async def aclear(self) -> None:
        """Delete all messages. The thread stays, with its title, metadata and checkpoints."""
        try:
            await retried(lambda: self._store.truncate(self._key, stop=0))
        except ThreadNotFoundError:
            return

    def add_messages(self, messages: Sequence[BaseMessage]) -> None:
        """Do the same as `aadd_messages`."""
        shared_portal().call(self.aadd_messages, messages)

    def clear(self) -> None:
        """Do the same as `aclear`."""
        shared_portal().call(self.aclear)

    def _decoded(self, message: Message) -> BaseMessage:
        where = f"the message at position {message.seq} of {self._key}"
        if message.format != FORMAT:
            raise UnsupportedError(
                f"Cannot read {where}: it has the format {message.format!r}. Fork the thread, or use another one."
            )
        try:
            (decoded,) = messages_from_dict([dict(codec.as_object(codec.decode(message.payload)))])
        except (KeyError, ValueError, TypeError):
            raise CorruptRecordError(f"Cannot decode {where}: it is no message of this LangChain release.") from None
        return decoded
