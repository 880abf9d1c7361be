"""Agent Framework's workflow checkpoints on any store, as records of a session's thread.

Each checkpoint is a record named by its ID. An empty document names its workflow and time, so that the newest is found
without reading the others.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from hashlib import blake2b

from everthread._extras import missing_extra
from everthread.adapters.agent_framework.sessions import DEFAULT_SOURCE, SessionKeys
from everthread.adapters.retrying import retried
from everthread.adapters.using_store import UsesStore
from everthread.contract import Store
from everthread.model import check_count
from everthread.operations.records import delete_record, get_record, put_record

try:
    from agent_framework import WorkflowCheckpoint, WorkflowCheckpointException

    from everthread.adapters.agent_framework.checkpoint_values import decode_values, encode_values, type_keys
except ImportError as error:
    raise missing_extra("agent-framework", error) from error

log = logging.getLogger("everthread.agent_framework")

_RECORD = "agent-framework:checkpoint:"
_ENTRY = "agent-framework:checkpoints:"
_EPOCH = datetime(1, 1, 1, tzinfo=UTC)


class EverthreadCheckpointStorage(UsesStore):
    """Checkpoints of workflows that outlive the process.

        storage = EverthreadCheckpointStorage("sqlite:///threads.db", "order-4711")
        workflow = WorkflowBuilder(start_executor=start, checkpoint_storage=storage).build()

    A checkpoint has at most 64 MiB. Everything that is returned is a copy. Another process finds the checkpoints by
    the same session ID. They are records of the session's thread: deleting the thread deletes them.

    Saving and loading cost the same however many checkpoints there are; listing reads the names of all checkpoints of
    the workflow (about 100 bytes each).

    Values that JSON lacks are pickled, as by the framework's own storages, and only data is unpickled: common types of
    the standard library, data types of the framework and of the OpenAI SDK, and ``allowed_types``. A checkpoint that
    could not be loaded again is not saved.

    Args:
        store: A `Store`, which stays the caller's to close and works in one event loop, or the URL of one, which works
            in every loop: each loop connects at its first use, until it ends or `aclose` (or ``async with``) closes it.
        session_id: The session that owns the checkpoints, or a name for checkpoints that many sessions share.
        tenant: The owner of the session.
        allowed_types: Classes of the application that checkpoints hold, or their ``module:qualname``, in addition to
            those of ``register_checkpoint_type``. Unpickling a class runs its code.
        max_checkpoints: Keep this number of each workflow's newest checkpoints; saving deletes older ones. ``None``:
            keep all.

    Raises:
        ConfigurationError: A URL of an unknown scheme or with a wrong option; a ``max_checkpoints`` below 1.
        InvalidIdentifierError: ``session_id`` or ``tenant`` is no identifier.
    """

    def __init__(
        self,
        store: Store | str,
        session_id: str,
        *,
        tenant: str = "",
        allowed_types: Iterable[type | str] = (),
        max_checkpoints: int | None = None,
    ) -> None:
        super().__init__(store)
        check_count(max_checkpoints, "max_checkpoints", optional=True, least=1)
        self._key = SessionKeys(DEFAULT_SOURCE, tenant).key(session_id)
        self._allowed = type_keys(allowed_types)
        self._max_checkpoints = max_checkpoints

    async def save(self, checkpoint: WorkflowCheckpoint) -> str:
        """Store a copy of a checkpoint, in place of any other of its ID, and return the ID.

        Raises:
            WorkflowCheckpointException: It holds a value that cannot be pickled or that could not be loaded again, or
                its timestamp is not in ISO 8601; nothing was written.
            InvalidIdentifierError: The ID is empty or longer than about 400 bytes.
            LimitExceededError: It is larger than 64 MiB.
            StoreUnavailableError: The store did not answer, also when tried again.
        """
        name, entry = _RECORD + checkpoint.checkpoint_id, _entry(checkpoint)
        data = encode_values(checkpoint.to_dict(), self._allowed)

        async def write() -> None:
            is_new = await put_record(self._store, self._key, name, data)
            await self._store.put_document(self._key, entry, b"1")
            if not is_new:
                for former in await self._entries_of(checkpoint.checkpoint_id):
                    if former != entry:
                        await self._store.delete_document(self._key, former)

        await retried(write)
        if self._max_checkpoints is not None:
            for entry, old in (await self._entries(checkpoint.workflow_name))[: -self._max_checkpoints]:
                await self._remove(old, [entry])
        return checkpoint.checkpoint_id

    async def load(self, checkpoint_id: str) -> WorkflowCheckpoint:
        """Return a checkpoint.

        Raises:
            WorkflowCheckpointException: There is none of this ID, or it holds a value that may not be unpickled.
            StoreUnavailableError: The store did not answer.
        """
        checkpoint = await self._load(checkpoint_id)
        if checkpoint is None:
            raise WorkflowCheckpointException(f"No checkpoint found with ID {checkpoint_id}")
        return checkpoint

    async def list_checkpoints(self, *, workflow_name: str) -> list[WorkflowCheckpoint]:
        """Return a workflow's checkpoints, the oldest first.

        Leaves out a checkpoint that cannot be decoded, and logs its ID as a warning.
        """
        found: list[WorkflowCheckpoint] = []
        for checkpoint_id in await self.list_checkpoint_ids(workflow_name=workflow_name):
            try:
                checkpoint = await self._load(checkpoint_id)
            except WorkflowCheckpointException as error:
                log.warning("The checkpoint %r of %s is left out: %s", checkpoint_id, self._key, error)
                continue
            if checkpoint is not None and checkpoint.workflow_name == workflow_name:
                found.append(checkpoint)
        return found

    async def list_checkpoint_ids(self, *, workflow_name: str) -> list[str]:
        """Return the IDs of a workflow's checkpoints, the oldest first. Reads no checkpoint."""
        return list(dict.fromkeys(checkpoint_id for _, checkpoint_id in await self._entries(workflow_name)))

    async def get_latest(self, *, workflow_name: str) -> WorkflowCheckpoint | None:
        """Return a workflow's checkpoint with the latest timestamp, or ``None``.

        Raises:
            WorkflowCheckpointException: It holds a value that may not be unpickled.
        """
        for entry, checkpoint_id in reversed(await self._entries(workflow_name)):
            checkpoint = await self._load(checkpoint_id)
            # Otherwise another writer deleted or replaced it since its name was read.
            if checkpoint is not None and _entry(checkpoint) == entry:
                return checkpoint
        return None

    async def delete(self, checkpoint_id: str) -> bool:
        """Delete a checkpoint; return whether it existed. Also deletes one that cannot be decoded."""
        was_there = await get_record(self._store, self._key, _RECORD + checkpoint_id) is not None
        await self._remove(checkpoint_id, await self._entries_of(checkpoint_id))
        return was_there

    async def _remove(self, checkpoint_id: str, entries: Sequence[str]) -> None:
        async def remove() -> None:
            # The record last: a checkpoint that is listed can be loaded.
            for entry in entries:
                await self._store.delete_document(self._key, entry)
            await delete_record(self._store, self._key, _RECORD + checkpoint_id)

        await retried(remove)

    async def _load(self, checkpoint_id: str) -> WorkflowCheckpoint | None:
        data = await get_record(self._store, self._key, _RECORD + checkpoint_id)
        return None if data is None else WorkflowCheckpoint.from_dict(decode_values(data, self._allowed))

    async def _entries(self, workflow_name: str) -> list[tuple[str, str]]:
        """Return the names of a workflow's entries and the IDs in them, the oldest first."""
        start = _workflow(workflow_name)
        names = await self._store.list_documents(self._key, prefix=start)
        return [(name, name[len(start) :].split(":", 1)[1]) for name in names]

    async def _entries_of(self, checkpoint_id: str) -> list[str]:
        names = await self._store.list_documents(self._key, prefix=_ENTRY)
        return [name for name in names if name.split(":", 4)[4] == checkpoint_id]


def _workflow(name: str) -> str:
    """Return the beginning of the names of a workflow's entries: of one length for any name."""
    return f"{_ENTRY}{blake2b(name.encode(errors='surrogatepass'), digest_size=16).hexdigest()}:"


def _entry(checkpoint: WorkflowCheckpoint) -> str:
    """Return the name of a checkpoint's entry, which sorts by time."""
    try:
        at = datetime.fromisoformat(checkpoint.timestamp)
    except (TypeError, ValueError):
        raise WorkflowCheckpointException("The timestamp of the checkpoint is not in ISO 8601.") from None
    aware = at if at.tzinfo is not None else at.replace(tzinfo=UTC)
    microseconds = (aware - _EPOCH) // _EPOCH.resolution
    return f"{_workflow(checkpoint.workflow_name)}{microseconds:018d}:{checkpoint.checkpoint_id}"
