"""A store that was opened read-only creates and changes nothing."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from functools import partial

import pytest

from everthread.capabilities import SupportsCompaction, SupportsImport, SupportsReconciling, SupportsRewrite, capability
from everthread.contract import Store, read_all
from everthread.errors import ConfigurationError, SchemaError, UnsupportedError
from everthread.model import Retention, Rewrite
from everthread.testing.guarantees._base import CALLS, KEY, READS, GuaranteeTests, payloads, said
from everthread.testing.guarantees.expiry import LATER
from everthread.testing.harness import Clock, Harness

_NOW = datetime.now(UTC)


def _writes(store: Store) -> dict[str, Callable[[], Awaitable[object]]]:
    """Every call of a store that writes, with arguments that it would take."""
    calls: dict[str, Callable[[], Awaitable[object]]] = {
        name: partial(CALLS[name], store, KEY) for name in CALLS if name not in READS
    }
    if rewriter := capability(store, SupportsRewrite):
        calls["rewrite"] = lambda: rewriter.rewrite(KEY, [Rewrite(0, said("a").payload, b'"b"')])
    if importer := capability(store, SupportsImport):
        calls["restore_position"] = lambda: importer.restore_position(KEY, 9, expected_seq=1)
        calls["restore_times"] = lambda: importer.restore_times(KEY, created_at=_NOW, updated_at=_NOW)
    if reconciler := capability(store, SupportsReconciling):
        calls["reconcile"] = lambda: reconciler.reconcile(KEY.tenant, repair=True)
    if compactor := capability(store, SupportsCompaction):
        calls["compact"] = lambda: compactor.compact(KEY)
    return calls


class ReadOnly(GuaranteeTests):
    """Tests of ``read_only=True``."""

    async def test_a_read_only_store_reads_what_was_written(self, store: Store, harness: Harness) -> None:
        await store.append(KEY, [said("a"), said("b")], default_title="title")
        await store.put_document(KEY, "d", b"1")
        async with harness.open(read_only=True) as reader:
            assert [message async for message in read_all(reader, KEY)] == [m async for m in read_all(store, KEY)]
            assert (await reader.read_last(KEY, 1))[0].payload == said("b").payload
            assert await reader.get_thread(KEY) == await store.get_thread(KEY)
            assert await reader.list_threads(KEY.tenant) == await store.list_threads(KEY.tenant)
            assert await reader.get_document(KEY, "d") == await store.get_document(KEY, "d")
            assert await reader.list_documents(KEY) == ("d",)
            await store.append(KEY, [said("c")])
            assert len(await reader.read(KEY)) == 3

    async def test_a_read_only_store_refuses_every_write(self, store: Store, harness: Harness) -> None:
        await store.append(KEY, [said("a")])
        await store.put_document(KEY, "d", b"1")
        before = await store.get_thread(KEY), await store.get_document(KEY, "d")
        async with harness.open(read_only=True) as reader:
            for name, call in _writes(reader).items():
                with pytest.raises(UnsupportedError):
                    await call()
                assert (await store.get_thread(KEY), await store.get_document(KEY, "d")) == before, name
        assert await payloads(store) == [said("a").payload]

    async def test_an_expired_thread_is_gone_for_readers_too(self, harness: Harness) -> None:
        clock = Clock()
        async with harness.open(clock=clock) as store, harness.open(clock=clock, read_only=True) as reader:
            await store.append(KEY, [said("a")], retention=LATER)
            assert await reader.get_thread(KEY) is not None
            clock.advance(3601)
            assert await reader.get_thread(KEY) is None
            assert (await reader.list_threads(KEY.tenant)).items == ()
            assert await payloads(reader) == []
            await store.append(KEY, [said("b")], retention=Retention())
            assert await payloads(reader) == [said("b").payload]

    async def test_reading_an_empty_place_begins_nothing(self, harness: Harness) -> None:
        for _ in range(2):
            empty = harness.open(read_only=True)
            try:
                assert (await empty.list_threads()).items == ()
            except (ConfigurationError, SchemaError):
                pass
            finally:
                await empty.aclose()
