"""Requests that read, on each engine."""

from __future__ import annotations

import itertools
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from everthread import Retention, Store, ThreadKey, new_message, open_store
from everthread.server.api import reading
from everthread.testing.faults import FaultyStore
from tests.operations.talks import said, talk
from tests.server.clients import client

KEY = ThreadKey("trip", "ana")


async def test_a_list_is_read_in_pages(store: Store) -> None:
    for number in range(5):
        await store.append(ThreadKey(f"t{number}", "ana"), [said("user", "hi")])
    await store.append(ThreadKey("other", "ben"), [said("user", "hi")])
    seen: list[str] = []
    async with client(store) as http:
        cursor: dict[str, str] = {}
        while True:
            page = (await http.get("/", params={"limit": 2, **cursor})).json()
            seen += [thread["thread_id"] for thread in page["threads"]]
            if page["cursor"] is None:
                break
            cursor = {"cursor": page["cursor"]}
    assert sorted(seen) == ["t0", "t1", "t2", "t3", "t4"]


async def test_filters_are_combined_and_paged(store: Store) -> None:
    for number in range(30):
        key = ThreadKey(f"t{number}", "ana")
        await store.append(key, [said("user", f"Trip {number}")])
        if number % 10 == 0:
            await store.update_thread(key, metadata={"stars": 5, "customer": "acme"})
    asked: dict[str, Any] = {"metadata": ["stars=5", "customer=acme"], "title": "TRIP", "limit": 2}
    async with client(store) as http:
        first = (await http.get("/", params=asked)).json()
        rest = (await http.get("/", params={**asked, "cursor": first["cursor"]})).json()
        later = (datetime.now(UTC) + timedelta(days=1)).isoformat()
        none = (await http.get("/", params={"active_after": later})).json()
        every = (await http.get("/", params={"active_before": later, "limit": 50})).json()
    found = [[thread["thread_id"] for thread in page["threads"]] for page in (first, rest)]
    assert (len(found[0]), sorted(found[0] + found[1])) == (2, ["t0", "t10", "t20"])
    assert (none["threads"], len(every["threads"])) == ([], 30)


async def test_a_page_with_more_matches_than_fit_is_divided(quick_store: Store) -> None:
    # The first threads do not match, so that larger pages are read: then 40 do.
    for number in range(100):
        key = ThreadKey(f"t{number}", "ana")
        await quick_store.append(key, [said("user", "hi")])
        await quick_store.update_thread(key, title="yes" if number < 40 else "no")
    seen: list[str] = []
    asked: dict[str, Any] = {"title": "yes", "limit": 7}
    async with client(quick_store) as http:
        while True:
            page = (await http.get("/", params=asked)).json()
            assert len(page["threads"]) <= 7
            seen += [thread["thread_id"] for thread in page["threads"]]
            if page["cursor"] is None:
                break
            asked["cursor"] = page["cursor"]
    assert sorted(seen) == sorted(f"t{number}" for number in range(40))


async def test_a_filter_by_time_reads_no_older_pages() -> None:
    async with FaultyStore(open_store("memory:"), []) as counted:
        for number in range(20):
            await counted.append(ThreadKey(f"t{number}", "ana"), [said("user", "hi")])
        counted.made.clear()
        async with client(counted) as http:
            later = (datetime.now(UTC) + timedelta(days=1)).isoformat()
            page = (await http.get("/", params={"active_after": later, "limit": 2})).json()
    assert (page["threads"], page["cursor"], counted.made.count("list_threads")) == ([], None, 1)


async def test_messages_are_read_from_both_ends(store: Store) -> None:
    await talk(store, KEY, turns=3)
    async with client(store) as http:
        newest = (await http.get("/trip/messages", params={"limit": 5})).json()
        older = (await http.get("/trip/messages", params={"limit": 5, "before": newest["before"]})).json()
        oldest = (await http.get("/trip/messages", params={"limit": 5, "before": older["before"]})).json()
        first = (await http.get("/trip/messages", params={"limit": 8, "start": 0})).json()
        rest = (await http.get("/trip/messages", params={"limit": 8, "start": first["start"]})).json()
    backward = [[message["seq"] for message in page["messages"]] for page in (oldest, older, newest)]
    assert list(itertools.chain(*backward)) == list(range(12))
    assert (oldest["before"], newest["start"], older["start"]) == (None, None, 7)
    assert [message["seq"] for page in (first, rest) for message in page["messages"]] == list(range(12))
    assert (first["before"], rest["start"], rest["before"]) == (None, None, 8)
    called = newest["messages"][2]
    assert (called["role"], called["calls"][0]["name"]) == ("assistant", "weather")


