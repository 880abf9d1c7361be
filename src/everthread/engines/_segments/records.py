"""The content of objects: a line of JSON, then the unchanged payloads, a line each.

``head -1`` shows the JSON, so a person can read a log without this library.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from itertools import accumulate
from typing import TypeVar

import msgspec

from everthread.errors import CorruptRecordError, SchemaError
from everthread.messages.tool_links import Span, add_span
from everthread.model import Message, Retention, ThreadKey

LAYOUT = 1
"""The version of objects, unless a run has holes. Readers refuse unknown versions."""

LAYOUT_WITH_HOLES = 2

GONE = b""
"""The content of an erased entry with a name that must not be free yet."""

HEADER_BYTES = 1024 * 1024
"""Room for the line before the payloads in an object."""

R = TypeVar("R")


class Run(msgspec.Struct, frozen=True, array_like=True):
    """The messages of one object at positions ``first`` ≤ seq < ``stop``.

    Attributes:
        size: The bytes of their payloads.
        name: The number of an entry, or the name of a segment.
        holes: The number of positions without a message, of turns that were undone before the join.
    """

    first: int
    stop: int
    size: int
    name: int | str
    holes: int = 0

    @property
    def count(self) -> int:
        """The number of messages."""
        return self.stop - self.first - self.holes


class Group(msgspec.Struct, frozen=True, array_like=True):
    """Consecutive messages of one turn with one format and time: their positions and sizes."""

    turn: int
    first: int
    created_ms: int
    format: str
    sizes: tuple[int, ...]

    @property
    def stop(self) -> int:
        """The position after the last message."""
        return self.first + len(self.sizes)

    def between(self, first: int, stop: int) -> Group:
        """Return the part at positions ``first`` ≤ seq < ``stop``."""
        low, high = max(first - self.first, 0), max(stop - self.first, 0)
        return Group(self.turn, self.first + low, self.created_ms, self.format, self.sizes[low:high])


class State(msgspec.Struct, kw_only=True, omit_defaults=True):
    """A thread after an entry: all that the next writer and most readers need.

    Attributes:
        number: The number of the entry.
        born: The number of the entry that began this life of the thread; after a deletion it begins a new one.
        gone: This entry deleted the thread; nothing else is set.
        runs: The stored messages, ascending.
        spans: Calls and results in different objects (`Block.spans` has the others).
        calls: Tool calls made (position) or answered (-1) since the last snapshot.
        appends: Hashed append IDs and the positions of their turns since the last snapshot.
        snapshot: The object with earlier calls and append IDs.
        metadata_at: The object with large metadata.
        marker: The end of the name of this thread's marker.
        compacted: The number of the entry of the last compaction.
        replaced: The number of the last entry that replaced payloads. The payloads in older unreferenced entries must
            be erased.
    """

    number: int
    born: int
    gone: bool = False
    thread_id: str = ""
    tenant: str = ""
    next_seq: int = 0
    created_ms: int = 0
    updated_ms: int = 0
    title: str | None = None
    metadata: msgspec.Raw = msgspec.Raw(b"{}")
    metadata_at: str = ""
    revision: int = 0
    expires_ms: int | None = None
    retention: Retention | None = None
    runs: list[Run] = []
    spans: list[Span] = []
    calls: list[tuple[str, int]] = []
    appends: list[tuple[str, int, int]] = []
    snapshot: str = ""
    marker: str = ""
    compacted: int = 0
    replaced: int = 0

    def successor(self) -> State:
        """Return a copy for the next entry to change."""
        return msgspec.structs.replace(
            self,
            number=self.number + 1,
            runs=list(self.runs),
            spans=list(self.spans),
            calls=list(self.calls),
            appends=list(self.appends),
        )

    @property
    def key(self) -> ThreadKey:
        return ThreadKey(self.thread_id, self.tenant)

    @property
    def head_seq(self) -> int:
        """Position of the oldest message."""
        return self.runs[0].first if self.runs else self.next_seq

    @property
    def count(self) -> int:
        """The number of messages."""
        return sum(run.count for run in self.runs)

    @property
    def layout(self) -> int:
        """The version that readers must know."""
        return LAYOUT_WITH_HOLES if any(run.holes for run in self.runs) else LAYOUT

    @property
    def memory(self) -> int:
        """Its size in memory, about."""
        ids = len(self.calls) + len(self.appends)
        return 1500 + len(bytes(self.metadata)) + 150 * (len(self.runs) + len(self.spans)) + 250 * ids

    @property
    def references(self) -> set[int | str]:
        """The objects that a reader may need: entries by number, others by name."""
        return {*(run.name for run in self.runs), self.snapshot, self.metadata_at} - {""}


class Snapshot(msgspec.Struct, kw_only=True, omit_defaults=True):
    """Append IDs and open calls, which only some appends need, so not every entry carries them."""

    v: int
    calls: list[tuple[str, int]] = []
    appends: list[tuple[str, int, int]] = []

    @property
    def memory(self) -> int:
        """Its size in memory, about."""
        return 500 + 200 * (len(self.calls) + len(self.appends))


class DocumentRecord(msgspec.Struct, kw_only=True):
    """The line before a document's value."""

    v: int
    name: str
    revision: int
    updated_ms: int
    nonce: str


