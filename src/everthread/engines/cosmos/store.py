"""The engine over a container of Cosmos DB."""

from __future__ import annotations

from collections.abc import Coroutine, Sequence
from typing import Any, Self

from everthread._url_options import engine_options, flag
from everthread.engines._segments.compaction import Sizes
from everthread.engines._segments.store import SegmentStore
from everthread.engines.base import AppendRequest
from everthread.engines.cosmos.connection import account_and_database
from everthread.engines.cosmos.storage import CosmosStorage
from everthread.errors import EverthreadError
from everthread.model import Appended
from everthread.request_charge import Charges, collecting_in, collector

_OWN_OPTIONS = {
    "container": str,
    "endpoint": str,
    "create": flag,
    "verify": flag,
    "discover": flag,
    "timeout": float,
    "retry_seconds": float,
    "cache_bytes": int,
}


class CosmosStore(SegmentStore):
    """A store in a container of a Cosmos DB account."""

    def __init__(self, storage: CosmosStorage, *, sizes: Sizes | None = None, **options: Any) -> None:
        # The charge of an item grows with its size, and small ones need no parts.
        super().__init__(storage, sizes=sizes or Sizes(full_bytes=512 * 1024), **options)
        self.storage = storage
        self._paying: dict[int, Charges | None] = {}

    @classmethod
    def from_url(cls, url: str, **options: Any) -> Self:
        """Return the store for a URL; ``cosmos:///database`` is in the account of the connection string.

        Options in the URL or as keyword arguments: ``container`` ("threads"), ``endpoint`` (of another cloud or an
        emulator), ``create`` (create a missing database or container), ``verify`` (false: accept an emulator's
        certificate), ``discover`` (false: never use another region), ``timeout`` (seconds for one attempt of a request,
        30), ``retry_seconds`` (the time for further attempts, 10), ``cache_bytes``.

        ``credential`` (keyword only) is a key or a credential of azure-identity. The default is the key in
        ``AZURE_COSMOS_CONNECTIONSTRING`` (if that is of this account) or ``AZURE_COSMOS_KEY``, else Entra's default
        credential.
        """
        rest, settings = engine_options(url, options, _OWN_OPTIONS)
        names = [*(name for name in _OWN_OPTIONS if name != "cache_bytes"), "credential"]
        own = {name: settings.pop(name) for name in names if name in settings}
        return cls(CosmosStorage(*account_and_database(rest), **own), **settings)

    @property
    def request_units(self) -> float:
        """The request units of all calls so far, including refused requests and background work.

        `everthread.request_charge.charges` measures single calls, and `Traced` reports them on spans.
        """
        return self.storage.requests.units

    # Appends of one batch share its charge, and no call is charged for background work.

    async def _append(self, request: AppendRequest) -> Appended:
        self._paying[id(request)] = collector()
        try:
            return await super()._append(request)
        finally:
            del self._paying[id(request)]

    async def _append_turns(self, batch: Sequence[AppendRequest]) -> Sequence[Appended | EverthreadError]:
        payers = [self._paying.get(id(request)) for request in batch]
        used = Charges()
        try:
            with collecting_in(used):
                return await super()._append_turns(batch)
        finally:
            for payer in payers:
                if payer is not None:
                    payer.add(used.total / len(batch))

    def _later(self, work: Coroutine[Any, Any, None]) -> None:
        with collecting_in(None):
            super()._later(work)
