"""Threads in Azure Cosmos DB (the NoSQL API): each entry of a thread's log is an item of one logical partition.

URL: ``cosmos://account/database?container=threads``. Needs ``pip install 'everthread[cosmos]'``. That a name is free
once is Cosmos DB's own rule: creating an item whose id its partition has gives 409. No transactional batches.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import logging
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping, Sequence
from contextlib import AsyncExitStack
from functools import partial
from typing import Any, Self, TypeVar, cast
from urllib.parse import parse_qsl, urlsplit

from everthread._extras import import_extra
from everthread.engines._segments.compaction import Sizes
from everthread.engines._segments.engine import SegmentEngine
from everthread.engines._segments.names import nonce
from everthread.engines._segments.storage import Found, Listed, Storage
from everthread.errors import ConfigurationError, CorruptRecordError, LimitExceededError, StoreUnavailableError
from everthread.settings import engine_options, flag

MAX_OBJECT_BYTES = 64 * 1024 * 1024
ITEM_BYTES = 2 * 1024 * 1024
"""Cosmos DB's limit for an item (https://learn.microsoft.com/azure/cosmos-db/concepts-limits)."""

PARTITION_KEY = "/pk"

_PART_BYTES = 1_400_000  # as base64, with room for the item's own fields
_PAGE = 100
_DELETES = 16
_RETRIES = 3
_TRANSIENT = {408, 410, 429, 449, 500, 502, 503, 504}
_OWN_OPTIONS = {
    "container": str,
    "endpoint": str,
    "create": flag,
    "verify": flag,
    "discover": flag,
    "timeout": float,
    "cache_bytes": int,
}

_log = logging.getLogger("everthread.cosmos")

R = TypeVar("R")


class CosmosStore(SegmentEngine):
    """A store in a container of a Cosmos DB account.

    Args:
        storage: Where the items are.
    """

    def __init__(self, storage: CosmosStorage, **options: Any) -> None:
        # An item's price grows with its size, and small ones need no parts.
        super().__init__(storage, sizes=Sizes(full_bytes=512 * 1024), **options)
        self.storage = storage

    @classmethod
    def from_url(cls, url: str, **options: Any) -> Self:
        """The store that a URL names.

        Options of its own, in the URL or as keyword arguments: ``container`` ("threads"), ``endpoint`` (of another
        cloud or an emulator), ``create`` (make database and container if they are missing), ``verify`` (false: accept
        an emulator's certificate), ``discover`` (false: never go to another region), ``timeout`` (30 seconds a
        request), ``cache_bytes``. ``credential`` (keyword only)
        is a key or a credential of azure-identity; without it ``AZURE_COSMOS_KEY`` is taken, else Entra's default one.
        """
        rest, settings = engine_options(url, options, _OWN_OPTIONS)
        names = [*(name for name in _OWN_OPTIONS if name != "cache_bytes"), "credential"]
        own = {name: settings.pop(name) for name in names if name in settings}
        return cls(CosmosStorage(*_place(rest), **own), **settings)

    @property
    def request_units(self) -> float:
        """The request units that this store's calls have used so far; each call's are logged at DEBUG."""
        return self.storage.request_units