class Block(msgspec.Struct, kw_only=True, omit_defaults=True):
    """The first line of an entry or a segment.

    Attributes:
        nonce: Lets a writer recognize its own entry.
        groups: The messages in it, ascending; the thread may have dropped some.
        spans: Calls and results that are both in it.
        state: In an entry, the thread's state after it.
    """

    v: int
    nonce: str = ""
    groups: list[Group] = []
    spans: list[Span] = []
    state: State | None = None

    def run(self, first: int, stop: int, name: int | str) -> Run | None:
        """Return the run of the messages at positions ``first`` ≤ seq < ``stop``, if there are any."""
        parts = list(self.parts(first, stop))
        if not parts:
            return None
        first, stop, count = parts[0].first, parts[-1].stop, sum(len(part.sizes) for part in parts)
        return Run(first, stop, sum(sum(part.sizes) for part in parts), name, stop - first - count)

    def position(self, run: Run, index: int) -> int:
        """Return the position of a run's message number ``index``; negative numbers count from the end."""
        index = max(index + run.count, 0) if index < 0 else index
        if not run.holes:
            return run.first + index
        for part in self.parts(run.first, run.stop):
            if index < len(part.sizes):
                return part.first + index
            index -= len(part.sizes)
        return run.stop

    def parts(self, first: int, stop: int) -> Iterator[Group]:
        """Yield the groups, cut to positions ``first`` ≤ seq < ``stop``."""
        for group in self.groups:
            if group.first < stop and first < group.stop:
                yield group.between(first, stop)


# In bytes, measured with tracemalloc on 64-bit CPython: a block and its lists; a size and an offset of each message,
# in two lists; a group with its format and its place in two lists.
_OBJECTS, _INTEGERS, _GROUP = 1500, 80, 350


class Loaded:
    """A block with its payloads. It never changes, so it may be cached."""

    def __init__(self, block: Block, data: bytes, begin: int) -> None:
        self.block = block
        self.data = data
        self._starts = [group.first for group in block.groups]
        sizes = [size + 1 for group in block.groups for size in group.sizes]
        self._offsets = list(accumulate(sizes, initial=begin))
        self._before = list(accumulate((len(group.sizes) for group in block.groups), initial=0))
        if self._offsets[-1] != len(data):
            raise ValueError("the payloads are not as long as they should be")

    @property
    def memory(self) -> int:
        """Its size in memory, about: small messages take more as objects than as bytes."""
        sizes = len(self._offsets)
        return _OBJECTS + len(self.data) + sizes * _INTEGERS + len(self.block.groups) * _GROUP

    def messages(self, first: int, stop: int) -> Iterator[Message]:
        """Yield the messages at positions ``first`` ≤ seq < ``stop``."""
        for part in self.block.parts(first, stop):
            index = self._index(part.first)
            for seq, size in enumerate(part.sizes, part.first):
                at = self._offsets[index]
                yield Message(seq, self.data[at : at + size], part.format, part.created_ms, part.turn)
                index += 1

    def _index(self, seq: int) -> int:
        at = bisect_right(self._starts, seq) - 1
        return self._before[at] + seq - self.block.groups[at].first


_encoder = msgspec.json.Encoder()
_blocks = msgspec.json.Decoder(Block)
_snapshots = msgspec.json.Decoder(Snapshot)
_documents = msgspec.json.Decoder(DocumentRecord)


class _Version(msgspec.Struct):
    v: int


def encode(record: Block | Snapshot | DocumentRecord, payloads: Iterable[bytes] = ()) -> bytes:
    """Return an object's bytes."""
    return b"".join([part for payload in (_encoder.encode(record), *payloads) for part in (payload, b"\n")])


def decode_block(data: bytes, where: str) -> Loaded:
    """Decode an entry or a segment.

    Raises:
        CorruptRecordError: It is not one, or is cut short.
        SchemaError: A newer release wrote it.
    """
    first = data.find(b"\n") + 1
    block = _decoded(_blocks, data[:first], where)
    try:
        return Loaded(block, data, first)
    except ValueError as error:
        raise CorruptRecordError(f"The object {where} is damaged: {error}.") from None


def decode_snapshot(data: bytes, where: str) -> Snapshot:
    """Decode a snapshot; raises as `decode_block` does."""
    return _decoded(_snapshots, data, where)


def decode_document(data: bytes, where: str) -> tuple[DocumentRecord, bytes]:
    """Decode a document's record and value; raises as `decode_block` does."""
    first = data.find(b"\n") + 1
    return _decoded(_documents, data[:first], where), data[first:-1]


def _decoded(decoder: msgspec.json.Decoder[R], line: bytes, where: str) -> R:
    try:
        version = msgspec.json.decode(line, type=_Version).v
        if version <= LAYOUT_WITH_HOLES:
            return decoder.decode(line)
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise CorruptRecordError(f"The object {where} is not a record of everthread, or is damaged.") from None
    raise SchemaError(
        f"The object {where} is of layout {version}; this release reads up to {LAYOUT_WITH_HOLES}: update everthread."
    )


def joined_spans(spans: Sequence[Span]) -> list[Span]:
    """Merge spans of several objects, in order."""
    merged: list[Span] = []
    for lo, hi in sorted(spans, key=lambda span: span[1]):
        add_span(merged, lo, hi)
    return merged
