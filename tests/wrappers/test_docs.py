"""The wrapper of one's own in the documentation works."""

from __future__ import annotations

import re
from pathlib import Path

from everthread import NewMessage, SupportsSearch, ThreadKey
from everthread.capabilities import capability
from everthread.engines.memory import MemoryStore
from everthread.engines.sqlite import SqliteStore

PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "wrappers.md"


async def test_the_wrapper_of_ones_own_does_what_the_page_says(tmp_path: Path) -> None:
    (code,) = re.findall(r"```python\n(from typing.*?)```", PAGE.read_text(), re.DOTALL)
    names: dict[str, object] = {}
    exec(code, names)
    told: list[object] = []

    class Bus:
        def publish(self, *what: object) -> None:
            told.append(what)

    announcing = names["Announcing"]
    assert callable(announcing)
    key = ThreadKey("a")
    async with announcing(SqliteStore(tmp_path / "t.db"), Bus()) as store:
        assert capability(store, SupportsSearch)
        await store.append(key, [NewMessage(b"1")], append_id="1")
    assert told == [(key, 1)]
    assert capability(announcing(MemoryStore(), Bus()), SupportsSearch) is None
