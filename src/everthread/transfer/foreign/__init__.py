"""Sources of threads that other programs wrote, for `import_threads`. Each module is loaded on demand.

For example:

    await import_threads(store, foreign_source("langchain-redis", "redis://localhost:6379/0"))
"""

from __future__ import annotations

from pathlib import Path

from everthread import foreign_kinds
from everthread.errors import ConfigurationError
from everthread.transfer.files import opened
from everthread.transfer.model import Source

SQLITE_START = b"SQLite format 3\0"
_APPLICATION_ID = slice(68, 72)
"""The bytes of a SQLite file that name the program which made it."""

KINDS = {kind.name: kind.description for kind in foreign_kinds.KINDS if kind.imported}
"""The kinds of sources, and a description of each."""


def recognized_kind(path: Path) -> str | None:
    """Return the kind of source that a file or folder is, or ``None`` if its content shows none.

    Raises:
        ConfigurationError: It cannot be read.
    """
    from everthread.transfer.foreign.agent_framework_threads import SUFFIXES, is_thread_file

    if path.is_dir():
        return "agent-framework-threads" if any(each.suffix in SUFFIXES for each in path.iterdir()) else None
    with opened(path) as file:
        if file.read(len(SQLITE_START)) == SQLITE_START:
            return "openai-agents"
    return "agent-framework-threads" if is_thread_file(path) else None


def is_store_file(path: Path) -> bool:
    """Return whether a file is a store of this package on SQLite.

    Raises:
        OSError: It cannot be read.
    """
    from everthread.engines.sqlite.schema import APPLICATION_ID

    if path.is_dir():
        return False
    with opened(path) as file:
        head = file.read(_APPLICATION_ID.stop)
    return head.startswith(SQLITE_START) and int.from_bytes(head[_APPLICATION_ID]) == APPLICATION_ID


def foreign_source(kind: str, place: str, *, prefix: str | None = None, scope: str | None = None) -> Source:
    """Return a source of threads that another program wrote.

    Times that the source lacks come from the target's clock. A message of a user begins a turn.

    Args:
        kind: One of `KINDS`.
        place: A Redis URL, or a path.
        prefix: The beginning of the keys. Default: that program's default.
        scope: For ``agent-framework-redis``: ``TENANT|APPLICATION|AGENT`` as in the keys, if there are several.

    Raises:
        ConfigurationError: The kind is unknown, or an extra that it needs is missing.
    """
    if kind not in KINDS:
        raise ConfigurationError(f"Unknown kind of source: {kind!r}. Use one of: {', '.join(KINDS)}.")
    from everthread.transfer.foreign._turns import FilesSource

    if kind == "openai-agents":
        from everthread.transfer.foreign.openai_agents import OpenAIAgentsSource

        return OpenAIAgentsSource(Path(place))
    if kind == "agent-framework-threads":
        from everthread.transfer.foreign import agent_framework_threads as threads

        return FilesSource(Path(place), threads.SUFFIXES, "saved thread", threads.ThreadFile)
    if kind == "agent-framework-files":
        from everthread.transfer.foreign import agent_framework_files as files

        return FilesSource(Path(place), files.SUFFIXES, "history", files.SessionFile)
    from everthread.transfer.foreign import redis_lists

    if kind == "agent-framework-redis":
        return redis_lists.ScopedSource(redis_lists.ScopedLists(place, prefix), scope)
    lists = redis_lists.LangChainLists if kind == "langchain-redis" else redis_lists.PlainLists
    return redis_lists.ListsSource(lists(place, prefix))
