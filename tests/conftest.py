"""What all tests share: which of them a command runs, and one server of each kind a session.

[README.md](README.md) says which tests run when, and why.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from tests.essential import ESSENTIAL
from tests.places import empty_place
from tests.postgres_server import PostgresServer, fresh_url, postgres_server
from tests.servers import Server, redis_server

_prefixes = itertools.count()
_skipped: list[str] = []
_unstable: dict[str, str] = {}
"""What each test that failed first and passed when it was run again had reported."""

MOST_UNSTABLE = 3
"""The most unstable tests of a run that does not fail."""


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--tests",
        choices=("quick", "rest", "all", "campaign"),
        default="all",
        help="quick: make test; rest: what make test-all adds; all: both; campaign: every kit test on every front",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Set how many examples property tests run. They have no deadline: a test must not fail on a slow machine."""
    is_quick = config.getoption("--tests") == "quick"
    settings.register_profile("everthread", deadline=None, max_examples=25 if is_quick else 100)
    settings.load_profile("everthread")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    wanted = config.getoption("--tests")
    left_out = [item for item in items if not _is_wanted(item, wanted)]
    config.hook.pytest_deselected(items=left_out)
    gone = set(left_out)
    items[:] = [item for item in items if item not in gone]


def _is_wanted(item: pytest.Item, wanted: str) -> bool:
    """Whether a run of these tests includes the item; tests/README.md says why."""

    def has(marker: str) -> bool:
        return item.get_closest_marker(marker) is not None

    is_essential = getattr(item, "originalname", item.name) in ESSENTIAL
    if wanted == "campaign":
        return True
    if has("front") and not is_essential:
        return False
    is_quick = not (has("slow") or has("front") or (has("essential_first") and not is_essential))
    return wanted == "all" or is_quick == (wanted == "quick")


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    if report.skipped:
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
        _skipped.append(f"{report.nodeid}: {reason}")
    if str(report.outcome) == "rerun":  # pytest-rerunfailures: it failed, and follows again
        _unstable[report.nodeid] = report.longreprtext


def pytest_collectreport(report: pytest.CollectReport) -> None:
    if report.skipped:
        _skipped.append(f"{report.nodeid}: skipped while it was collected")


def pytest_sessionfinish(session: pytest.Session) -> None:
    # What nobody sees protects nobody: CI has all it needs, so there a skip is a failure.
    skipped_in_ci = _skipped and os.environ.get("CI")
    if skipped_in_ci or len(_unstable) > MOST_UNSTABLE:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if _unstable:
        terminalreporter.section(f"{len(_unstable)} UNSTABLE: failed first, was run again ({MOST_UNSTABLE} at most)")
        for test, failure in _unstable.items():
            terminalreporter.write_line(f"{test}\n{failure}\n")
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


def _url(request: pytest.FixtureRequest, folder: Path, server: Server, prefix: str) -> str:
    if request.param == "postgres":
        return fresh_url(request.getfixturevalue("postgres"))
    return {
        "memory": "memory:",
        "sqlite": f"sqlite:///{folder / 'threads.db'}",
        "folder": f"file://{folder}/objects",
        "redis": f"redis://127.0.0.1:{server.port}/0?prefix={prefix}",
    }[request.param]


@pytest.fixture(params=["sqlite", "redis"])
def url(request: pytest.FixtureRequest, tmp_path: Path, plain_redis_server: Server, fresh_prefix: str) -> str:
    """An empty place that other processes reach too."""
    return _url(request, tmp_path, plain_redis_server, fresh_prefix)


@pytest.fixture(params=["memory", "sqlite", "redis"])
def any_url(request: pytest.FixtureRequest, tmp_path: Path, plain_redis_server: Server, fresh_prefix: str) -> str:
    """An empty place; what is in memory is there for one store only."""
    return _url(request, tmp_path, plain_redis_server, fresh_prefix)


@pytest.fixture(params=["sqlite", "redis", "folder", "postgres"])
def shared_url(request: pytest.FixtureRequest, tmp_path: Path, plain_redis_server: Server, fresh_prefix: str) -> str:
    """An empty place of every kind that other processes reach too."""
    return _url(request, tmp_path, plain_redis_server, fresh_prefix)


@pytest.fixture(params=["memory", "sqlite", "redis", "folder", "postgres"])
def every_url(request: pytest.FixtureRequest, tmp_path: Path, plain_redis_server: Server, fresh_prefix: str) -> str:
    """An empty place of every kind."""
    return _url(request, tmp_path, plain_redis_server, fresh_prefix)


@pytest.fixture(params=["sqlite", "redis"])
def places(request: pytest.FixtureRequest) -> Callable[[], str]:
    """Gives the URL of another empty store at each call; one that outlives the process."""
    return lambda: empty_place(request, request.param)
