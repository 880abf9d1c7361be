"""The engine over a container of Cosmos DB."""

from __future__ import annotations

from collections.abc import Coroutine, Sequence
from typing import Any, Self

from everthread.charges import Charges, collecting_in, collector
from everthread.engines._base import AppendRequest
from everthread.engines._segments.compaction import Sizes
from everthread.engines._segments.diagnosis import DiagnosedEngine
from everthread.engines._segments.reconciling import ReconciledEngine
from everthread.engines.cosmos._account import place_of
from everthread.engines.cosmos._storage import CosmosStorage
from everthread.errors import EverthreadError
from everthread.model import Appended
from everthread.settings import engine_options, flag

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


class CosmosStore(DiagnosedEngine, ReconciledEngine):
    """A store in a container of a Cosmos DB account.

    Args:
        storage: Where the items are.
        sizes: How large items become.
    """

    def __init__(self, storage: CosmosStorage, *, sizes: Sizes | None = None, **options: Any) -> None:
        # An item's price grows with its size, and small ones need no parts.
        super().__init__(storage, sizes=sizes or Sizes(full_bytes=512 * 1024), **options)
        self.storage = storage
        self._paying: dict[int, Charges | None] = {}

    @classmethod
    def from_url(cls, url: str, **options: Any) -> Self:
        """The store that a URL names; ``cosmos:///database`` is in the account of the connection string.

        Options of its own, in the URL or as keyword arguments: ``container`` ("threads"), ``endpoint`` (of another
        cloud or an emulator), ``create`` (make database and container if they are missing), ``verify`` (false: accept
        an emulator's certificate), ``discover`` (false: never go to another region), ``timeout`` (seconds for one try
        of a request, 30), ``retry_seconds`` (for so long it is tried again, 10), ``cache_bytes``.

        ``credential`` (keyword only) is a key or a credential of azure-identity; without it the key in
        ``AZURE_COSMOS_CONNECTIONSTRING`` (if that is of this account) or ``AZURE_COSMOS_KEY`` is taken, else Entra's
        default credential.
        """
        rest, settings = engine_options(url, options, _OWN_OPTIONS)
        names = [*(name for name in _OWN_OPTIONS if name != "cache_bytes"), "credential"]
        own = {name: settings.pop(name) for name in names if name in settings}
        return cls(CosmosStorage(*place_of(rest), **own), **settings)

    @property
    def request_units(self) -> float:
        """What all calls of this store have used so far, refused requests and cleaning up included.

        `everthread.charges.charges` tells it of single calls, and `Traced` on their spans.
        """
        return self.storage.requests.units

    # Who pays: appends that go together share what it costs, and what happens later by itself is in nobody's bill.

    async def _append_one(self, request: AppendRequest) -> Appended:
        self._paying[id(request)] = collector()
        try:
            return await super()._append_one(request)
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
