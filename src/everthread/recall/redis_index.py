"""An index in the vector sets of Redis 8, one for each tenant and model, on the server of a `redis:` store."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from hashlib import blake2b
from typing import Any

import numpy as np
from numpy.typing import NDArray

from everthread.errors import ConfigurationError, UnsupportedError
from everthread.model import ThreadKey
from everthread.recall.embedders import Embedder
from everthread.recall.index import Entry, Mark, Near, VectorIndex, best_of_each_turn
from everthread.recall.passages import VERSION

try:
    from everthread.engines.redis import RedisStore
    from everthread.engines.redis.client.router import Router
    from everthread.engines.redis.client.urls import connector
    from everthread.engines.redis.errors import ServerError, refused
    from everthread.engines.redis.keys import check_prefix, realm_of
    from everthread.engines.redis.scripts import Script
    from everthread.engines.redis.store import DEFAULT_PREFIX
except ImportError as error:
    from everthread._extras import missing_extra

    raise missing_extra("redis", error) from error

_SCRIPT = Script("recall", writes=True)
_PARTS_A_TURN = 3
_LEAST_CANDIDATES = 200
_MOST_CANDIDATES = 2000
_MARKS_AT_ONCE = 1000
_FIELDS_OF_A_RESULT = 4


class RedisVectorIndex(VectorIndex):
    """Vectors in Redis 8 or newer, on one server, a cluster or behind sentinels. Valkey has no vector sets.

    All keys of a tenant's index begin with ``{prefix@tenant}:recall:`` and are in one slot. Each write is one script.
    A vector is stored with 8 bits a dimension.

    Args:
        url: The store's URL, with its options.
        embedder: The model that makes the vectors.
        create: Make an index that does not exist. Otherwise a search in it raises `ConfigurationError`.
        options: Options of `RedisStore.from_url` for connecting.
    """

    def __init__(self, url: str, embedder: Embedder, *, create: bool = True, **options: Any) -> None:
        self.model = f"{embedder.name}/{VERSION}"
        self.dimensions = embedder.dimensions
        self._create = create
        store = RedisStore.from_url(url, **options)
        self._location = store.location
        connect, settings = connector(url, options)
        self._connect = connect
        self._server: str = settings["server"]
        self._prefix = check_prefix(settings.get("prefix", DEFAULT_PREFIX))
        # Any text may name a model.
        self._name = blake2b(self.model.encode(), digest_size=8).hexdigest().encode()
        self._router: Router | None = None
        self._noted: set[str] = set()

    async def open(self) -> None:
        """Connect."""
        router = self._connect()
        await router.open()
        self._router = router

    async def aclose(self) -> None:
        """Close the connections."""
        router, self._router = self._router, None
        if router is not None:
            await router.close()

    async def marks(self, keys: Sequence[ThreadKey]) -> Mapping[ThreadKey, Mark]:
        """Return the marks of those threads that have one."""
        found: dict[ThreadKey, Mark] = {}
        for tenant in {key.tenant for key in keys}:
            mine = [key for key in keys if key.tenant == tenant]
            for start in range(0, len(mine), _MARKS_AT_ONCE):
                some = mine[start : start + _MARKS_AT_ONCE]
                marks = await self._run(tenant, b"marks", *(key.thread_id.encode() for key in some))
                found.update((key, _mark(mark)) for key, mark in zip(some, marks, strict=True) if mark)
        return found

    async def add(
        self,
        key: ThreadKey,
        entries: Sequence[Entry],
        mark: Mark,
        *,
        expected: Mark | None,
        remove: Collection[tuple[int, int]] = (),
    ) -> bool:
        """Remove and add entries and set the mark, in one script, if the mark is ``expected``."""
        if key.tenant not in self._noted:
            # In another slot of a cluster, so before the script and not in it.
            await self._run("", b"note", key.tenant.encode())
            self._noted.add(key.tenant)
        arguments = [key.thread_id.encode(), b"" if expected is None else _text(expected), _text(mark)]
        arguments += [b"%d" % len(remove), *(b"%d:%d" % place for place in remove)]
        for each in entries:
            created = b"" if each.created_ms is None else b"%d" % each.created_ms
            facts = b"%d,%d,%s,%s" % (each.last, each.seq, created, each.digest.hex().encode())
            arguments += [b"%d:%d" % (each.turn, each.part), facts, each.vector.astype("<f4").tobytes()]
        return bool(await self._run(key.tenant, b"add", *arguments))

    async def entries(self, key: ThreadKey) -> Mapping[tuple[int, int], bytes]:
        """Return the digests of a thread's entries by turn and part."""
        flat = await self._run(key.tenant, b"entries", key.thread_id.encode())
        return {
            _place(place): bytes.fromhex(facts.rsplit(b",", 1)[1].decode())
            for place, facts in zip(flat[::2], flat[1::2], strict=True)
        }

    async def remove(self, key: ThreadKey) -> None:
        """Remove a thread's entries and its mark."""
        await self._run(key.tenant, b"remove", key.thread_id.encode())

    async def delete_tenant(self, tenant: str) -> int:
        """Remove everything of a tenant, of all models."""
        return int(await self._run(tenant, b"delete"))

    async def tenants(self) -> Sequence[str]:
        """Return the tenants that have marks."""
        known = [each.decode() for each in await self._run("", b"tenants")]
        return [tenant for tenant in sorted(known) if await self.threads(tenant, limit=1)]

    async def threads(self, tenant: str, *, after: str = "", limit: int = 1000) -> Sequence[str]:
        """Return the IDs of threads that have a mark, in order, after an ID."""
        found = await self._run(tenant, b"threads", after.encode(), b"%d" % limit)
        return [each.decode() for each in found]

    async def count(self, tenant: str) -> int:
        """Return the number of a tenant's entries."""
        return int(await self._run(tenant, b"count"))

    async def nearest(self, tenant: str, vector: NDArray[np.float32], limit: int) -> Sequence[Near]:
        """Return the entries with the highest scores, at most one a turn, the highest first."""
        if not self._create and not await self._run(tenant, b"exists"):
            raise ConfigurationError(
                f"There is no index in {self._location} yet: make it with everthread recall follow --once."
            )
        wanted = limit * _PARTS_A_TURN
        candidates = min(max(wanted * 2, _LEAST_CANDIDATES), _MOST_CANDIDATES)
        arguments = [vector.astype("<f4").tobytes(), b"%d" % wanted, b"%d" % max(candidates, wanted)]
        flat = await self._run(tenant, b"nearest", *arguments)
        found: list[Near] = []
        for start in range(0, len(flat), _FIELDS_OF_A_RESULT):
            thread_id, place, facts, score = flat[start : start + _FIELDS_OF_A_RESULT]
            (turn, part), (last, seq, created, digest) = _place(place), facts.split(b",")
            key = ThreadKey(thread_id.decode(), tenant)
            when = int(created) if created else None
            # Redis maps the cosine from -1 … 1 to 0 … 1.
            nearness = 2 * float(score) - 1
            found.append(Near(key, turn, int(last), part, int(seq), when, bytes.fromhex(digest.decode()), nearness))
        return best_of_each_turn(found, limit)

    async def _run(self, tenant: str, what: bytes, *arguments: bytes) -> Any:
        if self._router is None:
            await self.open()
        assert self._router is not None
        beginning = f"{{{realm_of(self._prefix, tenant)}}}:recall".encode()
        try:
            return await self._router.run(_SCRIPT, beginning, [what, self._name, *arguments])
        except ServerError as error:
            if "unknown command" in str(error).lower():
                raise UnsupportedError(
                    f"{self._server} has no vector sets: they need Redis 8 or newer, and Valkey lacks them. Use a "
                    "SqliteVectorIndex."
                ) from None
            raise refused(self._server, error) from None


def _text(mark: Mark) -> bytes:
    return b"%d,%d,%d,%d,%d" % (mark.created_ms, mark.head_seq, mark.next_seq, mark.count, mark.size)


def _mark(text: bytes) -> Mark:
    created_ms, head_seq, next_seq, count, size = map(int, text.split(b","))
    return Mark(created_ms, head_seq, next_seq, count, size)


def _place(text: bytes) -> tuple[int, int]:
    turn, _, part = text.partition(b":")
    return int(turn), int(part)
