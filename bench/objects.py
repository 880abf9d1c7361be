"""Object storage: one object for each turn written with bare obstore or as a file, and everthread."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import AsyncIterator, Iterator, Sequence
from functools import partial
from pathlib import Path
from unittest import mock

import obstore
from obstore.store import S3Store

from bench.workload import Group, Turn
from everthread import Message, Store, ThreadKey, open_store
from tests.object_servers import CREDENTIALS, s3_server, s3_url


@contextlib.contextmanager
def groups() -> Iterator[Sequence[Group]]:
    with (
        tempfile.TemporaryDirectory(prefix="everthread-bench-") as folder,
        mock.patch.dict(os.environ, CREDENTIALS),
        s3_server() as server,
    ):
        yield [
            Group(
                "A directory, each turn on the disk",
                {
                    "a file and an fsync a turn, in this thread": partial(bare_files, Path(folder, "bare")),
                    "everthread": partial(ours, Path(folder, "ours").as_uri()),
                },
            ),
            Group(
                "S3 (SeaweedFS on loopback)",
                {
                    "obstore, an object a turn": partial(bare_s3, s3_url(server)),
                    "everthread": partial(ours, s3_url(server)),
                },
            ),
        ]


class BareFiles:
    """Write one file for each turn, named by its number: works for one writer only."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._turns: dict[str, int] = {}

    async def append(self, thread: str, turn: Turn) -> object:
        number = self._turns[thread] = self._turns.get(thread, -1) + 1
        folder = self._folder / thread
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / f"{number:09}").open("xb") as file:
            file.write(b"\n".join(turn.payloads))
            file.flush()
            os.fsync(file.fileno())
        return number

    async def read_last(self, thread: str, count: int) -> Sequence[object]:
        found: list[bytes] = []
        for number in range(self._turns[thread], -1, -1):
            found = [*(self._folder / thread / f"{number:09}").read_bytes().split(b"\n"), *found]
            if len(found) >= count:
                break
        return found[-count:]


class BareS3:
    """Write one object for each turn, named by its number: works for one writer only."""

    def __init__(self, store: S3Store) -> None:
        self._store = store
        self._turns: dict[str, int] = {}

    async def append(self, thread: str, turn: Turn) -> object:
        number = self._turns[thread] = self._turns.get(thread, -1) + 1
        body = b"\n".join(turn.payloads)
        return await obstore.put_async(self._store, f"{thread}/{number:09}", body, use_multipart=False)

    async def read_last(self, thread: str, count: int) -> Sequence[object]:
        found: list[bytes] = []
        for number in range(self._turns[thread], -1, -1):
            got = await obstore.get_async(self._store, f"{thread}/{number:09}")
            found = [*bytes(await got.bytes_async()).split(b"\n"), *found]
            if len(found) >= count:
                break
        return found[-count:]


class Ours:
    def __init__(self, store: Store) -> None:
        self._store = store

    async def append(self, thread: str, turn: Turn) -> object:
        return await self._store.append(ThreadKey(thread), turn.messages)

    async def read_last(self, thread: str, count: int) -> Sequence[Message]:
        return (await self._store.read_last(ThreadKey(thread), count)).messages


@contextlib.asynccontextmanager
async def bare_files(folder: Path) -> AsyncIterator[BareFiles]:
    yield BareFiles(folder)


@contextlib.asynccontextmanager
async def bare_s3(url: str) -> AsyncIterator[BareS3]:
    head, _, endpoint = url.partition("?endpoint=")
    yield BareS3(S3Store.from_url(head, endpoint=endpoint, client_options={"allow_http": True}))


@contextlib.asynccontextmanager
async def ours(url: str) -> AsyncIterator[Ours]:
    async with open_store(url) as store:
        yield Ours(store)
