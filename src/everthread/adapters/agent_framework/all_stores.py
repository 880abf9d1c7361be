"""All stores of Agent Framework on one everthread store."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from everthread.adapters.agent_framework.history_provider import EverthreadHistoryProvider
from everthread.adapters.using_store import UsesStore
from everthread.contract import Store
from everthread.model import check_identifier

if TYPE_CHECKING:
    from everthread.adapters.agent_framework.checkpoint_storage import EverthreadCheckpointStorage
    from everthread.adapters.agent_framework.session_store import EverthreadSessionStore
    from everthread.adapters.agent_framework.snapshot_store import EverthreadThreadSnapshotStore


class Everthread(UsesStore):
    """Hands out histories, sessions, checkpoints and snapshots that share one store and its connections.

        async with Everthread("redis://localhost:6379/0") as stores:
            agent = Agent(client, context_providers=[stores.history(window=100)])
            hosted = AgentState(agent, session_store=stores.sessions())
            result = await workflow.run(order, checkpoint_storage=stores.checkpoints("order-4711"))

    Closing it closes the store that it opened; closing an object that it returned closes nothing.

    Args:
        store: A `Store`, which stays the caller's to close and works in one event loop, or the URL of one, which works
            in every loop: each loop connects at its first use, until it ends or `aclose` (or ``async with``) closes it.
        tenant: The owner of the sessions. The tenant of AG-UI snapshots is their scope.

    Raises:
        ConfigurationError: A URL of an unknown scheme or with a wrong option.
        InvalidIdentifierError: ``tenant`` is no identifier.
    """

    def __init__(self, store: Store | str, *, tenant: str = "") -> None:
        super().__init__(store)
        self._tenant = check_identifier(tenant, "tenant", may_be_empty=True)

    def history(self, **options: Any) -> EverthreadHistoryProvider:
        """Return a history provider. The options are those of `EverthreadHistoryProvider`."""
        return EverthreadHistoryProvider(self._store, tenant=self._tenant, **options)

    def sessions(self) -> EverthreadSessionStore:
        """Return a store of session states, for hosting.

        Raises:
            ConfigurationError: The installed agent-framework-core has no `SessionStore`.
        """
        from everthread.adapters.agent_framework.session_store import EverthreadSessionStore

        return EverthreadSessionStore(self._store, tenant=self._tenant)

    def checkpoints(
        self, session_id: str, *, allowed_types: Iterable[type | str] = (), max_checkpoints: int | None = None
    ) -> EverthreadCheckpointStorage:
        """Return the storage of a session's workflow checkpoints, as `EverthreadCheckpointStorage` describes."""
        from everthread.adapters.agent_framework.checkpoint_storage import EverthreadCheckpointStorage

        return EverthreadCheckpointStorage(
            self._store,
            session_id,
            tenant=self._tenant,
            allowed_types=allowed_types,
            max_checkpoints=max_checkpoints,
        )

    def snapshots(self) -> EverthreadThreadSnapshotStore:
        """Return a store of AG-UI thread snapshots.

        Raises:
            ConfigurationError: agent-framework-ag-ui is not installed.
        """
        from everthread.adapters.agent_framework.snapshot_store import EverthreadThreadSnapshotStore

        return EverthreadThreadSnapshotStore(self._store)
