"""The memory engine keeps every guarantee that does not need a second process."""

from __future__ import annotations

from typing import Any, Self

import pytest

from everthread.contract import Store
from everthread.engines.memory import MemoryStore, Threads
from everthread.testing import Harness, ImportSuite, RewriteSuite, StoreContractSuite


class MemoryHarness(Harness):
    def __init__(self) -> None:
        self.threads: Threads = {}

    def open(self, **options: Any) -> Store:
        return MemoryStore(self.threads, **options)

    def another(self) -> Self:
        return type(self)()


class TestMemory(StoreContractSuite, RewriteSuite, ImportSuite):
    @pytest.fixture
    def harness(self) -> Harness:
        return MemoryHarness()
