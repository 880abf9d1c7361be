"""Conversations of Pydantic AI on any store.

Each name is imported at its first use, so importing this package needs no framework.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from everthread._extras import lazy_names

if TYPE_CHECKING:
    from everthread.adapters.pydantic_ai.conversation_store import EverthreadConversationStore
    from everthread.adapters.pydantic_ai.message_history import EverthreadMessageHistory

__all__ = ["EverthreadConversationStore", "EverthreadMessageHistory"]

__getattr__ = lazy_names(
    __name__,
    {"EverthreadConversationStore": "conversation_store", "EverthreadMessageHistory": "message_history"},
    "pydantic-ai",
)


def __dir__() -> list[str]:
    return sorted(__all__)
