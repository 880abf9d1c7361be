"""The store of a ChatKit server on any store.

Each name is imported at its first use, so importing this package needs no framework.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from everthread._extras import lazy_names

if TYPE_CHECKING:
    from everthread.adapters.chatkit.store import EverthreadChatKitStore

__all__ = ["EverthreadChatKitStore"]

__getattr__ = lazy_names(__name__, {"EverthreadChatKitStore": "store"}, "chatkit")


def __dir__() -> list[str]:
    return sorted(__all__)
