"""Threads for reading: stored text stays text, whatever it contains."""

from __future__ import annotations

import io
import re
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from everthread import NewMessage, Store, ThreadKey, new_message
from everthread.engines.memory import MemoryStore
from everthread.transfer import export_threads
from tests.transfer.conversations import fill

HOSTILE = "</p><script>alert(1)</script><img src=x onerror=alert(1)> ``` # x \u202e"


async def hostile(store: Store) -> None:
    call = {"id": "c", "type": "function", "function": {"name": "<b>", "arguments": HOSTILE}}
    image = {"type": "image_url", "image_url": {"url": 'javascript:alert("1")'}}
    await store.append(
        ThreadKey(HOSTILE),
        [
            new_message({"role": HOSTILE, "content": HOSTILE}, format="chat-completions"),
            new_message({"role": "user", "content": [{"type": "text", "text": HOSTILE}, image]}),
            new_message({"role": "assistant", "content": None, "tool_calls": [call]}),
            new_message({"role": "tool", "tool_call_id": "c", "content": HOSTILE}),
        ],
    )


async def rendered(store: Store, format_name: Any) -> str:
    stream = io.BytesIO()
    await export_threads(store, stream, format=format_name)
    return stream.getvalue().decode()


async def test_html_holds_nothing_that_acts(store: Store) -> None:
    await hostile(store)
    seen: list[tuple[str, dict[str, str | None]]] = []

    class Parser(HTMLParser):
        def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
            seen.append((tag, dict(attrs)))

    page = await rendered(store, "html")
    Parser().feed(page)
    assert {tag for tag, _ in seen} <= {
        "html", "head", "meta", "title", "style", "body", "section", "h1", "article", "header", "p", "pre",
    }  # fmt: skip
    assert all(not name.startswith("on") and name != "href" for _, attributes in seen for name in attributes)
    assert "default-src 'none'" in page
    assert page.count("alert(1)") >= 4


async def test_markdown_holds_no_html_and_ends_no_block(store: Store) -> None:
    await hostile(store)
    text = await rendered(store, "markdown")
    in_block = False
    for line in text.splitlines():
        if line.startswith("````"):
            in_block = not in_block
        elif not in_block:
            assert "<" not in line.replace("\\<", "")
    assert not in_block


@pytest.mark.parametrize("format_name", ["markdown", "html"])
async def test_a_folder_for_reading_has_a_file_for_each_thread(store: Store, tmp_path: Path, format_name: str) -> None:
    await fill(store)
    report = await export_threads(store, tmp_path / "x", format=format_name, into_folder=True)  # type: ignore[arg-type]
    assert len(list((tmp_path / "x").iterdir())) == 10
    assert report.is_complete


MARKUP = st.lists(
    st.sampled_from([*"\\`*_[]<>~|&#+=-.():!{}1a é\n\t", "\n\n", "    ", "```", "---", "&amp;", "<b>", "javascript:"]),
    max_size=30,
).map("".join)


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(MARKUP)
@example("# a\n===\n1. b\n- c\n    d\n```\ne")
@example("a\n \nb\n\t")
@example("a_b _c_ &amp; &a [x](y) ![z](q) https://e.org/?a=1&b_c=2")
async def test_markdown_shows_the_original_text(text: str) -> None:
    async with MemoryStore() as store:
        await store.append(ThreadKey("t"), [new_message({"role": "user", "content": text or "x"})])
        page = await rendered(store, "markdown")
    tokens = MarkdownIt("gfm-like", {"linkify": False}).parse(page)
    kinds = [token.type for token in tokens if token.type not in {"inline", "paragraph_open", "paragraph_close"}]
    assert kinds == ["heading_open", "heading_close"] * 2 + ["blockquote_open", "blockquote_close"]
    inline = [child for token in tokens if token.type == "inline" for child in token.children or ()]
    assert {child.type for child in inline} <= {"text", "text_special", "softbreak", "hardbreak"}
    shown = "".join(child.content or "\n" for token in tokens[6:] for child in token.children or ())
    assert re.sub(r"[ \xa0\n\t]+", "", shown) == re.sub(r"[ \n\t]+", "", text or "x")
    pairs = pairwise(line.strip() for line in text.split("\n"))
    assert sum(child.type == "hardbreak" for child in inline) == sum(bool(one and other) for one, other in pairs)


async def test_a_page_has_no_control_characters() -> None:
    async with MemoryStore() as store:
        text = "a\x1b[2Jb\x9bc\u202ed\u2066e\x00f\r\ng\rh"
        called = {"id": "c", "type": "function", "function": {"name": text, "arguments": text}}
        await store.append(
            ThreadKey(text),
            [
                new_message({"role": text, "content": text}, format="chat-completions"),
                new_message({"role": "assistant", "content": text, "tool_calls": [called]}),
                new_message({"role": "tool", "tool_call_id": "c", "content": text}),
                NewMessage(b'{"role":"user","content":"\\ud83d\\ude00"}', "chat-completions"),
            ],
        )
        for format_name in ("markdown", "html"):
            page = await rendered(store, format_name)
            assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]", page)
            assert "g\nh" in page or "g  \n> h" in page
