"""Values of any size beside a thread, on every engine."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

import pytest

from everthread import CorruptRecordError, InvalidMessageError, LimitExceededError, Store, ThreadKey, open_store
from everthread.operations import records
from everthread.operations.records import (
    MAX_RECORD_BYTES,
    PART_PREFIX,
    change_record,
    delete_record,
    get_record,
    put_record,
)
from everthread.wrappers.encryption.encrypted import Encrypted
from everthread.wrappers.forwarding import ForwardingStore
from tests.wrappers.sealed_places import KEYRING

KEY = ThreadKey("trip", "acme")
LARGE = b'{ "a": "' + 'é"\\n\U0001f4be'.replace('"', '\\"').encode() * 60_000 + b'"}'


async def parts(store: Store) -> list[str]:
    return [name for name in await store.list_documents(KEY) if name.startswith(PART_PREFIX)]


async def test_small_and_large_values_come_back_byte_for_byte(every_url: str) -> None:
    async with open_store(every_url) as store:
        assert await get_record(store, KEY, "r") is None
        for value, is_new in ((b' {"b" : 1e400}', True), (LARGE, False), (LARGE + b" ", False), (b"[]", False)):
            assert await put_record(store, KEY, "r", value) is is_new
            assert await get_record(store, KEY, "r") == value.strip()
        assert await store.list_documents(KEY) == ("r",)
        await put_record(store, KEY, "r", LARGE)
        assert await delete_record(store, KEY, "r") is True
        assert await delete_record(store, KEY, "r") is False
        assert await store.list_documents(KEY) == ()


async def test_parts_of_hostile_text_fit_when_they_are_encrypted() -> None:
    for character in ("\U0001f4be", '\\"', "\\\\"):
        value = f'"{character * 300_000}"'.encode()
        async with Encrypted(open_store("memory:"), KEYRING) as store:
            await put_record(store, KEY, "r", value)
            assert await get_record(store, KEY, "r") == value


async def test_readers_see_whole_values_while_writers_replace_them(shared_url: str) -> None:
    async with open_store(shared_url) as store, open_store(shared_url) as other:
        values = [f'"{number}{"x" * 700_000}"'.encode() for number in range(4)]
        await put_record(store, KEY, "r", values[0])
        writing = asyncio.gather(
            *(put_record((store, other)[n % 2], KEY, "r", value) for n, value in enumerate(values))
        )
        while not writing.done():
            assert await get_record(other, KEY, "r") in values
        await writing
        assert await get_record(store, KEY, "r") in values
        assert len(await parts(store)) == 6


async def test_concurrent_changes_of_a_record_all_take_effect() -> None:
    async with open_store("memory:") as store:

        def add(number: int) -> Callable[[bytes | None], bytes]:
            return lambda value: b"[%d]" % number if value is None else value[:-1] + b",%d]" % number

        await asyncio.gather(*(change_record(store, KEY, "r", add(number)) for number in range(20)))
        assert sorted(json.loads(await get_record(store, KEY, "r") or b"")) == list(range(20))
        await change_record(store, KEY, "r", lambda value: LARGE)
        former = await store.get_document(KEY, "r")
        await change_record(store, KEY, "r", lambda value: value or b"")
        assert await store.get_document(KEY, "r") == former
        await change_record(store, KEY, "r", lambda value: b"1")
        assert await parts(store) == []


class Broken(ForwardingStore):
    """Fails before the document of a record is written."""

    async def put_document(self, key: ThreadKey, name: str, value: bytes, **options: Any) -> Any:
        if name == "r":
            raise asyncio.CancelledError
        return await super().put_document(key, name, value, **options)


async def test_an_interrupted_write_leaves_the_former_value() -> None:
    async with open_store("memory:") as store:
        await put_record(store, KEY, "r", b"1")
        with pytest.raises(asyncio.CancelledError):
            await put_record(Broken(store), KEY, "r", LARGE)
        assert await get_record(store, KEY, "r") == b"1"
        await put_record(store, KEY, "r", LARGE)
        assert await get_record(store, KEY, "r") == LARGE


async def test_a_missing_part_is_a_corrupt_record_that_can_be_replaced() -> None:
    async with open_store("memory:") as store:
        await put_record(store, KEY, "r", LARGE)
        await store.delete_document(KEY, (await parts(store))[1])
        with pytest.raises(CorruptRecordError, match="lacks parts"):
            await get_record(store, KEY, "r")
        await put_record(store, KEY, "r", b"2")
        assert await get_record(store, KEY, "r") == b"2"


@pytest.mark.parametrize(
    "value", [b"1", b"{}", b'{"parts":"x"}', b'{"parts":"x","count":999999999}', b'{"value":null}']
)
async def test_a_document_that_is_no_record_is_reported(value: bytes) -> None:
    async with open_store("memory:") as store:
        await store.put_document(KEY, "r", value)
        if value == b'{"value":null}':
            assert await get_record(store, KEY, "r") == b"null"
            return
        with pytest.raises(CorruptRecordError, match="no record"):
            await get_record(store, KEY, "r")
        assert await delete_record(store, KEY, "r") is True


@pytest.mark.parametrize("value", [b"", b"{", b'1,"parts":"x"', b"NaN", b'"' + b"x" * 700_000])
async def test_bytes_that_are_not_json_are_refused(value: bytes) -> None:
    async with open_store("memory:") as store:
        with pytest.raises(InvalidMessageError):
            await put_record(store, KEY, "r", value)
        assert await store.get_thread(KEY) is None


async def test_a_larger_value_than_the_limit_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(records, "MAX_RECORD_BYTES", 1000)
    async with open_store("memory:") as store:
        with pytest.raises(LimitExceededError) as caught:
            await put_record(store, KEY, "r", b'"' + b"x" * 1000 + b'"')
    assert (caught.value.size, caught.value.limit, MAX_RECORD_BYTES) == (1002, 1000, 64 * 1024 * 1024)


async def test_recorded_documents_are_read() -> None:
    recorded = {
        "small": b'{"value":{"a":[1,"\xc3\xa9"]}}',
        "large": b'{"parts":"0123456789abcdef0123456789abcdef","count":2}',
        "everthread:part:0123456789abcdef0123456789abcdef:0": b'"[\\"\xc3\xa9\\","',
        "everthread:part:0123456789abcdef0123456789abcdef:1": b'"1e400]"',
    }
    async with open_store("memory:") as store:
        for name, value in recorded.items():
            await store.put_document(KEY, name, value)
        assert await get_record(store, KEY, "small") == '{"a":[1,"é"]}'.encode()
        assert await get_record(store, KEY, "large") == '["é",1e400]'.encode()
