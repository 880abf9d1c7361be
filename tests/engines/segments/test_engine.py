"""The segment log keeps every guarantee, whatever it remembers and however often it compacts."""

from __future__ import annotations

from typing import Any

import pytest

from everthread.contract import Store
from everthread.engines._segments.compaction import Sizes
from everthread.engines._segments.log import Fence
from everthread.engines._segments.storage import Found
from everthread.engines.objects import ObjectStore
from everthread.testing import CostSuite, Harness, ImportSuite, MeteredHarness, RewriteSuite, StoreContractSuite
from tests.engines.storages import MemoryStorage


class CountingStorage(MemoryStorage):
    """A storage that counts the bytes of the objects that are written and read."""

    traffic = 0

    async def create(self, folder: str, name: str, data: bytes) -> bool:
        self.traffic += len(data)
        return await super().create(folder, name, data)

    async def put(self, folder: str, name: str, data: bytes) -> None:
        self.traffic += len(data)
        await super().put(folder, name, data)

    async def replace(self, folder: str, name: str, data: bytes, tag: str) -> bool:
        self.traffic += len(data)
        return await super().replace(folder, name, data, tag)

    async def get(self, folder: str, name: str) -> Found | None:
        found = await super().get(folder, name)
        self.traffic += 0 if found is None else len(found.data)
        return found


class SegmentHarness(MeteredHarness):
    def __init__(self, **options: Any) -> None:
        self.storage = CountingStorage()
        self.options = options

    def open(self, **options: Any) -> Store:
        return ObjectStore(self.storage, **self.options, **options)

    async def traffic(self) -> int:
        return self.storage.traffic

    def another(self) -> SegmentHarness:
        return SegmentHarness(**self.options)


@pytest.mark.essential_first
class TestInMemory(StoreContractSuite, CostSuite, RewriteSuite, ImportSuite):
    @pytest.fixture
    def harness(self) -> Harness:
        return SegmentHarness()


@pytest.mark.front
class TestWithoutMemoryOfItsOwn(StoreContractSuite, RewriteSuite):
    """Each call looks at the storage as a new process would."""

    @pytest.fixture
    def harness(self) -> Harness:
        return SegmentHarness(fence=Fence(trust_s=0, grace_s=3600), cache_bytes=0)


@pytest.mark.front
class TestCompactingOften(StoreContractSuite, RewriteSuite):
    """Objects are joined again and again under everything that the suite does."""

    @pytest.fixture
    def harness(self) -> Harness:
        return SegmentHarness(sizes=Sizes(compact_after=2, full_messages=12, join_segments=1), cache_bytes=0)
