"""A search finds messages by their words, and only stored ones: through an index, or by a scan."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from typing import Any, cast

import pytest

from everthread.capabilities import SupportsRewrite, SupportsSearch, capability, required_capability
from everthread.contract import Store
from everthread.errors import ConfigurationError, ConflictError, InvalidIdentifierError, InvalidMessageError
from everthread.model import NewMessage, Retention, Rewrite, SearchHit, ThreadKey
from everthread.operations.search import Findings, search
from everthread.testing.guarantees._base import KEY, GuaranteeTests, answering, calling, pass_time, said, seqs
from everthread.testing.guarantees._cursors import forged
from everthread.testing.guarantees.expiry import SOON, until_gone
from everthread.testing.harness import Clock

OTHERS = (ThreadKey("conversation", ""), ThreadKey("conversation", "tenant2"), ThreadKey("tenant", "conversation"))
"""Threads of other tenants, of names that resemble that of `KEY`."""

SYNTAX = (
    "rome OR ostia", "rome or ostia", "rome | ostia", "-ostia rome", "ostia -rome", "NOT ostia rome", "rome AND ostia",
    "ostia & !rome", "NEAR(rome ostia)", "rome NEAR/5 ostia", "ostia*", "^ostia", "words: ostia", "{words}: ostia",
    "tenant: ostia", "+ostia rome", "(ostia rome)", "ostia:*", "rome <-> ostia", "'ostia", "ostia; DROP TABLE messages",
)  # fmt: skip
"""Text with a special meaning in some query languages, but not here."""


async def find(store: Store, text: str, *, tenant: str = KEY.tenant, **options: Any) -> Findings:
    """Search as the commands do: through the store's index, or by a scan."""
    return await search(store, tenant, text, **options)


async def found(store: Store, text: str, *, tenant: str = KEY.tenant) -> list[int]:
    """Return the positions of the hits."""
    return [hit.seq for hit in (await find(store, text, tenant=tenant)).hits]


async def all_hits(store: Store, text: str, *, limit: int) -> list[tuple[str, int]]:
    """Return the hits, read page by page."""
    hits: list[SearchHit] = []
    cursor: str | None = None
    for _ in range(100):
        findings = await find(store, text, limit=limit, cursor=cursor)
        assert len(findings.hits) <= limit
        hits += findings.hits
        cursor = findings.cursor
        if cursor is None:
            return [(hit.key.thread_id, hit.seq) for hit in hits]
    pytest.fail("the pages do not end")


