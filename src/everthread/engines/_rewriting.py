"""What engines that rewrite share: checking arguments."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence

from everthread._arguments import checked_key, checked_turn
from everthread.contract import SupportsRewrite
from everthread.engines._base import BaseEngine
from everthread.errors import InvalidMessageError
from everthread.model import NewMessage, Rewrite, ThreadKey, check_count


class Rewriting(BaseEngine, SupportsRewrite):
    """Gives an engine with the hook `_rewrite` the ability to rewrite."""

    async def rewrite(self, key: ThreadKey, changes: Sequence[Rewrite]) -> int:
        checked_key(key)
        if not isinstance(changes, Sequence) or not all(isinstance(change, Rewrite) for change in changes):
            raise InvalidMessageError("rewrite takes a sequence of Rewrite.")
        if not changes:
            return 0
        for change in changes:
            check_count(change.seq, "seq")
        checked_turn(key, [NewMessage(change.new) for change in changes], self.max_message_bytes)
        return await self._call(self._rewrite(key, tuple(changes)))

    @abstractmethod
    async def _rewrite(self, key: ThreadKey, changes: Sequence[Rewrite]) -> int: ...
