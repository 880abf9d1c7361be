"""Hostile messages in a real browser: they run no script, and nothing leaves the page."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from everthread import ThreadKey, new_message, open_store
from tests.server.viewing import CHROMIUM, Tab, browser_tab, view_command

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed: apt-get install chromium"),
]

HOSTILE = (
    "<script>alert(1)</script>",
    "</pre></div></article><script>alert(1)</script>",
    "<img src=https://evil.invalid/a onerror=alert(1)>",
    "<svg onload=alert(1)><iframe src=https://evil.invalid/></iframe>",
    "<link rel=stylesheet href=https://evil.invalid/a.css><style>*{background:url(https://evil.invalid/b)}</style>",
    "<meta http-equiv=refresh content='0;url=https://evil.invalid/'><base href=https://evil.invalid/>",
    "<div hx-get=https://evil.invalid/ hx-trigger=load hx-on::load='alert(1)' id=messages class=top>a</div>",
    "![a](https://evil.invalid/a.png) [b](javascript:alert(1)) [c]( java&#115;cript:alert(1))",
    "[a](https://evil.invalid/' onmouseover='alert(1)) <https://evil.invalid/\"onclick=alert(1)>",
    "```\n</code></pre><script>alert(1)</script>\n```",
    "| <img src=x onerror=alert(1)> | `<script>alert(1)</script>` |\n|-|-|\n| a | b |",
    "{{ 7 * 7 }} {% raw %} ${alert(1)} <%= 1 %>",
    "\u202e<script>alert(1)</script>\u202c\x1b]0;title\x07\x00",
    "&lt;script&gt;alert(1)&lt;/script&gt; <!-- --><!--><script>alert(1)</script>",
    "*" * 3_000 + "[" * 3_000,
)


async def _write(url: str) -> None:
    async with open_store(url) as store:
        for number, text in enumerate(HOSTILE):
            function = {"name": text[:200], "arguments": text}
            made = [{"id": f"{number}{text[:60]}", "type": "function", "function": function}]
            turn = [
                {"role": "user", "content": text},
                {"role": "assistant", "content": text, "tool_calls": made},
                {"role": "tool", "tool_call_id": made[0]["id"], "content": text},
                {"role": text[:50], "content": text, "author_name": text},
            ]
            await store.append(ThreadKey("hostile"), [new_message(message) for message in turn])
            await store.append(ThreadKey(f"thread {text[:100]}"), [new_message(turn[0])])
        await store.update_thread(
            ThreadKey("hostile"),
            title="</title><script>alert(1)</script>",
            metadata={"<script>alert(1)</script>": HOSTILE[2]},
        )


@pytest.fixture(scope="module")
def tab_and_base(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Tab, str]]:
    folder: Path = tmp_path_factory.mktemp("viewer")
    url = f"sqlite:///{folder / 'threads.db'}"
    asyncio.run(_write(url))
    with view_command(url, folder) as (_, address), browser_tab() as tab:
        tab.open(address)
        tab.wait("location.search === ''")
        yield tab, address.split("/?")[0]


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/?q=script",
        "/search?q=script",
        "/threads/hostile",
        "/threads/hostile?at=0#m0",
        "/threads/hostile?mode=raw",
        "/threads/hostile?mode=conversation",
        "/threads/hostile/messages/1",
        "/threads/hostile/find?q=script",
    ],
)
def test_hostile_messages_run_and_load_nothing(tab_and_base: tuple[Tab, str], path: str) -> None:
    tab, base = tab_and_base
    tab.open(base + path)
    tab.wait("!document.querySelector('#health') || document.querySelector('#health .strip:not(p), #health .ok')")
    tab.evaluate("document.querySelectorAll('details').forEach((each) => { each.open = true; })")
    assert (
        tab.evaluate("document.querySelectorAll('main iframe, main img, main script, main svg, main style').length")
        == 0
    )
    assert tab.evaluate("location.origin") == base
    assert tab.troubles == []
    assert [request for request in tab.requests if not request.startswith(base)] == []


def test_older_messages_are_loaded_while_scrolling(tab_and_base: tuple[Tab, str]) -> None:
    tab, base = tab_and_base
    tab.open(f"{base}/threads/hostile?at=59")
    tab.wait("document.querySelector('#m0') !== null || (scrollTo(0, 0), false)")
    assert tab.troubles == []
