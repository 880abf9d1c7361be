"""A report on an engine: which guarantees of the contract it keeps, and which suites do not apply.

python -m everthread.testing 'sqlite:///{folder}/threads.db'
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import msgspec
import pytest

from everthread.errors import ConfigurationError
from everthread.testing.conformance import Make, Suite, conformance_suite, suites_for
from everthread.testing.guarantees._base import GuaranteeTests

_current: list[type[GuaranteeTests]] = []

_MODULE = """from everthread.testing.report import current_suite
TestConformance = current_suite()
"""


class GuaranteeResult(msgspec.Struct, frozen=True):
    """The tests of one guarantee.

    Attributes:
        failed: The names of failed tests.
    """

    name: str
    passed: int
    failed: tuple[str, ...] = ()


class SuiteResult(msgspec.Struct, frozen=True):
    """The tests of one suite.

    Attributes:
        reason: Why the suite does not apply; empty if it does.
    """

    name: str
    reason: str = ""
    guarantees: tuple[GuaranteeResult, ...] = ()

    @property
    def is_kept(self) -> bool:
        """True if the suite applies and no test failed."""
        return not self.reason and not any(each.failed for each in self.guarantees)


class Report(msgspec.Struct, frozen=True):
    """The result of the whole kit for one engine."""

    suites: tuple[SuiteResult, ...]

    @property
    def level(self) -> str:
        """The suites without a failure, such as ``core + rewrite + processes``; ``none`` if core has one."""
        kept = [suite.name for suite in self.suites if suite.is_kept]
        return " + ".join(kept) if "core" in kept else "none"

    @property
    def failed(self) -> dict[str, tuple[str, ...]]:
        """The failed tests by guarantee."""
        found = [each for suite in self.suites for each in suite.guarantees]
        return {each.name: each.failed for each in found if each.failed}

    def to_json(self) -> bytes:
        """Return the report as a JSON object with ``level`` and ``suites``."""
        return msgspec.json.encode({"level": self.level, "suites": self.suites})

    def to_text(self) -> str:
        """Return the report as a table, followed by the failed tests and the suites that do not apply."""
        lines = [f"{'suite':<12}{'guarantee':<28}{'passed':>7}{'failed':>7}"]
        for suite in self.suites:
            lines += [
                f"{suite.name:<12}{each.name:<28}{each.passed:>7}{len(each.failed):>7}" for each in suite.guarantees
            ]
        lines += [f"FAILED {name}: {test}" for name, tests in self.failed.items() for test in tests]
        lines += [f"not applied: {suite.name}, because {suite.reason}" for suite in self.suites if suite.reason]
        return "\n".join([*lines, f"level: {self.level}"])


def conformance_report(make: Make) -> Report:
    """Run every suite that applies to an engine.

    Args:
        make: As for `conformance_suite`.

    Raises:
        ConfigurationError: The tests could not be collected.
    """
    suites = suites_for(make)
    _current[:] = [conformance_suite(make)]
    results = _Results()
    with TemporaryDirectory() as folder:
        module = Path(folder) / "test_conformance.py"
        module.write_text(_MODULE)
        quiet = ["-p", "no:terminal", "-p", "no:cacheprovider", "-o", "asyncio_default_fixture_loop_scope=function"]
        # Without the settings of the project in the current folder.
        pytest.main(["-c", os.devnull, f"--rootdir={folder}", *quiet, str(module)], plugins=[results])
    if not results.guarantee_of:
        raise ConfigurationError("No test of the kit could be collected.")
    return Report(tuple(_result(suite, reason, results) for suite, reason in suites))


def current_suite() -> type[GuaranteeTests]:
    """Return the test class of the running report."""
    return _current[0]


class _Results:
    """A plugin of pytest that keeps the outcome of each test and the guarantee that it belongs to."""

    def __init__(self) -> None:
        self.guarantee_of: dict[str, str] = {}
        self.failed: set[str] = set()

    def pytest_collection_modifyitems(self, items: Sequence[pytest.Item]) -> None:
        for item in items:
            test = getattr(item, "function", None)
            self.guarantee_of[item.nodeid] = getattr(test, "__qualname__", "").partition(".")[0]

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed:
            self.failed.add(report.nodeid)


def _result(suite: Suite, reason: str, results: _Results) -> SuiteResult:
    if reason:
        return SuiteResult(suite.name, reason)
    names = {kind.__name__ for kind in suite.tests.__mro__}
    found: list[GuaranteeResult] = []
    for name in dict.fromkeys(results.guarantee_of.values()):
        if name in names:
            tests = [test for test, guarantee in results.guarantee_of.items() if guarantee == name]
            failed = tuple(test.rpartition("::")[2] for test in tests if test in results.failed)
            found.append(GuaranteeResult(name, len(tests) - len(failed), failed))
    return SuiteResult(suite.name, "", tuple(found))
