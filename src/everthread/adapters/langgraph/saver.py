"""LangGraph's `BaseCheckpointSaver` on any store: checkpoints are records of the thread with their ``thread_id``."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, cast

from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import (
    WRITES_IDX_MAP,
    BaseCheckpointSaver,
    ChannelVersions,
    Checkpoint,
    CheckpointMetadata,
    CheckpointTuple,
    get_checkpoint_metadata,
)
from langgraph.checkpoint.serde.base import SerializerProtocol
from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer

from everthread.adapters.langgraph import names
from everthread.adapters.langgraph.checkpoints import Checkpoints, Loaded, StoredCheckpoint, StoredWrite, Typed
from everthread.adapters.portal import shared_portal
from everthread.adapters.using_store import UsesStore
from everthread.contract import Store
from everthread.errors import ConfigurationError
from everthread.listing import every_thread
from everthread.model import ThreadKey, check_count

_DELTA = "counters_since_delta_snapshot"


class EverthreadSaver(UsesStore, BaseCheckpointSaver[str]):
    """Checkpoints of LangGraph that outlive the process: ``builder.compile(checkpointer=EverthreadSaver(url))``.

        saver = EverthreadSaver("redis://localhost:6379/0")
        graph = builder.compile(checkpointer=saver)

    The value of a channel that did not change is stored once. A process killed at any moment leaves complete
    checkpoints only. Several processes may run graphs on one thread at the same time: no checkpoint is lost. The
    methods of the saver may be repeated.

    The synchronous methods (``graph.invoke``) run in an event loop of their own thread, so they need the URL of a
    store. They also work inside a running loop, which then waits.

    A checkpoint belongs to the thread of its ``thread_id``: deleting, expiring, copying and exporting the thread
    includes it. Checkpoints are no activity of the thread. The values of one channel have at most 48 MiB.

    Args:
        store: A `Store`, which stays the caller's to close and works in one event loop, or the URL of one, which works
            in every loop: each loop connects at its first use, until it ends or `aclose` (or ``async with``) closes it.
        tenant: The owner of the threads.
        allowed_types: Classes of the application that checkpoints hold, or ``(module, name)``. Values of other
            classes, except LangChain's messages and common ones of the standard library, are loaded as plain data,
            and LangGraph logs a warning. Loading a class runs its code.
        serde: A serializer instead of LangGraph's ``JsonPlusSerializer`` with ``allowed_types``, which refuses pickles.

    Raises:
        ConfigurationError: A URL of an unknown scheme or with a wrong option; ``allowed_types`` beside ``serde``.
        InvalidIdentifierError: The tenant is no identifier.
    """

    def __init__(
        self,
        store: Store | str,
        *,
        tenant: str = "",
        allowed_types: Iterable[type | tuple[str, str]] = (),
        serde: SerializerProtocol | None = None,
    ) -> None:
        UsesStore.__init__(self, store)
        allowed = tuple(allowed_types)
        if serde is not None and allowed:
            raise ConfigurationError("Give allowed_types to the serializer: EverthreadSaver got one as serde.")
        # `None` is LangGraph's strict mode, with its own list of types.
        serializer = serde or JsonPlusSerializer(allowed_msgpack_modules=allowed or None)
        BaseCheckpointSaver.__init__(self, serde=serializer)  # pyright: ignore[reportUnknownMemberType]
        self._tenant = ThreadKey("any", tenant).tenant
        self._checkpoints = Checkpoints(self._store)

    def __copy__(self) -> EverthreadSaver:
        """Return a saver on the same store; closing it closes nothing. `with_allowlist` copies the saver of a graph."""
        clone = object.__new__(type(self))
        clone.__dict__.update(self.__dict__, _owns_store=False)
        return clone

    def get_next_version(self, current: str | float | None, channel: None) -> str:
        """Return a version above the current one. Two writers never make the same."""
        number = 0 if current is None else int(str(current).partition(".")[0])
        return f"{number + 1:032}.{random.getrandbits(64):016x}"

    # Reading

    async def aget_tuple(self, config: RunnableConfig) -> CheckpointTuple | None:
        """Return the checkpoint of the configuration, or the newest of its thread and namespace, or ``None``.

        Raises:
            CorruptRecordError: A record cannot be decoded or is missing.
            StoreUnavailableError: The store did not answer, also when tried again.
        """
        key, namespace, checkpoint_id = self._place(config)
        loaded = await self._checkpoints.find(key, namespace or "", checkpoint_id)
        return None if loaded is None else self._tuple(key, loaded)

    async def alist(
        self,
        config: RunnableConfig | None,
        *,
        filter: dict[str, Any] | None = None,
        before: RunnableConfig | None = None,
        limit: int | None = None,
    ) -> AsyncIterator[CheckpointTuple]:
        """Yield checkpoints, the newest of a namespace first.

        Args:
            config: The thread, and possibly the namespace and the checkpoint; ``None``: all threads of the tenant.
            filter: Metadata with these values only. Reads the checkpoints to compare them.
            before: Only checkpoints that are older than the one of this configuration.
            limit: The maximum number of checkpoints.

        Raises:
            CorruptRecordError: A record cannot be decoded or is missing.
        """
        check_count(limit, "limit", optional=True)
        left = limit
        async for key, name in self._listed(config, before):
            if left == 0:
                return
            if filter:
                found = await self._checkpoints.describe(key, name)
                metadata: dict[str, Any] = {} if found is None else self._value(found.metadata)
                if any(metadata.get(each) != wanted for each, wanted in filter.items()):
                    continue
            loaded = await self._checkpoints.load(key, name)
            if loaded is not None:
                left = None if left is None else left - 1
                yield self._tuple(key, loaded)

    async def _listed(
        self, config: RunnableConfig | None, before: RunnableConfig | None
    ) -> AsyncIterator[tuple[ThreadKey, str]]:
        earlier = None if before is None else self._configurable(before).get("checkpoint_id")
        key, namespace, checkpoint_id = (None, None, None) if config is None else self._place(config)
        async for each in self._keys() if key is None else _only(key):
            beginning = names.CHECKPOINTS if namespace is None else names.checkpoints_of(namespace)
            after = None if namespace is None or not earlier else names.checkpoint_name(namespace, earlier)
            async for name in self._checkpoints.listed(each, beginning, after):
                found = names.id_in(name)
                if checkpoint_id in {None, found} and not (earlier and found >= earlier):
                    yield each, name

    async def _keys(self) -> AsyncIterator[ThreadKey]:
        async for thread in every_thread(self._store, self._tenant):
            yield thread.key

    # Writing

    async def aput(
        self,
        config: RunnableConfig,
        checkpoint: Checkpoint,
        metadata: CheckpointMetadata,
        new_versions: ChannelVersions,
    ) -> RunnableConfig:
        """Store a checkpoint, and return its configuration.

        Raises:
            LimitExceededError: The value of a channel is larger than 48 MiB.
            StoreUnavailableError: The store did not answer, also when tried again. The call may be repeated.
        """
        key, namespace, parent = self._place(config)
        namespace = namespace or ""
        values, versions = checkpoint["channel_values"], checkpoint["channel_versions"]
        # A value without a version cannot be found again by it.
        small = {channel for channel, value in values.items() if channel not in versions or _is_small(value)}
        described = get_checkpoint_metadata(config, metadata)
        run = described.get("run_id")
        stored = StoredCheckpoint(
            namespace,
            checkpoint["id"],
            self._typed({name: part for name, part in checkpoint.items() if name != "channel_values"}),
            self._typed(described),
            parent,
            {
                channel: names.blob_name(namespace, channel, versions[channel])
                for channel in values
                if channel not in small
            },
            {channel: self._typed(values[channel]) for channel in values if channel in small},
            None if run is None else str(run),
            tuple(described.get(_DELTA) or ()),
        )
        makers = {channel: partial(self._typed, values[channel]) for channel in stored.blobs}
        await self._checkpoints.put(key, stored, makers, new_versions)
        return _config(key, namespace, checkpoint["id"])

    async def aput_writes(
        self, config: RunnableConfig, writes: Sequence[tuple[str, Any]], task_id: str, task_path: str = ""
    ) -> None:
        """Store pending writes of the checkpoint of the configuration.

        Raises:
            ConfigurationError: The configuration lacks a ``checkpoint_id``.
            StoreUnavailableError: The store did not answer, also when tried again. The call may be repeated.
        """
        key, namespace, checkpoint_id = self._place(config)
        if checkpoint_id is None:
            raise ConfigurationError("The configuration lacks a checkpoint_id: writes belong to a checkpoint.")
        stored = [
            StoredWrite(task_id, WRITES_IDX_MAP.get(channel, at), channel, task_path, self._typed(value))
            for at, (channel, value) in enumerate(writes)
        ]
        if stored:
            await self._checkpoints.put_writes(key, names.checkpoint_name(namespace or "", checkpoint_id), stored)

    # Deleting and copying

    async def adelete_thread(self, thread_id: str) -> None:
        """Delete all checkpoints of a thread. Its messages stay; `Store.delete_thread` deletes everything."""
        key = self._key(thread_id)
        await self._checkpoints.delete_all(key)
        await self._drop_empty(key)

    async def adelete_for_runs(self, run_ids: Sequence[str]) -> None:
        """Delete the checkpoints that runs made, with their writes. Reads the checkpoints of all threads of the tenant.

        A `DeltaChannel` of a later checkpoint may lose writes: see LangGraph's documentation.
        """
        runs = {str(run_id) for run_id in run_ids}
        if runs:
            async for key in self._keys():
                await self._checkpoints.delete_where(key, lambda found: found.run in runs)

    async def acopy_thread(self, source_thread_id: str, target_thread_id: str) -> None:
        """Copy all checkpoints of a thread into another, where those of the same IDs are replaced. No messages."""
        await self._checkpoints.copy(self._key(source_thread_id), self._key(target_thread_id))

    async def aprune(self, thread_ids: Sequence[str], *, strategy: str = "keep_latest") -> None:
        """Delete old checkpoints of threads, and the values that nothing refers to any more.

        Args:
            thread_ids: The threads.
            strategy: ``"keep_latest"`` keeps the newest checkpoint of each namespace, and those that its delta
                channels need; ``"delete"`` keeps none.

        Raises:
            ConfigurationError: Another strategy.
        """
        if strategy not in {"keep_latest", "delete"}:
            raise ConfigurationError(f"There is no strategy {strategy!r}: use 'keep_latest' or 'delete'.")
        for thread_id in thread_ids:
            if strategy == "delete":
                await self.adelete_thread(thread_id)
            else:
                await self._checkpoints.keep_latest(self._key(thread_id))

    async def _drop_empty(self, key: ThreadKey) -> None:
        """Delete a thread without messages that only held checkpoints, so that listings do not show it."""
        thread = await self._store.get_thread(key)
        if thread is None or thread.next_seq or thread.title or thread.metadata:
            return
        if not await self._store.list_documents(key, limit=1):
            await self._store.delete_thread(key, expected_seq=0)

    # The synchronous methods

    def get_tuple(self, config: RunnableConfig) -> CheckpointTuple | None:
        """Do the same as `aget_tuple`; needs the URL of a store."""
        return shared_portal().call(self.aget_tuple, config)

    def list(
        self,
        config: RunnableConfig | None,
        *,
        filter: dict[str, Any] | None = None,
        before: RunnableConfig | None = None,
        limit: int | None = None,
    ) -> Iterator[CheckpointTuple]:
        """Do the same as `alist`."""
        return shared_portal().iterate(lambda: self.alist(config, filter=filter, before=before, limit=limit))

    def put(
        self,
        config: RunnableConfig,
        checkpoint: Checkpoint,
        metadata: CheckpointMetadata,
        new_versions: ChannelVersions,
    ) -> RunnableConfig:
        """Do the same as `aput`."""
        return shared_portal().call(self.aput, config, checkpoint, metadata, new_versions)

    def put_writes(
        self, config: RunnableConfig, writes: Sequence[tuple[str, Any]], task_id: str, task_path: str = ""
    ) -> None:
        """Do the same as `aput_writes`."""
        shared_portal().call(self.aput_writes, config, writes, task_id, task_path)

    def delete_thread(self, thread_id: str) -> None:
        """Do the same as `adelete_thread`."""
        shared_portal().call(self.adelete_thread, thread_id)

    def delete_for_runs(self, run_ids: Sequence[str]) -> None:
        """Do the same as `adelete_for_runs`."""
        shared_portal().call(self.adelete_for_runs, run_ids)

    def copy_thread(self, source_thread_id: str, target_thread_id: str) -> None:
        """Do the same as `acopy_thread`."""
        shared_portal().call(self.acopy_thread, source_thread_id, target_thread_id)

    def prune(self, thread_ids: Sequence[str], *, strategy: str = "keep_latest") -> None:
        """Do the same as `aprune`."""
        shared_portal().call(self.aprune, thread_ids, strategy=strategy)

    def close(self) -> None:
        """Close the stores that this saver opened, for synchronous programs; may be left out."""
        shared_portal().call(self.aclose)

    # Shared

    def _place(self, config: RunnableConfig) -> tuple[ThreadKey, str | None, str | None]:
        place = self._configurable(config)
        if "thread_id" not in place:
            raise ConfigurationError(
                'The configuration lacks a thread_id: config={"configurable": {"thread_id": "trip-to-rome"}}.'
            )
        return self._key(place["thread_id"]), place.get("checkpoint_ns"), place.get("checkpoint_id") or None

    def _configurable(self, config: RunnableConfig) -> Mapping[str, Any]:
        return cast("Mapping[str, Any]", config.get("configurable") or {})

    def _key(self, thread_id: object) -> ThreadKey:
        return ThreadKey(str(thread_id), self._tenant)

    def _typed(self, value: object) -> Typed:
        return Typed(*self.serde.dumps_typed(value))

    def _value(self, typed: Typed) -> Any:
        return self.serde.loads_typed((typed.kind, typed.data))

    def _tuple(self, key: ThreadKey, loaded: Loaded) -> CheckpointTuple:
        stored = loaded.stored
        values = {channel: self._value(value) for channel, value in loaded.values.items()}
        return CheckpointTuple(
            config=_config(key, stored.namespace, stored.id),
            checkpoint=cast("Checkpoint", {**self._value(stored.checkpoint), "channel_values": values}),
            metadata=self._value(stored.metadata),
            parent_config=None if stored.parent is None else _config(key, stored.namespace, stored.parent),
            pending_writes=[(write.task, write.channel, self._value(value)) for write, value in loaded.writes],
        )


def _config(key: ThreadKey, namespace: str, checkpoint_id: str) -> RunnableConfig:
    return {"configurable": {"thread_id": key.thread_id, "checkpoint_ns": namespace, "checkpoint_id": checkpoint_id}}


def _is_small(value: object) -> bool:
    """Return whether a value needs less than the reference to it."""
    return value is None or isinstance(value, (bool, float)) or (isinstance(value, (int, str)) and len(str(value)) < 40)


async def _only(key: ThreadKey) -> AsyncIterator[ThreadKey]:
    yield key
