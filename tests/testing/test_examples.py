"""The example engine, wrapper and adapter work, and the pages about them quote their code."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from everthread import ThreadKey, capability, new_message
from everthread.capabilities import SupportsRewrite, SupportsSearch
from everthread.engines.memory import MemoryStore
from everthread.engines.sqlite import SqliteStore
from everthread.testing import Fault, FaultyStore
from examples.write_a_wrapper import Announcing
from examples.write_an_adapter import History
from examples.write_an_engine.test_json_files import TestJsonFiles as ExampleSuite

ROOT = Path(__file__).parents[2]
QUESTION = {"role": "user", "content": "What is 2 + 2?"}
CALL = {"role": "assistant", "tool_calls": [{"id": "c", "type": "function", "function": {"name": "add"}}]}
RESULT = {"role": "tool", "tool_call_id": "c", "content": "4"}


@pytest.mark.essential_first
class TestExampleEngine(ExampleSuite):
    pass


async def test_the_wrapper_announces_appends(tmp_path: Path) -> None:
    announced: list[tuple[ThreadKey, int]] = []
    async with Announcing(SqliteStore(tmp_path / "t.db"), lambda *what: announced.append(what)) as store:
        for _ in range(2):
            await store.append(ThreadKey("a"), [new_message(QUESTION)], append_id="1")
        assert capability(store, SupportsSearch)
        assert capability(store, SupportsRewrite) is None
    assert announced == [(ThreadKey("a"), 1)]
    assert store.calls == {"append": 2}


async def test_the_adapter_stores_a_turn_once_although_its_answer_was_lost() -> None:
    store = FaultyStore(MemoryStore(), [Fault.FAIL_AFTER])
    history = History(store, "a")
    await history.save([QUESTION, CALL, RESULT])
    assert await history.load() == [QUESTION, CALL, RESULT]


async def test_the_adapter_gives_a_model_no_result_without_its_call() -> None:
    history = History(MemoryStore(), "a", window=2)
    await history.save([QUESTION, CALL, RESULT, QUESTION])
    assert await history.load() == [QUESTION]


async def test_the_adapter_undoes_the_newest_turn() -> None:
    history = History(MemoryStore(), "a")
    await history.save([QUESTION])
    await history.save([QUESTION, CALL, RESULT])
    assert await history.undo()
    assert await history.load() == [QUESTION]
    assert await history.undo()
    assert not await history.undo()


@pytest.mark.parametrize(
    ("page", "sources"),
    [
        ("write-an-engine.md", ["write_an_engine/json_files.py", "write_an_engine/test_json_files.py"]),
        ("write-a-wrapper.md", ["write_a_wrapper.py"]),
        ("write-an-adapter.md", ["write_an_adapter.py"]),
    ],
)
def test_a_page_quotes_tested_code(page: str, sources: list[str]) -> None:
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "docs/contributing" / page).read_text(), re.DOTALL)
    code = "\n".join((ROOT / "examples" / source).read_text() for source in sources)
    assert len(blocks) >= len(sources)
    assert [block for block in blocks if block not in code] == []
