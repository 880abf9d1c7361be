"""``everthread mcp``: let MCP clients list, search and read threads."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from everthread.cli.options import flag_option, store_command
from everthread.cli.runner import run, without_secrets

if TYPE_CHECKING:
    from everthread.cli.places import Place
    from everthread.contract import Store

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
rename_thread, tag_thread, delete_thread. They reach one tenant only.
"""


@store_command(epilog=EXAMPLES)
@flag_option("--write", help="Offer tools that rename, tag and delete threads.")
def mcp(*, place: Place, write: bool) -> None:
    """Let MCP clients list, search and read threads. Serves standard input and output."""
    from everthread.mcp import serve_stdio, thread_server

    def hide(text: str) -> str:
        return without_secrets(text, place.url)

    async def serve(store: Store) -> None:
        await serve_stdio(thread_server(store, tenant=place.tenant, may_write=write, hide=hide))

    run(serve, msgspec.structs.replace(place, read_only=not write))
