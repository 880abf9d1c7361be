"""`conformance_suite`: the suites of the kit that apply to an engine, as one test class."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple, cast

import pytest

from everthread.capabilities import SupportsImport, SupportsRewrite, SupportsSearch, capability
from everthread.contract import Store
from everthread.testing.guarantees import (
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
from everthread.testing.guarantees._base import GuaranteeTests
from everthread.testing.harness import (
    CorruptibleHarness,
    Harness,
    MeteredHarness,
    ProcessHarness,
    SecretHarness,
    ServerHarness,
    UrlHarness,
)

Make = Callable[[Path], str | Harness]
"""Return the URL of a new, empty place, or a harness on one. It may use the given empty folder."""


class Suite(NamedTuple):
    """A suite of the kit, and the type that a store or a harness needs for it."""

    name: str
    tests: type[GuaranteeTests]
    ability: type | None = None
    harness: type[Harness] = Harness

    def reason_against(self, harness: Harness, store: Store) -> str:
        """Return why the suite does not apply; empty if it does."""
        if self.ability is not None and capability(store, self.ability) is None:
            return f"the store lacks {self.ability.__name__}"
        if self.name == "scan" and capability(store, SupportsSearch) is not None:
            return "the store has an index"
        if not isinstance(harness, self.harness):
            return f"the harness is no {self.harness.__name__}"
        return ""


SUITES = (
    Suite("core", StoreContractSuite),
    Suite("rewrite", RewriteSuite, SupportsRewrite),
    Suite("import", ImportSuite, SupportsImport),
    Suite("search", SearchSuite, SupportsSearch),
    Suite("scan", ScanSuite),
    Suite("processes", ProcessSuite, harness=ProcessHarness),
    Suite("servers", ServerSuite, harness=ServerHarness),
    Suite("corruption", CorruptionSuite, harness=CorruptibleHarness),
    Suite("costs", CostSuite, harness=MeteredHarness),
    Suite("secrets", SecretSuite, harness=SecretHarness),
)
"""All suites. ``core`` is the contract; each of the others adds to an engine's level."""


def conformance_suite(make: Make) -> type[GuaranteeTests]:
    """Return a test class with every suite that applies to an engine.

        TestMyEngine = conformance_suite(lambda folder: f"mine:///{folder}/threads")

    Which suites apply follows from the abilities of the store and the type of the harness: see `suites_for`. A URL
    stands for a place that other processes can reach. For any other place, and for the suites about servers, corrupt
    records and secrets, return a harness.
    """

    @pytest.fixture
    def harness(self: object, tmp_path: Path) -> Harness:
        return harness_at(make, tmp_path)

    suites = tuple(suite.tests for suite, reason in suites_for(make) if not reason)
    return cast(type[GuaranteeTests], type("ConformanceSuite", suites, {"harness": harness, "__module__": __name__}))


def suites_for(make: Make) -> list[tuple[Suite, str]]:
    """Return all suites, each with the reason why it does not apply to an engine; empty if it applies."""
    with TemporaryDirectory() as folder:
        harness = harness_at(make, Path(folder))
        store = harness.open()
        return [(suite, suite.reason_against(harness, store)) for suite in SUITES]


def harness_at(make: Make, folder: Path) -> Harness:
    """Return the harness that ``make`` returns, or one for the URLs that it returns."""
    numbers = itertools.count()

    def fresh() -> str | Harness:
        place = folder / str(next(numbers))
        place.mkdir()
        return make(place)

    first = fresh()
    if isinstance(first, Harness):
        return first
    return UrlHarness(lambda: str(fresh()))
