"""Erasing all of a tenant, and a receipt that says what was there without repeating it."""

from __future__ import annotations

import os
from collections.abc import Callable
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import IO

import msgspec

from everthread.contract import Store, SupportsShredding, read_all
from everthread.errors import ConflictError, CorruptRecordError, EncryptionKeyError
from everthread.model import Thread, ThreadKey
from everthread.threads import find_threads

RECEIPT_VERSION = 1

_BEGINNING = b'{"kind":"'
_LONGEST_LINE = 8192
"""Longer than any line of a receipt, whatever the names in it."""


class ErasedThread(msgspec.Struct, frozen=True, tag="thread", tag_field="kind"):
    """A line of the receipt: one thread as it was just before.

    Attributes:
        thread: SHA-256 of the thread's id in hexadecimal: ids may name people, and whoever knows one
            can find its line.
        digest: SHA-256 of its content; see `digest_of`. Empty where a record of it could not be opened.
    """

    thread: str
    messages: int
    size: int
    documents: int
    digest: str


class Sums(msgspec.Struct, frozen=True):
    """What was erased in all."""

    threads: int = 0
    messages: int = 0
    size: int = 0
    documents: int = 0

    def plus(self, line: ErasedThread) -> Sums:
        """These and one thread more."""
        return Sums(
            self.threads + 1, self.messages + line.messages, self.size + line.size, self.documents + line.documents
        )


class Erased(msgspec.Struct, frozen=True, tag="erased", tag_field="kind"):
    """The last line of the receipt: all of it.

    Attributes:
        digest: SHA-256 of the lines before it that this erasure wrote, in their order.
        left: How many threads a look afterwards found: 0, unless somebody wrote at the same time.
    """

    tenant: str
    store: str
    began: datetime
    ended: datetime
    sums: Sums
    digest: str
    left: int
    version: int = RECEIPT_VERSION


async def erase_tenant(
    store: Store,
    tenant: str,
    receipt: Path,
    *,
    advance: Callable[[int], object] = lambda count: None,
    clock: Callable[[], datetime] = lambda: datetime.now(UTC),
) -> Erased:
    """Forgets all threads of a tenant, and writes a receipt: JSON Lines with counts, digests and times.

    First every thread is read and written down, then all are deleted, then the receipt's last line
    says so. A receipt without it is of an erasure that did not come to its end: erase again, which
    writes down what is left. Keeps one page in memory.

    Args:
        receipt: The file; one that exists is added to. Its lines are on disk before anything is deleted.
        advance: Is told how many more threads were written down.

    Raises:
        ConflictError: Threads were begun at the same time, and some are left. Erase again.
    """
    began, digest, sums = clock(), sha256(), Sums()
    with receipt.open("ab") as file:
        _end_last_line(receipt, file)
        async for thread in find_threads(store, tenant):
            line = await _look_at(store, thread)
            encoded = msgspec.json.encode(line) + b"\n"
            file.write(encoded)
            digest.update(encoded)
            sums = sums.plus(line)
            advance(1)
        _on_disk(file)
        # Copies of an encrypted store become unreadable too.
        await (store.shred_tenant(tenant) if isinstance(store, SupportsShredding) else store.delete_tenant(tenant))
        left = len(await store.list_threads(tenant, limit=1000))
        erased = Erased(tenant, store.location, began, clock(), sums, digest.hexdigest(), left)
        file.write(msgspec.json.encode(erased) + b"\n")
        _on_disk(file)
    if left:
        raise ConflictError(f"Tenant {tenant!r} has {left} threads that were begun meanwhile: erase it again.", left)
    return erased


def _end_last_line(receipt: Path, file: IO[bytes]) -> None:
    """Takes away a line that an erasure began when it was stopped; nothing was deleted yet then, or all of it."""
    with receipt.open("rb") as written:
        size = written.seek(0, os.SEEK_END)
        written.seek(max(size - _LONGEST_LINE, 0))
        rest = written.read().rpartition(b"\n")[2]
    if rest.startswith(_BEGINNING) or _BEGINNING.startswith(rest):
        file.truncate(size - len(rest))
    else:
        # Not a line of a receipt: it is somebody's, and stays.
        file.write(b"\n")


def _on_disk(file: IO[bytes]) -> None:
    file.flush()
    os.fsync(file.fileno())


async def _look_at(store: Store, thread: Thread) -> ErasedThread:
    try:
        digest, messages, size, documents = await digest_of(store, thread.key)
    except (CorruptRecordError, EncryptionKeyError):
        # What nobody can open must not keep a tenant from being erased.
        digest, messages, size = "", thread.count, thread.size
        documents = len(await store.list_documents(thread.key))
    return ErasedThread(sha256(thread.key.thread_id.encode()).hexdigest(), messages, size, documents, digest)


async def digest_of(store: Store, key: ThreadKey) -> tuple[str, int, int, int]:
    """A digest of a thread's content, with the number of messages, their bytes, and the number of documents.

    SHA-256 over each message as ``m``, its position, its length and its payload, and then each
    document as ``d``, its name, its length and its value; numbers in decimal, a line feed after each
    part.
    """
    digest, messages, size = sha256(), 0, 0
    async for message in read_all(store, key):
        digest.update(b"m\n%d\n%d\n%b\n" % (message.seq, len(message.payload), message.payload))
        messages, size = messages + 1, size + len(message.payload)
    names = await store.list_documents(key)
    for name in names:
        document = await store.get_document(key, name)
        if document is not None:
            digest.update(b"d\n%b\n%d\n%b\n" % (name.encode(), len(document.value), document.value))
    return digest.hexdigest(), messages, size, len(names)