class Searching(GuaranteeTests):
    """Tests of any search."""

    async def test_a_message_is_found_by_all_its_words_in_any_order(self, store: Store) -> None:
        await store.append(KEY, [said("The train to Rome"), said("A plane to Rome"), said("The train to Ostia")])
        assert await found(store, "rome") == [1, 0]
        assert await found(store, "rome train") == [0]
        assert await found(store, "train rome plane") == []
        assert await found(store, "the") == [2, 0]
        assert await found(store, "trai") == []
        assert await found(store, "elsewhere") == []

    async def test_capitals_do_not_count(self, store: Store) -> None:
        await store.append(KEY, [said("The TRAIN to Rome")])
        for text in ("train", "TRAIN", "tRaIn rOME"):
            assert await found(store, text) == [0]

    async def test_words_in_quotes_follow_one_another(self, store: Store) -> None:
        await store.append(KEY, [said("from Rome to Ostia"), said("from Ostia to Rome"), said("to Rome, to Ostia")])
        assert await found(store, '"to ostia"') == [2, 0]
        assert await found(store, '"ostia to"') == [1]
        assert await found(store, '"to rome" "to ostia"') == [2]
        assert await found(store, '"to rome" from') == [1]
        assert await found(store, '"rome ostia"') == []

    @pytest.mark.parametrize(("text", "wanted"), [('"to ostia', [0]), ('ostia"', [0]), ('to "ostia', [0]), ('"', [])])
    async def test_a_quote_without_its_other_half_is_no_error(self, store: Store, text: str, wanted: list[int]) -> None:
        await store.append(KEY, [said("Rome to Ostia"), said("to Rome")])
        assert await found(store, text) == wanted

    @pytest.mark.parametrize("text", SYNTAX)
    async def test_what_looks_like_an_operator_is_text(self, store: Store, text: str) -> None:
        # The second holds all the words, the others only what an operator would make of them.
        await store.append(KEY, [said("ostia"), said(f"we said {text} once"), said("rome")])
        hits = await found(store, text)
        assert 1 in hits
        words = {word for word in ("rome", "ostia") if word in text}
        assert hits == [1] or (len(words) == 1 and set(hits) <= {0, 1})

    async def test_text_without_a_word_finds_nothing(self, store: Store) -> None:
        await store.append(KEY, [said("Rome ?! ..."), said("")])
        for text in ("", " ", "?!", '""', '" "', "...", "\0"):
            assert (await find(store, text)).hits == ()

    async def test_the_newest_comes_first(self, store: Store) -> None:
        for number in range(5):
            await store.append(KEY, [said(f"rome {number}"), said("ostia")])
        assert await found(store, "rome") == [8, 6, 4, 2, 0]

    async def test_pages_are_complete_and_without_doubles(self, store: Store) -> None:
        for name in ("a", "b", "c"):
            await store.append(ThreadKey(name, KEY.tenant), [said("rome"), said("ostia"), said("rome"), said("rome")])
        wanted = [(name, at) for name in "abc" for at in (0, 2, 3)]
        for limit in (1, 2, 9, 50):
            assert sorted(await all_hits(store, "rome", limit=limit)) == wanted

    async def test_a_forged_search_cursor_is_refused_or_harmless(self, store: Store) -> None:
        await store.append(KEY, [said("The train to Rome")] * 2)
        cursor = (await find(store, "rome", limit=1)).cursor
        assert cursor is not None
        for wrong in forged(cursor):
            with contextlib.suppress(ConfigurationError):
                findings = await find(store, "rome", cursor=wrong)
                assert {hit.key for hit in findings.hits} <= {KEY}

    async def test_a_cursor_is_good_for_its_own_search_only(self, store: Store) -> None:
        await store.append(KEY, [said("rome ostia"), said("rome ostia")])
        cursor = (await find(store, "rome", limit=1)).cursor
        assert cursor is not None
        for text, tenant, wrong in (
            ("ostia", KEY.tenant, cursor),
            ("rome", "tenant2", cursor),
            ("rome", KEY.tenant, "made up"),
            ("rome", KEY.tenant, ""),
            ("rome", KEY.tenant, cursor[:-4]),
        ):
            with pytest.raises(ConfigurationError):
                await find(store, text, tenant=tenant, cursor=wrong)

    async def test_a_tenant_finds_its_own_messages_only(self, store: Store) -> None:
        await store.append(KEY, [said("rome")])
        for number, other in enumerate(OTHERS, 1):
            await store.append(other, [said("rome")] * (number + 1))
        for key in (KEY, *OTHERS):
            hits = (await find(store, "rome", tenant=key.tenant)).hits
            assert {hit.key for hit in hits} == {key}
        assert await found(store, "rome", tenant="nobody") == []
        assert await found(store, "tenant") == []

    async def test_a_hit_says_where_it_is_and_shows_the_words_around(self, store: Store) -> None:
        await store.append(KEY, [said("before"), said("x " * 500 + "Porta\nSan Paolo" + " y" * 500)])
        (hit,) = (await find(store, "paolo")).hits
        assert (hit.key, hit.seq, hit.role) == (KEY, 1, "user")
        assert "Porta San Paolo" in hit.snippet
        assert len(hit.snippet) <= 200
        (message,) = await store.read(hit.key, start=hit.seq)
        assert hit.created_ms == message.created_ms
        assert "Paolo" not in repr(hit)

    async def test_only_what_was_said_is_searched(self, store: Store) -> None:
        await store.append(KEY, [said("rome"), calling("ostia"), answering("ostia")], default_title="ostia")
        await store.update_thread(KEY, metadata={"ostia": "ostia"})
        await store.put_document(KEY, "ostia", b'"ostia"')
        for text in ("ostia", "role", "content", "conversation"):
            assert await found(store, text) == []

    async def test_a_message_is_found_as_soon_as_it_is_stored(self, store: Store, other_store: Store) -> None:
        for number in range(5):
            await store.append(KEY, [said(f"word{number}")])
            assert await found(store, f"word{number}") == [number]
            assert await found(other_store, f"word{number}") == [number]

    async def test_a_turn_is_found_whole_or_not_at_all(self, store: Store, other_store: Store) -> None:
        # So that an index which is made by the first search is there.
        await found(other_store, "rome")

        async def write() -> None:
            for _ in range(15):
                await store.append(KEY, [said("rome")] * 3)

        writing = asyncio.create_task(write())
        seen = [0]
        while not writing.done():
            seen.append(len((await find(other_store, "rome", limit=100)).hits))
            # A store in memory never waits, so the writer would not run.
            await asyncio.sleep(0)
        await writing
        assert [count for count in seen if count % 3] == []
        assert len((await find(other_store, "rome", limit=100)).hits) == 45

    async def test_a_repeated_append_is_found_once(self, store: Store) -> None:
        await found(store, "rome")
        for _ in range(3):
            await store.append(KEY, [said("rome")], append_id="1")
        assert await found(store, "rome") == [0]
        await store.append(KEY, [said("rome")], append_id="2")
        assert await found(store, "rome") == [1, 0]

    async def test_what_was_refused_is_not_found(self, store: Store) -> None:
        await found(store, "rome")
        await store.append(KEY, [said("ostia")])
        with pytest.raises(ConflictError):
            await store.append(KEY, [said("rome")], expected_seq=0)
        assert await found(store, "rome") == []

    async def test_what_is_trimmed_is_not_found(self, store: Store) -> None:
        await store.append(KEY, [said("one rome")])
        assert await found(store, "rome") == [0]
        await store.append(KEY, [said("two rome")], retention=Retention(max_messages=1))
        assert await found(store, "rome") == [1]
        await store.append(KEY, [said("three rome")])
        await store.truncate(KEY, start=2)
        assert await found(store, "rome") == [2]
        await store.append(KEY, [said("rome")], retention=Retention(max_messages=0))
        assert await found(store, "rome") == []

    async def test_what_is_undone_is_not_found(self, store: Store) -> None:
        await found(store, "rome")
        await store.append(KEY, [said("one rome"), said("two rome"), said("three rome")])
        assert await found(store, "rome") == [2, 1, 0]
        await store.truncate(KEY, stop=1)
        assert await found(store, "rome") == [0]
        await store.append(KEY, [said("ostia")])
        assert await found(store, "rome") == [0]
        assert await found(store, "ostia") == [3]

    async def test_what_is_deleted_is_not_found(self, store: Store) -> None:
        await found(store, "rome")
        for name in ("a", "b"):
            await store.append(ThreadKey(name, KEY.tenant), [said("rome")])
        assert len((await find(store, "rome")).hits) == 2
        await store.delete_thread(ThreadKey("a", KEY.tenant))
        assert [hit.key.thread_id for hit in (await find(store, "rome")).hits] == ["b"]
        await store.append(ThreadKey("a", KEY.tenant), [said("ostia")])
        assert [hit.key.thread_id for hit in (await find(store, "rome")).hits] == ["b"]
        await store.delete_tenant(KEY.tenant)
        assert await found(store, "rome") == []
        assert await found(store, "ostia") == []

    async def test_what_expired_is_not_found(self, store: Store) -> None:
        await found(store, "rome")
        await store.append(KEY, [said("rome")])
        assert await found(store, "rome") == [0]
        await store.append(KEY, [said("rome again")], retention=SOON)
        await until_gone(store)
        assert await found(store, "rome") == []
        await store.append(KEY, [said("ostia")])
        assert await found(store, "rome") == []
        assert await found(store, "ostia") == [0]

    async def test_what_is_rewritten_is_found_by_its_new_words(self, store: Store) -> None:
        await found(store, "rome")
        await store.append(KEY, [said("rome"), said("ostia")])
        assert await found(store, "rome") == [0]
        if rewriter := capability(store, SupportsRewrite):
            await rewriter.rewrite(KEY, [Rewrite(0, said("rome").payload, said("naples").payload)])
            assert await found(store, "rome") == []
            assert await found(store, "naples") == [0]
        assert await found(store, "ostia") == [1]

    async def test_text_that_no_index_takes_is_stored_all_the_same(self, store: Store) -> None:
        await found(store, "rome")
        hostile = ["a\0b nul", "\x01 control", "x" * 100_000, "", "' \\ \" : & | ! ( ) <-> * \u200b \U0001f4be"]
        await store.append(KEY, [said(text) for text in hostile])
        assert seqs(await store.read(KEY)) == list(range(len(hostile)))
        assert await found(store, "nul") == [0]
        for text in hostile:
            await find(store, text[:1000])

    async def test_a_message_of_an_unknown_format_hides_no_others(self, store: Store) -> None:
        strange = [NewMessage(payload, "of-the-future") for payload in (b"[1,[2]]", b'{"x":{}}', b"null")]
        await store.append(KEY, [*strange, said("rome")])
        assert await found(store, "rome") == [3]

    async def test_a_search_for_what_is_no_text_is_refused(self, store: Store) -> None:
        for text in cast(Any, (None, 3, b"rome", "x" * 1001)):
            with pytest.raises(InvalidMessageError):
                await find(store, text)
        for limit in cast(Any, (0, -1, 1.5, None)):
            with pytest.raises(ConfigurationError):
                await find(store, "rome", limit=limit)
        for tenant in cast(Any, (None, 7, "x" * 600)):
            with pytest.raises(InvalidIdentifierError):
                await find(store, "rome", tenant=tenant)


