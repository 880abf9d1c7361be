"""Threads and messages as text: readable, within the window, and harmless to the terminal."""

from __future__ import annotations

import unicodedata
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len

from everthread import _wording
from everthread.cli import rendering
from everthread.messages.codec import encode
from everthread.model import Message, Thread, ThreadKey, to_milliseconds

NOW = datetime(2026, 5, 17, 14, 5, tzinfo=UTC)


def stored(value: object, *, when: datetime | None = NOW) -> Message:
    payload = value if isinstance(value, bytes) else encode(value)
    return Message(0, payload, "agent-framework", None if when is None else to_milliseconds(when), 0)


def written(*contents: dict[str, object], role: str = "assistant") -> dict[str, object]:
    return {"type": "message", "role": role, "contents": list(contents)}


def shown(*messages: Message, width: int | None = None) -> list[str]:
    return [line.plain for line in rendering.transcript(messages, now=NOW, width=width)]


def a_thread(**fields: object) -> Thread:
    then = to_milliseconds(NOW - timedelta(minutes=3))
    basis = {"key": ThreadKey("t1"), "head_seq": 0, "next_seq": 4, "count": 4, "size": 9}
    return Thread(**{**basis, "created_ms": then, "updated_ms": then, **fields})  # type: ignore[arg-type]


def test_a_message_shows_role_time_and_text() -> None:
    assert shown(stored(written({"type": "text", "text": "Hello\nthere"}, role="user"))) == [
        "user  14:05",
        "  Hello\n  there",
    ]


def test_a_run_that_ended_early_is_marked() -> None:
    for how, line in (("cancelled", "  (this run was cancelled)"), ("failed", "  (this run failed)"), ("\x1b", "  x")):
        value = {**written({"type": "text", "text": "x"}), "additional_properties": {"everthread_run": how}}
        assert shown(stored(value))[-1] == line


def test_a_time_of_another_day_has_its_date() -> None:
    text = written({"type": "text", "text": "x"})
    assert shown(stored(text, when=NOW - timedelta(days=1)))[0] == "assistant  2026-05-16 14:05"
    assert shown(stored(text, when=None))[0] == "assistant  time unknown"


def test_tool_calls_results_and_media_are_readable() -> None:
    image = "data:image/png;base64," + "A" * 45_332
    lines = shown(
        stored(
            written({"type": "function_call", "call_id": "1", "name": "weather", "arguments": '{"city": "Lisbon"}'})
        ),
        stored(written({"type": "function_result", "call_id": "1", "result": "18 °C"}, role="tool")),
        stored(written({"type": "data", "uri": image, "media_type": "image/png"}, role="user")),
        stored(written({"type": "uri", "uri": "https://example.org/a.pdf", "media_type": "application/pdf"})),
    )
    assert '  → weather {"city": "Lisbon"}' in lines
    assert "  ← 18 °C" in lines
    assert "  <image 34 kB>" in lines
    assert "  <file application/pdf at https://example.org/a.pdf>" in lines


def test_a_long_tool_result_is_shortened_and_a_long_text_is_not() -> None:
    result = stored(written({"type": "function_result", "call_id": "1", "result": "x" * 5000}))
    text = stored(written({"type": "text", "text": "x" * 5000}))
    assert len(shown(result)[1]) < 500
    assert shown(text)[1] == "  " + "x" * 5000


def test_an_unreadable_record_does_not_hide_the_others() -> None:
    lines = shown(stored(b"{broken"), stored(written({"type": "text", "text": "fine"})))
    assert lines[0].startswith("unreadable")
    assert lines[-1] == "  fine"


def test_an_empty_message_says_so() -> None:
    assert shown(stored(written()))[1] == "  (no text)"


@given(st.text(st.characters(codec=None), max_size=200))
def test_no_control_character_is_left(text: str) -> None:
    clean = rendering.sanitize(text)
    assert not [c for c in clean if unicodedata.category(c) in {"Cc", "Cs"} and c not in "\n\t"]
    assert [c for c in clean if c.isalnum()] == [c for c in text if c.isalnum()]


