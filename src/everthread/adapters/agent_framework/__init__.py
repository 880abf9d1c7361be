"""Microsoft Agent Framework: 1.x (`EverthreadHistoryProvider`) and its 1.0 betas (`EverthreadChatMessageStore`,
`RedisChatMessageStore`, `restore_thread`).

Each name is loaded on demand, since the two generations cannot be installed together.
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
    from everthread.adapters.agent_framework.history_provider import EverthreadHistoryProvider

_MODULES = {
    "EverthreadHistoryProvider": "history_provider",
    "EverthreadChatMessageStore": "chat_message_store",
    "RedisChatMessageStore": "chat_message_store",
    "restore_thread": "beta_threads",
}

__all__ = ["EverthreadChatMessageStore", "EverthreadHistoryProvider", "RedisChatMessageStore", "restore_thread"]


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
