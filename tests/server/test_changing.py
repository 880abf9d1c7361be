"""Requests that change, on each engine: conditions, conflicts and limits."""

from __future__ import annotations

import asyncio

import pytest

from everthread import Store, ThreadKey, open_store
from everthread.server.api.calls import MAX_BODY_BYTES
from tests.operations.talks import said, talk
from tests.server.clients import client
from tests.servers import free_port

KEY = ThreadKey("trip", "ana")


async def test_title_and_metadata_change(store: Store) -> None:
    await talk(store, KEY, turns=1)
    async with client(store) as http:
        await http.patch("/trip", json={"title": "Rome", "metadata": {"stars": 5, "by": "rail"}})
        changed = (await http.patch("/trip", json={"metadata": {"stars": [4]}, "remove": ["by", "none"]})).json()
        same = (await http.patch("/trip", json={})).json()
        without = (await http.patch("/trip", json={"title": ""})).json()
    assert (changed["title"], changed["metadata"]) == ("Rome", {"stars": [4]})
    assert same == changed
    assert not without["title"]


async def test_concurrent_changes_of_metadata_are_all_kept(store: Store) -> None:
    await talk(store, KEY, turns=1)
    async with client(store) as http:
        await asyncio.gather(*(http.patch("/trip", json={"metadata": {f"k{n}": n}}) for n in range(8)))
        assert (await http.get("/trip")).json()["metadata"] == {f"k{n}": n for n in range(8)}


async def test_a_condition_protects_changes_that_the_client_has_not_seen(store: Store) -> None:
    await talk(store, KEY, turns=2)
    async with client(store) as http:
        seen = {"if-match": (await http.get("/trip")).headers["etag"]}
        await store.append(KEY, [said("user", "more")])
        assert (await http.patch("/trip", json={"title": "x"}, headers=seen)).status_code == 412
        assert (await http.post("/trip/undo", json={}, headers=seen)).status_code == 412
        assert (await http.delete("/trip", headers=seen)).status_code == 412
        assert (await http.delete("/none", headers={"if-match": "*"})).status_code == 412
        assert len(await store.read(KEY)) == 9
        now = {"if-match": (await http.get("/trip")).headers["etag"]}
        renamed = await http.patch("/trip", json={"title": "x"}, headers=now)
        assert renamed.status_code == 200
        assert (await http.delete("/trip", headers={"if-match": renamed.headers["etag"]})).json()["existed"]


async def test_a_repeated_undo_removes_no_further_turn(store: Store) -> None:
    await talk(store, KEY, turns=3)
    async with client(store) as http:
        assert (await http.post("/trip/undo", json={"turns": 2})).status_code == 428
        seen = {"if-match": (await http.get("/trip")).headers["etag"]}
        undone = await http.post("/trip/undo", json={"turns": 2}, headers=seen)
        assert (undone.json()["removed"], undone.json()["thread"]["messages"]) == (8, 4)
        assert (await http.post("/trip/undo", json={"turns": 2}, headers=seen)).status_code == 412
    assert len(await store.read(KEY)) == 4


async def test_a_repeated_fork_is_made_once(store: Store) -> None:
    await talk(store, KEY, turns=3)
    async with client(store) as http:
        first = await http.post("/trip/fork", json={"thread_id": "branch", "at": 4})
        again = await http.post("/trip/fork", json={"thread_id": "branch", "at": 4})
        other = await http.post("/trip/fork", json={"thread_id": "branch", "at": 8})
        beyond = await http.post("/trip/fork", json={"thread_id": "later", "at": 99})
        listed = (await http.get("/")).json()["threads"]
    assert (first.status_code, first.json()["copied"], first.json()["thread"]["tenant"]) == (201, 4, "ana")
    assert (again.json()["resumed"], other.status_code, beyond.status_code) == (True, 409, 422)
    assert sorted(thread["thread_id"] for thread in listed) == ["branch", "trip"]


