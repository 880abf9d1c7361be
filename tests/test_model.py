"""The values of the model refuse what would not come back equal, and do not show what is in them."""

from __future__ import annotations

import json
import pickle
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from everthread.errors import ConfigurationError, InvalidIdentifierError, InvalidMessageError
from everthread.model import (
    MAX_IDENTIFIER_BYTES,
    Appended,
    Message,
    MessagePage,
    NewMessage,
    Page,
    Retention,
    Thread,
    ThreadKey,
    check_count,
    from_milliseconds,
    to_milliseconds,
)
from everthread.testing import identifiers, payloads, thread_keys

NOT_JSON = [
    b"",
    b" ",
    b"{",
    b"[1,]",
    b"{'a':1}",
    b"{1:2}",
    b"NaN",
    b"Infinity",
    b"-Infinity",
    b"01",
    b"1.",
    b".5",
    b"+1",
    b"tru",
    b"1 2",
    b'{"a":1}x',
    b'"\x01"',
    b'"\\x"',
    b'"\xff"',
    b'"\xed\xa0\x80"',
    b'"\\ud800"',
    b'"\\udc00x"',
    b"\xef\xbb\xbf1",
    b"\x00",
    "1".encode("utf-16"),
    b"[" * 100_000,
    b"[" * 100_000 + b"]" * 100_000,
]


@pytest.mark.parametrize("payload", NOT_JSON, ids=lambda payload: repr(payload[:20]))
def test_a_payload_that_is_not_json_is_refused(payload: bytes) -> None:
    with pytest.raises(InvalidMessageError):
        NewMessage(payload)


@pytest.mark.parametrize("payload", [None, "1", {"a": 1}, bytearray(b"1"), memoryview(b"1"), 1])
def test_a_payload_that_is_not_bytes_is_refused(payload: object) -> None:
    with pytest.raises(InvalidMessageError):
        NewMessage(payload)


@given(payloads())
def test_a_payload_that_is_json_is_taken_as_it_is(payload: bytes) -> None:
    assert NewMessage(payload).payload == payload


@given(st.binary(max_size=8) | st.text(st.sampled_from('{}[],:"\\u0de1. \n-+eNaf'), max_size=8).map(str.encode))
def test_what_is_taken_for_json_is_json_for_others(payload: bytes) -> None:
    try:
        NewMessage(payload)
    except InvalidMessageError:
        return
    json.loads(payload)


@pytest.mark.parametrize(
    "fields",
    [
        {"format": 3},
        {"format": None},
        {"format": "\ud800"},
        {"calls": ["a"]},
        {"calls": "abc"},
        {"calls": (1,)},
        {"calls": ("\udfff",)},
        {"results": (None,)},
        {"results": 7},
        {"created_at": 5},
        {"created_at": "2020-01-01"},
    ],
    ids=repr,
)
def test_a_message_with_a_field_of_another_type_is_refused(fields: dict[str, object]) -> None:
    with pytest.raises(InvalidMessageError):
        NewMessage(b"1", **fields)


@pytest.mark.parametrize("name", ["", None, 5, b"x", ["x"], "\ud800", "a\udfffb", "x" * 513, "é" * 257])
def test_a_thread_id_that_names_nothing_is_refused(name: object) -> None:
    with pytest.raises(InvalidIdentifierError):
        ThreadKey(name)


@pytest.mark.parametrize("tenant", [None, 5, b"x", "\ud800", "x" * 513])
def test_a_tenant_that_names_nothing_is_refused(tenant: object) -> None:
    with pytest.raises(InvalidIdentifierError):
        ThreadKey("x", tenant)


@given(identifiers(), identifiers(may_be_empty=True))
def test_any_other_text_names_a_thread(thread_id: str, tenant: str) -> None:
    key = ThreadKey(thread_id, tenant)
    assert (key.thread_id, key.tenant) == (thread_id, tenant)
    assert len(thread_id.encode()) <= MAX_IDENTIFIER_BYTES


@given(thread_keys(), thread_keys())
def test_keys_are_equal_only_if_both_parts_are(one: ThreadKey, other: ThreadKey) -> None:
    assert (one == other) == ((one.thread_id, one.tenant) == (other.thread_id, other.tenant))
    assert pickle.loads(pickle.dumps(one)) == one


def test_the_longest_identifier_is_measured_in_bytes() -> None:
    assert ThreadKey("x" * 512)
    assert ThreadKey("é" * 256)


@pytest.mark.parametrize("most", [-1, 1.5, "3", True, 2**53])
def test_a_limit_that_is_no_count_is_refused(most: object) -> None:
    with pytest.raises(ConfigurationError):
        Retention(most)


@pytest.mark.parametrize("after", [timedelta(0), timedelta(microseconds=999), timedelta(-1), 5, "1h"])
def test_an_expiry_that_is_no_time_is_refused(after: object) -> None:
    with pytest.raises(ConfigurationError):
        Retention(expire_after=after)


def test_an_expiry_is_whole_milliseconds() -> None:
    assert Retention(expire_after=timedelta(milliseconds=1)).expire_ms == 1
    assert Retention(expire_after=timedelta(days=365_000)).expire_ms == 365_000 * 86_400_000
    assert Retention().expire_ms is None


def test_a_count_may_be_optional_and_have_a_least_value() -> None:
    check_count(None, "x", optional=True)
    check_count(0, "x")
    with pytest.raises(ConfigurationError):
        check_count(None, "x")
    with pytest.raises(ConfigurationError):
        check_count(0, "x", least=1)


@given(st.datetimes(timezones=st.just(UTC)))
def test_milliseconds_and_datetimes_are_the_same_time(time: datetime) -> None:
    value = to_milliseconds(time)
    assert to_milliseconds(from_milliseconds(value)) == value
    assert timedelta(0) <= time - from_milliseconds(value) < timedelta(milliseconds=1)


def test_a_datetime_without_a_zone_is_utc() -> None:
    assert to_milliseconds(datetime(2020, 1, 1)) == to_milliseconds(datetime(2020, 1, 1, tzinfo=UTC))


def test_values_cannot_be_changed() -> None:
    for value, name in ((ThreadKey("a"), "tenant"), (NewMessage(b"1"), "payload"), (Appended(0, 1), "first_seq")):
        with pytest.raises(AttributeError):
            setattr(value, name, "x")


def test_pages_are_sequences() -> None:
    page = MessagePage((Message(4, b"1", "json", None, 4), Message(5, b"2", "json", 0, 4)), 4, 6)
    assert [m.seq for m in page] == [4, 5]
    assert (len(page), page[1].created_at, page[0].created_at) == (2, datetime(1970, 1, 1, tzinfo=UTC), None)
    assert not MessagePage((), 0, 0)
    assert list(Page((1, 2))) == [1, 2]


def test_no_repr_shows_what_was_said() -> None:
    thread = Thread(ThreadKey("t"), 0, 1, 1, 5, 0, 0, title="private", metadata={"private": "private"})
    for value in (NewMessage(b'"private"'), Message(0, b'"private"', "json", 0, 0), thread, Page((thread,))):
        assert "private" not in repr(value)
