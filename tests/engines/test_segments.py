"""The segment log keeps every guarantee, whatever it remembers and however often it compacts."""

from __future__ import annotations

from typing import Any

import pytest

from everthread.contract import Store
from everthread.engines._segments.joining import Sizes
from everthread.engines._segments.log import Fence
from everthread.engines.objects import ObjectStore
from everthread.testing import Harness, ImportSuite, RewriteSuite, StoreContractSuite
from tests.engines.storages import MemoryStorage


class SegmentHarness(Harness):
    def __init__(self, **options: Any) -> None:
        self.storage = MemoryStorage()
        self.options = options

    def open(self, **options: Any) -> Store:
        return ObjectStore(self.storage, **self.options, **options)

    def another(self) -> SegmentHarness:
        return SegmentHarness(**self.options)


class TestInMemory(StoreContractSuite, RewriteSuite, ImportSuite):
    @pytest.fixture
    def harness(self) -> Harness:
        return SegmentHarness()


@pytest.mark.campaign
class TestWithoutMemoryOfItsOwn(StoreContractSuite, RewriteSuite):
    """Each call looks at the storage as a new process would."""

    @pytest.fixture
    def harness(self) -> Harness:
        return SegmentHarness(fence=Fence(trust_s=0, grace_s=3600), cache_bytes=0)


@pytest.mark.campaign
class TestCompactingOften(StoreContractSuite, RewriteSuite):
    """Objects are joined again and again under everything that the suite does."""

    @pytest.fixture
    def harness(self) -> Harness:
        return SegmentHarness(sizes=Sizes(compact_after=2, full_messages=12, join_segments=1), cache_bytes=0)