def test_escape_sequences_are_made_visible() -> None:
    hostile = "\x1b]0;owned\x07\x9b2J"
    lines = shown(
        stored(
            {"type": "message", "role": hostile, "contents": [{"type": "text", "text": hostile}]},
        ),
        stored(written({"type": "function_call", "call_id": "1", "name": hostile, "arguments": hostile})),
        stored(written({"type": "function_result", "call_id": "1", "result": hostile})),
        stored(written({"type": "uri", "uri": hostile, "media_type": hostile})),
    )
    lines.append(rendering.thread_line(1, a_thread(title=hostile), hostile, now=NOW, width=None).plain)
    assert not {"\x1b", "\x07", "\x9b"} & set("".join(lines))
    assert all("owned" in line for line in lines if not line.startswith(("assistant", "tool")))


@given(st.text(st.characters(exclude_categories=["Cc", "Cs", "Cf", "Mn", "Me"]), max_size=300), st.integers(12, 60))
def test_wrapping_stays_within_the_width_and_loses_no_word(text: str, width: int) -> None:
    lines = rendering.wrapped(text, width, "  ").split("\n")
    assert all(cell_len(line.rstrip()) <= width for line in lines)
    assert "".join("".join(lines).split()) == "".join(text.split())


@given(st.lists(st.text("ab \n", max_size=9), max_size=20), st.integers(12, 30))
def test_text_in_pieces_is_wrapped_like_whole_text(pieces: list[str], width: int) -> None:
    wrap = rendering.WordWrap(width)
    assert "".join(map(wrap.feed, pieces)) + wrap.end() == rendering.wrapped("".join(pieces), width)


def test_without_a_width_text_is_not_wrapped() -> None:
    text = "a  b\n\n    indented " + "word " * 100
    assert rendering.wrapped(text, None) == text.rstrip()


@pytest.mark.parametrize(
    ("passed", "words"),
    [
        (timedelta(seconds=-5), "just now"),
        (timedelta(seconds=3), "just now"),
        (timedelta(seconds=59), "59 seconds ago"),
        (timedelta(minutes=3), "3 minutes ago"),
        (timedelta(hours=1), "1 hour ago"),
        (timedelta(days=2, hours=5), "2 days ago"),
        (timedelta(days=90), "on 2026-02-16"),
    ],
)
def test_ages_are_in_words(passed: timedelta, words: str) -> None:
    assert _wording.ago(NOW - passed, NOW) == words


@pytest.mark.parametrize(("size", "words"), [(0, "0 B"), (999, "999 B"), (34_000, "34 kB"), (2_500_000, "2.5 MB")])
def test_sizes_are_in_words(size: int, words: str) -> None:
    assert _wording.file_size(size) == words


def test_a_thread_line_has_number_title_count_and_last_activity() -> None:
    line = rendering.thread_line(7, a_thread(), "Trip to Lisbon", now=NOW, width=100).plain
    assert line == "  7  Trip to Lisbon  4 messages, 3 minutes ago"


def test_a_thread_line_takes_two_lines_in_a_narrow_window() -> None:
    lines = rendering.thread_line(7, a_thread(), "Trip to " + "Lisbon " * 20, now=NOW, width=39).plain.split("\n")
    assert len(lines) == 2
    assert all(cell_len(line) <= 39 for line in lines)


def test_a_thread_without_a_title_is_listed_by_its_id() -> None:
    assert "t1" in rendering.thread_line(1, a_thread(), None, now=NOW, width=None).plain


def test_the_menu_breaks_between_choices_only() -> None:
    whole = rendering.menu_lines()
    assert len(whole) == 1
    for width in (20, 40, 80, 119, 200):
        assert "  ".join(rendering.menu_lines(width)) == whole[0]
