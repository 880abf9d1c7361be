"""The 1.0 betas of Microsoft Agent Framework: message stores for ``chat_message_store_factory``, on any store.

`RedisChatMessageStore` has the interface of the betas' own class; `EverthreadChatMessageStore` opens any store URL;
`restore_thread` restores a serialized thread together with its store. Each name is imported at its first use, so
importing this package works with every beta.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from everthread._extras import lazy_names

if TYPE_CHECKING:
    from everthread.adapters.agent_framework_beta.threads import (
        EverthreadChatMessageStore,
        RedisChatMessageStore,
        restore_thread,
    )

__all__ = ["EverthreadChatMessageStore", "RedisChatMessageStore", "restore_thread"]

# All of `threads`, which repairs what the betas do with the state of message stores.
__getattr__ = lazy_names(__name__, dict.fromkeys(__all__, "threads"), "agent-framework")


def __dir__() -> list[str]:
    return sorted(__all__)
