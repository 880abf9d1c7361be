"""Wrappers whose store could not be opened in one loop work in the next one."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from everthread import Store, StoreUnavailableError, ThreadKey, new_message
from everthread.engines.memory import MemoryStore
from everthread.model import Appended
from everthread.testing.guarantees.event_loops import run
from everthread.wrappers.encryption.encrypted import Encrypted
from tests.wrappers.sealed_places import KEYRING

MESSAGE = new_message({"role": "user", "content": "hello"})


class Absent(MemoryStore):
    """A store that cannot be reached at first."""

    is_absent = True

    async def _open(self) -> None:
        # Others come to wait behind this opening.
        await asyncio.sleep(0)
        if self.is_absent:
            raise StoreUnavailableError("absent")


@pytest.mark.parametrize(
    "wrap",
    [
        lambda store: store,
        lambda store: Encrypted(store, KEYRING),
        lambda store: store.tenant("acme"),
    ],
    ids=["plain", "encrypted", "a tenant"],
)
def test_an_opening_that_failed_does_not_bind_a_store(wrap: Callable[[Store], Store]) -> None:
    inner = Absent()
    store = wrap(inner)

    async def append_at_once() -> list[object]:
        appends = (store.append(ThreadKey(f"{number}"), [MESSAGE]) for number in range(3))
        return list(await asyncio.gather(*appends, return_exceptions=True))

    assert {type(each) for each in run(append_at_once())} == {StoreUnavailableError}
    inner.is_absent = False
    assert run(append_at_once()) == [Appended(0, 1)] * 3
