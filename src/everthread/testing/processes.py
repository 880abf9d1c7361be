"""Start processes that write to a store, and kill them."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import os
import pickle
import sys
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NamedTuple

from everthread.contract import Store
from everthread.model import Retention, ThreadKey
from everthread.testing import _writing_process


@dataclass(frozen=True)
class Job:
    """The work of a writing process.

    Attributes:
        opener: Opens the store there; picklable.
        lanes: Names of writers, each of which appends one turn after another; together they wait for each other
            in one store. The turn's append id is the lane's name and the turn's number.
        turns: How many turns each lane appends.
        size: Messages a turn.
        padding: Characters that each message is longer by.
    """

    opener: Callable[[], Store]
    key: ThreadKey
    lanes: Sequence[str] = ("w",)
    turns: int = 20
    size: int = 3
    padding: int = 0
    retention: Retention | None = None


class Ack(NamedTuple):
    """A turn that the store acknowledged to a process."""

    lane: str
    turn: int
    first_seq: int
    next_seq: int
    replayed: bool


class Writer:
    """A process that has its job and waits for `begin`."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    def begin(self) -> None:
        """Let it open the store and write."""
        assert self._process.stdin is not None
        self._process.stdin.write(b"go\n")

    def kill(self) -> None:
        """Send SIGKILL."""
        with contextlib.suppress(ProcessLookupError):
            self._process.kill()

    async def acks(self) -> AsyncIterator[Ack]:
        """Yield the acknowledgements of the store as they arrive, until the process ends."""
        assert self._process.stdout is not None
        while (line := await self._process.stdout.readline()).endswith(b"\n"):
            lane, *numbers = line.decode().split()
            turn, first, following, replayed = map(int, numbers)
            yield Ack(lane, turn, first, following, bool(replayed))

    async def finish(self) -> list[Ack]:
        """Wait for the end of the process and return all acknowledgements. Fail if its exit status is not 0."""
        found = [ack async for ack in self.acks()]
        assert await self._process.wait() == 0, "a writing process failed: see its error above"
        return found


@contextlib.asynccontextmanager
async def writer(job: Job) -> AsyncGenerator[Writer]:
    """Yield a process that is ready to execute a job. Kill it at the end, if it still runs."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-P",
        str(Path(_writing_process.__file__)),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    try:
        assert process.stdin is not None
        assert process.stdout is not None
        fields = {**asdict(job), "opener": job.opener, "key": job.key, "retention": job.retention}
        process.stdin.write(base64.b64encode(pickle.dumps(fields)) + b"\n")
        assert await process.stdout.readline() == b"ready\n", "a writing process did not start: see its error above"
        yield Writer(process)
    finally:
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()
