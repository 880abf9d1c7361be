"""What engines that rewrite share: checking arguments."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence

from everthread._arguments import checked_changes, checked_key
from everthread.contract import SupportsRewrite
from everthread.engines._base import BaseEngine
from everthread.model import Rewrite, ThreadKey


class Rewriting(BaseEngine, SupportsRewrite):
    """Gives an engine with the hook `_rewrite` the ability to rewrite."""

    async def rewrite(self, key: ThreadKey, changes: Sequence[Rewrite]) -> int:
        checked = checked_changes(checked_key(key), changes, self.max_message_bytes)
        return await self._call(self._rewrite(key, checked)) if checked else 0

    @abstractmethod
    async def _rewrite(self, key: ThreadKey, changes: Sequence[Rewrite]) -> int: ...
