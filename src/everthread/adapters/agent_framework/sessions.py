"""Which thread keeps which session: injective, so that two sources on one session never share a thread."""

from __future__ import annotations

from datetime import datetime
from typing import Self

import msgspec

from everthread.errors import InvalidIdentifierError
from everthread.keys import escape
from everthread.model import Thread, ThreadKey, check_identifier

DEFAULT_SOURCE = "everthread"


class StoredSession(msgspec.Struct, frozen=True):
    """What is known of a stored session without reading its messages.

    Attributes:
        session_id: What ``AgentSession(session_id=…)`` takes to go on with it.
        title: From the first user message, unless it was set otherwise.
        message_count: How many messages are kept.
        created_at: When it was begun, in UTC.
        updated_at: The last activity, in UTC.
    """

    session_id: str
    title: str | None
    message_count: int
    created_at: datetime
    updated_at: datetime

    @classmethod
    def of(cls, session_id: str, thread: Thread) -> Self:
        """The session that a thread keeps."""
        return cls(session_id, thread.title, thread.count, thread.created_at, thread.updated_at)

    def __repr__(self) -> str:
        # Without the title, which quotes the conversation: reprs end up in logs.
        return f"StoredSession({self.session_id!r}, message_count={self.message_count})"


class SessionKeys:
    """Names the threads of one source's sessions, and tells them from those of other sources.

    A session of the default source is the thread of the same id, so that other programs find it. All other
    threads are named ``~{source}~{session}``, which no default session can be: one that itself starts with ``~`` gets
    another ``~`` in front, and an escaped source is never empty and never holds one.

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
        """The thread that keeps a session.

        Raises:
            InvalidIdentifierError: There is no session id, or one that cannot name a thread. Sessions without
                an id never share a thread.
        """
        if session_id is None:
            raise InvalidIdentifierError("session_id is None: run the agent with a session of its own.")
        check_identifier(session_id, "session_id")
        if self._prefix:
            return ThreadKey(self._prefix + session_id, self.tenant)
        return ThreadKey(f"~{session_id}" if session_id.startswith("~") else session_id, self.tenant)

    def session_id(self, thread_id: str) -> str | None:
        """The session that a thread keeps, or ``None`` for a thread of another source."""
        if self._prefix:
            own = thread_id.startswith(self._prefix) and len(thread_id) > len(self._prefix)
            return thread_id[len(self._prefix) :] if own else None
        if thread_id.startswith("~~"):
            return thread_id[1:]
        return None if thread_id.startswith("~") else thread_id
