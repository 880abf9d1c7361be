"""The viewer: who gets in, and the pages that it answers with."""

from __future__ import annotations

import asyncio
import re
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
import pytest_asyncio

from everthread import Store, ThreadKey, open_store
from everthread.server.view.app import Shown, viewer
from everthread.server.view.gate import Gate
from everthread.server.view.markup import as_html
from tests.operations.talks import call, result, said, talk
from tests.server.viewing import PATIENCE, view_command

HERE = "http://127.0.0.1:8000"


def gate_of(store: Store, *, may_write: bool = False, tenant: str = "") -> Gate:
    return Gate(viewer(Shown(store, tenant, "memory:", "@prod", may_write)), lambda _: None)


def client_of(gate: Gate) -> httpx.AsyncClient:
    return httpx.AsyncClient(transport=httpx.ASGITransport(gate), base_url=HERE)


@pytest_asyncio.fixture
async def client(quick_store: Store) -> AsyncIterator[httpx.AsyncClient]:
    gate = gate_of(quick_store)
    async with client_of(gate) as opened:
        await opened.get("/", params={"token": gate.token})
        yield opened


# The gate


async def test_a_browser_without_the_token_gets_nothing(quick_store: Store) -> None:
    async with client_of(gate_of(quick_store)) as stranger:
        for path in ("/", "/?token=wrong", "/api/", "/static/view.js"):
            assert (await stranger.get(path)).status_code == 403


async def test_a_token_works_once_and_becomes_a_strict_cookie(quick_store: Store) -> None:
    gate = gate_of(quick_store)
    token = gate.token
    async with client_of(gate) as first, client_of(gate) as second:
        answer = await first.get("/threads/a", params={"token": token, "at": "3"})
        assert (answer.status_code, answer.headers["location"]) == (303, "/threads/a?at=3")
        cookie = answer.headers["set-cookie"].lower()
        assert "httponly" in cookie
        assert "samesite=strict" in cookie
        assert (await first.get("/")).status_code == 200
        assert (await second.get("/", params={"token": token})).status_code == 403
        assert (await second.get("/", params={"token": gate.token})).status_code == 303


async def test_a_redirect_stays_on_this_host(quick_store: Store) -> None:
    gate = gate_of(quick_store)
    async with client_of(gate) as client:
        answer = await client.get(f"{HERE}//evil.example/?token={gate.token}")
        assert answer.headers["location"] == "/evil.example/"


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example:8000", ""])
async def test_a_foreign_host_name_is_refused(client: httpx.AsyncClient, host: str) -> None:
    assert (await client.get("/", headers={"host": host})).status_code == 421


async def test_other_ports_of_a_tunnel_work(client: httpx.AsyncClient) -> None:
    assert (await client.get("/", headers={"host": "localhost:9000"})).status_code in {200, 403}


async def test_every_answer_has_a_strict_policy(client: httpx.AsyncClient) -> None:
    for path in ("/", "/search", "/threads/none", "/api/", "/static/view.js", "/nothing"):
        headers = (await client.get(path)).headers
        assert "default-src 'none'" in headers["content-security-policy"]
        assert "unsafe" not in headers["content-security-policy"]
        assert headers["x-content-type-options"] == "nosniff"


async def test_nothing_can_be_changed_without_write(client: httpx.AsyncClient, quick_store: Store) -> None:
    await talk(quick_store)
    own = {"origin": HERE}
    answer = await client.post("/threads/trip/change", data={"action": "delete", "next_seq": "12"}, headers=own)
    assert answer.status_code == 404
    assert (await client.delete("/api/trip", headers=own)).status_code == 403
    assert await quick_store.get_thread(ThreadKey("trip"))


async def test_changes_come_from_the_viewers_own_pages_only(quick_store: Store) -> None:
    await talk(quick_store)
    gate = gate_of(quick_store, may_write=True)
    async with client_of(gate) as client:
        await client.get("/", params={"token": gate.token})
        change = {"action": "rename", "title": "Rome"}
        for origin in ({}, {"origin": "http://127.0.0.1:3000"}, {"origin": "null"}):
            assert (await client.post("/threads/trip/change", data=change, headers=origin)).status_code == 403
        assert (await client.post("/threads/trip/change", data=change, headers={"origin": HERE})).status_code == 303
    thread = await quick_store.get_thread(ThreadKey("trip"))
    assert thread is not None
    assert thread.title == "Rome"


