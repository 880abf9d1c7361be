"""The SQLite engine keeps every guarantee, and what is its own: files, other processes, locks, crashes."""

from __future__ import annotations

import itertools
import sqlite3
from pathlib import Path

import pytest

from everthread.model import ThreadKey
from everthread.testing import CorruptibleHarness, Harness, StoreContractSuite, UrlHarness


class SqliteHarness(UrlHarness, CorruptibleHarness):
    async def corrupt(self, key: ThreadKey, seq: int, payload: bytes) -> None:
        with sqlite3.connect(self.url.removeprefix("sqlite:///")) as db:
            db.execute(
                "UPDATE messages SET payload = ? WHERE seq = ? AND thread IN "
                "(SELECT id FROM threads WHERE tenant = ? AND thread_id = ?)",
                (payload, seq, key.tenant, key.thread_id),
            )
        db.close()


class TestSqlite(StoreContractSuite):
    @pytest.fixture
    def harness(self, tmp_path: Path) -> Harness:
        names = itertools.count()
        return SqliteHarness(lambda: f"sqlite:///{tmp_path}/{next(names)}.db", synchronous="normal")
