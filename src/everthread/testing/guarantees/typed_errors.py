"""Invalid input raises a typed error, and nothing is written."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Any, cast

import pytest

from everthread.contract import Store
from everthread.errors import (
    ConfigurationError,
    EverthreadError,
    InvalidIdentifierError,
    InvalidMessageError,
    LimitExceededError,
)
from everthread.model import Appended, NewMessage, ThreadKey
from everthread.testing.guarantees._base import CALLS, KEY, OF_TENANTS, GuaranteeTests, payloads, said
from everthread.testing.guarantees._cursors import forged
from everthread.testing.harness import Harness

Call = Callable[[Any], Awaitable[object]]
"""A call of a store with arguments that no type checker would let pass."""

NO_COUNTS = [-1, 1.0, "1", True, 2**53, float("nan")]
NO_NAMES = ["", None, 5, b"x", "\ud800", "x" * 513, "é" * 257]
NO_KEYS = [None, "thread", 5, ("thread", "tenant"), b"x"]

WITH_COUNT: dict[str, Callable[[Any, Any], Awaitable[object]]] = {
    "append expected_seq": lambda store, count: store.append(KEY, [said("x")], expected_seq=count),
    "read start": lambda store, count: store.read(KEY, start=count),
    "read stop": lambda store, count: store.read(KEY, stop=count),
    "read limit": lambda store, count: store.read(KEY, limit=count),
    "read_last count": lambda store, count: store.read_last(KEY, count),
    "read_last before": lambda store, count: store.read_last(KEY, 1, before=count),
    "truncate start": lambda store, count: store.truncate(KEY, start=count),
    "truncate stop": lambda store, count: store.truncate(KEY, stop=count),
    "list_threads limit": lambda store, count: store.list_threads(KEY.tenant, limit=count),
    "update_thread revision": lambda store, count: store.update_thread(KEY, title="x", expected_revision=count),
    "put_document revision": lambda store, count: store.put_document(KEY, "d", b"1", expected_revision=count),
}

WITH_NAME: dict[str, Callable[[Any, Any], Awaitable[object]]] = {
    "get_document": lambda store, name: store.get_document(KEY, name),
    "put_document": lambda store, name: store.put_document(KEY, name, b"1"),
    "delete_document": lambda store, name: store.delete_document(KEY, name),
}

WRONG: dict[str, tuple[type[EverthreadError], Call]] = {
    "no messages": (InvalidMessageError, lambda store: store.append(KEY, [])),
    "messages None": (InvalidMessageError, lambda store: store.append(KEY, None)),
    "one message, no list": (InvalidMessageError, lambda store: store.append(KEY, said("x"))),
    "text as messages": (InvalidMessageError, lambda store: store.append(KEY, "text")),
    "dictionaries as messages": (InvalidMessageError, lambda store: store.append(KEY, [{"role": "user"}])),
    "bytes as a message": (InvalidMessageError, lambda store: store.append(KEY, [b"{}"])),
    "one wrong of two": (InvalidMessageError, lambda store: store.append(KEY, [said("x"), None])),
    "too many messages": (LimitExceededError, lambda store: store.append(KEY, [said("x")] * 10_001)),
    "no messages, checked": (InvalidMessageError, lambda store: store.check_append(KEY, [])),
    "too many messages, checked": (LimitExceededError, lambda store: store.check_append(KEY, [said("x")] * 10_001)),
    "an empty append id": (InvalidIdentifierError, lambda store: store.append(KEY, [said("x")], append_id="")),
    "a number as append id": (InvalidIdentifierError, lambda store: store.append(KEY, [said("x")], append_id=1)),
    "a number as retention": (ConfigurationError, lambda store: store.append(KEY, [said("x")], retention=5)),
    "a number as title": (InvalidMessageError, lambda store: store.append(KEY, [said("x")], default_title=5)),
    "a long title": (LimitExceededError, lambda store: store.append(KEY, [said("x")], default_title="x" * 1001)),
    "a lone surrogate as title": (InvalidMessageError, lambda store: store.update_thread(KEY, title="\ud800")),
    "a list as metadata": (InvalidMessageError, lambda store: store.update_thread(KEY, metadata=[1])),
    "NaN in metadata": (InvalidMessageError, lambda store: store.update_thread(KEY, metadata={"x": float("nan")})),
    "an object in metadata": (InvalidMessageError, lambda store: store.update_thread(KEY, metadata={"x": object()})),
    "truncating nothing": (ConfigurationError, lambda store: store.truncate(KEY)),
    "text as a document": (InvalidMessageError, lambda store: store.put_document(KEY, "d", "1")),
    "a dictionary as a document": (InvalidMessageError, lambda store: store.put_document(KEY, "d", {})),
    "a page of none": (ConfigurationError, lambda store: store.list_threads(KEY.tenant, limit=0)),
    "a made-up cursor": (ConfigurationError, lambda store: store.list_threads(KEY.tenant, cursor="made up")),
    "an empty cursor": (ConfigurationError, lambda store: store.list_threads(KEY.tenant, cursor="")),
    "a number as cursor": (ConfigurationError, lambda store: store.list_threads(KEY.tenant, cursor=3)),
    "a tenant of None": (InvalidIdentifierError, lambda store: store.list_threads(None)),
    "deleting a tenant of None": (InvalidIdentifierError, lambda store: store.delete_tenant(None)),
    "deleting a long tenant": (InvalidIdentifierError, lambda store: store.delete_tenant("x" * 513)),
}


ODD: dict[str, NewMessage] = {
    "a role that is a list": NewMessage(b'{"role": [], "content": "x"}', "chat-completions"),
    "contents that are numbers": NewMessage(b'{"type": {}, "role": {"a": 1}, "contents": [5, {"type": []}]}'),
    "a content that is an object": NewMessage(b'{"type": "human", "data": {"content": {"a": 1}}}', "langchain"),
    "deep JSON": NewMessage(b'{"role": "user", "content": ' + b"[" * 900 + b"]" * 900 + b"}", "chat-completions"),
    "NUL": NewMessage(b'{"role": "user", "content": "a\\u0000b"}', "a\0b", ("a\0b",), ("\0",)),
    "no text": NewMessage(b'""', "", ("",), ("",)),
    "the last moment": NewMessage(b"1", created_at=datetime.max.replace(tzinfo=UTC)),
    "the first moment": NewMessage(b"1", created_at=datetime.min.replace(tzinfo=UTC)),
}
"""Valid messages that are difficult for an engine or its index."""


class TypedErrors(GuaranteeTests):
    """Every public call refuses invalid input; the thread is unchanged."""

    async def _refused(self, store: Store, error: type[EverthreadError], call: Call) -> None:
        if await store.get_thread(KEY) is None:
            await store.append(KEY, [said("a")])
        before = await store.get_thread(KEY)
        with pytest.raises(error):
            await call(store)
        assert await store.get_thread(KEY) == before
        assert await payloads(store) == [said("a").payload]
        assert await store.list_documents(KEY) == ()

    @pytest.mark.parametrize("call", [name for name in CALLS if name not in OF_TENANTS])
    async def test_a_key_that_is_none_is_refused(self, store: Store, call: str) -> None:
        for wrong in NO_KEYS:
            with pytest.raises(InvalidIdentifierError):
                await CALLS[call](store, wrong)

    @pytest.mark.parametrize("call", WITH_COUNT)
    async def test_a_count_that_is_none_is_refused(self, store: Store, call: str) -> None:
        for wrong in NO_COUNTS:
            await self._refused(store, ConfigurationError, lambda s, w=wrong: WITH_COUNT[call](s, w))

    @pytest.mark.parametrize("call", WITH_NAME)
    async def test_a_name_that_is_none_is_refused(self, store: Store, call: str) -> None:
        for wrong in NO_NAMES:
            await self._refused(store, InvalidIdentifierError, lambda s, w=wrong: WITH_NAME[call](s, w))

    @pytest.mark.parametrize("wrong", WRONG)
    async def test_bad_input_is_refused(self, store: Store, wrong: str) -> None:
        await self._refused(store, *WRONG[wrong])

    @pytest.mark.parametrize("odd", ODD)
    async def test_an_odd_append_does_not_fail_others(self, store: Store, odd: str) -> None:
        await store.append(KEY, [said("first")])
        others = [ThreadKey(str(i), f"other {i}") for i in range(4)]
        appends = [store.append(key, [said("a")]) for key in others]
        # Sent at the same time, so engines that send appends together have them in one batch.
        appends.insert(2, store.append(KEY, [ODD[odd]], default_title="a\0b"))
        outcomes = await asyncio.gather(*appends, return_exceptions=True)
        outcome = outcomes.pop(2)
        assert isinstance(outcome, (Appended, EverthreadError))
        assert [type(each) for each in outcomes] == [Appended] * 4
        assert [await payloads(store, key) for key in others] == [[said("a").payload]] * 4
        kept = [said("first").payload, ODD[odd].payload][: 2 if isinstance(outcome, Appended) else 1]
        assert await payloads(store) == kept

    async def test_a_cursor_of_another_tenant_is_refused(self, store: Store) -> None:
        for i in range(3):
            await store.append(KEY.__class__(str(i), "mine"), [said("x")])
        page = await store.list_threads("mine", limit=1)
        assert page.cursor is not None
        for tenant in ("theirs", ""):
            with pytest.raises(ConfigurationError):
                await store.list_threads(tenant, cursor=page.cursor)
        with pytest.raises(ConfigurationError):
            await store.list_threads("mine", cursor=page.cursor[:-3])

    async def test_a_forged_cursor_is_refused_or_harmless(self, store: Store) -> None:
        for i in range(3):
            await store.append(KEY.__class__(str(i), "mine"), [said("x")])
            await store.append(KEY.__class__(str(i), "theirs"), [said("x")])
        page = await store.list_threads("mine", limit=1)
        assert page.cursor is not None
        for cursor in forged(page.cursor):
            with contextlib.suppress(ConfigurationError):
                found = await store.list_threads("mine", cursor=cursor)
                assert {thread.key.tenant for thread in found} <= {"mine"}

    async def test_a_message_at_the_limit_fits_and_a_larger_one_is_refused(self, harness: Harness) -> None:
        async with harness.open(max_message_bytes=100) as store:
            fits, larger = ([NewMessage(b'"' + b"x" * count + b'"')] for count in (98, 99))
            await store.check_append(KEY, fits)
            await store.append(KEY, fits)
            for call in (store.check_append, store.append):
                with pytest.raises(LimitExceededError) as caught:
                    await call(KEY, larger)
                assert (caught.value.size, caught.value.limit) == (101, 100)
            assert len(await store.read(KEY)) == 1

    async def test_settings_that_are_wrong_are_refused(self, harness: Harness) -> None:
        wrong: list[dict[str, object]] = [{"max_message_bytes": 0}, {"max_message_bytes": "x"}, {"retention": 5}]
        for options in wrong:
            with pytest.raises(ConfigurationError):
                harness.open(**cast(dict[str, Any], options))
