"""Escaped identifiers are different for different identifiers, and can be read back."""

from __future__ import annotations

import re

from hypothesis import given

from everthread._escaping import escape, unescape
from everthread.testing import identifiers


@given(identifiers(may_be_empty=True))
def test_an_escaped_identifier_can_be_read_back(identifier: str) -> None:
    assert unescape(escape(identifier)) == identifier


@given(identifiers(may_be_empty=True))
def test_no_separator_is_left(identifier: str) -> None:
    assert re.fullmatch(r"[A-Za-z0-9_.%-]*", escape(identifier))


@given(identifiers(may_be_empty=True), identifiers(may_be_empty=True))
def test_different_identifiers_have_different_names(one: str, other: str) -> None:
    assert (escape(one) == escape(other)) == (one == other)


@given(identifiers(may_be_empty=True))
def test_what_may_stay_plain_can_be_read_back_too(identifier: str) -> None:
    assert unescape(escape(identifier, also_plain=":/~")) == identifier


def test_ordinary_identifiers_stay_readable() -> None:
    assert escape("trip-to_rome.2026") == "trip-to_rome.2026"
    assert escape("a:b~c/d") == "a%3Ab%7Ec%2Fd"
    assert escape("") == ""
