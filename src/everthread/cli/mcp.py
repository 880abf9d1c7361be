"""``everthread mcp``: let MCP clients list, search and read threads."""

from __future__ import annotations

from contextlib import AsyncExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from everthread.cli.indexes import embedder_named, index_of, index_options
from everthread.cli.options import flag_option, store_command
from everthread.cli.runner import run, without_secrets

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from everthread.cli.places import Place
    from everthread.contract import Store
    from everthread.mcp.tools import Recall
    from everthread.recall import Embedder, Recalled, VectorIndex

EXAMPLES = """\b
Examples:
  everthread mcp @prod
  everthread mcp --store sqlite:///threads.db --tenant acme
  everthread mcp @prod --tenant acme --write

\b
The client starts the command. In the file of Claude Desktop
(claude_desktop_config.json), Claude Code and many others (.mcp.json), Cursor
(.cursor/mcp.json):
  {"mcpServers": {"threads": {"command": "everthread",
                              "args": ["mcp", "@prod", "--tenant", "acme"]}}}

\b
In VS Code (.vscode/mcp.json):
  {"servers": {"threads": {"command": "everthread", "args": ["mcp", "@prod"]}}}

\b
Give secrets with a named store (everthread config), not in "args". Clients may
start it in another folder and without your variables: give whole paths, or name
the variables in "env".

\b
Tools: list_threads, search_messages, read_thread, read_message; with --write also
rename_thread, tag_thread, delete_thread; with --by-meaning also recall_turns, in the
index of everthread recall follow. They reach one tenant only.
"""


@store_command(epilog=EXAMPLES)
@flag_option("--write", help="Offer tools that rename, tag and delete threads.")
@flag_option("--by-meaning", help="Offer a tool that finds turns by their meaning.")
@index_options
def mcp(*, place: Place, write: bool, by_meaning: bool, index_path: Path | None, embedder: str | None) -> None:
    """Let MCP clients list, search and read threads. Serves standard input and output."""
    from everthread.mcp import serve_stdio, thread_server

    def hide(text: str) -> str:
        return without_secrets(text, place.url)

    model = embedder_named(embedder) if by_meaning else None

    async def serve(store: Store) -> None:
        async with AsyncExitStack() as stack:
            recall = None
            if model is not None:
                index = index_of(store, place, index_path, model, create=False)
                stack.push_async_callback(index.aclose)
                recall = _recall_in(store, place.tenant, index, model)
            server = thread_server(store, tenant=place.tenant, may_write=write, hide=hide, recall=recall)
            await serve_stdio(server)

    run(serve, msgspec.structs.replace(place, read_only=not write))


def _recall_in(store: Store, tenant: str, index: VectorIndex, model: Embedder) -> Recall:
    async def ask(question: str, limit: int, since: datetime | None, until: datetime | None) -> Sequence[Recalled]:
        from everthread.recall import recall

        return await recall(store, index, model, question, tenant=tenant, limit=limit, since=since, until=until)

    return ask
