"""Rewraps a SQLite file in a process of its own, so that it can be killed: FILE."""

from __future__ import annotations

import asyncio
import sys

from everthread.engines.sqlite import SqliteStore
from everthread.wrappers.encryption.encrypted import Encrypted
from everthread.wrappers.encryption.rewrapping import rewrap
from tests.wrappers.sealed_places import KEYRING


def tell() -> None:
    """A line at the beginning, and one for each thread."""
    sys.stdout.write("done\n")
    sys.stdout.flush()


async def main(path: str) -> None:
    async with Encrypted(SqliteStore(path), KEYRING, accept_plain=True) as store:
        tell()
        await rewrap(store, "acme", advance=lambda threads: tell())


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
