"""Agent Framework's `SessionStore` on any store: the state of a session, in the thread that has its history."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

from everthread.adapters.agent_framework.sessions import DEFAULT_SOURCE, SessionKeys
from everthread.adapters.retrying import retried
from everthread.adapters.using_store import UsesStore
from everthread.contract import Store
from everthread.errors import ConfigurationError, CorruptRecordError, InvalidMessageError
from everthread.messages import codec
from everthread.operations.records import delete_record, get_record, put_record

try:
    from agent_framework import AgentSession, SessionStore
except ImportError as error:
    raise ConfigurationError("This needs a newer release: pip install 'agent-framework-core>=1.13'") from error

SESSION_RECORD = "agent-framework:session"
"""The name of the record with the state of a session."""


class EverthreadSessionStore(UsesStore, SessionStore):
    """Sessions of Agent Framework that outlive the process, for hosting: ``AgentState(agent, session_store=…)``.

        sessions = EverthreadSessionStore("redis://localhost:6379/0")
        await sessions.set("trip", session)
        session = await sessions.get("trip")

    The state of a session is a record of the thread that `EverthreadHistoryProvider` gives it, if the session is stored
    under its own ``session_id``: both are listed, copied and deleted as one thread. A state has at most 64 MiB. Of
    concurrent writers the last one wins, as in the framework's own stores.

    Args:
        store: A `Store`, which stays the caller's to close and works in one event loop, or the URL of one, which works
            in every loop: each loop connects at its first use, until it ends or `aclose` (or ``async with``) closes it.
        tenant: The owner of the sessions.

    Raises:
        ConfigurationError: A URL of an unknown scheme or with a wrong option.
        InvalidIdentifierError: ``tenant`` is no identifier.
    """

    def __init__(self, store: Store | str, *, tenant: str = "") -> None:
        UsesStore.__init__(self, store)
        self._keys = SessionKeys(DEFAULT_SOURCE, tenant)

    async def get(self, session_id: str) -> AgentSession | None:
        """Return a copy of the session that was stored under an ID, or ``None``.

        Values of types that are registered with ``register_state_type`` are restored.

        Raises:
            InvalidIdentifierError: The ID is empty, too long or not text.
            CorruptRecordError: The record is no session, or a registered type cannot be restored.
            StoreUnavailableError: The store did not answer.
        """
        key = self._keys.key(session_id)
        data = await get_record(self._store, key, SESSION_RECORD)
        if data is None:
            return None
        value = codec.as_object(codec.decode(data, key))
        state, own_id = value.get("state"), value.get("session_id")
        if value.get("type") != "session" or not isinstance(state, dict) or not isinstance(own_id, str):
            raise CorruptRecordError(f"The record {SESSION_RECORD!r} of {key} is no session: delete or replace it.")
        try:
            return AgentSession.from_dict(dict(value))
        except (TypeError, ValueError, LookupError) as error:
            raise CorruptRecordError(
                f"The session of {key} cannot be restored ({type(error).__name__}): register the same types of state "
                "that were registered when it was stored."
            ) from None

    async def set(self, session_id: str, session: AgentSession) -> None:
        """Store a session under an ID, in place of any other.

        Raises:
            InvalidIdentifierError: The ID is empty, too long or not text.
            InvalidMessageError: A value of the state would not come back equal: it has no JSON form, and its type is
                not registered with ``register_state_type``. The message gives its place.
            LimitExceededError: The session is larger than 64 MiB.
            StoreUnavailableError: The store did not answer, also when tried again.
        """
        key = self._keys.key(session_id)
        if type(session) is not AgentSession:
            raise InvalidMessageError(f"A session store holds AgentSession objects, not {type(session).__name__}.")
        value = _plain(session.to_dict)
        service = value["service_session_id"]
        if isinstance(service, Mapping):
            value["service_session_id"] = dict(cast(Mapping[str, object], service))
        data = codec.encode(value)
        await retried(lambda: put_record(self._store, key, SESSION_RECORD, data))

    async def delete(self, session_id: str) -> None:
        """Delete the state of a session, if it is stored. Its history stays: delete that with the history provider.

        Raises:
            InvalidIdentifierError: The ID is empty, too long or not text.
            StoreUnavailableError: The store did not answer, also when tried again.
        """
        key = self._keys.key(session_id)
        await retried(lambda: delete_record(self._store, key, SESSION_RECORD))


def _plain(to_dict: Any) -> dict[str, Any]:
    try:
        return to_dict()
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidMessageError(
            f"The session has no JSON form ({type(error).__name__}): register its types with register_state_type."
        ) from None
