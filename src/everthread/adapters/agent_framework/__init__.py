"""Microsoft Agent Framework 1.x on any store: history, session state, workflow checkpoints, AG-UI snapshots.

Each name is imported at its first use, so importing this package needs no framework. The 1.0 betas have a package of
their own: `everthread.adapters.agent_framework_beta`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from everthread._extras import lazy_names

if TYPE_CHECKING:
    from everthread.adapters.agent_framework.all_stores import Everthread
    from everthread.adapters.agent_framework.checkpoint_storage import EverthreadCheckpointStorage
    from everthread.adapters.agent_framework.history_provider import EverthreadHistoryProvider
    from everthread.adapters.agent_framework.recalling import EverthreadRecall
    from everthread.adapters.agent_framework.session_store import EverthreadSessionStore
    from everthread.adapters.agent_framework.sessions import StoredSession
    from everthread.adapters.agent_framework.snapshot_store import EverthreadThreadSnapshotStore
    from everthread.adapters.agent_framework.summary_window import SummaryWindow

__all__ = [
    "Everthread",
    "EverthreadCheckpointStorage",
    "EverthreadHistoryProvider",
    "EverthreadRecall",
    "EverthreadSessionStore",
    "EverthreadThreadSnapshotStore",
    "StoredSession",
    "SummaryWindow",
]

__getattr__ = lazy_names(
    __name__,
    {
        "Everthread": "all_stores",
        "EverthreadCheckpointStorage": "checkpoint_storage",
        "EverthreadHistoryProvider": "history_provider",
        "EverthreadRecall": "recalling",
        "EverthreadSessionStore": "session_store",
        "EverthreadThreadSnapshotStore": "snapshot_store",
        "StoredSession": "sessions",
        "SummaryWindow": "summary_window",
    },
    "agent-framework",
)


def __dir__() -> list[str]:
    return sorted(__all__)
