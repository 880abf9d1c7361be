"""What count the costs of a store's calls from outside: on the wire, in the storage, in the file."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path

from tests.engines.storages import WatchedStorage

QUIET_SECONDS = 0.15
"""What is sent within this time of something else, while no answer came, was sent at the same time."""


class Waves:
    """Holds back answers until nobody sends any more: what was sent until then is one wave, awaited together.

    Attributes:
        waits: How many waves there were.
        requests: How many requests in all.
    """

    def __init__(self) -> None:
        self.waits = 0
        self.requests = 0
        self._held: list[Callable[[], None]] = []
        self._stirred = asyncio.Event()

    def request(self) -> None:
        """Somebody sent one."""
        self.requests += 1
        self._stirred.set()

    def answer(self, release: Callable[[], None]) -> None:
        """An answer is here; ``release`` lets it through."""
        self._held.append(release)
        self._stirred.set()

    async def run(self) -> None:
        """Lets the waves through, one after the other, until it is cancelled."""
        while True:
            await self._stirred.wait()
            self._stirred.clear()
            with suppress(TimeoutError):
                await asyncio.wait_for(self._stirred.wait(), QUIET_SECONDS)
                continue
            if self._held:
                held, self._held = self._held, []
                self.waits += 1
                for release in held:
                    release()


class CountingProxy:
    """A TCP proxy that counts the requests of a protocol in which each request is answered before the next is sent."""

    def __init__(self, host: str, port: int) -> None:
        self._target = host, port
        self._tasks: set[asyncio.Task[None]] = set()
        self.waves: Waves | None = None
        self.port = 0

    @asynccontextmanager
    async def running(self) -> AsyncIterator[CountingProxy]:
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        try:
            yield self
        finally:
            server.close()
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        upstream_reader, upstream_writer = await asyncio.open_connection(*self._target)
        is_asking = False

        async def ask() -> None:
            nonlocal is_asking
            while data := await reader.read(65536):
                if self.waves is not None and not is_asking:
                    self.waves.request()
                is_asking = True
                upstream_writer.write(data)
            upstream_writer.close()

        async def answer() -> None:
            nonlocal is_asking
            while data := await upstream_reader.read(65536):
                is_asking = False
                if self.waves is None:
                    writer.write(data)
                else:
                    self.waves.answer(lambda data=data: writer.write(data))
            writer.close()

        for side in (ask(), answer()):
            task = asyncio.create_task(side)
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)


class CountedStorage(WatchedStorage):
    """A storage whose operations come back in waves, while somebody counts."""

    waves: Waves | None = None

    async def _watched(self, what, call, *arguments):
        result = await super()._watched(what, call, *arguments)
        await self._held()
        return result

    async def list(self, folder: str, *, after: str = "") -> AsyncIterator[Sequence]:
        # The pages of a listing are requests too, each one asked for after the last.
        async for page in self.inner.list(folder, after=after):
            await self._held()
            yield page
        await self._held()

    async def _held(self) -> None:
        if self.waves is None:
            return
        self.waves.request()
        released = asyncio.get_running_loop().create_future()
        self.waves.answer(lambda: released.done() or released.set_result(None))
        await released


def commits(database: Path) -> int:
    """How many transactions the write-ahead log of a SQLite file holds (sqlite.org/fileformat2.html#walformat)."""
    with Path(f"{database}-wal").open("rb") as log:
        header = log.read(32)
        page_size, salts = struct.unpack(">I", header[8:12])[0], header[16:24]
        count = 0
        while len(frame := log.read(24)) == 24 and frame[8:16] == salts:
            # A frame that ends a transaction says how large the file is after it; the others say 0.
            count += struct.unpack(">I", frame[4:8])[0] != 0
            log.seek(page_size, 1)
    return count
