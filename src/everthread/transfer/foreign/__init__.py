"""What other programs wrote, as sources: `import_threads` takes them. Each module is loaded when it is asked for.

await import_threads(store, foreign_source("langchain-redis", "redis://localhost:6379/0"))
"""

from __future__ import annotations

from pathlib import Path

from everthread.errors import ConfigurationError
from everthread.transfer.model import Source

KINDS = {
    "redis-lists": "lists PREFIX:THREAD of plain JSON: Agent Framework's betas, and its 1.x with legacy keys",
    "agent-framework-redis": "Agent Framework 1.x on Redis with scoped keys (v2)",
    "agent-framework-files": "Agent Framework 1.x's file history: a folder of JSON Lines or MessagePack",
    "openai-agents": "the SQLite file of the OpenAI Agents SDK's sessions",
    "langchain-redis": "LangChain's plain Redis lists",
}
"""What can be read, and what each is."""


def foreign_source(kind: str, place: str, *, prefix: str | None = None, scope: str | None = None) -> Source:
    """A source of what another program wrote.

    Times that are not in the source are taken from the target's clock. A turn is what follows a user's message.

    Args:
        kind: One of `KINDS`.
        place: A Redis URL, or a path.
        prefix: What the keys begin with, where it is not that program's default.
        scope: For ``agent-framework-redis``: ``TENANT|APPLICATION|AGENT`` as they stand in the keys, where
            there are several.

    Raises:
        ConfigurationError: There is no such kind, or what it needs is not there.
    """
    if kind not in KINDS:
        raise ConfigurationError(f"There is no kind {kind!r} of source; there are: {', '.join(KINDS)}.")
    if kind == "openai-agents":
        from everthread.transfer.foreign.openai_agents import OpenAIAgentsSource

        return OpenAIAgentsSource(Path(place))
    if kind == "agent-framework-files":
        from everthread.transfer.foreign.agent_framework_files import FileHistorySource

        return FileHistorySource(Path(place))
    from everthread.transfer.foreign import redis_lists

    if kind == "agent-framework-redis":
        return redis_lists.ScopedLists(place, prefix, scope)
    return (
        redis_lists.LangChainLists(place, prefix)
        if kind == "langchain-redis"
        else redis_lists.PlainLists(place, prefix)
    )
