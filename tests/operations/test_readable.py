"""Reading around records that the store cannot return, also across gaps of any width."""

from __future__ import annotations

import pytest

from everthread import ThreadKey
from everthread.engines.memory import MemoryStore
from everthread.errors import CorruptRecordError
from everthread.readable import Unreadable, read_around, read_last_around
from everthread.wrappers.encryption.encrypted import Encrypted
from tests.operations.talks import said
from tests.wrappers.sealed_places import KEYRING

KEY = ThreadKey("t")
FAR = 10**12


class Counting(MemoryStore):
    """Counts the reads."""

    reads = 0

    async def read(self, *args, **options):
        self.reads += 1
        return await super().read(*args, **options)


async def filled(inner: Counting) -> Encrypted:
    """Return a store with messages at 0, 1, 2 and from FAR on, of which 1 and FAR + 1 cannot be opened."""
    store = Encrypted(inner, KEYRING)
    for first in (0, FAR):
        await inner.restore_position(KEY, first, expected_seq=(await inner.read_last(KEY, 0)).next_seq)
        await store.append(KEY, [said("user", "a")])
        await inner.append(KEY, [said("user", "not sealed")])
        await store.append(KEY, [said("user", "b")])
    inner.reads = 0
    return store


@pytest.mark.parametrize(
    ("limit", "seqs", "bad"),
    [(None, [0, 2, FAR, FAR + 2], [1, FAR + 1]), (1, [0], []), (2, [0, 2], [1]), (3, [0, 2, FAR], [1])],
)
async def test_a_page_skips_unreadable_records_and_gaps(limit: int | None, seqs: list[int], bad: list[int]) -> None:
    store, left_out = await filled(inner := Counting()), list[Unreadable]()
    page = await read_around(store, KEY, limit=limit, on_unreadable=left_out.append)
    assert [message.seq for message in page] == seqs
    assert [each.seq for each in left_out] == bad
    assert (page.head_seq, page.next_seq) == (0, FAR + 3)
    assert inner.reads < 200


@pytest.mark.parametrize("count", [1, 2, 3, 4, 50])
async def test_the_last_messages_skip_unreadable_records_and_gaps(count: int) -> None:
    store, left_out = await filled(inner := Counting()), list[Unreadable]()
    page = await read_last_around(store, KEY, count, on_unreadable=left_out.append)
    assert [message.seq for message in page] == [0, 2, FAR, FAR + 2][-count:]
    assert [each.seq for each in left_out] == [[], [FAR + 1], [FAR + 1], [FAR + 1, 1], [FAR + 1, 1]][min(count, 5) - 1]
    assert inner.reads < 200
    with pytest.raises(CorruptRecordError):
        await store.read(KEY)
