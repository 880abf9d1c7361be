"""The sessions of a source in a store: their threads, their listing and their deletion."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Self

import msgspec

from everthread._escaping import escape
from everthread.adapters.using_store import UsesStore
from everthread.errors import InvalidIdentifierError, ThreadNotFoundError
from everthread.model import Page, Thread, ThreadKey, check_count, check_identifier
from everthread.operations.summarize import SUMMARY_DOCUMENT

if TYPE_CHECKING:
    pass

COMPACTION_DOCUMENT = "everthread:compaction"
DEFAULT_SOURCE = "everthread"
MAX_LISTING_PAGES = 10
"""The number of the store's pages that one page of sessions reads, if most threads are of other sources."""


class StoredSession(msgspec.Struct, frozen=True):
    """A stored session, without its messages.

    Attributes:
        session_id: The id with which ``AgentSession(session_id=…)`` continues it.
        title: The first text of a user in its first turn, unless it was set otherwise.
        message_count: The number of stored messages.
        created_at: The time of its first turn, in UTC.
        updated_at: The time of the last activity, in UTC.
    """

    session_id: str
    title: str | None
    message_count: int
    created_at: datetime
    updated_at: datetime

    @classmethod
    def of(cls, session_id: str, thread: Thread) -> Self:
        """Return the session that a thread stores."""
        return cls(session_id, thread.title, thread.count, thread.created_at, thread.updated_at)

    def __repr__(self) -> str:
        # Without the title, which quotes the conversation: reprs end up in logs.
        return f"StoredSession({self.session_id!r}, message_count={self.message_count})"


class SessionKeys:
    """Names the threads of one source's sessions: injective, so that two sources never share a thread.

    A session of the default source is the thread of the same id, so that other programs find it. All other
    threads are named ``~{source}~{session}``. No default session has such a name: one that itself starts with ``~``
    gets another ``~`` in front, and an escaped source is never empty and never holds one.

    Args:
        source_id: The provider's ``source_id``.
        tenant: The owner of the threads.

    Raises:
        InvalidIdentifierError: ``source_id`` or ``tenant`` cannot be an identifier.
    """

    def __init__(self, source_id: str, tenant: str = "") -> None:
        check_identifier(source_id, "source_id")
        check_identifier(tenant, "tenant", may_be_empty=True)
        self.tenant = tenant
        self._prefix = "" if source_id == DEFAULT_SOURCE else f"~{escape(source_id)}~"

    def key(self, session_id: str | None) -> ThreadKey:
        """Return the key of the thread that stores a session.

        Raises:
            InvalidIdentifierError: The session id is ``None`` or not valid.
        """
        if session_id is None:
            raise InvalidIdentifierError("session_id is None: run the agent with a session that has an id.")
        check_identifier(session_id, "session_id")
        if self._prefix:
            return ThreadKey(self._prefix + session_id, self.tenant)
        return ThreadKey(f"~{session_id}" if session_id.startswith("~") else session_id, self.tenant)

    def session_id(self, thread_id: str) -> str | None:
        """Return the session that a thread stores, or ``None`` for a thread of another source."""
        if self._prefix:
            own = thread_id.startswith(self._prefix) and len(thread_id) > len(self._prefix)
            return thread_id[len(self._prefix) :] if own else None
        if thread_id.startswith("~~"):
            return thread_id[1:]
        return None if thread_id.startswith("~") else thread_id


class StoredSessions(UsesStore):
    """The sessions of one source in a store."""

    _keys: SessionKeys

    async def list_sessions(self, *, limit: int = 50, cursor: str | None = None) -> Page[StoredSession]:
        """Return this source's sessions, the newest activity first.

        If the store has other sources' threads, a page may be shorter than ``limit``; only a ``cursor`` of
        ``None`` means that it was the last.

        Raises:
            ConfigurationError: ``limit`` is less than 1, or the cursor is not valid.
        """
        check_count(limit, "limit", least=1)
        found: list[StoredSession] = []
        for _ in range(MAX_LISTING_PAGES):
            page = await self._store.list_threads(self._keys.tenant, limit=limit - len(found), cursor=cursor)
            for thread in page:
                session_id = self._keys.session_id(thread.key.thread_id)
                if session_id is not None:
                    found.append(StoredSession.of(session_id, thread))
            cursor = page.cursor
            if cursor is None or len(found) == limit:
                break
        return Page(tuple(found), cursor)

    async def clear(self, session_id: str) -> int:
        """Delete a session's messages and return their number; the session itself (title, documents) stays."""
        key = self._keys.key(session_id)
        try:
            removed = (await self._store.truncate(key, stop=0)).removed
            for document in (SUMMARY_DOCUMENT, COMPACTION_DOCUMENT):
                await self._store.delete_document(key, document)
            return removed
        except ThreadNotFoundError:
            return 0

    async def delete(self, session_id: str) -> bool:
        """Delete a session; return whether there was one."""
        return await self._store.delete_thread(self._keys.key(session_id))
