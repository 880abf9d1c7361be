"""URLs are taken apart in one way only, and nothing secret in them is shown or looked up."""

from __future__ import annotations

import contextlib
import logging
import socket
import time
from urllib.parse import quote, unquote

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from everthread import EverthreadError, open_store
from everthread.cli.runner import without_secrets
from everthread.errors import ConfigurationError
from everthread.urls import check_url, mask_url, parts_of, scheme_of, without_credentials


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
        ("redis://h?password=s3cret&db=1", "redis://h?password=***"),
        ("postgresql://u:s3cret@[::1]:5432/db?sslpassword=s3cret", "postgresql://u:***@[::1]:5432/db?sslpassword=***"),
        ("cosmos://h/?AccountKey=s3cret&x=y", "cosmos://h/?AccountKey=***"),
        ("az://c?sas_token=s3cret&sig=s3cret", "az://c?sas_token=***"),
        ("s3://b/a@c?region=x", "s3://b/a@c?region=x"),
        ("s3://b?endpoint=http://u:s3cret@h", "s3://b?endpoint=***"),
        ("s3://b?access_key_id=AKIA&skip_signature=true", "s3://b?access_key_id=AKIA&skip_signature=true"),
        ("s3://b?sse_customer_key_base64=s3cret", "s3://b?sse_customer_key_base64=***"),
        ("redis://h:s3cret", "redis://h:***"),
        ("redis:s3cret@h", "redis:***"),
        ("redis://h?pass%77ord=s3cret", "redis://h?pass%77ord=***"),
        ("redis+sentinel://:a@h1,:b@h2/name", "redis+sentinel://:***@h2/name"),
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
    assert time.perf_counter() - began < 20


# Secrets with special characters, wherever one can stand

_LETTERS = "QXZWJ"
_PASSWORDS = st.text("".join((_LETTERS, "?#/@:&=%+,;[]<>'\" \\^|~!$()*`{}.é€")), min_size=8, max_size=24).filter(
    lambda text: any(letter in text for letter in _LETTERS)
)
_PLACES = [
    *(f"{scheme}://user:SECRET@host:1/0" for scheme in ("redis", "rediss", "redis+cluster", "postgresql", "postgres")),
    *("redis://:SECRET@host", "redis://user:SECRET@[::1]:1/0?db=1", "unix://user:SECRET@/run/redis.sock"),
    *("redis+sentinel://user:SECRET@h1:1,h2/name/0", "redis+sentinel://h1,user:SECRET@h2/name"),
    *("redis+sentinel://h1/name?sentinel_password=SECRET", "redis+cluster://h1,h2?password=SECRET&max_messages=1"),
    *("redis:SECRET@host", "redis:user:SECRET@host", "redis://user:SECRET", "redis://host:SECRET", "redis:SECRET"),
    *("redis://host?password=SECRET", "redis://host?max_messages=5&password=SECRET&db=1", "redis:///:SECRET@host"),
    *("postgresql://user:SECRET@h1:1,h2:2/db?sslmode=disable", "postgresql://h/db?sslpassword=SECRET&user=u"),
    *("postgresql://h/db?user=me@corp&password=SECRET", "postgresql:user:SECRET@host/db"),
    *("s3://key:SECRET@bucket/prefix", "s3://bucket?secret_access_key=SECRET&region=x", "s3://bucket?token=SECRET"),
    *("s3://bucket?aws_sse_customer_key_base64=SECRET", "s3://bucket?endpoint=http://user:SECRET@host&region=x"),
    *("s3://bucket?proxy_url=http://user:SECRET@host", "az://box?account_name=a&sas_token=SECRET"),
    *(
        "az://box?account_name=a&account_key=SECRET&use_emulator=1",
        "az://box?account_name=a&azure_storage_sas_key=SECRET",
    ),
    *("gs://bucket?service_account_key=SECRET", "cosmos://account:SECRET@host/db", "cosmos://account/db?key=SECRET"),
    *("cosmos://account/db?endpoint=https://user:SECRET@host", "nosuch://user:SECRET@host"),
]


def _pieces(secret: str) -> set[str]:
    """What of a secret may be seen nowhere: four characters, of which two are not in any other text."""
    spellings = {secret, unquote(secret), quote(secret, safe="")}
    pieces = {text[at : at + 4] for text in spellings for at in range(len(text) - 3)}
    return {piece for piece in pieces if sum(letter in _LETTERS for letter in piece) >= 2}


def _chain(error: BaseException | None) -> list[str]:
    return [] if error is None else [str(error), repr(error), *_chain(error.__cause__), *_chain(error.__context__)]


