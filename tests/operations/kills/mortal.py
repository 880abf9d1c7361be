"""Operate a store and get killed: ``python -m tests.operations.kills.mortal CALLS LATER JOB URL [ARGUMENT]``.

It gets SIGKILL ``LATER`` microseconds after it began its call number ``CALLS`` of the store.
"""

from __future__ import annotations

import asyncio
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeVar

from everthread import Store, open_store
from everthread.capabilities import SupportsReconciling, capability
from everthread.operations.compact import compact_threads
from everthread.operations.erase import erase_tenant
from everthread.operations.prune import PrunePolicy, prune
from everthread.operations.repair import repair
from everthread.operations.summarize import SummaryPolicy
from everthread.operations.summarize_many import summarize_threads
from everthread.operations.undo_repair import undo_repair
from everthread.wrappers import ABILITIES, ForwardingStore
from everthread.wrappers.encryption.encrypted import Encrypted
from everthread.wrappers.encryption.rewrapping import rewrap
from tests.operations.kills.state import HOUR, TENANT
from tests.wrappers.sealed_places import KEYRING

T = TypeVar("T")
ROOT = Path(__file__).parents[3]
LATER = 4_000_000_000.0


class MortalStore(ForwardingStore):
    """A store whose process ends with one of its calls."""

    carries = ABILITIES
    calls = 0
    last = 0
    later = 0.0

    async def _around(self, call: str, proceed: Callable[[], Awaitable[T]]) -> T:
        MortalStore.calls += 1
        if MortalStore.calls == MortalStore.last:
            if MortalStore.later:
                threading.Thread(target=_die, args=(MortalStore.later,), daemon=True).start()
            else:
                _die(0)
        return await proceed()


def _die(later: float) -> None:
    time.sleep(later)
    os.kill(os.getpid(), signal.SIGKILL)


async def _prune(store: Store, now: str) -> None:
    policy = PrunePolicy(max_messages=3, max_bytes=400, max_idle=HOUR)
    async for _ in prune(store, policy, TENANT, now=datetime.fromtimestamp(int(now) / 1000, UTC) + HOUR):
        pass


async def _delete_tenant(store: Store, receipt: str) -> None:
    await erase_tenant(store, TENANT, Path(receipt))


async def _shred_tenant(store: Store, receipt: str) -> None:
    await erase_tenant(Encrypted(store, KEYRING), TENANT, Path(receipt))


async def _rewrap(store: Store, _: str) -> None:
    await rewrap(Encrypted(store, KEYRING, accept_plain=True), TENANT)


async def _repair(store: Store, backup: str) -> None:
    async for outcome in repair(store, TENANT, backup=Path(backup), clock=lambda: LATER):
        assert outcome.status == "repaired", outcome


async def _undo(store: Store, backup: str) -> None:
    async for outcome in undo_repair(store, Path(backup)):
        assert outcome.status == "undone", outcome


async def _reconcile(store: Store, _: str) -> None:
    assert capability(store, SupportsReconciling)
    await store.reconcile(TENANT, repair=True)


async def _compact(store: Store, _: str) -> None:
    async for _thread in compact_threads(store, TENANT):
        pass


async def _summarize(store: Store, _: str) -> None:
    async def model(request: str) -> str:
        # The same question gets the same answer, and all of the question matters.
        return f"{len(request)} characters"

    policy = SummaryPolicy(keep_turns=2)
    async for outcome in summarize_threads(store, model, policy, TENANT, piece_tokens=30):
        assert outcome.error is None, outcome


JOBS = {
    "prune": _prune,
    "delete-tenant": _delete_tenant,
    "shred-tenant": _shred_tenant,
    "rewrap": _rewrap,
    "repair": _repair,
    "undo": _undo,
    "reconcile": _reconcile,
    "summarize": _summarize,
    "compact": _compact,
}


def run_until_done(job: str, url: str, argument: Callable[[int], object] = str, *, stride: int) -> int:
    """Kills it at a later call each time, until it comes to its end; says how often.

    Args:
        argument: What the job gets, by the number of the run.
        stride: The most by which the call moves from one run to the next.
    """
    dice = random.Random(stride)
    calls = kills = 0
    while True:
        calls += dice.randint(1, stride)
        later = dice.choice([0, 200, 1000, 4000])
        if not is_killed(job, url, argument(kills), calls=calls, later=later):
            return kills
        kills += 1


def is_killed(job: str, url: str, argument: object = "", *, calls: int, later: int) -> bool:
    """Runs it once, to be killed ``later`` µs after a call has begun; says whether it came to that before its end."""
    command = [sys.executable, "-m", "tests.operations.kills.mortal", str(calls), str(later), job, url, str(argument)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode in {0, -signal.SIGKILL}, done.stderr
    return done.returncode != 0


async def main(job: str, url: str, argument: str = "") -> None:
    async with open_store(url) as store:
        await JOBS[job](MortalStore(store), argument)


if __name__ == "__main__":
    MortalStore.last, MortalStore.later = int(sys.argv[1]), int(sys.argv[2]) / 1e6
    asyncio.run(main(*sys.argv[3:]))
