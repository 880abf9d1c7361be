"""Checkpoints of LangGraph and chat histories of LangChain on any store.

Each name is imported at its first use, so importing this package needs no framework.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from everthread._extras import lazy_names

if TYPE_CHECKING:
    from everthread.adapters.langgraph.chat_message_history import EverthreadChatMessageHistory
    from everthread.adapters.langgraph.saver import EverthreadSaver

__all__ = ["EverthreadChatMessageHistory", "EverthreadSaver"]

__getattr__ = lazy_names(
    __name__, {"EverthreadChatMessageHistory": "chat_message_history", "EverthreadSaver": "saver"}, "langgraph"
)


def __dir__() -> list[str]:
    return sorted(__all__)
