"""The object-storage engine keeps every guarantee: in a directory, on Azurite, on an S3 server."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest

from everthread.testing import Harness, StoreContractSuite, UrlHarness


class TestDirectory(StoreContractSuite):
    @pytest.fixture
    def harness(self, tmp_path: Path) -> Harness:
        names = itertools.count()
        return UrlHarness(lambda: f"file://{tmp_path}/{next(names)}?sync=false")
