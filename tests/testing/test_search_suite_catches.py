"""The search suite of the kit can fail: each of these stores finds wrongly in one way, and a test says so."""

from __future__ import annotations

import inspect
import itertools
from pathlib import Path
from typing import Any, Self

import msgspec
import pytest

from everthread.capabilities import SupportsSearch, capability
from everthread.contract import Store
from everthread.engines.sqlite import SqliteStore
from everthread.errors import UnsupportedError
from everthread.model import Page
from everthread.testing import Clock, Harness, SearchSuite
from everthread.wrappers import ABILITIES, ForwardingStore


class Finding(ForwardingStore):
    carries = ABILITIES


class FindsAnyWord(Finding):
    async def search(self, tenant, text, **options):
        pages = [await super(FindsAnyWord, self).search(tenant, word, **options) for word in text.split()]
        return Page(tuple({(hit.key, hit.seq): hit for page in pages for hit in page}.values()))


class TakesOrForAnOperator(Finding):
    async def search(self, tenant, text, **options):
        either = text.partition(" OR ")
        return await super().search(tenant, either[0] if either[1] else text, **options)


class IgnoresQuotes(Finding):
    async def search(self, tenant, text, **options):
        return await super().search(tenant, text.replace('"', " "), **options)


class RefusesOddQuotes(Finding):
    async def search(self, tenant, text, **options):
        assert text.count('"') % 2 == 0
        return await super().search(tenant, text, **options)


class OldestFirst(Finding):
    async def search(self, tenant, text, **options):
        page = await super().search(tenant, text, **options)
        return msgspec.structs.replace(page, items=page.items[::-1])


class PagesByThread(Finding):
    async def search(self, tenant, text, **options):
        page = await super().search(tenant, text, **options)
        return msgspec.structs.replace(page, items=tuple(sorted(page.items, key=lambda hit: hit.key, reverse=True)))


class ForgetsTheCursor(Finding):
    async def search(self, tenant, text, *, limit=20, cursor=None):
        return await super().search(tenant, text, limit=limit)


class EndsAfterOnePage(Finding):
    async def search(self, tenant, text, **options):
        return msgspec.structs.replace(await super().search(tenant, text, **options), cursor=None)


class SearchesOthersToo(Finding):
    async def search(self, tenant, text, **options):
        pages = [await super(SearchesOthersToo, self).search(each, text, **options) for each in {tenant, "tenant2"}]
        return Page(tuple(hit for page in pages for hit in page))


class FindsTwice(Finding):
    async def search(self, tenant, text, **options):
        page = await super().search(tenant, text, **options)
        return msgspec.structs.replace(page, items=tuple(hit for hit in page for _ in range(2)))


class NeverForgets(Finding):
    """Finds what it has found before, whatever became of it."""

    def __init__(self, inner):
        super().__init__(inner)
        self._found = {}

    async def search(self, tenant, text, **options):
        page = await super().search(tenant, text, **options)
        known = self._found.setdefault((tenant, text), {})
        known |= {(hit.key, hit.seq): hit for hit in page}
        return msgspec.structs.replace(page, items=tuple(known.values()))


class FindsLate(Finding):
    """Finds what it found when it was last asked the same."""

    def __init__(self, inner):
        super().__init__(inner)
        self._before = {}

    async def search(self, tenant, text, **options):
        before = self._before.get((tenant, text), Page(()))
        self._before[tenant, text] = await super().search(tenant, text, **options)
        return before


class FindsHalfTurns(Finding):
    async def append(self, key, messages, **options):
        appended = [await super(FindsHalfTurns, self).append(key, [message], **options) for message in messages]
        return msgspec.structs.replace(appended[-1], first_seq=appended[0].first_seq)


class ShowsNoWords(Finding):
    async def search(self, tenant, text, **options):
        page = await super().search(tenant, text, **options)
        return msgspec.structs.replace(page, items=tuple(msgspec.structs.replace(hit, snippet="") for hit in page))


