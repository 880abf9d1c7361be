"""No path, query, header or body of a tenant reaches the threads of another."""

from __future__ import annotations

import base64
import json
from urllib.parse import quote

import pytest

from everthread import Store, ThreadKey
from everthread.server.api.paths import segment_of, segments_of, thread_id_of
from tests.operations.talks import said
from tests.server.clients import client, mounted, stream

SECRET = "the secret of ben"
IDS = (
    "plain",
    "a/b",
    "a/messages",
    "..",
    ".",
    "../ben",
    "../../etc",
    "a%2Fb",
    "a%252Fb",
    "search",
    "openapi.json",
    "~plain",
    "~",
    "a\x00b",
    "line\nbreak",
    "tail\n",
    "new\r\nline",
    " ",
    "?q=1",
    "#x",
    ";a=b",
    "ben:plain",
    "{ben}:plain",
    "*",
    "a\\b",
    "é😀",
    "'; drop table messages; --",
    "x" * 512,
)


async def test_each_id_reaches_its_own_thread_by_each_path(store: Store) -> None:
    ids = [name for name in IDS if "\x00" not in name]
    for name in ids:
        await store.append(ThreadKey(name, "ana"), [said("user", f"of ana: {name}")])
        await store.append(ThreadKey(name, "ben"), [said("user", SECRET)])
    async with client(store) as http:
        listed = {
            each["thread_id"]: each["path"] for each in (await http.get("/", params={"limit": 200})).json()["threads"]
        }
        assert set(listed) == set(ids)
        for name, path in listed.items():
            read = await http.get(f"/{path}/messages")
            assert [message["text"] for message in read.json()["messages"]] == [f"of ana: {name}"], name
            sent = quote(name, safe="")
            if not name.startswith("~") and name not in {".", "..", "search", "openapi.json"} and "\n" not in name:
                thread = await http.get(f"/{sent}")
                assert thread.json()["thread_id"] == name


@pytest.mark.parametrize(
    "path",
    [
        "/threads/../ben/plain",
        "/threads/%2e%2e/ben/plain",
        "/threads/..%2Fben%2Fplain",
        "/threads/ben/plain",
        "/threads/ben%2Fplain",
        "/threads/ben:plain",
        "/threads/{ben}:plain",
        "/threads/%7Bben%7D%3Aplain",
        "/threads/ben%00plain",
        "/threads/plain%00",
        "/threads/plain%0A",
        "/threads//plain",
        "/threads/plain/",
        "/threads/plain/messages/../../../ben",
        "/threads/plain;tenant=ben",
        "/threads/plain?tenant=ben",
        "/threads/?tenant=ben",
        "/threads/?cursor=eyJ0IjoiYmVuIn0",
        "/threads/~",
        "/threads/~AAAA",
        "/threads/~!!!!",
        "/threads/~cGxhaW4=",
        "/threads/%ff",
        "/threads/" + "/" * 3_000,
        "/threads/" + "a/" * 3_000,
        "/threads/" + "x" * 20_000,
        "/elsewhere/plain",
    ],
)
async def test_a_hostile_path_reaches_nothing_of_another_tenant(quick_store: Store, path: str) -> None:
    await quick_store.append(ThreadKey("plain", "ben"), [said("user", SECRET)], default_title=SECRET)
    async with client(quick_store) as http:
        response = await http.get(f"http://x{path}")
    assert SECRET not in response.text
    assert response.status_code in {200, 307, 404, 422}


async def test_a_cursor_of_another_tenant_is_refused(store: Store) -> None:
    for number in range(3):
        await store.append(ThreadKey(f"t{number}", "ben"), [said("user", SECRET)])
    async with client(store, "ben") as http:
        listing = (await http.get("/", params={"limit": 1})).json()["cursor"]
        filtered = (await http.get("/", params={"limit": 1, "title": "secret"})).json()["cursor"]
        found = (await http.get("/search", params={"limit": 1, "q": "secret"})).json()["cursor"]
    async with client(store, "ana") as http:
        answers = [
            await http.get("/", params={"cursor": listing}),
            await http.get("/", params={"cursor": filtered or listing, "title": "secret"}),
            await http.get("/search", params={"q": "secret", "cursor": found}),
        ]
    assert [answer.status_code for answer in answers[:2]] == [422] * 2
    # The cursor of an index is a place in the order of messages, and names no tenant.
    assert answers[2].status_code == 422 or answers[2].json()["found"] == []
    assert not any(SECRET in answer.text for answer in answers)


async def test_no_write_reaches_another_tenant(store: Store) -> None:
    key = ThreadKey("plain", "ben")
    await store.append(key, [said("user", SECRET)])
    async with client(store) as http:
        etag = {"if-match": "*"}
        await http.delete("/plain")
        await http.patch("/plain", json={"title": "x"})
        await http.post("/plain/undo", json={}, headers=etag)
        for target in ("../ben/plain", "ben:plain", "plain"):
            response = await http.post("/plain/fork", json={"thread_id": target})
            assert response.status_code == 404
        await http.post("/plain/fork", json={"thread_id": "x", "tenant": "ben"})
    thread = await store.get_thread(key)
    assert thread is not None
    assert (thread.count, thread.title, len((await store.list_threads("ana")).items)) == (1, None, 0)


async def test_a_follower_reaches_only_its_tenant(quick_store: Store) -> None:
    await quick_store.append(ThreadKey("plain", "ben"), [said("user", SECRET)])
    async with stream(mounted(quick_store), "/threads/plain/events?start=0") as events:
        assert events.status == 404
        assert SECRET not in json.dumps((await events.body()).decode())


@pytest.mark.parametrize("name", IDS)
def test_the_path_of_an_id_stands_for_it(name: str) -> None:
    segment = segment_of(name)
    assert quote(segment, safe="~") == segment
    assert thread_id_of(segment) == name


def test_ids_have_different_paths() -> None:
    assert len({segment_of(name) for name in IDS}) == len(IDS)
    encoded = base64.urlsafe_b64encode(b"search").decode().rstrip("=")
    assert segment_of("search") == f"~{encoded}"


@pytest.mark.parametrize(
    ("scope", "expected"),
    [
        ({"path": "/t/a/b", "raw_path": b"/t/a%2Fb", "root_path": "/t"}, ["a/b"]),
        ({"path": "/t/a/b", "raw_path": b"/t/a/b", "root_path": "/t"}, ["a", "b"]),
        ({"path": "/t/a/b", "root_path": "/t"}, ["a", "b"]),
        ({"path": "/t/a/b", "raw_path": b"/%74/a%2fb?x=/y", "root_path": "/t"}, ["a/b"]),
        # A proxy that removes a prefix, and one that sends another path on.
        ({"path": "/t/a", "raw_path": b"/t/a", "root_path": "/api/t", "app_root_path": "/api"}, ["a"]),
        ({"path": "/t/a", "raw_path": b"/other", "root_path": "/t"}, ["a"]),
        ({"path": "/a%2Fb", "raw_path": b"/a%252Fb"}, ["a%2Fb"]),
        ({"path": "/t", "raw_path": b"/t", "root_path": "/t"}, [""]),
        ({"path": "/toast", "raw_path": b"/toast", "root_path": "/t"}, None),
    ],
)
def test_segments_are_those_that_the_client_sent(scope: dict[str, object], expected: list[str] | None) -> None:
    assert segments_of(scope) == expected
