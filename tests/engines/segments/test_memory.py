"""What the segment engines keep in memory takes no more of it than they were told."""

from __future__ import annotations

import gc
import tracemalloc
from pathlib import Path

import pytest

from everthread import NewMessage, ThreadKey
from everthread.engines._segments.directory import DirectoryStorage
from everthread.engines.objects import ObjectStore

CACHE = 400_000


@pytest.mark.parametrize(("threads", "turns", "messages"), [(10, 60, 1), (10, 1, 2000)])
@pytest.mark.slow
async def test_a_cache_takes_no_more_memory_than_it_was_given(
    tmp_path: Path, threads: int, turns: int, messages: int
) -> None:
    storage = DirectoryStorage(tmp_path, sync=False)
    async with ObjectStore(storage, cache_bytes=0) as store:
        for thread in range(threads):
            for _ in range(turns):
                await store.append(ThreadKey(str(thread)), [NewMessage(b"12345")] * messages)
    async with ObjectStore(DirectoryStorage(tmp_path, sync=False), cache_bytes=CACHE) as store:
        await store.get_thread(ThreadKey("warming up"))
        gc.collect()
        tracemalloc.start()
        try:
            for thread in range(threads):
                await store.read(ThreadKey(str(thread)))
            gc.collect()
            taken, _ = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
    assert taken < CACHE * 1.25 + threads * 15_000
