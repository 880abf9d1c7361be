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

What not every engine can be asked is in suites of their own, so that nothing is skipped in silence:
`ProcessSuite` for what outlives its process, `ServerSuite` for what is on a server, `CorruptionSuite` for
places whose records a test can spoil, `SecretSuite` for what is reached with a password, `RewriteSuite` for what
can rewrite, `ImportSuite` for what takes threads in with their times, `SearchSuite` for what can search, `ScanSuite`
for searching what cannot. They take harnesses of the types that their names say.

The property tests and the state machine take a share of the ``max_examples`` of the Hypothesis profile in
force (50 runs of the machine by default): load another profile for more.

For tests of what stands on a store there is `FaultyStore`, and the strategies make messages, turns and
identifiers at their worst.

Needs ``pip install 'everthread[testing]'``.
"""

import pytest

# Plain assertions say nothing when they fail, unless pytest rewrites them before they are imported.
pytest.register_assert_rewrite("everthread.testing.guarantees")

from everthread.testing.faults import Fault, FaultyStore  # noqa: E402
from everthread.testing.guarantees import (  # noqa: E402
    CorruptionSuite,
    ImportSuite,
    ProcessSuite,
    RewriteSuite,
    ScanSuite,
    SearchSuite,
    SecretSuite,
    ServerSuite,
    StoreContractSuite,
)
from everthread.testing.harness import (  # noqa: E402
    Clock,
    CorruptibleHarness,
    Harness,
    ProcessHarness,
    SecretHarness,
    ServerHarness,
    UrlHarness,
)
from everthread.testing.machine import machine_for  # noqa: E402
from everthread.testing.strategies import (  # noqa: E402
    agent_framework_messages,
    identifiers,
    json_values,
    look_alikes,
    messages,
    payloads,
    thread_keys,
    turns,
)

__all__ = [
    "Clock",
    "CorruptibleHarness",
    "CorruptionSuite",
    "Fault",
    "FaultyStore",
    "Harness",
    "ImportSuite",
    "ProcessHarness",
    "ProcessSuite",
    "RewriteSuite",
    "ScanSuite",
    "SearchSuite",
    "SecretHarness",
    "SecretSuite",
    "ServerHarness",
    "ServerSuite",
    "StoreContractSuite",
    "UrlHarness",
    "agent_framework_messages",
    "identifiers",
    "json_values",
    "look_alikes",
    "machine_for",
    "messages",
    "payloads",
    "thread_keys",
    "turns",
]