class SearchingByIndex(GuaranteeTests):
    """Tests of a store that can search."""

    async def test_the_store_itself_can_search(self, store: Store) -> None:
        await store.append(KEY, [said("rome")])
        searchable = required_capability(store, SupportsSearch)
        assert [hit.seq for hit in await searchable.search(KEY.tenant, "rome")] == [0]
        assert (await find(store, "rome")).is_scan is False

    async def test_a_search_can_be_prepared_and_that_tells_how_it_goes(self, store: Store, other_store: Store) -> None:
        searchable = required_capability(store, SupportsSearch)
        for number in range(3):
            await store.append(KEY, [said(f"rome {number} {at}") for at in range(700)])
        steps: list[tuple[int, int]] = []
        await searchable.prepare_search(advance=lambda done, total: steps.append((done, total)))
        assert [done for done, _ in steps] == sorted({done for done, _ in steps})
        assert all(done <= total for done, total in steps)
        assert not steps or steps[-1][0] == steps[-1][1]
        steps.clear()
        await required_capability(other_store, SupportsSearch).prepare_search(
            advance=lambda done, total: steps.append((done, total))
        )
        assert steps == []
        assert [hit.seq for hit in await searchable.search(KEY.tenant, "rome 699")] == [2099, 1399, 699]

    async def test_the_newest_comes_first_across_threads(self, timed: Store, clock: Clock) -> None:
        for name in ("a", "b", "a", "c", "b"):
            await timed.append(ThreadKey(name, KEY.tenant), [said("rome")])
            await pass_time(clock)
        wanted = [("b", 1), ("c", 0), ("a", 1), ("b", 0), ("a", 0)]
        for limit in (1, 2, 5, 50):
            assert await all_hits(timed, "rome", limit=limit) == wanted

    async def test_pages_go_on_below_what_is_said_meanwhile(self, store: Store) -> None:
        await store.append(KEY, [said(f"rome {number}") for number in range(6)])
        seen: list[int] = []
        cursor: str | None = None
        for number in range(4):
            findings = await find(store, "rome", limit=2, cursor=cursor)
            seen += [hit.seq for hit in findings.hits]
            cursor = findings.cursor
            if cursor is None:
                break
            await store.append(KEY, [said(f"rome again {number}")])
        assert (seen, cursor) == ([5, 4, 3, 2, 1, 0], None)

    async def test_the_index_finds_what_reading_everything_finds(self, store: Store) -> None:
        words = ("rome", "ostia", "train", "plane")
        await found(store, "rome")
        sayings = [said(" ".join(some)) for size in (0, 1, 2, 3) for some in itertools.permutations(words, size)]
        for number in range(0, len(sayings), 3):
            key = ThreadKey("abc"[number % 7 % 3], KEY.tenant)
            await store.append(key, sayings[number : number + 3], retention=Retention(max_messages=11))
        for one, two, three in itertools.permutations(words, 3):
            for text in (one, f"{one} {two}", f'"{one} {two}"', f'{three} "{one} {two}"'):
                by_index, by_scan = [await find(store, text, limit=100, scan=scan) for scan in (False, True)]
                assert by_scan.is_scan
                assert sorted(by_index.hits, key=_place) == sorted(by_scan.hits, key=_place), text


def _place(hit: SearchHit) -> tuple[str, int]:
    return hit.key.thread_id, hit.seq