async def test_deletion_may_be_repeated(store: Store) -> None:
    await talk(store, KEY, turns=1)
    async with client(store) as http:
        outcomes = [(await http.delete("/trip")).json()["existed"] for _ in range(2)]
        assert outcomes == [True, False]
        assert (await http.get("/trip")).status_code == 404


async def test_a_reader_changes_nothing(quick_store: Store) -> None:
    await talk(quick_store, KEY, turns=1)
    async with client(quick_store) as http:
        http.headers["x-reader"] = "1"
        refused = [
            await http.patch("/trip", json={"title": "x"}),
            await http.delete("/trip"),
            await http.post("/trip/fork", json={"thread_id": "x"}),
            await http.post("/trip/undo", json={}, headers={"if-match": "*"}),
        ]
        listed = (await http.get("/")).json()["threads"]
    assert [response.status_code for response in refused] == [403] * 4
    assert [(thread["thread_id"], thread["title"], thread["messages"]) for thread in listed] == [
        ("trip", "Trip to Rome", 4)
    ]


@pytest.mark.parametrize(
    ("body", "kind", "status"),
    [
        (b"{", "application/json", 422),
        (b'{"title": 1}', "application/json", 422),
        (b'{"unknown": 1}', "application/json", 422),
        (b'{"title": "\\ud800"}', "application/json", 422),
        (b'{"title": "\xff"}', "application/json", 422),
        (b'{"metadata": ' + b'{"a":' * 50_000 + b"1" + b"}" * 50_000 + b"}", "application/json", 413),
        (b'{"metadata": ' + b'{"a":' * 5_000 + b"1" + b"}" * 5_000 + b"}", "application/json", 422),
        (b'{"metadata": {"a": "' + b"x" * 70_000 + b'"}}', "application/json", 413),
        (b" " * (MAX_BODY_BYTES + 1), "application/json", 413),
        (b'{"title": "x"}', "text/plain", 415),
        (b'{"title": "x"}', "application/x-www-form-urlencoded", 415),
    ],
)
async def test_a_wrong_body_is_refused(quick_store: Store, body: bytes, kind: str, status: int) -> None:
    await talk(quick_store, KEY, turns=1)
    async with client(quick_store) as http:
        response = await http.patch("/trip", content=body, headers={"content-type": kind})
        assert (response.status_code, response.headers["content-type"]) == (status, "application/problem+json")
        assert (await http.get("/trip")).json()["title"] == "Trip to Rome"


async def test_problems_have_the_status_of_their_cause(quick_store: Store) -> None:
    async with client(quick_store) as http:
        answers = {
            404: [await http.get("/none"), await http.get("/none/messages"), await http.get("/none/what")],
            405: [await http.put("/none"), await http.post("/"), await http.delete("/search")],
            422: [
                await http.get("/", params={"limit": 0}),
                await http.get("/", params={"unknown": 1}),
                await http.get("/?limit=1&limit=2"),
                await http.get("/", params={"cursor": "nonsense"}),
                await http.get("/", params={"title": "x", "cursor": "nonsense"}),
                await http.get("/search", params={"q": ""}),
                await http.get("/?title=%ff"),
                await http.get("/" + "x" * 600),
                await http.get("/none/messages/-1"),
                await http.get("/none/messages", params={"start": 1, "before": 2}),
            ],
        }
        http.headers.pop("x-user")
        answers[401] = [await http.get("/"), await http.get("/openapi.json")]
    for status, responses in answers.items():
        for response in responses:
            assert response.json()["status"] == response.status_code == status, response.url
            assert response.headers["content-type"] == "application/problem+json"
    assert answers[401][0].headers["www-authenticate"] == "Bearer"
    assert answers[405][0].headers["allow"] == "GET, PATCH, DELETE"


async def test_a_store_that_is_gone_is_503_and_names_no_server() -> None:
    store = open_store(f"redis://127.0.0.1:{free_port()}/0?retries=0")
    async with client(store) as http:
        response = await http.get("/")
    assert (response.status_code, response.headers["retry-after"]) == (503, "1")
    assert "127.0.0.1" not in response.text
