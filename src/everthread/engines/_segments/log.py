"""The newest entry of a thread, and how the next one is written.

An entry's number is free exactly once: whoever creates it first has written it, and it says what the thread is from
then on. That holds for as long as no deleted entry's name is created again, so two times keep writers and cleaners
apart (`Fence`): a writer trusts what it remembers only for a while, and an entry's name is freed only much later.
"""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable

import msgspec

from everthread.engines._segments.cache import Cache
from everthread.engines._segments.names import Place, inverted, nonce, uninverted
from everthread.engines._segments.records import (
    GONE,
    LAYOUT,
    Block,
    Group,
    Loaded,
    Run,
    Snapshot,
    State,
    decode_block,
    decode_snapshot,
    encode,
)
from everthread.engines._segments.storage import Storage
from everthread.errors import CorruptRecordError, OutcomeUnknownError, StoreUnavailableError
from everthread.retention import Span

MAX_REMEMBERED = 4096
_MOST_PROBES = 4
_MOST_ATTEMPTS = 200
_MOST_SENDS = 3
_STREAK = 32
_PAUSE = 6  # round trips


class Fence(msgspec.Struct, frozen=True):
    """The two times that keep a late writer from creating an entry again that was deleted.

    Attributes:
        trust_s: For so long a writer assumes that the entry after the newest it has seen was not deleted.
        grace_s: For so long after it was written an entry's name is not freed. The difference is what writes in
            flight and clocks that disagree may take.
    """

    trust_s: float = 600.0
    grace_s: float = 3600.0


class Streak(msgspec.Struct, frozen=True):
    """Entries that one process has written, nobody else coming between: how many, when the last, how long it took."""

    length: int = 0
    ended: float = 0.0
    took: float = 0.0


class View(msgspec.Struct, frozen=True):
    """What was seen of a thread's log.

    Attributes:
        number: The newest entry, -1 if there is none.
        state: What it says.
        seen: When the look at it began.
        fresh: It was the newest within this call; otherwise it is from memory.
        streak: What this process has written since somebody else did; see `Log.commit`.
    """

    number: int
    state: State | None
    seen: tuple[float, float]
    fresh: bool
    streak: Streak = Streak()


class Draft(msgspec.Struct):
    """The next entry: the thread after it, and the messages it brings.

    Attributes:
        replaces: The marker that is stale once the entry is written.
    """

    state: State
    groups: list[Group] = []
    spans: list[Span] = []
    payloads: list[bytes] = []
    replaces: str = ""


class StaleViewError(Exception):
    """A decision to write nothing was made on a view from memory: look again."""


class SupersededError(Exception):
    """An object that an entry referred to is gone, because a newer entry no longer refers to it."""


Step = Callable[[View, str], Awaitable[Draft | None]]
"""Given what the thread is and the nonce of the entry to be written: the entry, or ``None`` to write nothing."""


Announce = Callable[[State], Awaitable[None]]
"""Told what a thread will be when an entry is written."""


