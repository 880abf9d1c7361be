"""Small JSON documents of a thread."""

from __future__ import annotations

import asyncio

import pytest

from everthread.contract import MAX_DOCUMENT_BYTES, Store
from everthread.errors import ConfigurationError, InvalidIdentifierError, InvalidMessageError, LimitExceededError
from everthread.model import ThreadKey
from everthread.testing.guarantees._base import (
    KEY,
    GuaranteeTests,
    conflict,
    document_of,
    for_examples,
    one_wins,
    pass_time,
    payloads,
    said,
    thread_of,
)
from everthread.testing.harness import Clock, Harness
from everthread.testing.machine import listed
from everthread.testing.strategies import identifiers
from everthread.testing.strategies import payloads as json_bytes


class Documents(GuaranteeTests):
    """Documents have revisions, are listed by name, and go with their thread."""

    async def test_a_document_comes_back_byte_for_byte(self, store: Store) -> None:
        value = b'{ "b" : 1e400, "a":"\\u0000", "a":2 }'
        put = await store.put_document(KEY, "summary", value)
        assert (put.name, put.value, put.revision) == ("summary", value, 1)
        assert await store.get_document(KEY, "summary") == put

    async def test_each_put_counts_the_revision(self, store: Store) -> None:
        for revision in (1, 2, 3):
            assert (await store.put_document(KEY, "d", b"%d" % revision)).revision == revision
        document = await document_of(store, "d")
        assert (document.value, document.revision) == (b"3", 3)

    async def test_a_put_expects_a_revision(self, store: Store) -> None:
        with conflict(0):
            await store.put_document(KEY, "d", b"1", expected_revision=1)
        assert await store.get_thread(KEY) is None
        await store.put_document(KEY, "d", b"1", expected_revision=0)
        await store.put_document(KEY, "d", b"2", expected_revision=1)
        for wrong in (0, 1, 3):
            with conflict(2):
                await store.put_document(KEY, "d", b"9", expected_revision=wrong)
        document = await document_of(store, "d")
        assert (document.value, document.revision) == (b"2", 2)

    async def test_of_many_that_expect_one_revision_one_wins(self, store: Store, other_store: Store) -> None:
        both = (store, other_store)
        await one_wins(lambda number: both[number % 2].put_document(KEY, "d", b"%d" % number, expected_revision=0))

    async def test_an_unknown_document_is_none(self, store: Store) -> None:
        assert await store.get_document(KEY, "d") is None
        assert await store.list_documents(KEY) == ()
        assert await store.delete_document(KEY, "d") is False
        assert await store.get_thread(KEY) is None

    async def test_names_are_listed_sorted(self, store: Store) -> None:
        names = ["b", "a", "B", "é", "\U0001f4be", "\uffee", "a:b", "\0", "10", "9"]
        for name in names:
            await store.put_document(KEY, name, b"1")
        assert await store.list_documents(KEY) == tuple(sorted(names))

    async def test_names_are_listed_in_pages(self, store: Store) -> None:
        names = ["a", "a.", "a.1", "a.2", "a.3", "a-", "a_", "aa", "A", "a:1", "a:2", "a" * 101, "\0", "é", "\uffee"]
        for name in [*names, "\U0010ffff", "\U0010ffffb"]:
            await store.put_document(KEY, name, b"1")
        names = sorted([*names, "\U0010ffff", "\U0010ffffb"])
        for prefix in ("", "a", "a.", "a:", "A", "b", "a" * 60, "\U0010ffff"):
            wanted = [name for name in names if name.startswith(prefix)]
            assert await store.list_documents(KEY, prefix=prefix) == tuple(wanted)
            for limit in (1, 2, 100):
                found: list[str] = []
                last = None
                while page := await store.list_documents(KEY, prefix=prefix, after=last, limit=limit):
                    assert len(page) <= limit
                    found.extend(page)
                    last = page[-1]
                assert found == wanted
        assert await store.list_documents(KEY, limit=0) == ()

    async def test_a_page_begins_after_any_name(self, store: Store) -> None:
        for name in ("b", "b.1", "b.2", "c"):
            await store.put_document(KEY, name, b"1")
        assert await store.list_documents(KEY, after="") == ("b", "b.1", "b.2", "c")
        assert await store.list_documents(KEY, after="b.15", limit=1) == ("b.2",)
        assert await store.list_documents(KEY, prefix="b.", after="a") == ("b.1", "b.2")
        assert await store.list_documents(KEY, prefix="b.", after="c") == ()
        assert await store.list_documents(KEY, prefix="b", after="b\0") == ("b.1", "b.2")
        assert await store.list_documents(ThreadKey("unknown"), prefix="b", after="a", limit=1) == ()

    async def test_a_wrong_page_of_names_is_refused(self, store: Store) -> None:
        with pytest.raises(ConfigurationError):
            await store.list_documents(KEY, limit=-1)
        for wrong in ("\ud800", "x" * 600):
            with pytest.raises(InvalidIdentifierError):
                await store.list_documents(KEY, prefix=wrong)
            with pytest.raises(InvalidIdentifierError):
                await store.list_documents(KEY, after=wrong)

    async def test_a_deleted_document_is_gone_and_begins_again(self, store: Store) -> None:
        await store.put_document(KEY, "a", b"1")
        await store.put_document(KEY, "b", b"2")
        assert await store.delete_document(KEY, "a") is True
        assert await store.delete_document(KEY, "a") is False
        assert await store.get_document(KEY, "a") is None
        assert await store.list_documents(KEY) == ("b",)
        assert (await store.put_document(KEY, "a", b"1", expected_revision=0)).revision == 1

    async def test_a_document_begins_a_thread(self, store: Store) -> None:
        await store.put_document(KEY, "d", b"1")
        thread = await thread_of(store)
        assert (thread.count, thread.size, thread.head_seq, thread.next_seq) == (0, 0, 0, 0)
        assert [listed_thread.key for listed_thread in await listed(store, KEY.tenant)] == [KEY]
        assert (await store.append(KEY, [said("a")], expected_seq=0)).first_seq == 0
        assert await store.list_documents(KEY) == ("d",)

    async def test_a_document_is_no_activity(self, timed: Store, clock: Clock) -> None:
        await timed.append(KEY, [said("a")])
        before = await timed.get_thread(KEY)
        await pass_time(clock)
        await timed.put_document(KEY, "d", b"1")
        await timed.delete_document(KEY, "d")
        assert await timed.get_thread(KEY) == before

    async def test_a_thread_outlives_its_last_document(self, store: Store) -> None:
        await store.put_document(KEY, "d", b"1")
        await store.delete_document(KEY, "d")
        assert await store.get_thread(KEY) is not None

    async def test_documents_are_no_messages(self, store: Store) -> None:
        await store.append(KEY, [said("a")])
        await store.put_document(KEY, "d", b"1")
        await store.truncate(KEY, stop=0)
        assert await payloads(store) == []
        assert await store.list_documents(KEY) == ("d",)

    async def test_the_largest_document_fits_and_a_larger_one_is_refused(self, store: Store) -> None:
        largest = b'"' + b"x" * (MAX_DOCUMENT_BYTES - 2) + b'"'
        await store.put_document(KEY, "d", largest)
        with pytest.raises(LimitExceededError) as caught:
            await store.put_document(KEY, "d", largest + b" ")
        assert (caught.value.size, caught.value.limit) == (MAX_DOCUMENT_BYTES + 1, MAX_DOCUMENT_BYTES)
        document = await document_of(store, "d")
        assert (document.value == largest, document.revision) == (True, 1)

    async def test_large_documents_are_written_together(self, store: Store, other_store: Store) -> None:
        values = {f"part:{at}": b'"%d%s"' % (at, b"x" * 200_000) for at in range(12)}
        both = (store, other_store)
        await asyncio.gather(
            *(both[at % 2].put_document(KEY, *each, expected_revision=0) for at, each in enumerate(values.items()))
        )
        found = await asyncio.gather(*(store.get_document(KEY, name) for name in values))
        assert [document.value for document in found if document is not None] == list(values.values())
        assert await asyncio.gather(*(other_store.delete_document(KEY, name) for name in values)) == [True] * 12
        assert await store.list_documents(KEY) == ()

    async def test_what_is_not_json_is_refused(self, store: Store) -> None:
        for value in (b"", b"{", b"NaN", b'"\xff"', b'"\\ud800"'):
            with pytest.raises(InvalidMessageError):
                await store.put_document(KEY, "d", value)
        assert await store.get_thread(KEY) is None


class DocumentsProperties(GuaranteeTests):
    """The same for generated names and values."""

    def test_any_name_and_value_come_back(self, harness: Harness) -> None:
        async def check(name: str, value: bytes) -> None:
            async with harness.open() as store:
                await store.delete_thread(KEY)
                await store.put_document(KEY, name, value)
                document = await document_of(store, name)
                assert (document.name, document.value) == (name, value)
                assert await store.list_documents(KEY) == (name,)
                assert await store.delete_document(KEY, name)

        for_examples(check, identifiers(), json_bytes())
