"""The JSON form of threads and messages."""

from __future__ import annotations

import json

from everthread import Message, Thread, ThreadKey
from everthread.json_form import encoded, raw_message, shown_message, stored_thread
from everthread.messages.codec import View, view

KEY = ThreadKey("trip")


def test_a_lone_surrogate_of_another_program_is_escaped() -> None:
    stored = Message(0, b'{"role":"user","content":"\\ud800 caf\xc3\xa9"}', "json", 0, 0)
    shown = encoded([shown_message(stored, KEY, view(stored, KEY))])
    assert json.loads(shown)[0]["text"] == "\ud800 café"
    shown.decode()


def test_a_record_that_is_not_json_is_in_base64() -> None:
    stored = Message(3, b"\xff{", "json", None, 3)
    assert json.loads(encoded(raw_message(stored, KEY, is_json=False)))["undecodable"] == "/3s="
    assert json.loads(encoded(shown_message(stored, KEY, None)))["unreadable"]


def test_a_payload_stays_unchanged_on_one_line() -> None:
    stored = Message(0, b'{"a":\n 1.50, "a": 12345678901234567890}', "json", 0, 0)
    line = encoded(raw_message(stored, KEY, is_json=True))
    assert b'{"a":  1.50, "a": 12345678901234567890}' in line
    assert b"\n" not in line


def test_a_thread_has_its_metadata_and_damage() -> None:
    thread = Thread(KEY, 0, 2, 2, 10, 0, 1_000, title="T", metadata={"a": [1]}, damage="metadata")
    shown = json.loads(encoded(stored_thread(thread)))
    assert (shown["metadata"], shown["damage"], shown["last_activity"]) == (
        {"a": [1]},
        "metadata",
        "1970-01-01T00:00:01Z",
    )
    assert "damage" not in json.loads(encoded(stored_thread(Thread(KEY, 0, 0, 0, 0, 0, 0))))


def test_an_empty_view_has_every_field() -> None:
    stored = Message(0, b"1", "json", 0, 0)
    assert json.loads(encoded(shown_message(stored, KEY, View())))["calls"] == []
