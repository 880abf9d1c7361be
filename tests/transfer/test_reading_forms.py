"""Threads for reading, and for fine-tuning: what is stored stays text, whatever it says."""

from __future__ import annotations

import io
import json
import re
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import redis as redis_py
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from everthread import NewMessage, Store, ThreadKey, new_message, open_store
from everthread.engines.memory import MemoryStore
from everthread.transfer import export_threads
from tests.servers import Server
from tests.transfer.conversations import fill, turn

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


async def test_fine_tuning_lines_are_the_chat_format(store: Store) -> None:
    await store.append(ThreadKey("a"), turn(0))
    await store.append(ThreadKey("b"), turn(1))
    lines = [json.loads(line)["messages"] for line in (await rendered(store, "openai")).splitlines()]
    assert len(lines) == 2
    call = {"id": "call0", "type": "function", "function": {"name": "weather", "arguments": '{"city":"Rome"}'}}
    assert lines[0] == [
        {"role": "user", "content": "question 0 — é💾"},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "call0", "content": "22 °C"},
        {"role": "assistant", "content": "answer 0"},
    ]


@pytest.mark.parametrize("format_name", ["markdown", "html", "openai"])
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
async def test_markdown_shows_text_as_it_was_written(text: str) -> None:
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


async def test_a_page_holds_nothing_that_steers_a_terminal_or_turns_what_stands_around_it() -> None:
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


# For fine-tuning


def said(role: str, text: str | None, *calls: str) -> NewMessage:
    made = [{"id": each, "type": "function", "function": {"name": "f", "arguments": ""}} for each in calls]
    return new_message({"role": role, "content": text, **({"tool_calls": made} if made else {})})


def answered(call: str) -> NewMessage:
    return new_message({"role": "tool", "tool_call_id": call, "content": f"result of {call}"})


async def lines_of(*messages: NewMessage) -> list[list[str]]:
    """Fine-tuning lines, shortened: who speaks, the calls, whose result."""
    async with MemoryStore() as store:
        await store.append(ThreadKey("t"), messages)
        lines = (await rendered(store, "openai")).splitlines()
    return [[_shortened(entry) for entry in json.loads(line)["messages"]] for line in lines]


def _shortened(entry: dict[str, Any]) -> str:
    calls = "".join(f" {call['id']}{call['function']['arguments']}" for call in entry.get("tool_calls", []))
    return f"{entry['role'][0]}:{entry.get('tool_call_id') or entry['content']}{calls}"


async def test_fine_tuning_leaves_out_calls_that_were_not_answered_before_the_conversation_went_on() -> None:
    lines = await lines_of(
        said("user", "1"), said("assistant", None, "a"), said("user", "2"), said("assistant", "so", "b", "c"),
        answered("c"), said("user", "3"), said("assistant", None, "d"),
    )  # fmt: skip
    assert lines == [["u:1", "u:2", "a:so c{}", "t:c", "u:3", "a:None d{}"]]


async def test_fine_tuning_leaves_out_results_without_calls_and_late_ones() -> None:
    lines = await lines_of(
        answered("x"), said("user", "1"), said("assistant", None, "a"), said("user", "2"), answered("a"),
        said("assistant", "ok"),
    )  # fmt: skip
    assert lines == [["u:1", "u:2", "a:ok"]]


async def test_fine_tuning_puts_calls_that_were_made_at_once_together() -> None:
    def item(**fields: str) -> NewMessage:
        return new_message(dict(fields), format="openai-responses")

    lines = await lines_of(
        item(role="user", content="hi"),
        new_message({"type": "reasoning", "summary": [{"type": "summary_text", "text": "I think"}]}),
        item(type="function_call", call_id="a", name="f", arguments="{}"),
        item(type="function_call", call_id="b", name="f", arguments="{}"),
        item(type="function_call_output", call_id="b", output="2"),
        item(type="function_call_output", call_id="a", output="1"),
        item(type="function_call", call_id="c", name="f", arguments="{}"),
        item(type="function_call_output", call_id="c", output="3"),
        item(type="message", role="assistant", content="done"),
    )
    assert lines == [["u:hi", "a:None a{} b{}", "t:a", "t:b", "a:None c{}", "t:c", "a:done"]]


async def test_fine_tuning_has_no_line_for_a_thread_in_which_no_assistant_speaks() -> None:
    assert await lines_of(said("user", "1"), said("user", "2")) == []
    assert await lines_of(said("user", "1"), said("assistant", "")) == []


async def test_what_has_no_utf8_form_or_is_no_json_does_not_stop_an_export(plain_redis_server: Server) -> None:
    with redis_py.Redis(port=plain_redis_server.port, db=11) as client:
        client.flushdb()
        client.rpush("x:t", '{"role":"user","content":"a\\ud800"}', "{", '{"role":"assistant","content":"b"}')
    async with open_store(f"redis://127.0.0.1:{plain_redis_server.port}/11?prefix=x") as store:
        stream = io.BytesIO()
        await export_threads(store, stream, format="openai", names=["t"])
        messages = [{"role": "user", "content": "a?"}, {"role": "assistant", "content": "b"}]
        assert json.loads(stream.getvalue()) == {"messages": messages}
        for format_name in ("markdown", "html"):
            stream = io.BytesIO()
            await export_threads(store, stream, format=format_name, names=["t"])  # type: ignore[arg-type]
            assert "(unreadable: the record is not JSON)" in stream.getvalue().decode()
            assert "a?" in stream.getvalue().decode()
