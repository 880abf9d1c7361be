"""The kinds of stores of other programs: which of them are imported, examined and repaired, and from where."""

from __future__ import annotations

from collections.abc import Iterable
from textwrap import wrap
from typing import NamedTuple


class Kind(NamedTuple):
    """A kind of store.

    Attributes:
        description: The program, and the data.
        imported: The places that ``everthread import`` reads; empty for none.
        examined: The places that ``everthread doctor`` examines; empty for none.
        is_repaired: The doctor repairs it too.
    """

    name: str
    description: str
    imported: str = ""
    examined: str = ""
    is_repaired: bool = True


KINDS = (
    Kind("redis-lists", "lists PREFIX:THREAD: Agent Framework's betas, 1.x with legacy keys", "Redis", "Redis"),
    Kind("agent-framework-redis", "Agent Framework 1.x, scoped keys", "Redis", "Redis"),
    Kind("agent-framework-files", "its file history", "a folder or file", "a folder or file"),
    Kind("agent-framework-threads", "threads of its betas, saved as JSON", "a folder or file"),
    Kind("agent-framework-postgres", "community-agent-framework-postgres", "", "PostgreSQL"),
    Kind("openai-agents", "sessions of the OpenAI Agents SDK", "a SQLite file", "a SQLite file, PostgreSQL"),
    Kind("openai-agents-redis", "its Redis sessions", "", "Redis"),
    Kind("langchain-redis", "LangChain's lists", "Redis", "Redis", is_repaired=False),
    Kind("langgraph", "LangGraph's checkpoints", "", "a SQLite file, PostgreSQL", is_repaired=False),
)
"""All kinds, as the commands list them."""


def help_lines(kinds: Iterable[tuple[Kind, str]]) -> str:
    """Return the lines of a command's help that list kinds, each with a remark such as its places."""
    lines: list[str] = []
    for kind, remark in kinds:
        text = f"{kind.description} ({remark})"
        lines += wrap(text, 84, initial_indent=f"  {kind.name:<26}", subsequent_indent=" " * 28)
    return "\n".join(lines)