class CosmosStorage(Storage):
    """Items of a container whose partition key is ``/pk``: the folder is the partition, the name is the id.

    What does not fit an item is cut into parts, which are written before the item that names them and
    so makes them visible, all at once.

    Args:
        account: The account's name.
        database: The database's.
        container: The container's.
        endpoint: Where the account is, if not in the public cloud.
        credential: A key, or a credential of azure-identity.
        create: Make database and container if they are missing; needs the account's key.
        verify: Check the server's certificate.
        discover: Ask the account for its regions, and go to another if one fails; false where only this endpoint is
            within reach.
        timeout: Seconds for one request.
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
    ) -> None:
        self._errors = import_extra("azure.cosmos.exceptions", "cosmos")
        self._transport = import_extra("azure.core.exceptions", "cosmos")
        self._location = f"cosmos://{account}/{database}?container={container}"
        self._endpoint = endpoint or f"https://{account}.documents.azure.com:443/"
        self._names = database, container
        self._credential = credential
        self._create = create
        self._options: dict[str, Any] = {"connection_verify": verify, "connection_timeout": timeout}
        self._options["enable_endpoint_discovery"] = discover
        self._options |= {"retry_total": 3, "retry_throttle_total": 9, "retry_throttle_backoff_max": 10}
        self._closing = AsyncExitStack()
        self._container: Any = None
        self.request_units = 0.0

    @property
    def location(self) -> str:
        return self._location

    async def open(self) -> None:
        aio = import_extra("azure.cosmos.aio", "cosmos")
        async with AsyncExitStack() as stack:
            credential = await _credential(self._credential, stack)
            client = aio.CosmosClient(self._endpoint, credential, **self._options)
            try:
                # Also a client that fails while it opens has something to close.
                stack.push_async_exit(client)
                await client.__aenter__()
                self._container = await self._opened(client)
            except Exception as error:
                raise self._typed(error) from None
            self._closing = stack.pop_all()

    async def _opened(self, client: Any) -> Any:
        if self._create:
            await self._created(client)
        database, container = self._names
        found = client.get_database_client(database).get_container_client(container)
        paths = (await found.read())["partitionKey"]["paths"]
        if paths != [PARTITION_KEY]:
            raise ConfigurationError(f"The container of {self._location} must have the partition key {PARTITION_KEY}.")
        return found

    async def _created(self, client: Any) -> None:
        key = import_extra("azure.cosmos", "cosmos").PartitionKey(PARTITION_KEY)
        database, container = self._names
        # The driver looks first and creates then; meanwhile others may have created it.
        with contextlib.suppress(self._errors.CosmosResourceExistsError):
            await client.create_database_if_not_exists(database)
        with contextlib.suppress(self._errors.CosmosResourceExistsError):
            await client.get_database_client(database).create_container_if_not_exists(container, partition_key=key)

    async def close(self) -> None:
        await self._closing.aclose()

    async def create(self, folder: str, name: str, data: bytes) -> bool:
        return await self._write("create_item", folder, name, data)

    async def put(self, folder: str, name: str, data: bytes) -> None:
        await self._write("upsert_item", folder, name, data)

    async def replace(self, folder: str, name: str, data: bytes, tag: str) -> bool:
        condition = import_extra("azure.core", "cosmos").MatchConditions.IfNotModified
        return await self._write("replace_item", folder, name, data, item=name, etag=tag, match_condition=condition)

    async def _write(self, call: str, folder: str, name: str, data: bytes, **options: Any) -> bool:
        item, parts = _cut(folder, name, data)
        former: Sequence[str] = () if call == "create_item" else await self._parts_of(folder, name)
        for part in parts:
            await self._called("upsert_item", body=part)
        try:
            await self._called(call, body=item, **options)
        except (self._errors.CosmosResourceExistsError, self._errors.CosmosAccessConditionFailedError):
            written = False
        except self._errors.CosmosResourceNotFoundError:
            written = False
        else:
            written = True
        await self._delete_parts(folder, former if written else [part["id"] for part in parts])
        return written

    async def get(self, folder: str, name: str) -> Found | None:
        item = await self._item(folder, name)
        if item is None:
            return None
        if not item.get("parts"):
            return Found(item["body"].encode(), item["_etag"])
        parts = await asyncio.gather(*(self._item(_parts_folder(folder), part) for part in item["parts"]))
        if None in parts:
            # Replaced since the item was read, unless it still names them.
            again = await self._item(folder, name)
            if again is not None and again["_etag"] == item["_etag"]:
                raise CorruptRecordError(f"A part of the item {folder}/{name} is missing.")
            return await self.get(folder, name)
        return Found(b"".join(base64.b64decode(part["body"]) for part in parts if part is not None), item["_etag"])

    async def delete(self, folder: str, names: Collection[str]) -> None:
        limit = asyncio.Semaphore(_DELETES)

        async def delete(name: str) -> None:
            async with limit:
                parts = await self._parts_of(folder, name)
                await self._delete_one(folder, name)
                await self._delete_parts(folder, parts)

        await asyncio.gather(*map(delete, names))

    async def list(self, folder: str, *, after: str = "") -> AsyncIterator[Sequence[Listed]]:
        token: str | None = None
        while True:
            page, token = await self._tried(partial(self._page, folder, after, token))
            if page:
                yield [Listed(item["id"], float(item["_ts"]), item["size"]) for item in page]
            if token is None:
                return

    async def _page(self, folder: str, after: str, token: str | None) -> tuple[list[Mapping[str, Any]], str | None]:
        found = self._container.query_items(
            "SELECT c.id, c.size, c._ts FROM c WHERE c.pk = @folder AND c.id > @after ORDER BY c.id",
            parameters=[{"name": "@folder", "value": folder}, {"name": "@after", "value": after}],
            partition_key=folder,
            max_item_count=_PAGE,
            response_hook=self._counted,
        )
        pages = found.by_page(token)
        try:
            page = [item async for item in await anext(pages)]
        except StopAsyncIteration:
            return [], None
        return page, pages.continuation_token

    async def _item(self, folder: str, name: str) -> dict[str, Any] | None:
        try:
            return await self._called("read_item", item=name, partition_key=folder)
        except self._errors.CosmosResourceNotFoundError:
            return None

    async def _parts_of(self, folder: str, name: str) -> Sequence[str]:
        item = await self._item(folder, name)
        return [] if item is None else cast("list[str]", item.get("parts", []))

    async def _delete_parts(self, folder: str, names: Sequence[str]) -> None:
        for name in names:
            await self._delete_one(_parts_folder(folder), name)

    async def _delete_one(self, folder: str, name: str) -> None:
        try:
            await self._called("delete_item", item=name, partition_key=folder)
        except self._errors.CosmosResourceNotFoundError:
            return

    async def _called(self, call: str, **arguments: Any) -> Any:
        return await self._tried(lambda: getattr(self._container, call)(**arguments, response_hook=self._counted))

    async def _tried(self, request: Callable[[], Awaitable[R]]) -> R:
        """Sends a request, again if it may help: the driver does that for throttling (429) only.

        Each is safe to repeat: what has landed fails its own condition, which the log and the documents notice.
        """
        attempt = 0
        while True:
            try:
                return await request()
            except (
                self._errors.CosmosResourceExistsError,
                self._errors.CosmosAccessConditionFailedError,
                self._errors.CosmosResourceNotFoundError,
            ):
                raise
            except Exception as error:
                typed = self._typed(error)
                if attempt >= _RETRIES or not isinstance(typed, StoreUnavailableError):
                    raise typed from None
            await asyncio.sleep(0.1 * 2**attempt)
            attempt += 1

    def _counted(self, headers: Mapping[str, str], _: object) -> None:
        charge = float(headers.get("x-ms-request-charge", 0))
        self.request_units += charge
        _log.debug("A request used %.2f request units.", charge)

    def _typed(self, error: Exception) -> Exception:
        """An error of ours: the driver's own quote items and signatures."""
        if isinstance(error, self._errors.CosmosHttpResponseError):
            return self._typed_status(int(cast("int | None", getattr(error, "status_code", None)) or 0))
        if isinstance(error, self._transport.ClientAuthenticationError):
            return ConfigurationError(f"{self._location}: no credential that Entra accepts was found.")
        if isinstance(error, (self._transport.AzureError, OSError, asyncio.TimeoutError)):
            return StoreUnavailableError(f"{self._location} cannot be reached: check the network and the address.")
        return error

    def _typed_status(self, status: int) -> Exception:
        if status in {401, 403}:
            return ConfigurationError(f"{self._location} refuses these credentials: check them and their rights.")
        if status == 404:
            return ConfigurationError(
                f"{self._location} does not exist: create the container with the partition key {PARTITION_KEY}, "
                "or open it with create=true."
            )
        if status == 413:
            return LimitExceededError(f"{self._location} does not take an item of this size.", 0, ITEM_BYTES)
        if status in _TRANSIENT or not status:
            return StoreUnavailableError(f"{self._location} answers with status {status}: try again.")
        return ConfigurationError(f"{self._location} refuses a request with status {status}.")