class BrokenHarness(Harness):
    _names = itertools.count()

    def __init__(self, broken: type[ForwardingStore], folder: Path) -> None:
        self._broken = broken
        self._folder = folder
        self._path = folder / f"{next(self._names)}.db"

    def open(self, **options: Any) -> Store:
        return self._broken(SqliteStore(self._path, synchronous="normal", **options))

    def another(self) -> Self:
        return type(self)(self._broken, self._folder)


OR = {"text": "rome OR ostia"}

BROKEN: list[tuple[type[ForwardingStore], str, dict[str, Any]]] = [
    (FindsAnyWord, "test_a_message_is_found_by_all_its_words_in_any_order", {}),
    (FindsAnyWord, "test_the_index_finds_what_reading_everything_finds", {}),
    (TakesOrForAnOperator, "test_what_looks_like_an_operator_is_text", OR),
    (IgnoresQuotes, "test_words_in_quotes_follow_one_another", {}),
    (RefusesOddQuotes, "test_a_quote_without_its_other_half_is_no_error", {"text": '"to ostia', "wanted": [0]}),
    (OldestFirst, "test_the_newest_comes_first", {}),
    (PagesByThread, "test_the_newest_comes_first_across_threads", {}),
    (ForgetsTheCursor, "test_pages_are_complete_and_without_doubles", {}),
    (ForgetsTheCursor, "test_a_cursor_is_good_for_its_own_search_only", {}),
    (ForgetsTheCursor, "test_pages_go_on_below_what_is_said_meanwhile", {}),
    (EndsAfterOnePage, "test_pages_are_complete_and_without_doubles", {}),
    (SearchesOthersToo, "test_a_tenant_finds_its_own_messages_only", {}),
    (FindsTwice, "test_a_repeated_append_is_found_once", {}),
    (NeverForgets, "test_what_is_trimmed_is_not_found", {}),
    (NeverForgets, "test_what_is_undone_is_not_found", {}),
    (NeverForgets, "test_what_is_deleted_is_not_found", {}),
    (NeverForgets, "test_what_expired_is_not_found", {}),
    (NeverForgets, "test_what_is_rewritten_is_found_by_its_new_words", {}),
    (FindsLate, "test_a_message_is_found_as_soon_as_it_is_stored", {}),
    (FindsHalfTurns, "test_a_turn_is_found_whole_or_not_at_all", {}),
    (ShowsNoWords, "test_a_hit_says_where_it_is_and_shows_the_words_around", {}),
]


async def run_suite_test(name: str, harness: Harness, arguments: dict[str, Any]) -> None:
    test = getattr(SearchSuite(), name)
    clock = Clock()
    async with harness.open() as store, harness.open() as other_store, harness.open(clock=clock) as timed:
        stores = {"store": store, "other_store": other_store, "timed": timed}
        given = {"harness": harness, "clock": clock, **stores, **arguments}
        await test(**{parameter: given[parameter] for parameter in inspect.signature(test).parameters})


@pytest.mark.parametrize(("broken", "name", "arguments"), BROKEN, ids=lambda value: getattr(value, "__name__", None))
async def test_a_store_that_finds_wrongly_is_caught(
    broken: type[ForwardingStore], name: str, arguments: dict[str, Any], tmp_path: Path
) -> None:
    await run_suite_test(name, BrokenHarness(Finding, tmp_path), arguments)
    with pytest.raises((AssertionError, pytest.fail.Exception)):
        await run_suite_test(name, BrokenHarness(broken, tmp_path), arguments)


async def test_a_store_that_cannot_search_is_caught(tmp_path: Path) -> None:
    assert capability(ForwardingStore(SqliteStore(tmp_path / "t.db")), SupportsSearch) is None
    with pytest.raises(UnsupportedError):
        await run_suite_test("test_the_store_itself_can_search", BrokenHarness(ForwardingStore, tmp_path), {})
