"""Fixtures for all tests: one server of each kind a session, an empty database for each test."""

from __future__ import annotations

import itertools
import os
import zlib
from collections.abc import Iterator

import pytest

from tests.postgres_server import PostgresServer, postgres_server
from tests.servers import Server, redis_server

_prefixes = itertools.count()
_skipped: list[str] = []


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--campaign", action="store_true", help="run all of every further run of the kit")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Keeps an eighth of each further run of the kit, always the same one, unless all are asked for."""
    if config.getoption("--campaign"):
        return
    left_out = [
        item for item in items if item.get_closest_marker("campaign") and zlib.crc32(item.name.encode()) % 8 != 0
    ]
    config.hook.pytest_deselected(items=left_out)
    gone = set(left_out)
    items[:] = [item for item in items if item not in gone]


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    if report.skipped:
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
        _skipped.append(f"{report.nodeid}: {reason}")


def pytest_collectreport(report: pytest.CollectReport) -> None:
    if report.skipped:
        _skipped.append(f"{report.nodeid}: skipped while it was collected")


def pytest_sessionfinish(session: pytest.Session) -> None:
    if _skipped and os.environ.get("CI"):
        # What nobody sees protects nobody: CI has all it needs, so there a skip is a failure.
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if not _skipped:
        terminalreporter.write_line("Nothing was skipped.")
        return
    verdict = "a failure, because CI is set" if os.environ.get("CI") else "allowed here, a failure in CI"
    terminalreporter.section(f"{len(_skipped)} skipped ({verdict})")
    for line in _skipped:
        terminalreporter.write_line(line)


@pytest.fixture(scope="session", params=["redis", "valkey"])
def any_redis_server(request: pytest.FixtureRequest) -> Iterator[Server]:
    """Redis 8 and Valkey 9, one after the other; for tests that do not restart or stop it."""
    with redis_server(request.param) as server:
        yield server


@pytest.fixture(scope="session")
def plain_redis_server() -> Iterator[Server]:
    """One Redis 8, for tests in which the server's make does not matter and that do not restart it."""
    with redis_server("redis") as server:
        yield server


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    """One PostgreSQL, for tests that keep to a schema of their own and do not restart it."""
    with postgres_server() as server:
        yield server


@pytest.fixture
def fresh_prefix() -> str:
    """A key prefix that no other test of this session uses."""
    return f"test{next(_prefixes)}"
