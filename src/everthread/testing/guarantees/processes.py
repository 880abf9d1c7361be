"""Threads outlive the process, and processes write one thread together; also when one is killed."""

from __future__ import annotations

import asyncio
from collections import Counter

import pytest

from everthread.model import Appended, Retention, ThreadKey
from everthread.testing.guarantees._base import KEY, GuaranteeTests, everything, part_of_turn, said, seqs, whole_turns
from everthread.testing.harness import ProcessHarness
from everthread.testing.processes import Ack, Job, Writer, writer

KILLS = 12
LANES = ("a", "b", "c")


class AcrossProcesses(GuaranteeTests):
    """For engines that several processes can use. A subclass defines ``harness``, a `ProcessHarness`."""

    async def test_a_thread_outlives_its_store(self, harness: ProcessHarness) -> None:
        async with harness.open() as store:
            await store.append(KEY, [said("a"), said("b")], append_id="1", default_title="title")
            await store.append(KEY, [said("c")], retention=Retention(max_messages=2))
            await store.update_thread(KEY, metadata={"x": 1})
            await store.put_document(KEY, "d", b"1")
            page, thread = await store.read(KEY), await store.get_thread(KEY)
        async with harness.open() as store:
            assert await store.read(KEY) == page
            assert await store.get_thread(KEY) == thread
            assert await store.list_documents(KEY) == ("d",)
            assert [listed.key for listed in await store.list_threads(KEY.tenant)] == [KEY]
            assert (await store.append(KEY, [said("a"), said("b")], append_id="1")).replayed
            assert await store.append(KEY, [said("d")], expected_seq=3) == Appended(3, 4)

    async def test_another_process_goes_on_with_a_thread(self, harness: ProcessHarness) -> None:
        async with harness.open() as store:
            await store.append(KEY, part_of_turn("here", 0, 2))
        async with writer(Job(harness.opener(), KEY, turns=3)) as there:
            there.begin()
            assert [ack.first_seq for ack in await there.finish()] == [2, 5, 8]
        async with harness.open() as store:
            await store.append(KEY, part_of_turn("here", 1, 2), expected_seq=11)
            turns = whole_turns(await everything(store))
        assert turns == [("here", 0), ("w", 0), ("w", 1), ("w", 2), ("here", 1)]

    async def test_two_processes_write_one_thread(self, harness: ProcessHarness) -> None:
        # They open a place that neither has seen, at the same time.
        jobs = [Job(harness.opener(), KEY, (name, name + "'"), turns=25, size=4) for name in "ab"]
        async with writer(jobs[0]) as first, writer(jobs[1]) as second, harness.open() as store:
            first.begin()
            second.begin()
            writing = asyncio.gather(first.finish(), second.finish())
            while not writing.done():
                whole_turns((await store.read(KEY)).messages)
                await asyncio.sleep(0)
            acks = [ack for found in await writing for ack in found]
            kept = await everything(store)
        assert seqs(kept) == list(range(4 * 4 * 25)), "a message was lost, or a position is not dense"
        turns = whole_turns(kept)
        assert turns == [(ack.lane, ack.turn) for ack in sorted(acks, key=lambda ack: ack.first_seq)]
        for lane in {ack.lane for ack in acks}:
            assert [turn for by, turn in turns if by == lane] == list(range(25)), "a writer's turns changed places"

    async def test_many_processes_open_a_new_place_at_once(self, harness: ProcessHarness) -> None:
        for _ in range(3):
            place = harness.another()
            jobs = [Job(place.opener(), KEY, (name,), turns=1) for name in "abc"]
            async with writer(jobs[0]) as first, writer(jobs[1]) as second, writer(jobs[2]) as third:
                processes = (first, second, third)
                for process in processes:
                    process.begin()
                await asyncio.gather(*(process.finish() for process in processes))
            async with place.open() as store:
                assert sorted(whole_turns(await everything(store))) == [("a", 0), ("b", 0), ("c", 0)]

    async def test_two_processes_that_send_the_same_appends_write_them_once(self, harness: ProcessHarness) -> None:
        job = Job(harness.opener(), KEY, LANES, turns=15)
        async with writer(job) as first, writer(job) as second:
            first.begin()
            second.begin()
            answers = await asyncio.gather(first.finish(), second.finish())
        async with harness.open() as store:
            turns = whole_turns(await everything(store))
        assert Counter(turns) == Counter((lane, turn) for lane in LANES for turn in range(15))
        mine, theirs = ({ack[:4]: ack.replayed for ack in found} for found in answers)
        assert mine.keys() == theirs.keys(), "two processes got different positions for one append"
        assert all(mine[place] != theirs[place] for place in mine), "an append was written twice, or by no process"

    @pytest.mark.parametrize("keep", [None, 30], ids=["keeping all", "trimming"])
    async def test_a_killed_writer_leaves_no_torn_turn(self, harness: ProcessHarness, keep: int | None) -> None:
        # Turns of five and a limit of thirty: trimming alone cuts no turn.
        retention = None if keep is None else Retention(max_messages=keep)
        for kill in range(KILLS):
            key = ThreadKey(f"killed {kill}", str(keep))
            job = Job(harness.opener(), key, LANES, turns=100_000, size=5, padding=300, retention=retention)
            async with writer(job) as process:
                process.begin()
                acks = await _kill_after(process, 1 + 7 * kill % 23)
            await _check_after_kill(harness, job, acks)

    async def test_a_killed_writer_stops_no_other(self, harness: ProcessHarness) -> None:
        doomed = Job(harness.opener(), KEY, LANES, turns=100_000, size=2)
        async with harness.open() as store:
            for _ in range(3):
                async with writer(doomed) as process:
                    process.begin()
                    writing = asyncio.create_task(_kill_after(process, 10))
                    turn = 0
                    while not writing.done():
                        await store.append(KEY, part_of_turn("survivor", turn, 2))
                        turn += 1
                        # An engine may do its work without waiting for anything, and the other task must run too.
                        await asyncio.sleep(0)
                    await writing
                await store.append(KEY, part_of_turn("survivor", turn, 2))
            assert len(whole_turns(await everything(store))) > 30


