"""A tool with which a model searches the stored messages of its own session."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

from agent_framework import FunctionInvocationContext, FunctionTool, tool

from everthread.messages.codec import shorten
from everthread.messages.link_reader import readable_view
from everthread.readable import read_last_around

if TYPE_CHECKING:
    from everthread.adapters.agent_framework.sessions import SessionKeys
    from everthread.contract import Store

MOST_MESSAGES = 10_000
"""The number of the newest messages that a search reads."""
PAGE = 500
MOST_FOUND = 10
LONGEST = 500
"""Characters of a message that the model gets."""

_Query = Annotated[str, "Words that a message contains, in any order and case."]


def search_tool(store: Store, keys: SessionKeys) -> FunctionTool:
    """Return a tool that finds messages with all words of a query, among the newest `MOST_MESSAGES` of the session."""

    @tool(approval_mode="never_require")
    async def search_history(query: _Query, ctx: FunctionInvocationContext) -> str:
        """Search earlier messages of this conversation, also those that are no longer in the context."""
        words = query.casefold().split()
        if not words or ctx.session is None:
            return "Nothing found: give at least one word."
        key, before, found = keys.key(ctx.session.session_id), None, list[str]()
        for _ in range(MOST_MESSAGES // PAGE):
            page = await read_last_around(store, key, PAGE, before=before)
            for message in reversed(page):
                seen = readable_view(message, key)
                text = " ".join([seen.text, *(result.text for result in seen.results)])
                if _holds(text, words):
                    when = f", {message.created_at:%Y-%m-%d %H:%M}" if message.created_at else ""
                    found.append(f"[{message.seq}, {seen.role}{when}] {shorten(text, LONGEST)}")
            if len(found) >= MOST_FOUND or not page or page[0].seq <= page.head_seq:
                break
            before = page[0].seq
        return "\n".join(found[:MOST_FOUND]) or "Nothing found."

    return search_history


def _holds(text: str, words: Sequence[str]) -> bool:
    folded = text.casefold()
    return all(word in folded for word in words)
