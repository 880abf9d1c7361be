"""Engines that are given a password show it nowhere."""

from __future__ import annotations

import itertools
import traceback
from collections.abc import Iterator
from urllib.parse import quote

import pytest
import redis.asyncio as redis

from everthread import ThreadKey
from everthread.contract import Store
from everthread.errors import EverthreadError
from everthread.opening import open_store
from everthread.testing import SecretHarness, SecretSuite, UrlHarness
from tests.servers import free_port, redis_server

PASSWORD = "correct-horse-battery-staple"


class RedisWithPassword(UrlHarness, SecretHarness):
    secret = PASSWORD

    def open_unreachable(self) -> Store:
        return open_store(f"redis://:{PASSWORD}@127.0.0.1:{free_port()}/0")


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    with redis_server("redis", "--requirepass", PASSWORD) as server:
        yield server.port


async def test_a_redis_password_of_special_characters_is_taken_as_it_stands(port: int) -> None:
    odd = "p@s:s[w]+;é"
    async with redis.Redis(port=port, password=PASSWORD) as client:
        await client.execute_command("ACL", "SETUSER", "odd", "on", f">{odd}", "~*", "+@all")
    for password in (odd, quote(odd, safe="")):
        async with open_store(f"redis://odd:{password}@127.0.0.1:{port}/0") as store:
            assert await store.get_thread(ThreadKey("t")) is None


class TestRedisWithPassword(SecretSuite):
    @pytest.fixture
    def harness(self, port: int) -> SecretHarness:
        numbers = itertools.count()
        return RedisWithPassword(lambda: f"redis://:{PASSWORD}@127.0.0.1:{port}/0?prefix=kit{next(numbers)}")


GIVEN = "c29tZXRoaW5nLXZlcnktc2VjcmV0LTEyMzQ1Njc4OTA="
QUOTED = quote(GIVEN, safe="")
CLOSED = "endpoint=http://127.0.0.1:1"


@pytest.mark.parametrize(
    ("url", "variable", "value"),
    [
        (f"s3://b?{CLOSED}&access_key_id=a&secret_access_key={QUOTED}", "", ""),
        (
            f"s3://b?{CLOSED}&access_key_id=a&secret_access_key=b&aws_server_side_encryption=sse-c"
            f"&aws_sse_customer_key_base64={QUOTED}",
            "",
            "",
        ),
        (
            "s3://b?endpoint=http://192.0.2.1&allow_http=true&access_key_id=a&secret_access_key=b",
            "HTTP_PROXY",
            f"http://user:{QUOTED}@127.0.0.1:1",
        ),
        (f"az://b?{CLOSED}/a&account_name=a&account_key={QUOTED}", "", ""),
        (f"az://b?{CLOSED}/a&account_name=a&account_key=!{QUOTED}", "", ""),
        (f"az://b?{CLOSED}/a&account_name=a&sas_key=sv%3D1%26sig%3D{QUOTED}", "", ""),
        (
            "az://b",
            "AZURE_STORAGE_CONNECTION_STRING",
            f"AccountName=a;AccountKey={GIVEN};BlobEndpoint=http://127.0.0.1:1/a",
        ),
        (f"gs://b?service_account_key={QUOTED}", "", ""),
        (f"cosmos://a/db?{CLOSED}&discover=false", "AZURE_COSMOS_KEY", GIVEN),
        (f"cosmos://a/db?{CLOSED}&discover=false", "AZURE_COSMOS_KEY", GIVEN[1:]),
        (
            "cosmos:///db?discover=false",
            "AZURE_COSMOS_CONNECTIONSTRING",
            f"AccountEndpoint=http://127.0.0.1:1/;AccountKey={GIVEN};",
        ),
    ],
)
async def test_no_error_of_a_cloud_holds_a_credential(
    monkeypatch: pytest.MonkeyPatch, url: str, variable: str, value: str
) -> None:
    if variable:
        monkeypatch.setenv(variable, value)
    with pytest.raises(EverthreadError) as caught:
        async with open_store(f"{url}{'&' if '?' in url else '?'}retry_seconds=0.1") as store:
            await store.get_thread(ThreadKey("t"))
    shown = "".join(traceback.format_exception(caught.value)) + repr(caught.value)
    assert caught.value.__cause__ is None
    assert not [each for each in (GIVEN[1:], QUOTED) if each in shown]
