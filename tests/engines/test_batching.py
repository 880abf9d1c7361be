"""Submissions that wait are sent together, in order, and each has an answer or an error of its own."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from everthread import NewMessage, ThreadKey
from everthread.engines.base import AppendRequest, cannot_be_stored
from everthread.engines.batching import Coalescer
from everthread.engines.memory import MemoryStore
from everthread.errors import (
    ConflictError,
    EverthreadError,
    InvalidMessageError,
    OutcomeUnknownError,
    StoreUnavailableError,
)
from everthread.model import Appended


class Sending:
    """Answers each item with itself, when it is let."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.may_answer = asyncio.Event()
        self.began = asyncio.Event()

    async def __call__(self, batch: Sequence[int]) -> Sequence[int | EverthreadError]:
        self.batches.append(list(batch))
        self.began.set()
        await self.may_answer.wait()
        return [ConflictError("odd", item) if item % 2 else item for item in batch]


async def test_what_waits_is_sent_together_in_order() -> None:
    send = Sending()
    coalescer = Coalescer(send)
    first = asyncio.create_task(coalescer.submit(0))
    await send.began.wait()
    later = [asyncio.create_task(coalescer.submit(i)) for i in (2, 4, 6)]
    await asyncio.sleep(0)
    send.may_answer.set()
    assert await asyncio.gather(first, *later) == [0, 2, 4, 6]
    assert send.batches == [[0], [2, 4, 6]]


async def test_batches_are_limited() -> None:
    send = Sending()
    send.may_answer.set()
    coalescer = Coalescer(send, max_batch=3)
    assert await asyncio.gather(*(coalescer.submit(2 * i) for i in range(8))) == [2 * i for i in range(8)]
    assert [len(batch) for batch in send.batches] == [3, 3, 2]


async def test_one_item_fails_alone() -> None:
    send = Sending()
    send.may_answer.set()
    coalescer = Coalescer(send)
    answers = await asyncio.gather(*(coalescer.submit(i) for i in range(4)), return_exceptions=True)
    assert answers[0::2] == [0, 2]
    assert [error.actual for error in answers[1::2]] == [1, 3]


async def test_an_item_cancelled_while_it_waits_is_not_sent() -> None:
    send = Sending()
    coalescer = Coalescer(send)
    tasks = [asyncio.create_task(coalescer.submit(i)) for i in (0, 2)]
    await send.began.wait()
    tasks += [asyncio.create_task(coalescer.submit(i)) for i in (4, 6)]
    await asyncio.sleep(0)
    tasks[2].cancel()
    tasks[0].cancel()
    send.may_answer.set()
    answers = await asyncio.gather(*tasks, return_exceptions=True)
    assert answers[1::2] == [2, 6]
    assert send.batches == [[0, 2], [6]]


@pytest.mark.parametrize("error", [OutcomeUnknownError("lost"), ConflictError("no", 5), RuntimeError("bug")])
async def test_an_error_of_the_batch_reaches_every_item(error: Exception) -> None:
    async def send(batch: Sequence[int]) -> Sequence[int]:
        raise error

    coalescer: Coalescer[int, int] = Coalescer(send)
    answers = await asyncio.gather(*(coalescer.submit(i) for i in range(3)), return_exceptions=True)
    assert [type(answer) for answer in answers] == [type(error)] * 3
    assert [str(answer) for answer in answers] == [str(error)] * 3
    if isinstance(error, EverthreadError):
        assert len({id(answer) for answer in answers}) == 3, "tasks share one exception object"


async def test_answers_that_are_missing_are_an_error_and_no_endless_wait() -> None:
    async def send(batch: Sequence[int]) -> Sequence[int]:
        return list(batch[:1])

    coalescer: Coalescer[int, int] = Coalescer(send)
    async with asyncio.timeout(60):
        first, second = await asyncio.gather(coalescer.submit(0), coalescer.submit(1), return_exceptions=True)
    assert first == 0
    assert isinstance(second, ValueError)


async def test_it_goes_on_after_an_error() -> None:
    send = Sending()
    send.may_answer.set()
    coalescer = Coalescer(send)
    with pytest.raises(ConflictError):
        await coalescer.submit(1)
    assert await coalescer.submit(2) == 2


async def test_draining_waits_for_what_is_under_way() -> None:
    send = Sending()
    coalescer = Coalescer(send)
    await coalescer.drain()
    task = asyncio.create_task(coalescer.submit(0))
    await send.began.wait()
    draining = asyncio.create_task(coalescer.drain())
    await asyncio.sleep(0)
    assert not draining.done()
    send.may_answer.set()
    await draining
    assert await task == 0


def test_what_a_loop_leaves_behind_is_told_to_those_who_wait() -> None:
    async def leave() -> list[asyncio.Task[int]]:
        send = Sending()
        coalescer = Coalescer(send)
        tasks = [asyncio.create_task(coalescer.submit(0))]
        await send.began.wait()
        tasks.append(asyncio.create_task(coalescer.submit(2)))
        await asyncio.sleep(0)
        (sender,) = asyncio.all_tasks() - {asyncio.current_task(), *tasks}
        sender.cancel()
        await asyncio.wait(tasks)
        return tasks

    for task in asyncio.run(leave()):
        assert isinstance(task.exception(), StoreUnavailableError)


async def test_keys_do_not_wait_for_each_other() -> None:
    send = Sending()
    coalescer = Coalescer(send, key=lambda item: item % 10)
    tasks = [asyncio.create_task(coalescer.submit(item)) for item in (0, 10, 2, 20, 12)]
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert sorted(send.batches) == [[0, 10, 20], [2, 12]]
    draining = asyncio.create_task(coalescer.drain())
    send.may_answer.set()
    assert await asyncio.gather(*tasks) == [0, 10, 2, 20, 12]
    await draining


class Defective(MemoryStore):
    """An engine with a defect that one of the appends of a batch triggers."""

    def __init__(self) -> None:
        super().__init__()
        self._appends: Coalescer[AppendRequest, Appended] = Coalescer(self._append_many, isolate=cannot_be_stored)

    async def _append(self, request: AppendRequest) -> Appended:
        return await self._appends.submit(request)

    async def _append_many(self, batch: Sequence[AppendRequest]) -> Sequence[Appended | EverthreadError]:
        done: list[Appended | EverthreadError] = []
        for request in batch:
            if request.key.thread_id == "2":
                raise TypeError("private")
            done.append(await super()._append(request))
        return done


async def test_an_item_that_cannot_be_sent_fails_alone() -> None:
    async with Defective() as store:
        appends = [store.append(ThreadKey(str(i)), [NewMessage(b"1")]) for i in range(4)]
        outcomes = await asyncio.gather(*appends, return_exceptions=True)
        assert isinstance(outcomes.pop(2), InvalidMessageError)
        assert [type(each) for each in outcomes] == [Appended] * 3
        assert [len(await store.read(ThreadKey(str(i)))) for i in range(4)] == [1, 1, 0, 1]
