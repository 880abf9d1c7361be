"""What docs/how-to/retention.md and docs/how-to/summaries.md show is run as it stands."""

from __future__ import annotations

import re
import shlex
from datetime import timedelta
from pathlib import Path

import pytest

from everthread import Retention, open_store
from tests.cli.driving import PROGRAM, piped
from tests.operations.threads import KEY, positions, said
from tests.readme import ROOT, run_example

OPERATING = (ROOT / "docs" / "how-to" / "retention.md").read_text()
COMMANDS = sorted(set(re.findall(r"everthread prune .*--yes", OPERATING)))


def example(name: str) -> str:
    found = re.search(rf"<!-- example: {name} -->\n```python\n(.*?)```", OPERATING, re.DOTALL)
    assert found is not None
    return found[1]


def test_the_example_of_retention_sets_it(tmp_path: Path) -> None:
    told = run_example(example("retention"), tmp_path)
    assert told == f"{Retention(500, timedelta(days=90))} True\n"


async def test_the_library_example_prunes(tmp_path: Path) -> None:
    async with open_store(f"sqlite:///{tmp_path}/threads.db") as store:
        await store.append(KEY, [said("x") for _ in range(501)])
        assert run_example(example("prune"), tmp_path) == f"thread 'trip' 1 {len(said('x').payload)}\n"
        assert len(await positions(store)) == 500


@pytest.mark.parametrize("command", COMMANDS)
def test_the_commands_for_timers_are_accepted(command: str, tmp_path: Path) -> None:
    arguments = [word for word in shlex.split(command)[2:] if word != "@prod"]
    run = piped("", *arguments, home=tmp_path, program=(PROGRAM, "prune"), EVERTHREAD_STORE="memory:")
    assert (run.returncode, run.stderr) == (0, "")


def test_the_example_of_summaries_prints_a_window(tmp_path: Path) -> None:
    page = (ROOT / "docs" / "how-to" / "summaries.md").read_text()
    provider, library = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    assert run_example(provider, tmp_path) == ""
    assert run_example(library, tmp_path) == "Ana plans a journey to Rome. ['In May.']\n"
