"""The snippets for the configuration of clients name a command that exists."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from everthread.cli.mcp import EXAMPLES
from tests.cli.test_commands import run
from tests.docs.pages import blocks

PAGE = [block.text for block in blocks("json") if block.page.name == "mcp.md"]
HELP = re.findall(r"^  (\{.*?\}\}\})$", EXAMPLES, re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("snippet", [*PAGE, *HELP], ids=range(len(PAGE + HELP)))
def test_each_snippet_starts_a_command_that_exists(snippet: str) -> None:
    settings: dict[str, Any] = json.loads(snippet)
    [servers] = settings.values()
    assert set(settings) <= {"mcpServers", "servers"}
    assert servers["threads"]["command"] == "everthread"
    done = run(*servers["threads"]["args"], "--help")
    assert done.exit_code == 0, done.output
    assert done.output.startswith("Usage: everthread mcp ")


def test_help_and_page_have_snippets() -> None:
    assert (len(PAGE), len(HELP)) == (2, 2)
