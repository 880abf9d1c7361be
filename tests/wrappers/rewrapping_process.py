"""Rewraps a SQLite file in a process of its own, so that it can be killed: FILE."""

from __future__ import annotations

import asyncio
import sys

from everthread.engines.sqlite import SqliteStore
from everthread.wrappers.encrypted import Encrypted
from everthread.wrappers.rewrapping import rewrap
from tests.wrappers.sealed_places import KEYRING


async def main(path: str) -> None:
    async with Encrypted(SqliteStore(path), KEYRING, accept_plain=True) as store:
        sys.stdout.write("begun\n")
        sys.stdout.flush()
        await rewrap(store, "acme")


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
