"""AG-UI thread snapshots on any store: the scope of the framework is the tenant."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from everthread.adapters.agent_framework.sessions import DEFAULT_SOURCE, SessionKeys
from everthread.adapters.retrying import retried
from everthread.adapters.using_store import UsesStore
from everthread.capabilities import SupportsTenantList, required_capability
from everthread.errors import ConfigurationError, CorruptRecordError, InvalidIdentifierError
from everthread.listing import every_thread
from everthread.messages import codec
from everthread.model import ThreadKey
from everthread.operations.records import delete_record, get_record, put_record

try:
    from agent_framework_ag_ui import AGUIThreadSnapshot
except ImportError as error:
    raise ConfigurationError("This needs AG-UI: pip install 'agent-framework-ag-ui>=1.0'") from error

SNAPSHOT_RECORD = "agent-framework:ag-ui-snapshot"
"""The name of the record with the newest snapshot of a thread."""


class EverthreadThreadSnapshotStore(UsesStore):
    """The newest snapshot of each AG-UI thread, for ``add_agent_framework_fastapi_endpoint(snapshot_store=…)``.

    The scope, which the endpoint's resolver returns, is the tenant of the thread: no scope reaches another's snapshots,
    and deleting the tenant deletes them. A snapshot has at most 64 MiB. Of concurrent writers the last one wins.

    Args:
        store: A `Store`, which stays the caller's to close and works in one event loop, or the URL of one, which works
            in every loop: each loop connects at its first use, until it ends or `aclose` (or ``async with``) closes it.
            Not a view of one tenant.

    Raises:
        ConfigurationError: A URL of an unknown scheme or with a wrong option.
    """

    async def save(self, *, scope: str, thread_id: str, snapshot: AGUIThreadSnapshot) -> None:
        """Store a copy of a snapshot, in place of the thread's former one.

        Raises:
            InvalidIdentifierError: The scope or the thread ID is empty, too long or not text.
            InvalidMessageError: JSON would alter a value of the snapshot. The message gives its place.
            LimitExceededError: It is larger than 64 MiB.
            StoreUnavailableError: The store did not answer, also when tried again.
        """
        key = _key(scope, thread_id)
        data = codec.encode({field.name: getattr(snapshot, field.name) for field in fields(snapshot)})
        await retried(lambda: put_record(self._store, key, SNAPSHOT_RECORD, data))

    async def get(self, *, scope: str, thread_id: str) -> AGUIThreadSnapshot | None:
        """Return a copy of a thread's newest snapshot, or ``None``.

        Raises:
            InvalidIdentifierError: The scope or the thread ID is empty, too long or not text.
            CorruptRecordError: The record is no snapshot.
            StoreUnavailableError: The store did not answer.
        """
        key = _key(scope, thread_id)
        data = await get_record(self._store, key, SNAPSHOT_RECORD)
        if data is None:
            return None
        value: Mapping[str, Any] = codec.as_object(codec.decode(data, key))
        if not isinstance(value.get("messages"), list):
            raise CorruptRecordError(f"The record {SNAPSHOT_RECORD!r} of {key} is no snapshot: delete it.")
        known = {field.name for field in fields(AGUIThreadSnapshot)}
        return AGUIThreadSnapshot(**{name: item for name, item in value.items() if name in known})

    async def delete(self, *, scope: str, thread_id: str) -> bool:
        """Delete a thread's snapshot; return whether there was one. The thread's messages stay.

        Raises:
            InvalidIdentifierError: The scope or the thread ID is empty, too long or not text.
            StoreUnavailableError: The store did not answer, also when tried again.
        """
        key = _key(scope, thread_id)
        return await retried(lambda: delete_record(self._store, key, SNAPSHOT_RECORD))

    async def clear(self, *, scope: str | None = None) -> None:
        """Delete all snapshots of a scope; without one, those of all scopes. Reads the list of the scope's threads.

        Raises:
            UnsupportedError: There is no scope, and the store does not list tenants.
            InvalidIdentifierError: The scope is empty, too long or not text.
        """
        if scope is not None:
            await self._clear(_key(scope, "any").tenant)
            return
        listing, after = required_capability(self._store, SupportsTenantList), ""
        while tenants := await listing.list_tenants(after=after):
            for tenant in tenants:
                await self._clear(tenant)
            after = tenants[-1]

    async def _clear(self, tenant: str) -> None:
        async for thread in every_thread(self._store, tenant):
            await delete_record(self._store, thread.key, SNAPSHOT_RECORD)


def _key(scope: str, thread_id: str) -> ThreadKey:
    if not scope:
        raise InvalidIdentifierError("scope is empty: return the authorization boundary of the request.")
    return SessionKeys(DEFAULT_SOURCE, scope).key(thread_id)
