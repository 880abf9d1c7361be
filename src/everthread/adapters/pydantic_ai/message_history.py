"""The message history of Pydantic AI on any store, for releases and programs that pass ``message_history``."""

from __future__ import annotations

from collections.abc import Sequence

from pydantic_ai.messages import ModelMessage

from everthread.adapters.pydantic_ai import messages as framework
from everthread.adapters.pydantic_ai.marks import FORMAT, mark_of
from everthread.adapters.retrying import append_with_retries, retried
from everthread.adapters.using_store import UsesStore
from everthread.contract import Store, read_all
from everthread.messages import codec
from everthread.model import Message, Retention, ThreadKey, check_count, check_identifier


class EverthreadMessageHistory(UsesStore):
    """Message histories of Pydantic AI that outlive the process: one thread each.

        history = EverthreadMessageHistory("redis://localhost:6379/0")
        result = await agent.run("Hello", message_history=await history.load("trip"))
        await history.append("trip", result.new_messages())

    Use `EverthreadConversationStore` with releases that have ``pydantic_ai.conversation_store``: it also stores usage
    and deferred tool requests. It continues threads that this class stored.

    Args:
        store: A `Store`, which stays the caller's to close and works in one event loop, or the URL of one, which works
            in every loop: each loop connects at its first use, until it ends or `aclose` (or ``async with``) closes it.
        tenant: The owner of the threads.
        retention: Applies to the appends of this object instead of the retention of the thread and of the store.

    Raises:
        ConfigurationError: A URL of an unknown scheme or with a wrong option, or another object as the store.
        InvalidIdentifierError: The tenant is too long or not text.
    """

    def __init__(self, store: Store | str, *, tenant: str = "", retention: Retention | None = None) -> None:
        super().__init__(store)
        self._tenant = check_identifier(tenant, "tenant", may_be_empty=True)
        self._retention = retention

    async def load(self, thread_id: str, *, limit: int | None = None) -> list[ModelMessage]:
        """Return the messages of a thread, oldest first; none for an unknown thread.

        Args:
            thread_id: The thread.
            limit: At most this number of the newest messages. Fewer are returned if the first ones are results
                without their calls.

        Raises:
            CorruptRecordError: A record cannot be decoded.
            UnsupportedError: A message has another format.
            StoreUnavailableError: The store did not answer, also when tried again.
        """
        check_count(limit, "limit", optional=True)
        key = ThreadKey(thread_id, self._tenant)
        if limit is None:
            stored = [message async for message in read_all(self._store, key)]
        else:
            stored = list((await retried(lambda: self._store.read_last(key, limit))).messages)
        # A conversation store adds messages of nothing but a record.
        said = [each for each in stored if not _is_record(each, key)]
        return framework.decode(said[_safe_start(said, key) :], key)

    async def append(
        self,
        thread_id: str,
        messages: Sequence[ModelMessage],
        *,
        append_id: str | None = None,
        expected_seq: int | None = None,
    ) -> None:
        """Store the new messages of a run after the others. Readers see all of them at once.

        Args:
            thread_id: The thread; it is created if it does not exist.
            messages: ``result.new_messages()``. Nothing is stored if there are none.
            append_id: Makes the call safe to repeat, such as the ID of the request that the run answers.
            expected_seq: Store them only if the thread's next position is this, and raise `ConflictError` otherwise.

        Raises:
            InvalidMessageError: The framework has no JSON for a part of a message.
            LimitExceededError: The messages are larger than the store takes in one append.
            OutcomeUnknownError: The messages may be stored, also when tried again.
            StoreUnavailableError: The store did not answer, also when tried again.
        """
        if not messages:
            return
        turn = framework.new_messages(messages)
        title = codec.title_from(codec.view_of(codec.decode(each.payload), FORMAT) for each in turn)
        await append_with_retries(
            self._store,
            ThreadKey(thread_id, self._tenant),
            turn,
            append_id=append_id,
            expected_seq=expected_seq,
            retention=self._retention,
            default_title=title,
        )


def _is_record(message: Message, key: ThreadKey) -> bool:
    mark = mark_of(message, key)
    return not mark.id and (mark.state is not None or mark.erased)


def _safe_start(messages: Sequence[Message], key: ThreadKey) -> int:
    """Return the index of the first message from which on every result has its call."""
    needed: set[str] = set()
    begin = len(messages)
    for at in range(len(messages) - 1, -1, -1):
        seen = codec.view(messages[at], key)
        needed |= {result.id for result in seen.results}
        needed -= {call.id for call in seen.calls}
        if not needed:
            begin = at
    return begin
