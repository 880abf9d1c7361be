"""A record that cannot be decoded is an error that says which; it is never skipped."""

from __future__ import annotations

from collections.abc import Awaitable

import pytest

from everthread.codec import decode
from everthread.contract import Store
from everthread.errors import CorruptRecordError
from everthread.model import MessagePage
from everthread.testing.guarantees._base import KEY, GuaranteeTests, said, seqs
from everthread.testing.harness import CorruptibleHarness


class AfterCorruption(GuaranteeTests):
    """For places that can be spoilt behind the store's back. A subclass gives a `CorruptibleHarness`."""

    async def test_a_spoilt_record_is_told_and_not_skipped(self, harness: CorruptibleHarness, store: Store) -> None:
        await store.append(KEY, [said(str(i)) for i in range(5)])
        await harness.corrupt(KEY, 2, b'{"role": "us')
        with pytest.raises(CorruptRecordError, match="2"):
            await _values(store.read(KEY))
        with pytest.raises(CorruptRecordError, match="2"):
            await _values(store.read_last(KEY, 3))

    async def test_the_rest_of_the_thread_stays_usable(self, harness: CorruptibleHarness, store: Store) -> None:
        await store.append(KEY, [said(str(i)) for i in range(5)])
        await harness.corrupt(KEY, 2, b"\xff\xfe")
        assert seqs(await store.read(KEY, start=3)) == [3, 4]
        assert seqs(await store.read(KEY, stop=2)) == [0, 1]
        assert (await store.append(KEY, [said("5")])).first_seq == 5
        assert (await store.truncate(KEY, start=3)).head_seq == 3
        assert seqs(await store.read(KEY)) == [3, 4, 5]


async def _values(page: Awaitable[MessagePage]) -> list[object]:
    """What the messages of a page hold. It is the engine's choice whether reading or decoding finds the fault."""
    return [decode(message, KEY) for message in await page]