@pytest.mark.parametrize("place", _PLACES)
@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(secret=_PASSWORDS)
def test_no_piece_of_a_secret_is_shown(place: str, secret: str, caplog: pytest.LogCaptureFixture) -> None:
    # What stands behind an "@" is a host, if there is no other.
    assume("@" not in secret or not place.endswith(("://user:SECRET", "://host:SECRET")))
    url = place.replace("SECRET", secret)
    shown = [mask_url(url)]
    caplog.set_level(logging.DEBUG)
    try:
        store = open_store(url)
        shown += [store.location, repr(store)]
    except EverthreadError as error:
        shown += [*_chain(error), without_secrets(str(error), url)]
    with contextlib.suppress(ConfigurationError):
        shown.append(without_credentials(url))
    shown += [record.getMessage() for record in caplog.records]
    seen = {piece for piece in _pieces(secret) for text in shown if piece in text}
    assert not seen, (url, shown)


@given(_PASSWORDS, st.sampled_from(["redis", "postgresql", "redis+cluster"]))
def test_a_password_is_taken_as_meant_or_refused(password: str, scheme: str) -> None:
    advice = ""
    try:
        parts = parts_of(check_url(f"{scheme}://user:{password}@host:1/0"))
    except ConfigurationError as error:
        parts, advice = None, str(error)
    if parts is None:
        assert "encode" in advice or "%25" in advice
    else:
        assert (parts.user, unquote(parts.password or ""), parts.hosts) == ("user", unquote(password), "host:1")


@given(_PASSWORDS, st.sampled_from(["redis", "postgresql", "redis+cluster"]))
def test_an_encoded_password_is_always_taken(password: str, scheme: str) -> None:
    parts = parts_of(check_url(f"{scheme}://user:{quote(password, safe='')}@host:1/0"))
    assert (unquote(parts.password or ""), parts.hosts) == (password, "host:1")


@pytest.mark.parametrize(
    "password", ["pa@ss", "pa?ss", "pa#ss", "pa/ss", "pa:ss", "12/34@ss", "[pa]ss", "pa%40ss", "p,s@s"]
)
@pytest.mark.parametrize("scheme", ["redis", "rediss+cluster", "postgresql"])
async def test_no_part_of_a_password_is_looked_up(monkeypatch: pytest.MonkeyPatch, scheme: str, password: str) -> None:
    asked: list[str] = []

    def refuse(host: str, *_: object, **__: object) -> None:
        asked.append(host)
        raise socket.gaierror(socket.EAI_NONAME, "no such name")

    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    with pytest.raises(EverthreadError):
        await open_store(f"{scheme}://user:{password}@db.invalid:7/0", timeout=0.2).open()
    assert set(asked) <= {"db.invalid"}


# What is no URL


@pytest.mark.parametrize("scheme", ["redis", "redis+cluster", "postgresql", "s3", "cosmos", "sqlite", "other"])
@pytest.mark.parametrize(
    "rest",
    ["//h\udc80/db", "//h/db?prefix=\udfff", "//h\0/db", "//h/\n", "//h/\x9b", "//" + "h" * 20_000, "//u\ud800:p@h"],
)
def test_a_url_with_impossible_characters_is_refused(scheme: str, rest: str) -> None:
    with pytest.raises(ConfigurationError):
        open_store(f"{scheme}:{rest}")


@pytest.mark.parametrize("scheme", ["redis", "redis+cluster", "postgresql"])
@pytest.mark.parametrize(
    "rest",
    [
        *("h:port", "h:99999", "h:0", "h:-1", "h:", "[::1", "[h]:1", "bücher.example", "h h", "h%zz", "%FF", "h%00"),
        *("u:p%2@h", "u:p%FF@h", "u%00:p@h", "h/%", "h?max_messages=%", "h?=1", "h?db", "h?%00=1", "h" * 64, "h\\h"),
        *("h?prefix=%FF", "[fe80::1%eth0]", "a..b"),
    ],
)
def test_a_malformed_url_is_a_configuration_error(scheme: str, rest: str) -> None:
    with contextlib.suppress(ConfigurationError):
        open_store(f"{scheme}://{rest}")


@pytest.mark.parametrize(
    "scheme", ["file", "s3", "az", "gs", "cosmos", "redis", "unix", "postgresql", "sqlite", "memory"]
)
@pytest.mark.parametrize("rest", ["[/x", "a[b/x", "a]b/x", "[::1/x", "ａ／b/x", "[v1.x/x"])
def test_a_host_that_cannot_be_is_a_configuration_error(scheme: str, rest: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        open_store(f"{scheme}://{rest}")
    assert caught.value.__context__ is None


@given(
    st.text(max_size=40), st.sampled_from(["redis://", "postgresql://", "s3://", "cosmos://", "file://", "sqlite:", ""])
)
def test_any_text_opens_or_is_a_typed_error(text: str, start: str) -> None:
    with contextlib.suppress(EverthreadError):
        open_store(start + text)
    mask_url(start + text)
