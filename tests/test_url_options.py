"""Options in URLs become settings."""

from __future__ import annotations

from datetime import timedelta

import pytest

from everthread._url_options import engine_options, flag, take_options
from everthread.errors import ConfigurationError
from everthread.model import Retention
from everthread.opening import open_store


def test_options_are_taken_and_the_rest_is_left_in_order() -> None:
    rest, taken = take_options("redis://h/0?b=%20x&max=3&a=&b=2", {"max": int})
    assert (rest, taken) == ("redis://h/0?b=+x&a=&b=2", {"max": 3})
    assert take_options("redis://h?max=3", {"max": int}) == ("redis://h", {"max": 3})
    assert take_options("redis://h", {"max": int}) == ("redis://h", {})


@pytest.mark.parametrize("query", ["max=x", "max=", "max=1&max=2", "max=1.5"])
def test_options_that_are_wrong_are_refused(query: str) -> None:
    with pytest.raises(ConfigurationError, match="max"):
        take_options(f"redis://h?{query}", {"max": int})


def test_nothing_that_hangs_on_an_error_quotes_a_value() -> None:
    for url in ("cosmos://bucket?credential=AAA&timeout=BBB", "redis://h/0?password=AAA&max_messages=BBB"):
        with pytest.raises(ConfigurationError) as caught:
            open_store(url)
        assert caught.value.__context__ is None


def test_every_engine_takes_limits_from_its_url() -> None:
    url = "xy://h?max_messages=3&expire_after=1.5&max_message_bytes=10&own=yes&other=1"
    rest, settings = engine_options(url, {}, {"own": flag})
    assert rest == "xy://h?other=1"
    assert settings == {
        "retention": Retention(3, timedelta(seconds=1.5)),
        "max_message_bytes": 10,
        "own": True,
    }


def test_keywords_win_over_the_url() -> None:
    _, settings = engine_options("xy://h?max_messages=3", {"retention": Retention(5), "clock": None})
    assert settings == {"retention": Retention(5)}


@pytest.mark.parametrize(
    "query",
    ["max_messages=-1", "max_messages=x", "expire_after=0", "expire_after=nan", "expire_after=inf", "expire_after=1h"],
)
def test_limits_that_are_wrong_are_refused(query: str) -> None:
    with pytest.raises(ConfigurationError):
        engine_options(f"xy://h?{query}", {})


def test_flags() -> None:
    assert all(flag(text) for text in ("1", "true", "YES", " on "))
    assert not any(flag(text) for text in ("0", "false", "No", "off"))
    with pytest.raises(ValueError, match="true or false"):
        flag("maybe")
