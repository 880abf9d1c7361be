"""The cost of a call does not grow with the history of a thread."""

from __future__ import annotations

from statistics import median

from everthread.contract import Store
from everthread.model import ThreadKey
from everthread.testing.guarantees._base import KEY, GuaranteeTests, said
from everthread.testing.harness import MeteredHarness

UNDOS = 400
TOLERANCE = 500
"""Bytes by which a thread with this number of undos may cost more than one with as many writes and no undo."""


class Costs(GuaranteeTests):
    """For places that count the bytes which stores exchange with them. A subclass defines a `MeteredHarness`."""

    async def test_undos_do_not_grow_the_cost_of_an_append(self, harness: MeteredHarness, store: Store) -> None:
        undone, grown = ThreadKey("undone", KEY.tenant), ThreadKey("grown", KEY.tenant)

        async def append_and_undo(key: ThreadKey) -> int:
            before = await harness.traffic()
            appended = await store.append(key, [said("kept"), said("undone")])
            await store.truncate(key, stop=appended.first_seq + 1)
            return await harness.traffic() - before

        for _ in range(UNDOS):
            await append_and_undo(undone)
            for _ in range(2):
                await store.append(grown, [said("kept")])
        # The median, since an engine may tidy up now and then.
        costs = [median([await append_and_undo(key) for _ in range(15)]) for key in (undone, grown)]
        assert costs[0] < costs[1] + TOLERANCE