# Pages


async def test_threads_are_listed_filtered_and_opened_by_id(client: httpx.AsyncClient, quick_store: Store) -> None:
    await talk(quick_store)
    await quick_store.append(ThreadKey("a/b?c"), [said("user", "an order")])
    assert "Trip to Rome" in (await client.get("/")).text
    found = await client.get("/", params={"q": "rome"}, headers={"hx-request": "true"})
    assert "Trip to Rome" in found.text
    assert "an order" not in found.text
    answer = await client.get("/open", params={"q": "a/b?c"})
    assert "an order" in (await client.get(answer.headers["location"])).text


async def test_a_call_is_shown_with_its_result(client: httpx.AsyncClient, quick_store: Store) -> None:
    await talk(quick_store, turns=1)
    page = (await client.get("/threads/trip")).text
    assert page.count('<details class="tool">') == 1
    assert "no result here" not in page
    assert "sunny" in page
    assert "sunny" not in (await client.get("/threads/trip?mode=conversation")).text
    assert "tool_call_id" in (await client.get("/threads/trip?mode=raw")).text


async def test_every_message_of_a_long_thread_is_reached_by_pages(
    client: httpx.AsyncClient, quick_store: Store
) -> None:
    await talk(quick_store, turns=60)
    seen: set[int] = set()
    path = "/threads/trip"
    for _ in range(20):
        page = (await client.get(path)).text
        seen |= {int(seq) for seq in re.findall('id="m([0-9]+)"', page)}
        if 'hx-get="/threads/trip/rows?before=' not in page:
            break
        path = "/threads/trip/rows?before=" + page.split("rows?before=")[1].split("&")[0]
    assert seen == set(range(240))


async def test_a_permalink_survives_trimming_and_the_gap_is_shown(
    client: httpx.AsyncClient, quick_store: Store
) -> None:
    await talk(quick_store)
    await quick_store.truncate(ThreadKey("trip"), start=4)
    page = (await client.get("/threads/trip?at=8")).text
    assert "Positions 0 to 3" in page
    assert 'id="m8"' in page


async def test_faults_are_shown_with_the_dry_run_of_their_repair(client: httpx.AsyncClient, quick_store: Store) -> None:
    await quick_store.append(ThreadKey("bad"), [said("user", "a"), result("lost"), said("assistant", "b")])
    health = (await client.get("/threads/bad/health")).text
    assert "orphaned-result" in health
    assert "everthread doctor @prod --repair --dry-run" in health


async def test_find_reads_calls_and_results_too(client: httpx.AsyncClient, quick_store: Store) -> None:
    await quick_store.append(ThreadKey("t"), [said("user", "a"), call("1"), result("1"), said("assistant", "b")])
    assert "?at=2#m2" in (await client.get("/threads/t/find?q=SUNNY")).text


async def test_another_tenant_is_not_reached(quick_store: Store) -> None:
    await talk(quick_store)
    gate = gate_of(quick_store, tenant="acme")
    async with client_of(gate) as client:
        await client.get("/", params={"token": gate.token})
        assert "Trip to Rome" not in (await client.get("/")).text
        assert (await client.get("/threads/trip")).status_code == 404


# Texts


@pytest.mark.parametrize(
    "text",
    [
        "<script>alert(1)</script>",
        "<img src=x onerror=alert(1)>",
        "[a](javascript:alert(1))",
        "[a](/threads/x)",
        "[a](//evil.example)",
        "[a](data:text/html,x)",
        "![a](https://evil.example/a.png)",
    ],
)
def test_texts_load_and_run_nothing(text: str) -> None:
    html = as_html(text)
    assert not any(tag in html for tag in ("<script", "<img", "<iframe", "<style", " href=", "<a hx-"))


def test_a_link_shows_its_host() -> None:
    html = as_html("[https://bank.example](https://evil.example/login)")
    assert "(evil.example)" in html
    assert "noopener noreferrer" in html


# The command


def test_the_command_ends_with_an_interrupt(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'threads.db'}"

    async def write() -> None:
        async with open_store(url) as store:
            await talk(store)

    asyncio.run(write())
    with view_command(url, tmp_path) as (process, address):
        with httpx.Client(follow_redirects=True) as client:
            assert "Trip to Rome" in client.get(address).text
        process.send_signal(signal.SIGINT)
        assert process.wait(PATIENCE) == 130
