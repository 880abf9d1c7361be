"""The stores of Agent Framework fit its interfaces, for a type checker. Checked by ``make check``; never run."""

from __future__ import annotations

from typing import assert_type

from agent_framework import AgentSession, CheckpointStorage, SessionStore, WorkflowCheckpoint
from agent_framework_ag_ui import AGUIThreadSnapshotStore

from everthread.adapters.agent_framework import Everthread, EverthreadHistoryProvider


def accepts(checkpoints: CheckpointStorage, sessions: SessionStore, snapshots: AGUIThreadSnapshotStore) -> None: ...


async def interfaces(stores: Everthread) -> None:
    accepts(stores.checkpoints("trip", allowed_types=[int, "package:Type"]), stores.sessions(), stores.snapshots())
    assert_type(stores.history(window=10), EverthreadHistoryProvider)
    assert_type(await stores.sessions().get("trip"), AgentSession | None)
    assert_type(await stores.checkpoints("trip").load("id"), WorkflowCheckpoint)
