"""One record that does not open hides nothing else of an encrypted store."""

from __future__ import annotations

import pytest

from everthread import CorruptRecordError, ThreadKey, new_message
from everthread.engines.memory import MemoryStore, Threads
from everthread.wrappers.encryption.encrypted import Encrypted
from tests.wrappers.sealed_places import KEYRING


async def test_a_title_that_does_not_open_hides_no_other_thread() -> None:
    threads: Threads = {}
    async with Encrypted(MemoryStore(threads), KEYRING) as store:
        for name in ("a", "b"):
            await store.append(ThreadKey(name), [new_message({"role": "user", "content": name})], default_title=name)
        threads[ThreadKey("a")].title = "not sealed"
        listed = {thread.key.thread_id: thread for thread in await store.list_threads()}
        assert (listed["b"].title, listed["b"].damage) == ("b", "")
        assert listed["a"].title is None
        assert "thread 'a'" in listed["a"].damage
        with pytest.raises(CorruptRecordError):
            await store.get_thread(ThreadKey("a"))
