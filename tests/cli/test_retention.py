"""``everthread retention``: the limits of one thread."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from everthread import Retention, Store
from everthread.capabilities import SupportsImport, capability
from everthread.cli.exit_statuses import EXIT_NOT_FOUND, EXIT_USAGE
from tests.cli.test_commands import objects, on, run, seed
from tests.operations.talks import KEY, kept, said

YEARS_AGO = datetime(2020, 1, 1, tzinfo=UTC)


def thread(url: str) -> Any:
    return on(url, lambda store: store.get_thread(KEY))


def test_retention_is_set_printed_and_removed(url: str) -> None:
    seed(url, "trip")
    assert run("retention", "trip", store=url).stdout == "trip keeps the messages within its store's limits\n"
    done = run("retention", "trip", "--max-messages", "3", "--expire-after", "90d", "--json", store=url)
    found = thread(url)
    assert found.retention == Retention(3, timedelta(days=90))
    [told] = objects(done)
    assert told["retention"] == {"max_messages": 3, "expire_after": 90 * 86_400}
    assert found.expires_ms == found.updated_ms + 90 * 86_400_000
    told = run("retention", "trip", store=url).stdout
    assert told.startswith("trip keeps its newest 3 messages; expires 90d after its last activity, on 2")
    assert run("retention", "trip", "--keep-all", store=url).stdout == "trip keeps all messages\n"
    assert thread(url).retention == Retention()
    inherited = run("retention", "trip", "--inherit", store=url).stdout
    assert inherited == "trip keeps the messages within its store's limits\n"
    assert (thread(url).retention, thread(url).expires_ms) == (None, None)


def test_the_retention_applies_to_every_append(url: str) -> None:
    seed(url, "trip")
    run("retention", "trip", "--max-messages", "1", store=url)
    assert len(on(url, lambda store: kept(store))) == 8
    on(url, lambda store: store.append(KEY, [said("user", "and now?")]))
    assert len(on(url, lambda store: kept(store))) == 1


def test_a_limit_that_is_not_given_is_removed(url: str) -> None:
    seed(url, "trip")
    run("retention", "trip", "--max-messages", "5", store=url)
    run("retention", "trip", "--expire-after", "2w", store=url)
    assert thread(url).retention == Retention(None, timedelta(weeks=2))


def test_threads_and_show_print_the_retention(url: str) -> None:
    seed(url, "trip")
    [listed] = objects(run("threads", "--json", store=url))
    assert listed["retention"] is None
    assert "keeps" not in run("show", "trip", store=url).stdout
    run("retention", "trip", "--max-messages", "50", store=url)
    [listed] = objects(run("threads", "--json", store=url))
    assert listed["retention"] == {"max_messages": 50, "expire_after": None}
    assert "keeps     its newest 50 messages\n" in run("show", "trip", store=url).stdout


async def grow_old(store: Store) -> None:
    assert capability(store, SupportsImport)
    await store.restore_times(KEY, created_at=YEARS_AGO, updated_at=YEARS_AGO)


def test_an_already_expired_limit_requires_yes(url: str) -> None:
    seed(url, "trip")
    on(url, grow_old)
    assert run("retention", "trip", "--expire-after", "1s", store=url).exit_code == EXIT_USAGE
    assert thread(url).retention is None
    assert run("retention", "trip", "--expire-after", "1s", "--yes", store=url).exit_code == 0
    assert thread(url) is None


def test_an_already_expired_limit_of_the_store_requires_yes(url: str) -> None:
    seed(url, "trip")
    run("retention", "trip", "--keep-all", store=url)
    on(url, grow_old)
    hasty = f"{url}{'&' if '?' in url else '?'}expire_after=5"
    assert run("retention", "trip", "--inherit", store=hasty).exit_code == EXIT_USAGE
    assert thread(url).retention == Retention()
    assert run("retention", "trip", "--inherit", "--yes", store=hasty).exit_code == 0
    assert thread(url) is None


@pytest.mark.parametrize(
    "wrong",
    [
        ("--inherit", "--keep-all"),
        ("--inherit", "--max-messages", "1"),
        ("--max-messages", "-1"),
        ("--expire-after", "0d"),
    ],
    ids=["both", "limit", "negative", "zero"],
)
def test_contradictory_options_are_wrong_usage(wrong: tuple[str, ...], url: str) -> None:
    seed(url, "trip")
    assert run("retention", "trip", *wrong, store=url).exit_code == EXIT_USAGE
    assert thread(url).retention is None


@pytest.mark.parametrize(
    "options",
    [(), ("--max-messages", "1"), ("--expire-after", "1d"), ("--inherit",)],
    ids=["look", "set", "expire", "inherit"],
)
def test_a_missing_thread_is_not_created(options: tuple[str, ...], url: str) -> None:
    seed(url, "another")
    assert run("retention", "trip", *options, store=url).exit_code == EXIT_NOT_FOUND
    assert thread(url) is None
