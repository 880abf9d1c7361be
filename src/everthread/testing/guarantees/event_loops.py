"""A store works in every kind of event loop, or raises a clear error."""

from __future__ import annotations

import asyncio
import copy
import pickle
import threading
from collections.abc import Callable, Coroutine
from importlib.util import find_spec
from typing import Any

import pytest

from everthread.contract import Store
from everthread.errors import ConfigurationError, OutcomeUnknownError, StoreUnavailableError
from everthread.model import Appended
from everthread.testing.guarantees._base import KEY, GuaranteeTests, everything, part_of_turn, said, whole_turns
from everthread.testing.harness import Harness
from everthread.wrappers.per_loop import PerLoop

LoopFactory = Callable[[], asyncio.AbstractEventLoop]


def _with_eager_tasks() -> asyncio.AbstractEventLoop:
    loop = asyncio.new_event_loop()
    loop.set_task_factory(getattr(asyncio, "eager_task_factory"))  # noqa: B009 (Python 3.12 and newer)
    return loop


def _kinds() -> dict[str, LoopFactory]:
    kinds: dict[str, LoopFactory] = {"asyncio": asyncio.new_event_loop}
    if hasattr(asyncio, "eager_task_factory"):
        kinds["eager tasks"] = _with_eager_tasks
    if find_spec("uvloop") is not None:
        import uvloop

        kinds["uvloop"] = uvloop.new_event_loop
    return kinds


LOOPS = _kinds()
"""The kinds of loops that this Python can run: eager tasks as of 3.12, uvloop where it is installed."""


def run(work: Coroutine[Any, Any, Any], loop_factory: LoopFactory = asyncio.new_event_loop) -> Any:
    """Run a coroutine to its end in a new loop, as `asyncio.run` does."""
    with asyncio.Runner(loop_factory=loop_factory) as runner:
        return runner.run(work)


class EveryLoop(GuaranteeTests):
    """A store does not care which loop runs it, as long as it stays the same."""

    @pytest.mark.parametrize("kind", list(LOOPS))
    def test_it_works_in_every_kind_of_loop(self, harness: Harness, kind: str) -> None:
        async def use() -> tuple[int, int]:
            async with harness.open() as store:
                # The first calls are concurrent, so they open the second store at the same time.
                late = harness.open()
                await asyncio.gather(*(late.append(KEY, [said(str(at))]) for at in range(10)))
                await late.aclose()
                await asyncio.gather(*(store.append(KEY, [said(str(at))]) for at in range(20)))
                await store.append(KEY, [said("alone")])
                await store.put_document(KEY, "d", b"{}")
                listed = await store.list_threads(KEY.tenant)
                return len(await everything(store)), len(listed)

        assert run(use(), LOOPS[kind]) == (31, 1)

    def test_one_store_per_loop_works_in_loops_of_several_threads(self, harness: Harness) -> None:
        store, failures = PerLoop(harness.open), list[BaseException]()

        async def append() -> None:
            for at in range(3):
                await store.append(KEY, [said(f"{at}"), said(f"{at}")])

        def in_a_thread() -> None:
            try:
                run(append())
            except BaseException as error:
                failures.append(error)

        threads = [threading.Thread(target=in_a_thread) for _ in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert not failures
        assert len(run(everything(store))) == 18

    def test_a_loop_that_ends_leaves_turns_whole(self, harness: Harness) -> None:
        store, under_way = harness.open(), list[asyncio.Task[Appended]]()

        async def begin() -> None:
            await store.append(KEY, part_of_turn("w", 0, 3))
            turns = (store.append(KEY, part_of_turn("w", at, 3)) for at in range(1, 20))
            under_way.extend(map(asyncio.create_task, turns))
            await asyncio.sleep(0)

        run(begin())
        store.abandon()
        for task in under_way:
            if not task.cancelled():
                assert isinstance(task.exception(), (StoreUnavailableError, type(None)))
        assert whole_turns(run(_read_anew(harness)))[0] == ("w", 0)

    def test_an_append_while_its_loop_ends_is_kept_or_refused(self, harness: Harness) -> None:
        outcomes: list[object] = []

        async def say_goodbye(store: Store) -> None:
            try:
                await asyncio.Event().wait()
            finally:
                try:
                    outcomes.append(await store.append(KEY, [said("goodbye")]))
                except StoreUnavailableError as error:
                    outcomes.append(error)

        async def begin(store: Store, saying: list[asyncio.Task[None]]) -> None:
            await store.append(KEY, [said("hello")])
            saying.append(asyncio.create_task(say_goodbye(store)))
            await asyncio.sleep(0)

        store = PerLoop(harness.open)
        run(begin(store, []))
        kept = len(run(everything(store)))
        (outcome,) = outcomes
        if not isinstance(outcome, OutcomeUnknownError):
            assert kept == (2 if isinstance(outcome, Appended) else 1)

    @pytest.mark.parametrize("how", [copy.copy, copy.deepcopy, pickle.dumps])
    def test_copying_a_store_is_refused_at_once(self, harness: Harness, how: Callable[[object], object]) -> None:
        with pytest.raises(ConfigurationError, match="URL"):
            how(harness.open())


async def _read_anew(harness: Harness) -> Any:
    async with harness.open() as store:
        return await everything(store)