async def _kill_after(process: Writer, count: int) -> list[Ack]:
    """Kill a writer after ``count`` acknowledgements, during its next appends."""
    found: list[Ack] = []
    async for ack in process.acks():
        found.append(ack)
        if len(found) == count:
            process.kill()
    assert len(found) >= count, "the writer ended before it was killed"
    return found


async def _check_after_kill(harness: ProcessHarness, job: Job, acks: list[Ack]) -> None:
    async with harness.open() as store:
        kept = await everything(store, job.key)
        turns = whole_turns(kept)
        assert len(set(turns)) == len(turns), "a turn was written twice"
        at = {turn: kept[5 * i].seq for i, turn in enumerate(turns)}
        head = kept[0].seq if kept else 0
        for ack in acks:
            if ack.first_seq >= head:
                assert at.get((ack.lane, ack.turn)) == ack.first_seq, "an acknowledged turn is lost or has moved"
        done = Counter(ack.lane for ack in acks)
        for lane in job.lanes:
            # Each lane waits for its answer, so only its next turn can be there without an acknowledgement.
            again = part_of_turn(lane, done[lane], job.size, padding=job.padding)
            extra = {turn for by, turn in turns if by == lane and turn >= done[lane]}
            assert extra <= {done[lane]}
            answer = await store.append(job.key, again, append_id=f"{lane}-{done[lane]}", retention=job.retention)
            # A write that the server had not done when its client was killed may land after this check.
            assert answer.replayed or not extra, "an append that landed was not known"
        again_kept = whole_turns(await everything(store, job.key))
        for lane in job.lanes:
            assert again_kept.count((lane, done[lane])) == 1
