"""Sessions of the OpenAI Agents SDK on any store.

Each name is imported at its first use, so importing this package needs no framework.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from everthread._extras import lazy_names

if TYPE_CHECKING:
    from everthread.adapters.openai_agents.session import EverthreadSession

__all__ = ["EverthreadSession"]

__getattr__ = lazy_names(__name__, {"EverthreadSession": "session"}, "openai-agents", imported="agents")


def __dir__() -> list[str]:
    return sorted(__all__)