async def test_a_trimmed_thread_begins_at_its_head(store: Store) -> None:
    await talk(store, KEY, turns=3)
    await store.append(KEY, [said("user", "last")], retention=Retention(max_messages=5))
    async with client(store) as http:
        page = (await http.get("/trip/messages", params={"start": 0, "limit": 2})).json()
    assert (page["head_seq"], page["messages"][0]["seq"], page["before"]) == (8, 8, None)


async def test_a_message_is_returned_as_it_is_stored(store: Store) -> None:
    stored = b'{ "role" : "user",\n "content": "caf\\u00e9", "n": 12345678901234567890 }'
    await store.append(KEY, [new_message(stored)])
    async with client(store) as http:
        raw = await http.get("/trip/messages/0", params={"form": "raw"})
        shown = await http.get("/trip/messages/0")
        missing = await http.get("/trip/messages/1")
    assert stored.replace(b"\n", b" ") in raw.content
    assert (shown.json()["text"], missing.status_code) == ("café", 404)


async def test_a_page_has_bounded_bytes(quick_store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "MAX_PAGE_BYTES", 2_500)
    await quick_store.append(KEY, [said("user", "x" * 1_000) for _ in range(5)])
    async with client(quick_store) as http:
        newest = (await http.get("/trip/messages")).json()
        older = (await http.get("/trip/messages", params={"before": newest["before"]})).json()
        first = (await http.get("/trip/messages", params={"start": 0})).json()
    assert [[message["seq"] for message in page["messages"]] for page in (newest, older, first)] == [
        [3, 4],
        [1, 2],
        [0, 1],
    ]
    assert first["start"] == 2


async def test_small_messages_are_read_further_in_one_page(store: Store) -> None:
    await talk(store, KEY, turns=40)
    async with client(store) as http:
        newest = (await http.get("/trip/messages", params={"limit": 120})).json()
        first = (await http.get("/trip/messages", params={"limit": 120, "start": 1})).json()
        every = (await http.get("/trip/messages", params={"limit": 500})).json()
    assert [message["seq"] for message in newest["messages"]] == list(range(40, 160))
    assert [message["seq"] for message in first["messages"]] == list(range(1, 121))
    assert (newest["before"], newest["start"], first["before"], first["start"]) == (40, None, 1, 121)
    assert (len(every["messages"]), every["before"], every["start"]) == (160, None, None)


async def test_words_are_found(store: Store) -> None:
    await talk(store, KEY, turns=3)
    await talk(store, ThreadKey("trip", "ben"), turns=3)
    async with client(store) as http:
        page = (await http.get("/search", params={"q": "question", "limit": 2, "role": "user"})).json()
        rest = (await http.get("/search", params={"q": "question", "limit": 2, "cursor": page["cursor"]})).json()
        none = (await http.get("/search", params={"q": "question", "role": "assistant"})).json()
    assert [hit["seq"] for hit in page["found"] + rest["found"]] == [8, 4, 0]
    assert none["found"] == []


async def test_an_unchanged_result_is_not_sent_again(store: Store) -> None:
    await talk(store, KEY, turns=1)
    await store.update_thread(KEY, retention=Retention(expire_after=timedelta(days=90)))
    async with client(store) as http:
        for path in ("/", "/trip", "/trip/messages", "/trip/messages/0", "/search?q=question"):
            first = await http.get(path)
            same = {"if-none-match": f'"other", W/{first.headers["etag"]}'}
            again = await http.get(path, headers=same)
            assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", first.headers["etag"]), path
            await store.append(KEY, [said("user", "question")])
            await store.update_thread(KEY, title=path)
            expected = 304 if path == "/trip/messages/0" else 200
            assert (await http.get(path, headers=same)).status_code == expected, path


@pytest.mark.parametrize("form", ["jsonl", "markdown", "html"])
async def test_an_export_is_the_file_that_the_library_writes(store: Store, form: Any, tmp_path: Any) -> None:
    from everthread.transfer import export_threads

    await talk(store, KEY, turns=2)
    await store.put_document(KEY, "note", b"{}")
    await export_threads(store, tmp_path / "file", tenant="ana", format=form)
    async with client(store) as http:
        sent = await http.get("/trip/export", params={"format": form})
    expected = (tmp_path / "file").read_bytes().split(b"\n")
    assert sent.content.split(b"\n")[1:] == expected[1:]
    assert sent.headers["content-disposition"].startswith("attachment")


async def test_head_has_no_body(quick_store: Store) -> None:
    await talk(quick_store, KEY, turns=1)
    async with client(quick_store) as http:
        for path in ("/", "/trip", "/trip/messages", "/trip/events", "/trip/export", "/openapi.json"):
            assert (await http.head(path)).status_code == 200
