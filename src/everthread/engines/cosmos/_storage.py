"""The objects of a log as items of a container."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Collection, Iterable, Mapping, Sequence
from contextlib import AsyncExitStack
from functools import partial
from typing import Any, cast

from everthread._extras import import_extra
from everthread.engines._segments.diagnosis import Described
from everthread.engines._segments.storage import Browsable, Found, Listed, Storage
from everthread.engines.cosmos._account import account_of, credential_of
from everthread.engines.cosmos._diagnosis import described
from everthread.engines.cosmos._items import Ghost, Place, Written, items_of, joined, owner_of, place_of
from everthread.engines.cosmos._requests import PARTITION_KEY, AbsentError, Requests, TakenError
from everthread.errors import ConfigurationError, CorruptRecordError
from everthread.model import Fact

MAX_OBJECT_BYTES = 64 * 1024 * 1024
INDEXING = {
    "indexingMode": "consistent",
    "includedPaths": [{"path": f"{PARTITION_KEY}/?"}],
    "excludedPaths": [{"path": "/*"}],
}
"""All that is asked for are ids in a partition. ``id`` is indexed always, and whatever else is indexed costs with each
write (https://learn.microsoft.com/azure/cosmos-db/index-policy)."""

_ITEMS = "SELECT c.id, c.size, c._ts FROM c WHERE c.pk = @pk AND c.id > @above AND c.id < @below ORDER BY c.id"
_PARTITIONS = "SELECT c.pk FROM c WHERE c.pk > @first AND c.pk < @stop AND c.id > @above AND c.id < @below"
_PAGE = 100


class CosmosStorage(Storage, Browsable, Described):
    """Items of a container whose partition key is ``/pk``.

    What does not fit an item is cut into parts, which are written before the item that names them and
    so makes them visible, all at once.

    Args:
        account: The account's name; empty: the one of the connection string in the environment.
        database: The database's.
        container: The container's.
        endpoint: Where the account is, if not in the public cloud.
        credential: A key, or a credential of azure-identity.
        create: Make database and container if they are missing; needs the account's key.
        verify: Check the server's certificate.
        discover: Ask the account for its regions, and go to another if one fails; false where only this endpoint is
            within reach.
        timeout: Seconds for one try of a request.
        retry_seconds: For so long a request that is throttled, fails or gets no answer is tried again.

    Raises:
        ConfigurationError: No account is named.
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
        # Repeating is done here, where there is one bound for it; what is left to the driver is going to other regions.
        # No more tries after throttling is -1 for it: 0 would mean its default of nine.
        self._options: dict[str, Any] = {"connection_verify": verify, "connection_timeout": timeout}
        self._options |= {"enable_endpoint_discovery": discover, "retry_total": -1}
        self._options |= {"retry_connect": 0, "retry_read": 0, "retry_status": 0}
        # What was written is known here: it need not come back.
        self._options["no_response_on_write"] = True
        self._closing = AsyncExitStack()
        self.client: Any = None
        self.container: Any = None

    @property
    def location(self) -> str:
        return self._location

    @property
    def credential_name(self) -> str:
        """What kind of credential it is opened with, for people."""
        if self._credential is None:
            return "Entra ID, DefaultAzureCredential" if self.account.key is None else "account key"
        is_key = isinstance(self._credential, str)
        return "account key" if is_key else f"Entra ID, {type(self._credential).__name__}"

    async def open(self) -> None:
        aio = import_extra("azure.cosmos.aio", "cosmos")
        async with AsyncExitStack() as stack:
            credential = await credential_of(self._credential, self.account, stack)
            try:
                client = aio.CosmosClient(self.account.endpoint, credential, **self._options)
                # Also a client that fails while it opens has something to close.
                stack.push_async_exit(client)
                await client.__aenter__()
                self.container = await self._opened(client)
                self.client = client
            except Exception as error:
                typed = self.requests.typed(error)
                raise (self.requests.missing() if isinstance(typed, AbsentError) else typed) from None
            self._closing = stack.pop_all()

    async def _opened(self, client: Any) -> Any:
        if self._create:
            await self._created(client)
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
        # The driver looks first and creates then; meanwhile others may have created it.
        with contextlib.suppress(TakenError):
            await self.requests.tried(lambda: client.create_database_if_not_exists(name))
        with contextlib.suppress(TakenError):
            await self.requests.tried(lambda: database.create_container_if_not_exists(container, **settings))

    async def close(self) -> None:
        await self._closing.aclose()

    # Objects

    async def create(self, folder: str, name: str, data: bytes) -> bool:
        place = place_of(folder)
        written = items_of(place, name, data)
        await self._write_parts(written)
        try:
            await self._must_exist("create_item", written.item)
        except TakenError:
            # The answer to a try before may have been lost: then these parts belong to what is there.
            is_ours = await self._is_there(place, written)
            if not is_ours:
                await self._delete_items(place, [part["id"] for part in written.parts])
            return is_ours
        return True

    async def put(self, folder: str, name: str, data: bytes) -> None:
        place = place_of(folder)
        written = items_of(place, name, data)
        await self._write_parts(written)
        await self._must_exist("upsert_item", written.item)
        ours = {part["id"] for part in written.parts}
        await self._delete_items(place, [part for part in await self._parts_of(place, [name]) if part not in ours])

    async def replace(self, folder: str, name: str, data: bytes, tag: str) -> bool:
        place = place_of(folder)
        written = items_of(place, name, data)
        await self._write_parts(written)
        etag, former = _tagged(place, name, tag)
        if await self._replaced(written, etag) or await self._is_there(place, written):
            await self._delete_items(place, former)
            return True
        await self._delete_items(place, [part["id"] for part in written.parts])
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

    async def _is_there(self, place: Place, written: Written) -> bool:
        """Whether an object with parts is the one that was written here. Of others, log and documents can tell."""
        if not written.parts:
            return False
        found = await self._item(place, written.item["id"])
        return found is not None and found.get("of") == written.item["of"]

    async def get(self, folder: str, name: str) -> Found | None:
        place = place_of(folder)
        while (item := await self._item(place, place.id_of(name))) is not None:
            if not item.get("parts"):
                return Found(item["body"].encode(), item["_etag"])
            ids = place.part_ids(name, item["of"], item["parts"])
            parts = await asyncio.gather(*(self._item(place, part) for part in ids))
            found = [part for part in parts if part is not None]
            if len(found) == len(parts):
                return Found(joined(found), f"{item['_etag']} {item['of']} {item['parts']}")
            # Replaced since the item was read, unless it still names them.
            again = await self._item(place, place.id_of(name))
            if again is not None and again["_etag"] == item["_etag"]:
                raise CorruptRecordError(f"A part of the item {folder}/{name} is missing.")
        return None

    async def delete(self, folder: str, names: Collection[str]) -> None:
        if not names:
            return
        place = place_of(folder)
        ghosts = [ghost for name in names if (ghost := Ghost.of_name(name)) is not None]
        parts = await self._parts_of(place, names)
        for ghost in ghosts:
            parts += [item["id"] async for page in self._between(place, *ghost.parts_range) for item in page]
        await self._delete_items(place, [place.id_of(name) for name in names if Ghost.of_name(name) is None])
        await self._delete_items(place, parts)

    async def list(self, folder: str, *, after: str = "") -> AsyncIterator[Sequence[Listed]]:
        place = place_of(folder)
        if place.lists_ghosts:
            found = [listed async for page in self._listed(place, after) for listed in page]
            found += [ghost for ghost in await self._ghosts(place) if ghost.name > after]
            if found:
                yield sorted(found, key=lambda listed: listed.name)
            return
        async for page in self._listed(place, after):
            yield page

    async def _listed(self, place: Place, after: str) -> AsyncIterator[list[Listed]]:
        async for page in self._between(place, place.id_of(after), f"{place.kind};"):
            yield [Listed(place.name_of(item["id"]), float(item["_ts"]), item["size"]) for item in page]

    async def _ghosts(self, place: Place) -> list[Listed]:
        """The parts in a partition that no object refers to."""
        parts: dict[Ghost, Listed] = {}
        async for page in self._between(place, "x:", "x;"):
            for item in page:
                ghost = Ghost.of_part(item["id"])
                size = item["size"] + (parts[ghost].size if ghost in parts else 0)
                parts[ghost] = Listed(ghost.name, float(item["_ts"]), size)
        owners = list({f"{ghost.kind}:{ghost.owner}" for ghost in parts})
        items = await asyncio.gather(*(self._item(place, owner) for owner in owners))
        unique = {owner: item.get("of") for owner, item in zip(owners, items, strict=True) if item is not None}
        return [each for ghost, each in parts.items() if unique.get(f"{ghost.kind}:{ghost.owner}") != ghost.unique]

    async def folders(self, folder: str) -> AsyncIterator[Sequence[str]]:
        kind, _, tenant = folder.partition("/")
        # Of all partitions of the tenant, since Cosmos DB has no list of them. "0" is what follows "/".
        given = {"@first": f"t/{tenant}/", "@stop": f"t/{tenant}0", "@above": f"{kind}:", "@below": f"{kind};"}
        async for page in self._pages(_PARTITIONS, given):
            yield list(dict.fromkeys(item["pk"].rpartition("/")[2] for item in page))

    async def describe(self) -> tuple[Fact, ...]:
        return await described(self)

    async def describe_object(self, folder: str, name: str) -> tuple[Fact, ...]:
        return ()

    # Items

    async def _parts_of(self, place: Place, names: Collection[str]) -> list[str]:
        """The parts of these objects; of those that are written once only, also what a writer left when it died."""
        if not place.has_parts:
            return []
        if place.is_rewritten:
            # Here others may be about to write parts under the same name.
            items = await asyncio.gather(*(self._item(place, place.id_of(name)) for name in names))
            owners = [(place.name_of(item["id"]), item) for item in items if item is not None and item.get("parts")]
            return [part for name, item in owners for part in place.part_ids(name, item["of"], item["parts"])]
        return [
            item["id"]
            async for page in self._between(place, *place.parts_range(names))
            for item in page
            if owner_of(item["id"]) in names
        ]

    async def _between(self, place: Place, above: str, below: str) -> AsyncIterator[list[Mapping[str, Any]]]:
        """The items of a partition whose ids lie between these, ascending."""
        given = {"@pk": place.partition, "@above": above, "@below": below}
        async for page in self._pages(_ITEMS, given, partition_key=place.partition):
            yield page

    async def _pages(
        self, query: str, given: Mapping[str, str], **options: str
    ) -> AsyncIterator[list[Mapping[str, Any]]]:
        """What a query finds, a request each; a continuation token leads from one to the next."""
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

    async def _item(self, place: Place, item_id: str) -> dict[str, Any] | None:
        try:
            return cast("dict[str, Any]", await self._called("read_item", item=item_id, partition_key=place.partition))
        except AbsentError:
            return None

    async def _delete_items(self, place: Place, ids: Iterable[str]) -> None:
        async def delete(item_id: str) -> None:
            with contextlib.suppress(AbsentError):
                await self._called("delete_item", item=item_id, partition_key=place.partition)

        await asyncio.gather(*map(delete, ids))

    async def _must_exist(self, call: str, item: dict[str, Any]) -> None:
        """Writes an item for which it does not matter what was there; what is missing then is the container."""
        try:
            await self._called(call, body=item)
        except AbsentError:
            raise self.requests.missing() from None

    async def _called(self, call: str, **arguments: Any) -> Any:
        return await self.requests.call(getattr(self.container, call), **arguments)


def _tagged(place: Place, name: str, tag: str) -> tuple[str, list[str]]:
    """The ETag in a tag, and the parts that the object had then."""
    etag, _, parts = tag.partition(" ")
    unique, _, count = parts.partition(" ")
    return etag, place.part_ids(name, unique, int(count or 0))
