"""What the objects of a log hold: a line of JSON, then the payloads as they came, a line each.

``head -1`` shows the first, so a person can read a log without this library.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from itertools import accumulate
from typing import TypeVar

import msgspec

from everthread.errors import CorruptRecordError, SchemaError
from everthread.model import Message, Retention
from everthread.retention import Span, add_span

LAYOUT = 1
"""The version of what is written here. Readers refuse a newer one."""

GONE = b""
"""What stays of an entry whose content was erased while its name must not be free yet."""

HEADER_BYTES = 1024 * 1024
"""Room for what stands before the payloads in an object."""

R = TypeVar("R")


class Run(msgspec.Struct, frozen=True, array_like=True):
    """Consecutive kept messages that lie in one object.

    Attributes:
        first: Position of the first.
        stop: Position after the last.
        size: Their payloads' bytes.
        name: An entry by its number, or a segment by its name.
    """

    first: int
    stop: int
    size: int
    name: int | str


class Group(msgspec.Struct, frozen=True, array_like=True):
    """Consecutive messages of one turn with one format and time: where they are, and how long each one is."""

    turn: int
    first: int
    created_ms: int
    format: str
    sizes: tuple[int, ...]

    @property
    def stop(self) -> int:
        """The position after the last."""
        return self.first + len(self.sizes)

    def between(self, first: int, stop: int) -> Group:
        """The part at positions ``first`` ≤ seq < ``stop``."""
        low, high = max(first - self.first, 0), max(stop - self.first, 0)
        return Group(self.turn, self.first + low, self.created_ms, self.format, self.sizes[low:high])


class State(msgspec.Struct, kw_only=True, omit_defaults=True):
    """A thread as it is after an entry: all that the next writer and most readers need to know.

    Attributes:
        number: The entry's own.
        born: Number of the entry that began this thread; after a deletion a thread begins anew.
        gone: The thread was deleted by this entry; nothing else is then set.
        retention: The thread's own.
        runs: The kept messages, in ascending order.
        spans: Calls and results that lie in different objects (`Block.spans` has the others).
        calls: Tool calls made (position) or answered (-1) since the last snapshot.
        appends: Append ids (hashed), and what each append did, since the last snapshot.
        snapshot: The object with the calls and append ids of before.
        metadata_at: The object with the metadata, if it is large.
        marker: Ends the name of this thread's marker in the list of threads.
        compacted: Number of the entry in which objects were last joined.
        replaced: Number of the entry that last put other payloads in the place of some. What older entries hold that
            nothing refers to any more is not only superfluous: it must not stay.
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
        """A copy for the next entry to change."""
        return msgspec.structs.replace(
            self,
            number=self.number + 1,
            runs=list(self.runs),
            spans=list(self.spans),
            calls=list(self.calls),
            appends=list(self.appends),
        )

    @property
    def head_seq(self) -> int:
        """Position of the oldest kept message."""
        return self.runs[0].first if self.runs else self.next_seq

    @property
    def count(self) -> int:
        """How many messages are kept."""
        return sum(run.stop - run.first for run in self.runs)

    @property
    def references(self) -> set[int | str]:
        """The objects that a reader of this thread may need: entries by their numbers, others by their names."""
        return {*(run.name for run in self.runs), self.snapshot, self.metadata_at} - {""}


class Snapshot(msgspec.Struct, kw_only=True, omit_defaults=True):
    """What only some appends need to know, so that not every entry carries it."""

    v: int
    calls: list[tuple[str, int]] = []
    appends: list[tuple[str, int, int]] = []


class DocumentRecord(msgspec.Struct, kw_only=True):
    """What stands before a document's value."""

    v: int
    name: str
    revision: int
    updated_ms: int
    nonce: str


class Block(msgspec.Struct, kw_only=True, omit_defaults=True):
    """The first line of an entry or a segment.

    Attributes:
        nonce: Tells a writer its own entry from another's.
        groups: The messages in it, ascending; some may have been trimmed since.
        spans: Calls and results that both lie in it.
        state: In an entry, the thread after it.
    """

    v: int
    nonce: str = ""
    groups: list[Group] = []
    spans: list[Span] = []
    state: State | None = None

    def size(self, first: int, stop: int) -> int:
        """The payload bytes at positions ``first`` ≤ seq < ``stop``."""
        return sum(sum(part.sizes) for part in self.parts(first, stop))

    def parts(self, first: int, stop: int) -> Iterator[Group]:
        """The groups, cut to positions ``first`` ≤ seq < ``stop``."""
        for group in self.groups:
            if group.first < stop and first < group.stop:
                yield group.between(first, stop)


class Loaded:
    """A block with its payloads. Immutable, so it may be kept in memory for as long as there is room."""

    def __init__(self, block: Block, data: bytes, begin: int) -> None:
        self.block = block
        self.data = data
        self._starts = [group.first for group in block.groups]
        sizes = [size + 1 for group in block.groups for size in group.sizes]
        self._offsets = list(accumulate(sizes, initial=begin))
        self._before = list(accumulate((len(group.sizes) for group in block.groups), initial=0))
        if self._offsets[-1] != len(data):
            raise ValueError("the payloads are not as long as they should be")

    def messages(self, first: int, stop: int) -> Iterator[Message]:
        """The messages at positions ``first`` ≤ seq < ``stop``."""
        for part in self.block.parts(first, stop):
            index = self._index(part.first)
            for seq, size in enumerate(part.sizes, part.first):
                at = self._offsets[index]
                yield Message(seq, self.data[at : at + size], part.format, part.created_ms, part.turn)
                index += 1

    def payloads(self, first: int, stop: int) -> Iterator[bytes]:
        """The payloads alone."""
        return (message.payload for message in self.messages(first, stop))

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
    """An object's bytes."""
    return b"".join([part for payload in (_encoder.encode(record), *payloads) for part in (payload, b"\n")])


def decode_block(data: bytes, where: str) -> Loaded:
    """An entry or a segment.

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
    """A snapshot; raises as `decode_block` does."""
    return _decoded(_snapshots, data, where)


def decode_document(data: bytes, where: str) -> tuple[DocumentRecord, bytes]:
    """A document's record and value; raises as `decode_block` does."""
    first = data.find(b"\n") + 1
    return _decoded(_documents, data[:first], where), data[first:-1]


def _decoded(decoder: msgspec.json.Decoder[R], line: bytes, where: str) -> R:
    try:
        version = msgspec.json.decode(line, type=_Version).v
        if version <= LAYOUT:
            return decoder.decode(line)
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise CorruptRecordError(f"The object {where} is not a record of everthread, or is damaged.") from None
    raise SchemaError(f"The object {where} is of layout {version}; this release reads {LAYOUT}: update everthread.")


def joined_spans(spans: Sequence[Span]) -> list[Span]:
    """Spans from several objects, merged and in order."""
    merged: list[Span] = []
    for lo, hi in sorted(spans, key=lambda span: span[1]):
        add_span(merged, lo, hi)
    return merged