class Log:
    """Reads and writes the logs of all threads in a storage.

    Args:
        storage: Where they are.
        fence: See `Fence`.
        cache_bytes: How much of what was read (it never changes) is kept in memory.
    """

    def __init__(self, storage: Storage, *, fence: Fence, cache_bytes: int) -> None:
        self.storage = storage
        self.fence = fence
        self._remembered: OrderedDict[Place, View] = OrderedDict()
        self._blocks: Cache[Loaded] = Cache(cache_bytes)
        self._snapshots: Cache[Snapshot] = Cache(cache_bytes // 8)

    # What is there

    async def current(self, place: Place) -> View:
        """The thread as it is now: one request if it is remembered, else a listing and a request."""
        view = self._trusted(place)
        return await (self._load(place) if view is None else self.refreshed(place, view))

    async def refreshed(self, place: Place, view: View) -> View:
        """What became of a thread since it was seen."""
        if not self._is_trusted(view):
            return await self._load(place)
        for _ in range(_MOST_PROBES):
            seen = _now()
            found = await self.storage.get(place.entries, inverted(view.number + 1))
            if found is None:
                return self._remember(place, View(view.number, view.state, seen, fresh=True, streak=view.streak))
            if found.data == GONE:
                break
            loaded = self._decoded_entry(place, view.number + 1, found.data)
            view = View(view.number + 1, loaded.block.state, seen, fresh=False)
        return await self._load(place)

    async def _load(self, place: Place) -> View:
        for _ in range(_MOST_ATTEMPTS):
            seen = _now()
            number = await self._newest(place)
            if number < 0:
                return View(-1, None, seen, fresh=True)
            found = await self.storage.get(place.entries, inverted(number))
            # Absent or emptied only if a newer one was written since the listing.
            if found is not None and found.data != GONE:
                loaded = self._decoded_entry(place, number, found.data)
                return self._remember(place, View(number, loaded.block.state, seen, fresh=True))
        raise CorruptRecordError(f"The newest entry in {place.entries} is listed, but it is not there.")

    async def _newest(self, place: Place) -> int:
        async for chunk in self.storage.list(place.entries):
            for listed in chunk:
                number = uninverted(listed.name)
                if number is not None:
                    return number
        return -1

    async def block(self, place: Place, run: Run) -> Block:
        """What a run's object says of its messages."""
        return (await self.loaded(place, run)).block

    async def loaded(self, place: Place, run: Run) -> Loaded:
        """A run's object.

        Raises:
            SupersededError: It is gone: look at the thread again.
        """
        entry = isinstance(run.name, int)
        folder, name = (place.entries, inverted(run.name)) if isinstance(run.name, int) else (place.segments, run.name)
        cached = self._blocks.get((folder, name))
        if cached is not None:
            return cached
        found = await self.storage.get(folder, name)
        if found is None or (entry and found.data == GONE):
            raise SupersededError
        loaded = decode_block(found.data, f"{folder}/{name}")
        self._blocks.add((folder, name), loaded, len(found.data))
        return loaded

    async def snapshot(self, place: Place, name: str) -> Snapshot:
        """The snapshot of this name; raises as `loaded` does."""
        if not name:
            return _NO_SNAPSHOT
        cached = self._snapshots.get((place.segments, name))
        if cached is not None:
            return cached
        data = await self.beside(place, name)
        snapshot = decode_snapshot(data, f"{place.segments}/{name}")
        self._snapshots.add((place.segments, name), snapshot, len(data))
        return snapshot

    async def beside(self, place: Place, name: str) -> bytes:
        """Another object that an entry refers to; raises as `loaded` does."""
        found = await self.storage.get(place.segments, name)
        if found is None:
            raise SupersededError
        return found.data

    # Writing

    async def commit(self, place: Place, step: Step, announce: Announce | None = None) -> View:
        """Writes the entry that ``step`` makes, after whatever others write at the same time.

        ``announce`` is told what is about to be written: before it is where it begins a thread, beside it otherwise.

        ``step`` is called again for each entry that somebody else wrote first. Returns the thread as it was
        left; whatever ``step`` raises comes out and nothing is written.

        Who writes one entry right after the other needs one round trip for each, who comes new needs three, and would
        never be first. So a process makes a pause after `_STREAK` entries in a row that is long enough for another.

        Raises:
            OutcomeUnknownError: The entry may have been written.
        """
        unique = nonce()
        trusted = self._trusted(place)
        view = trusted if trusted is not None else await self._load(place)
        await _give_way(view.streak)
        for attempt in range(_MOST_ATTEMPTS):
            try:
                draft = await step(view, unique)
            except (StaleViewError, SupersededError):
                view = await self.current(place)
                continue
            if draft is None:
                return view
            seen = _now()
            other = await self._announced(place, draft, unique, announce)
            if other is None:
                length = view.streak.length + 1 if attempt == 0 else 1
                streak = Streak(length, time.monotonic(), time.monotonic() - seen[0])
                return self._remember(place, View(draft.state.number, draft.state, seen, fresh=True, streak=streak))
            # What won is known; but who is one behind would stay so, and has to look for the newest from time to time.
            is_known = attempt % 2 == 0 and other.state is not None
            view = View(draft.state.number, other.state, seen, fresh=False) if is_known else await self._load(place)
        raise StoreUnavailableError("Too many writers are at this thread at the same time; nothing was written.")

    async def _announced(self, place: Place, draft: Draft, unique: str, announce: Announce | None) -> Block | None:
        if announce is None:
            return await self._create(place, draft, unique)
        if draft.state.born == draft.state.number:
            await announce(draft.state)
            return await self._create(place, draft, unique)
        created, announced = await asyncio.gather(
            self._create(place, draft, unique), announce(draft.state), return_exceptions=True
        )
        if isinstance(created, BaseException):
            raise created
        # A thread that was announced before is found also where this announcement did not get through.
        if isinstance(announced, BaseException) and not isinstance(announced, StoreUnavailableError):
            raise announced
        return created

    async def _create(self, place: Place, draft: Draft, unique: str) -> Block | None:
        """Writes the entry; returns the other that has its number, if somebody else was faster."""
        block = Block(v=LAYOUT, nonce=unique, groups=draft.groups, spans=draft.spans, state=draft.state)
        data = encode(block, draft.payloads)
        name = inverted(draft.state.number)
        other = await self._other(place, draft.state.number, data, unique)
        if other is None and draft.groups:
            self._blocks.add((place.entries, name), Loaded(block, data, data.index(b"\n") + 1), len(data))
        return other

    async def _other(self, place: Place, number: int, data: bytes, unique: str) -> Block | None:
        """Creates an entry; what may have landed is sent again, since it can land only once."""
        for attempt in range(_MOST_SENDS):
            try:
                if await self.storage.create(place.entries, inverted(number), data):
                    return None
                found = await self.storage.get(place.entries, inverted(number))
            except StoreUnavailableError:
                await asyncio.sleep(0.05 * 2**attempt)
                continue
            # A name that was taken a moment ago and has no object: two writes met and both were refused.
            if found is not None:
                block = _EMPTIED if found.data == GONE else self._decoded_entry(place, number, found.data).block
                return None if block.nonce == unique else block
        raise OutcomeUnknownError(
            f"{self.storage.location} did not answer after a write was sent: it may have landed. "
            "Send it again with the same append_id."
        )

    def forget(self, place: Place) -> None:
        """Remembers nothing of a thread, so that the next call looks at the storage."""
        self._remembered.pop(place, None)

    def _remember(self, place: Place, view: View) -> View:
        self._remembered[place] = msgspec.structs.replace(view, fresh=False)
        self._remembered.move_to_end(place)
        while len(self._remembered) > MAX_REMEMBERED:
            self._remembered.popitem(last=False)
        return view

    def _trusted(self, place: Place) -> View | None:
        view = self._remembered.get(place)
        return view if view is not None and self._is_trusted(view) else None

    def _is_trusted(self, view: View) -> bool:
        # Two clocks: one stands still while a machine sleeps, the other may be set back.
        steady, wall = _now()
        return max(steady - view.seen[0], wall - view.seen[1]) < self.fence.trust_s

    def _decoded_entry(self, place: Place, number: int, data: bytes) -> Loaded:
        return decode_block(data, f"{place.entries}/{inverted(number)}")


_NO_SNAPSHOT = Snapshot(v=LAYOUT)
_EMPTIED = Block(v=LAYOUT)


async def _give_way(streak: Streak) -> None:
    left = streak.ended + _PAUSE * streak.took - time.monotonic()
    if streak.length and streak.length % _STREAK == 0 and left > 0:
        await asyncio.sleep(left)


def _now() -> tuple[float, float]:
    return time.monotonic(), time.time()
