"""A store's URL without its credentials: what is told of a place to those who may not enter it."""

from __future__ import annotations

import time
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from everthread.errors import ConfigurationError
from everthread.settings import without_credentials


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("redis://localhost", "redis://localhost"),
        ("redis://:pw@h:6379/0", "redis://h:6379/0"),
        ("rediss://u:p%2Fw@h:6380/2?ssl_cert_reqs=none&password=x", "rediss://h:6380/2?ssl_cert_reqs=none"),
        ("redis://h?username=u&password=x", "redis://h"),
        ("redis://u:p@w@h/0", "redis://h/0"),
        ("redis://[::1]:6379/1", "redis://[::1]:6379/1"),
        ("redis://u:p@h1:1,h2:2/0", "redis://h1:1,h2:2/0"),
        ("redis://h?client_name=a@b", "redis://h?client_name=a@b"),
        ("unix:///tmp/r.sock?db=1&password=x", "unix:///tmp/r.sock?db=1"),
        ("unix://u:p@/tmp/r.sock", "unix:///tmp/r.sock"),
        ("sqlite:///a b.db", "sqlite:///a b.db"),
        ("memory:", "memory:"),
    ],
)
def test_all_but_the_credentials_stays(url: str, expected: str) -> None:
    assert without_credentials(url) == expected


@pytest.mark.parametrize("password", ["half/way", "half?way", "half#way", "12/34", "a/b@c"])
def test_a_password_whose_end_cannot_be_told_is_refused(password: str) -> None:
    with pytest.raises(ConfigurationError) as raised:
        without_credentials(f"redis://:{password}@h:1/0")
    assert password not in str(raised.value)


@given(st.text(st.characters(codec="utf-8"), min_size=3), st.sampled_from(["/0", "", "/0?db=1"]))
def test_an_encoded_password_never_stays(password: str, rest: str) -> None:
    encoded = quote(password, safe="")
    assert without_credentials(f"redis://user:{encoded}@cache{rest}") == f"redis://cache{rest}"


@pytest.mark.parametrize("url", ["redis://" + "a:1," * 50_000 + "!@[", "redis://" + "1" * 200_000 + ":x"])
def test_no_url_takes_long(url: str) -> None:
    began = time.perf_counter()
    with pytest.raises(ConfigurationError):
        without_credentials(url)
    assert time.perf_counter() - began < 2
