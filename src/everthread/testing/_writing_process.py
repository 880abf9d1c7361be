"""A separate process that writes turns. Run by its path, so that it starts without loading the kit.

Standard input: the job, pickled, as one line of base64; then a line when to begin. Standard output:
``ready``, then a line for each turn that the store has acknowledged.
"""

from __future__ import annotations

import asyncio
import base64
import os
import pickle
import sys
from typing import Any

import msgspec

from everthread.contract import Store
from everthread.model import NewMessage, Retention, ThreadKey


def turn_of(writer: str, turn: int, size: int, padding: int) -> list[NewMessage]:
    """Return the messages of a turn. Each contains its turn and its place in it."""
    return [
        NewMessage(msgspec.json.encode({"writer": writer, "turn": turn, "part": i, "of": size, "text": "x" * padding}))
        for i in range(size)
    ]


async def write(job: dict[str, Any]) -> None:
    """Execute a job: see `everthread.testing.processes.Job`."""
    store: Store = job["opener"]()
    async with store:
        await asyncio.gather(*(_write_lane(store, lane, job) for lane in job["lanes"]))


async def _write_lane(store: Store, lane: str, job: dict[str, Any]) -> None:
    key: ThreadKey = job["key"]
    retention: Retention | None = job["retention"]
    for turn in range(job["turns"]):
        messages = turn_of(lane, turn, job["size"], job["padding"])
        done = await store.append(key, messages, append_id=f"{lane}-{turn}", retention=retention)
        # Straight to the pipe: what is acknowledged must be known although the process is killed.
        os.write(1, f"{lane} {turn} {done.first_seq} {done.next_seq} {int(done.replayed)}\n".encode())


def main() -> None:
    """Read the job and wait for the line to begin."""
    job = pickle.loads(base64.b64decode(sys.stdin.readline()))  # noqa: S301 - from the process that started this one
    os.write(1, b"ready\n")
    sys.stdin.readline()
    asyncio.run(write(job))


if __name__ == "__main__":
    main()
