"""The conformance kit: holds any engine to the guarantees of `everthread.contract`.

An engine is tested by a subclass that says where to find an empty place:

    import itertools
    import pytest
    from everthread.testing import StoreContractSuite, UrlHarness

    class TestMyEngine(StoreContractSuite):
        @pytest.fixture
        def harness(self, tmp_path):
            names = itertools.count()
            return UrlHarness(lambda: f"mine:///{tmp_path}/{next(names)}")

Needs ``pip install 'everthread[testing]'``.
"""

import pytest

# Plain assertions say nothing when they fail, unless pytest rewrites them before they are imported.
pytest.register_assert_rewrite("everthread.testing.guarantees")

from everthread.testing.guarantees import (  # noqa: E402
    CorruptionSuite,
    ProcessSuite,
    ServerSuite,
    StoreContractSuite,
)
from everthread.testing.harness import (  # noqa: E402
    Clock,
    CorruptibleHarness,
    Harness,
    ProcessHarness,
    ServerHarness,
    UrlHarness,
)
from everthread.testing.machine import machine_for  # noqa: E402

__all__ = [
    "Clock",
    "CorruptibleHarness",
    "CorruptionSuite",
    "Harness",
    "ProcessHarness",
    "ProcessSuite",
    "ServerHarness",
    "ServerSuite",
    "StoreContractSuite",
    "UrlHarness",
    "machine_for",
]
