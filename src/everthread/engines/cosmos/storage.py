"""The objects of a log as items of a container."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from contextlib import AsyncExitStack
from functools import partial
from typing import Any, cast

from everthread._extras import import_extra
from everthread.engines._segments.storage import Found, Listed, Storage
from everthread.engines.cosmos.connection import account_of, credential_of
from everthread.engines.cosmos.health import encryption, of_account, of_container, throughput
from everthread.engines.cosmos.items import (
    DOCUMENTS,
    MARKERS,
    SEGMENTS,
    Ghost,
    Partition,
    Written,
    items_of,
    joined,
    partition_of,
)
from everthread.engines.cosmos.requests import PARTITION_KEY, AbsentError, Requests, TakenError
from everthread.errors import ConfigurationError, CorruptRecordError
from everthread.model import HealthCheck

MAX_OBJECT_BYTES = 64 * 1024 * 1024
INDEXING = {
    "indexingMode": "consistent",
    "includedPaths": [{"path": f"{PARTITION_KEY}/?"}],
    "excludedPaths": [{"path": "/*"}],
}
"""Queries use only IDs in a partition. ``id`` is always indexed, and every other index makes each write more expensive
(https://learn.microsoft.com/azure/cosmos-db/index-policy)."""

_ITEMS = "SELECT c.id, c.size, c._ts FROM c WHERE c.pk = @pk AND c.id > @above AND c.id < @below ORDER BY c.id"
_PARTITIONS = "SELECT c.pk FROM c WHERE c.pk > @first AND c.pk < @stop AND c.id > @above AND c.id < @below"
_PAGE = 100


class CosmosStorage(Storage):
    """Items of a container with the partition key ``/pk``.

    An object that does not fit an item is cut into parts, which are written before the item that refers to them and
    so makes them visible in one step.

    `CosmosStore.from_url` describes the options; an empty ``account`` is that of the connection string.

    Raises:
        ConfigurationError: There is no account name.
    """

    max_object_bytes = MAX_OBJECT_BYTES

    def __init__(
        self,
        account: str,
        database: str,
        *,
        container: str = "threads",
        endpoint: str = "",
        credential: Any = None,
        create: bool = False,
        verify: bool = True,
        discover: bool = True,
        timeout: float = 30,
        retry_seconds: float = 10,
    ) -> None:
        self.account = account_of(account, endpoint)
        self.verifies = verify
        self._location = f"cosmos://{self.account.name}/{database}?container={container}"
        self.requests = Requests(self._location, timeout=timeout, retry_seconds=retry_seconds)
        self._names = database, container
        self._credential = credential
        self._create = create
        # `Requests` retries, with one bound; the driver only changes regions. -1 turns its retries after throttling
        # off: 0 would mean its default of nine.
        self._options: dict[str, Any] = {"connection_verify": verify, "connection_timeout": timeout}
        self._options |= {"enable_endpoint_discovery": discover, "retry_total": -1}
        self._options |= {"retry_connect": 0, "retry_read": 0, "retry_status": 0}
        self._options["no_response_on_write"] = True
        self._closing = AsyncExitStack()
        self.client: Any = None
        self.container: Any = None

    @property
    def location(self) -> str:
        return self._location

    @property
    def credential_name(self) -> str:
        """The kind of the credential, for people."""
        if self._credential is None:
            return "Entra ID, DefaultAzureCredential" if self.account.key is None else "account key"
        is_key = isinstance(self._credential, str)
        return "account key" if is_key else f"Entra ID, {type(self._credential).__name__}"

    async def open(self, *, read_only: bool = False) -> None:
        aio = import_extra("azure.cosmos.aio", "cosmos")
        async with AsyncExitStack() as stack:
            credential = await credential_of(self._credential, self.account, stack)
            try:
                client = aio.CosmosClient(self.account.endpoint, credential, **self._options)
                # A client that fails to open still needs closing.
                stack.push_async_exit(client)
                await client.__aenter__()
                if self._create and not read_only:
                    await self._created(client)
                self.container = await self._opened(client)
                self.client = client
            except Exception as error:
                typed = self.requests.typed(error)
                raise (self.requests.missing() if isinstance(typed, AbsentError) else typed) from None
            self._closing = stack.pop_all()

    async def _opened(self, client: Any) -> Any:
        database, container = self._names
        found = client.get_database_client(database).get_container_client(container)
        paths = (await self.requests.call(found.read))["partitionKey"]["paths"]
        if paths != [PARTITION_KEY]:
            raise ConfigurationError(f"The container of {self._location} must have the partition key {PARTITION_KEY}.")
        return found

    async def _created(self, client: Any) -> None:
        key = import_extra("azure.cosmos", "cosmos").PartitionKey(PARTITION_KEY)
        name, container = self._names
        database = client.get_database_client(name)
        settings = {"partition_key": key, "indexing_policy": INDEXING, "default_ttl": -1}
        # The driver reads first and creates then; another process may create it in between.
        with contextlib.suppress(TakenError):
            await self.requests.tried(lambda: client.create_database_if_not_exists(name))
        with contextlib.suppress(TakenError):
            await self.requests.tried(lambda: database.create_container_if_not_exists(container, **settings))

    async def close(self) -> None:
        await self._closing.aclose()

    def release(self) -> None:
        # The driver closes only in its loop; the garbage collector disconnects the rest.
        self._closing, self.client, self.container = AsyncExitStack(), None, None

    # Objects

    async def create(self, folder: str, name: str, data: bytes) -> bool:
        partition = partition_of(folder)
        written = items_of(partition, name, data)
        await self._write_parts(written)
        try:
            await self._must_exist("create_item", written.item)
        except TakenError:
            # If the answer to an earlier attempt was lost, these parts belong to the stored object.
            is_ours = await self._is_there(partition, written)
            if not is_ours:
                await self._delete_items(partition, [part["id"] for part in written.parts])
            return is_ours
        return True

    async def put(self, folder: str, name: str, data: bytes) -> None:
        partition = partition_of(folder)
        written = items_of(partition, name, data)
        await self._write_parts(written)
        await self._must_exist("upsert_item", written.item)
        ours = {part["id"] for part in written.parts}
        await self._delete_items(
            partition, [part for part in await self._parts_of(partition, [name]) if part not in ours]
        )

    async def replace(self, folder: str, name: str, data: bytes, tag: str) -> bool:
        partition = partition_of(folder)
        written = items_of(partition, name, data)
        await self._write_parts(written)
        etag, former = _tagged(partition, name, tag)
        if await self._replaced(written, etag) or await self._is_there(partition, written):
            await self._delete_items(partition, former)
            return True
        await self._delete_items(partition, [part["id"] for part in written.parts])
        return False

    async def _replaced(self, written: Written, etag: str) -> bool:
        condition = import_extra("azure.core", "cosmos").MatchConditions.IfNotModified
        item = written.item
        try:
            await self._called("replace_item", item=item["id"], body=item, etag=etag, match_condition=condition)
        except (TakenError, AbsentError):
            return False
        return True

    async def _write_parts(self, written: Written) -> None:
        for part in written.parts:
            await self._must_exist("upsert_item", part)

    async def _is_there(self, partition: Partition, written: Written) -> bool:
        """Return whether an object with parts is this one. The log and the documents recognize all others."""
        if not written.parts:
            return False
        found = await self._item(partition, written.item["id"])
        return found is not None and found.get("of") == written.item["of"]

    async def get(self, folder: str, name: str) -> Found | None:
        partition = partition_of(folder)
        while (item := await self._item(partition, partition.id_of(name))) is not None:
            if not item.get("parts"):
                return Found(item["body"].encode(), item["_etag"])
            ids = partition.part_ids(name, item["of"], item["parts"])
            parts = await asyncio.gather(*(self._item(partition, part) for part in ids))
            found = [part for part in parts if part is not None]
            if len(found) == len(parts):
                return Found(joined(found), f"{item['_etag']} {item['of']} {item['parts']}")
            # The object was replaced, unless the item still refers to the parts.
            again = await self._item(partition, partition.id_of(name))
            if again is not None and again["_etag"] == item["_etag"]:
                raise CorruptRecordError(f"A part of the item {folder}/{name} is missing.")
        return None

    async def delete(self, folder: str, names: Collection[str]) -> None:
        if not names:
            return
        partition = partition_of(folder)
        ghosts = {name: ghost for name in names if (ghost := Ghost.of_name(name)) is not None}
        parts = await self._parts_of(partition, names)
        for ghost in ghosts.values():
            parts += [item["id"] async for page in self._between(partition, *ghost.parts_range) for item in page]
        await self._delete_items(partition, [partition.id_of(name) for name in names if name not in ghosts])
        await self._delete_items(partition, parts)

    async def list(self, folder: str, *, after: str = "") -> AsyncIterator[Sequence[Listed]]:
        partition = partition_of(folder)
        if partition.kind == SEGMENTS:
            found = [listed async for page in self._listed(partition, after) for listed in page]
            found += [ghost for ghost in await self._ghosts(partition) if ghost.name > after]
            if found:
                yield sorted(found, key=lambda listed: listed.name)
            return
        async for page in self._listed(partition, after):
            yield page

    async def _listed(self, partition: Partition, after: str) -> AsyncIterator[list[Listed]]:
        async for page in self._between(partition, partition.id_of(after), f"{partition.kind};"):
            yield [Listed(partition.name_of(item["id"]), float(item["_ts"]), item["size"]) for item in page]

    async def _ghosts(self, partition: Partition) -> list[Listed]:
        """Return the parts in a partition that no object refers to."""
        parts: dict[Ghost, Listed] = {}
        async for page in self._between(partition, "x:", "x;"):
            for item in page:
                ghost = Ghost.of_part(item["id"])
                size = item["size"] + (parts[ghost].size if ghost in parts else 0)
                parts[ghost] = Listed(ghost.name, float(item["_ts"]), size)
        owners = list({f"{ghost.kind}:{ghost.owner}" for ghost in parts})
        items = await asyncio.gather(*(self._item(partition, owner) for owner in owners))
        unique = {owner: item.get("of") for owner, item in zip(owners, items, strict=True) if item is not None}
        return [each for ghost, each in parts.items() if unique.get(f"{ghost.kind}:{ghost.owner}") != ghost.unique]

    async def folders(self, folder: str) -> AsyncIterator[Sequence[str]]:
        kind, _, tenant = folder.partition("/")
        # A query over all items of the tenant: Cosmos DB has no list of partitions. "0" follows "/".
        given = {"@first": f"t/{tenant}/", "@stop": f"t/{tenant}0", "@above": f"{kind}:", "@below": f"{kind};"}
        async for page in self._pages(_PARTITIONS, given):
            yield list(dict.fromkeys(item["pk"].rpartition("/")[2] for item in page))

    async def describe(self) -> tuple[HealthCheck, ...]:
        account, container, offer = await asyncio.gather(
            self._answer(self.client._get_database_account),
            self._answer(self.container.read),
            self._answer(self.container.get_throughput),
        )
        return (
            encryption(self.account.endpoint, verifies=self.verifies),
            *of_account(self.account.name, account),
            HealthCheck("credential", self.credential_name),
            *of_container(container),
            throughput(offer),
        )

    async def _answer(self, question: Callable[[], Awaitable[Any]]) -> Any:
        try:
            return await self.requests.tried(question)
        except (ConfigurationError, AbsentError) as error:
            return error

    # Items

    async def _parts_of(self, partition: Partition, names: Collection[str]) -> list[str]:
        """Return the parts of these objects. For objects that are written only once, include those of dead writers."""
        if partition.kind == MARKERS:
            return []  # they are empty
        if partition.kind == DOCUMENTS:
            # Another process may be about to write parts under the same name.
            items = await asyncio.gather(*(self._item(partition, partition.id_of(name)) for name in names))
            owners = [(partition.name_of(item["id"]), item) for item in items if item is not None and item.get("parts")]
            return [part for name, item in owners for part in partition.part_ids(name, item["of"], item["parts"])]
        return [
            item["id"]
            async for page in self._between(partition, *partition.parts_range(names))
            for item in page
            if Ghost.of_part(item["id"]).owner in names
        ]

    async def _between(self, partition: Partition, above: str, below: str) -> AsyncIterator[list[Mapping[str, Any]]]:
        """Yield the items of a partition with IDs in a range, ascending."""
        given = {"@pk": partition.key, "@above": above, "@below": below}
        async for page in self._pages(_ITEMS, given, partition_key=partition.key):
            yield page

    async def _pages(
        self, query: str, given: Mapping[str, str], **options: str
    ) -> AsyncIterator[list[Mapping[str, Any]]]:
        """Yield the result of a query, one request a page."""
        token: str | None = None
        while True:
            page, token = await self.requests.tried(partial(self._page, query, given, token, options))
            if page:
                yield page
            if token is None:
                return

    async def _page(
        self, query: str, given: Mapping[str, str], token: str | None, options: Mapping[str, str]
    ) -> tuple[list[Mapping[str, Any]], str | None]:
        found = self.container.query_items(
            query,
            parameters=[{"name": name, "value": value} for name, value in given.items()],
            max_item_count=_PAGE,
            response_hook=self.requests.count,
            **options,
        )
        pages = found.by_page(token)
        try:
            page = [item async for item in await anext(pages)]
        except StopAsyncIteration:
            return [], None
        return page, pages.continuation_token

    async def _item(self, partition: Partition, item_id: str) -> dict[str, Any] | None:
        try:
            return cast("dict[str, Any]", await self._called("read_item", item=item_id, partition_key=partition.key))
        except AbsentError:
            return None

    async def _delete_items(self, partition: Partition, ids: Iterable[str]) -> None:
        async def delete(item_id: str) -> None:
            with contextlib.suppress(AbsentError):
                await self._called("delete_item", item=item_id, partition_key=partition.key)

        await asyncio.gather(*map(delete, ids))

    async def _must_exist(self, call: str, item: dict[str, Any]) -> None:
        """Write an item. An `AbsentError` then means that the container is missing."""
        try:
            await self._called(call, body=item)
        except AbsentError:
            raise self.requests.missing() from None

    async def _called(self, call: str, **arguments: Any) -> Any:
        return await self.requests.call(getattr(self.container, call), **arguments)


def _tagged(partition: Partition, name: str, tag: str) -> tuple[str, list[str]]:
    """Return the ETag in a tag, and the parts that the object had."""
    etag, _, parts = tag.partition(" ")
    unique, _, count = parts.partition(" ")
    return etag, partition.part_ids(name, unique, int(count or 0))