async def _credential(given: Any, stack: AsyncExitStack) -> Any:
    if given is not None:
        return given
    if key := os.environ.get("AZURE_COSMOS_KEY"):
        return key
    identity = import_extra("azure.identity.aio", "cosmos")
    return await stack.enter_async_context(identity.DefaultAzureCredential())


def _place(url: str) -> tuple[str, str]:
    parts = urlsplit(url)
    database = parts.path.strip("/")
    if not parts.netloc or "@" in parts.netloc or not database or "/" in database:
        raise ConfigurationError("Name account and database: cosmos://account/database, without credentials.")
    if unknown := [name for name, _ in parse_qsl(parts.query, keep_blank_values=True)]:
        raise ConfigurationError(f"The cosmos engine has no option {', '.join(unknown)}.")
    return parts.netloc, database


def _cut(folder: str, name: str, data: bytes) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The item for an object, and the parts that go before it if it is large."""
    item: dict[str, Any] = {"id": name, "pk": folder, "size": len(data)}
    # Text is escaped again inside an item's JSON: at worst every byte takes two.
    if len(data) < ITEM_BYTES // 2 - 4096:
        return {**item, "body": data.decode()}, []
    unique = nonce()
    parts = [
        {
            "id": f"{unique}-{number}",
            "pk": _parts_folder(folder),
            "size": len(data[at : at + _PART_BYTES]),
            "body": base64.b64encode(data[at : at + _PART_BYTES]).decode(),
        }
        for number, at in enumerate(range(0, len(data), _PART_BYTES))
    ]
    return {**item, "body": "", "parts": [part["id"] for part in parts]}, parts


def _parts_folder(folder: str) -> str:
    return f"x/{folder}"
