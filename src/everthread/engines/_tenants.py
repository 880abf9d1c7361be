"""Listing the tenants of an engine."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence

from everthread._validation import KEYS_TENANT
from everthread.capabilities import SupportsTenantList
from everthread.engines.base import MAX_PAGE, Engine
from everthread.model import check_count, check_identifier


class ListingTenants(Engine, SupportsTenantList):
    """Gives an engine with the hook `_list_tenants` the ability to list tenants."""

    async def list_tenants(self, *, after: str = "", limit: int = MAX_PAGE) -> tuple[str, ...]:
        check_identifier(after, "tenant", may_be_empty=True)
        check_count(limit, "limit", least=1)
        limit = min(limit, MAX_PAGE)
        found = await self._call(self._list_tenants, after, limit + 1)
        return tuple(name for name in found if name != KEYS_TENANT)[:limit]

    @abstractmethod
    async def _list_tenants(self, after: str, limit: int) -> Sequence[str]:
        """Return the names above ``after``, ascending, at most ``limit`` or all."""
