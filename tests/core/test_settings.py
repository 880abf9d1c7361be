"""URLs are taken apart without showing what is secret in them."""

from __future__ import annotations

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from everthread.errors import ConfigurationError
from everthread.model import Retention
from everthread.settings import engine_options, flag, mask_url, scheme_of, take_options


@pytest.mark.parametrize(
    ("url", "scheme"),
    [("redis://h", "redis"), ("SQLite:///x", "sqlite"), ("memory:", "memory"), ("postgresql+x://h", "postgresql+x")],
)
def test_a_url_has_a_scheme(url: str, scheme: str) -> None:
    assert scheme_of(url) == scheme


@pytest.mark.parametrize(
    "url", ["", "threads.db", "/tmp/x", r"C:\threads.db", "c:/x", "://h", "1x://h", None, 5, b"redis://h"]
)
def test_a_url_without_a_scheme_is_refused(url: object) -> None:
    with pytest.raises(ConfigurationError):
        scheme_of(url)


@pytest.mark.parametrize(
    ("url", "masked"),
    [
        ("redis://h:6379/0", "redis://h:6379/0"),
        ("redis://user@h", "redis://user@h"),
        ("redis://:s3cret@h:6379/0?ssl=1", "redis://:***@h:6379/0?ssl=1"),
        ("rediss://user:s3cret@h", "rediss://user:***@h"),
        ("redis://user:s3@cret@h/0", "redis://user:***@h/0"),
        ("redis://user:s3/cret@h/0", "redis://user:***@h/0"),
        ("redis://user:s3?cret@h/0", "redis://user:***@h/0"),
        ("redis://user:s@3?c=r@h/0", "redis://user:***@h/0"),
        ("redis://h?password=s3cret&db=1", "redis://h?password=***&db=1"),
        ("postgresql://u:s3cret@[::1]:5432/db?sslpassword=s3cret", "postgresql://u:***@[::1]:5432/db?sslpassword=***"),
        ("cosmos://h/?AccountKey=s3cret&x=y", "cosmos://h/?AccountKey=***&x=y"),
        ("az://c?sas_token=s3cret&sig=s3cret", "az://c?sas_token=***&sig=***"),
        ("unix://user:s3cret@/run/redis.sock?db=1", "unix://user:***@/run/redis.sock?db=1"),
        ("sqlite:////home/a@b:c/x.db", "sqlite:////home/a@b:c/x.db"),
        ("memory:", "memory:"),
    ],
)
def test_secrets_are_masked(url: str, masked: str) -> None:
    assert mask_url(url) == masked


@given(st.text(st.characters(exclude_categories=["Cs"]), min_size=1), st.sampled_from(["", "user", "a.b"]))
def test_no_password_shows(password: str, user: str) -> None:
    masked = mask_url(f"redis://{user}:<{password}>@host:6379/0")
    assert masked == f"redis://{user}:***@host:6379/0"


def test_options_are_taken_and_the_rest_is_left_in_order() -> None:
    rest, taken = take_options("redis://h/0?b=%20x&max=3&a=&b=2", {"max": int})
    assert (rest, taken) == ("redis://h/0?b=+x&a=&b=2", {"max": 3})
    assert take_options("redis://h?max=3", {"max": int}) == ("redis://h", {"max": 3})
    assert take_options("redis://h", {"max": int}) == ("redis://h", {})


@pytest.mark.parametrize("query", ["max=x", "max=", "max=1&max=2", "max=1.5"])
def test_options_that_are_wrong_are_refused(query: str) -> None:
    with pytest.raises(ConfigurationError, match="max"):
        take_options(f"redis://h?{query}", {"max": int})


def test_every_engine_takes_limits_from_its_url() -> None:
    url = "x://h?max_messages=3&expire_after=1.5&max_message_bytes=10&own=yes&other=1"
    rest, settings = engine_options(url, {}, {"own": flag})
    assert rest == "x://h?other=1"
    assert settings == {
        "retention": Retention(3, timedelta(seconds=1.5)),
        "max_message_bytes": 10,
        "own": True,
    }


def test_keywords_win_over_the_url() -> None:
    _, settings = engine_options("x://h?max_messages=3", {"retention": Retention(5), "clock": None})
    assert settings == {"retention": Retention(5)}


@pytest.mark.parametrize(
    "query",
    ["max_messages=-1", "max_messages=x", "expire_after=0", "expire_after=nan", "expire_after=inf", "expire_after=1h"],
)
def test_limits_that_are_wrong_are_refused(query: str) -> None:
    with pytest.raises(ConfigurationError):
        engine_options(f"x://h?{query}", {})


def test_flags() -> None:
    assert all(flag(text) for text in ("1", "true", "YES", " on "))
    assert not any(flag(text) for text in ("0", "false", "No", "off"))
    with pytest.raises(ValueError, match="true or false"):
        flag("maybe")
