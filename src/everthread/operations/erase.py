"""Erase a tenant, and write a receipt that says how much was erased."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import IO

import msgspec

from everthread.capabilities import SupportsSealing, capability
from everthread.contract import Store
from everthread.errors import ConfigurationError, ConflictError
from everthread.listing import find_threads, for_each
from everthread.model import Thread

RECEIPT_VERSION = 2
AT_ONCE = 8

_BEGINNING = b'{"kind":"'
_LONGEST_LINE = 8192
"""Longer than any line of a receipt, even with the longest names."""


class Sums(msgspec.Struct, frozen=True):
    """The amount of data: threads, messages, bytes of their payloads, documents."""

    threads: int = 0
    messages: int = 0
    size: int = 0
    documents: int = 0


class Counted(msgspec.Struct, frozen=True, tag="counted", tag_field="kind"):
    """The first line of a receipt: the tenant's data. It is on disk before anything is deleted."""

    tenant: str
    store: str
    began: datetime
    sums: Sums
    version: int = RECEIPT_VERSION


class Erased(msgspec.Struct, frozen=True, tag="erased", tag_field="kind"):
    """The last line of a receipt.

    Attributes:
        left: The number of threads found afterwards: 0 unless another writer appended at the same time.
        remains: Erased data that is still in the store's files, and why; see `Store.erase_remains`.
    """

    tenant: str
    store: str
    began: datetime
    ended: datetime
    sums: Sums
    left: int
    version: int = RECEIPT_VERSION
    remains: tuple[str, ...] = ()


async def erase_tenant(
    store: Store,
    tenant: str,
    receipt: Path,
    *,
    advance: Callable[[int], object] = lambda count: None,
    clock: Callable[[], datetime] = lambda: datetime.now(UTC),
) -> Erased:
    """Delete all threads of a tenant, and write a receipt: JSON Lines with counts and times, without content or IDs.

    Counts the tenant's data, writes the first line, deletes the data, and writes the last line. A receipt without its
    last line belongs to an interrupted erasure: erase again, which adds two lines for the rest. Keeps one page of
    threads in memory, and reads no message.

    Args:
        store: The store to erase from. An encrypted one also destroys the tenant's keys, which makes copies unreadable.
        tenant: The tenant.
        receipt: The file. An existing one is extended.
        advance: Receives the number of further threads counted.
        clock: Returns the current time.

    Raises:
        ConfigurationError: The receipt cannot be written; nothing was deleted.
        ConflictError: Other writers created threads at the same time, and some are left. Erase again.
    """
    began = clock()
    with _opened(receipt) as file:
        _end_last_line(file)
        sums = await _count(store, tenant, advance)
        _write(file, Counted(tenant, store.location, began, sums))
        sealing = capability(store, SupportsSealing)
        await (store.delete_tenant(tenant) if sealing is None else sealing.shred_tenant(tenant))
        remains = await store.erase_remains()
        left = len(await store.list_threads(tenant, limit=1000))
        erased = Erased(tenant, store.location, began, clock(), sums, left, remains=remains)
        _write(file, erased)
    if left:
        raise ConflictError(f"Tenant {tenant!r} has {left} threads created during its erasure: erase it again.", left)
    return erased


async def _count(store: Store, tenant: str, advance: Callable[[int], object]) -> Sums:
    async def counted(thread: Thread) -> tuple[int, int, int]:
        return thread.count, thread.size, len(await store.list_documents(thread.key))

    threads = messages = size = documents = 0
    async for more, bytes_more, documents_more in for_each(find_threads(store, tenant), counted, at_once=AT_ONCE):
        threads, messages = threads + 1, messages + more
        size, documents = size + bytes_more, documents + documents_more
        advance(1)
    return Sums(threads, messages, size, documents)


def _opened(receipt: Path) -> IO[bytes]:
    """Open a receipt to extend it. Only its owner can read it, and a link is not followed."""
    flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
    try:
        descriptor = os.open(receipt, flags, 0o600)
    except OSError as error:
        raise ConfigurationError(f"Cannot write the receipt {receipt}: {error.strerror}.") from None
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise ConfigurationError(f"Cannot write the receipt {receipt}: it is not a regular file.")
    return os.fdopen(descriptor, "a+b")


def _end_last_line(file: IO[bytes]) -> None:
    """Remove a line that an interrupted erasure began: nothing was deleted then, or everything."""
    size = file.seek(0, os.SEEK_END)
    file.seek(max(size - _LONGEST_LINE, 0))
    rest = file.read().rpartition(b"\n")[2]
    if rest.startswith(_BEGINNING) or _BEGINNING.startswith(rest):
        file.truncate(size - len(rest))
    else:
        # Not a line of a receipt: it stays.
        file.write(b"\n")


def _write(file: IO[bytes], line: Counted | Erased) -> None:
    file.write(msgspec.json.encode(line) + b"\n")
    file.flush()
    os.fsync(file.fileno())
