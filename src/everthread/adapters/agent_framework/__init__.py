"""Microsoft Agent Framework: its current interface (1.x) and that of its 1.0 betas, over any store.

Which names can be imported depends on the release of Agent Framework that is installed; each is loaded at its
first use, so that importing this package works with every release.

1.x: `EverthreadHistoryProvider`. The betas: `RedisChatMessageStore`, `EverthreadChatMessageStore`, `restore_thread`.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from everthread.adapters.agent_framework.beta_threads import restore_thread
    from everthread.adapters.agent_framework.chat_message_store import (
        EverthreadChatMessageStore,
        RedisChatMessageStore,
    )
    from everthread.adapters.agent_framework.history_provider import EverthreadHistoryProvider, StoredSession
    from everthread.adapters.agent_framework.summary_window import SummaryWindow

_MODULES = {
    "EverthreadChatMessageStore": "chat_message_store",
    "RedisChatMessageStore": "chat_message_store",
    "restore_thread": "beta_threads",
    "EverthreadHistoryProvider": "history_provider",
    "StoredSession": "history_provider",
    "SummaryWindow": "summary_window",
}

__all__ = [
    "EverthreadChatMessageStore",
    "EverthreadHistoryProvider",
    "RedisChatMessageStore",
    "StoredSession",
    "SummaryWindow",
    "restore_thread",
]


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
