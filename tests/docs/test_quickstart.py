"""The quickstart works step by step, as a reader types it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tests.docs.pages import blocks
from tests.openai_server import scripted_openai
from tests.readme import run_example

QUICKSTART = [block for block in blocks("python", "sh") if block.page.name == "quickstart.md"]
FIRST, AGENT = (block.text for block in QUICKSTART if block.language == "python")
(SHELL,) = (block.text for block in QUICKSTART if block.text.startswith("export EVERTHREAD_STORE"))


def test_the_steps_store_show_and_continue_one_thread(tmp_path: Path) -> None:
    run_example(FIRST, tmp_path)
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    shell = subprocess.run(
        ["bash", "-euc", SHELL], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert shell.returncode == 0, shell.stderr
    listed, *shown = shell.stdout.splitlines()
    assert "Trip to Rome" in listed
    assert "trains" in "\n".join(shown)
    with scripted_openai("By train, Ana.") as openai:
        settings = {"OPENAI_API_KEY": "unused", "OPENAI_BASE_URL": openai.url, "OPENAI_MODEL": "scripted"}
        assert run_example(AGENT, tmp_path, **settings) == "By train, Ana.\n"
    assert "I am Ana and I prefer trains." in str(openai.requests[0]["messages"])
