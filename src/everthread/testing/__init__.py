"""The conformance kit: tests that hold any engine to the guarantees of `everthread.contract`.

    from everthread.testing import conformance_suite

    TestMyEngine = conformance_suite(lambda folder: f"mine:///{folder}/threads")

The class has every suite that applies to the engine. ``python -m everthread.testing 'mine:///{folder}/threads'`` runs
the same tests and prints which guarantees the engine keeps, and which suites do not apply and why.

For another choice, subclass the suites and give the fixture ``harness``. Each suite says which type of harness it
takes: `StoreContractSuite` and `ProcessSuite`, `ServerSuite`, `CorruptionSuite`, `CostSuite`, `SecretSuite`,
`RewriteSuite`, `ImportSuite`, `SearchSuite`, `ScanSuite`.

Property tests run a share of the ``max_examples`` of the active Hypothesis profile. A failure is not shrunk to a
smaller example, which takes minutes on a server, unless the environment variable ``EVERTHREAD_TESTING_SHRINK`` is set.

For tests of code that uses a store there are `FaultyStore`, and strategies for messages, turns and identifiers.

Needs ``pip install 'everthread[testing]'``.
"""

from everthread._extras import missing_extra

try:
    import hypothesis
    import pytest
except ImportError as error:
    raise missing_extra("testing", error) from error
del hypothesis

# Plain assertions say nothing when they fail, unless pytest rewrites them before they are imported.
pytest.register_assert_rewrite("everthread.testing.guarantees")

from everthread.testing.conformance import SUITES, conformance_suite, suites_for  # noqa: E402
from everthread.testing.faults import Fault, FaultyStore  # noqa: E402
from everthread.testing.guarantees import (  # noqa: E402
    CorruptionSuite,
    CostSuite,
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
    MeteredHarness,
    ProcessHarness,
    SecretHarness,
    ServerHarness,
    UrlHarness,
)
from everthread.testing.machine import machine_for  # noqa: E402
from everthread.testing.report import Report, conformance_report  # noqa: E402
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
    "SUITES",
    "Clock",
    "CorruptibleHarness",
    "CorruptionSuite",
    "CostSuite",
    "Fault",
    "FaultyStore",
    "Harness",
    "ImportSuite",
    "MeteredHarness",
    "ProcessHarness",
    "ProcessSuite",
    "Report",
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
    "conformance_report",
    "conformance_suite",
    "identifiers",
    "json_values",
    "look_alikes",
    "machine_for",
    "messages",
    "payloads",
    "suites_for",
    "thread_keys",
    "turns",
]
