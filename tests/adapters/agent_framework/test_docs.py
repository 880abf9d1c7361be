"""The examples of docs/integrations/agent-framework.md run as they stand."""

from __future__ import annotations

import re
from pathlib import Path

from tests.openai_server import scripted_openai
from tests.readme import ROOT, run_example

PAGE = (ROOT / "docs" / "integrations" / "agent-framework.md").read_text()


def test_the_example_of_the_provider_continues_its_session(tmp_path: Path) -> None:
    found = re.search(r"<!-- example: provider -->\n```python\n(.*?)```", PAGE, re.DOTALL)
    assert found is not None
    with scripted_openai("Hello, Ana.", "Hello again, Ana.") as openai:
        environment = {"OPENAI_API_KEY": "unused", "OPENAI_BASE_URL": openai.url, "OPENAI_MODEL": "scripted"}
        assert run_example(found[1], tmp_path, **environment) == "Hello, Ana.\ntrip-to-rome 2 I am Ana.\n"
        assert run_example(found[1], tmp_path, **environment) == "Hello again, Ana.\ntrip-to-rome 4 I am Ana.\n"
