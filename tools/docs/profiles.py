"""The guarantees and costs of each engine: the source of the documentation's table. Tests measure the costs.

Abilities beyond the contract come from the engines' classes.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

GUARANTEES: Mapping[str, str] = {
    "Atomic": "a turn and its trimming are there wholly or not at all",
    "Ordered": "positions come from the store",
    "Retry-safe": "an append id takes effect once",
    "Conflict-aware": "`expected_seq`, revisions",
    "Lossless": "payloads come back byte for byte",
    "Bounded": "no call reads more than it gives",
    "Valid for a model": "no cut between a call and its result",
    "Isolated": "no id reaches another's data",
    "After a crash": "what was acknowledged",
    "Expiry": "deletion of a whole thread by time",
    "Many writers": "of one thread, on how many machines",
}
"""The rows of the table and their meaning. (One implementation keeps *Discreet* and *Typed* for all engines.)"""

ABILITIES: Mapping[str, str] = {
    "SupportsSearch": "finds messages by an index of their words",
    "SupportsRewrite": "replaces payloads: `rewrap`, repair",
    "SupportsImport": "restores the positions and times of copied threads",
    "SupportsDiagnosis": "describes its server to `doctor`",
    "SupportsReconciling": "finds and repairs inconsistencies",
    "SupportsCompaction": "joins small objects on request: `compact`, `prune`",
    "SupportsTenantList": "lists tenants: `everthread tenants`",
}
"""The abilities that some engines lack: types of `everthread.capabilities`."""

CALLS: Mapping[str, str] = {
    "append": "`append` of one turn",
    "append trimmed": "`append` that trims",
    "read_last": "`read_last`, 20 messages",
    "read": "`read`, a page",
    "get_thread": "`get_thread`",
    "list_threads": "`list_threads`, 20 threads",
    "update_thread": "`update_thread`",
    "truncate": "`truncate`",
    "get_document": "`get_document`",
    "put_document": "`put_document`",
    "list_documents": "`list_documents`, a page",
    "delete_thread": "`delete_thread`",
}
"""The calls with costs in the table."""


class Cost(msgspec.Struct, frozen=True):
    """The cost of a call of a store that has used the thread before.

    Attributes:
        waits: The number of successive waits for an answer.
        requests: The number of all requests, in the background too.
        note: A condition.
    """

    waits: int
    requests: int
    note: str = ""

    def __str__(self) -> str:
        shown = str(self.waits) if self.waits == self.requests else f"{self.waits} ({self.requests} in all)"
        return f"{shown}; {self.note}" if self.note else shown


class Profile(msgspec.Struct, frozen=True, kw_only=True):
    """The column of one engine in the table.

    Attributes:
        title: The engine's name.
        scheme: A URL scheme of it.
        page: Its page in ``docs/engines``; may be empty.
        unit: The unit of its costs.
        how: How it keeps each of `GUARANTEES`.
        ways: How it provides some of `ABILITIES`, or a substitute.
        costs: The cost of each of `CALLS`.
    """

    title: str
    scheme: str
    page: str
    unit: str
    how: Mapping[str, str]
    ways: Mapping[str, str] = {}
    costs: Mapping[str, Cost]


def _all(waits: int) -> Mapping[str, Cost]:
    return dict.fromkeys(CALLS, Cost(waits, waits))


_WRITES = ("append", "append trimmed", "update_thread", "truncate", "put_document")


_SCAN = "scans, within a bound"
_REQUESTS = "answers waited for, one after the other (and requests in all)"

MEMORY = Profile(
    title="Memory",
    scheme="memory",
    page="",
    unit="nothing to wait for",
    how={
        "Atomic": "one step of the event loop",
        "Ordered": "a counter of the thread",
        "Retry-safe": "a dictionary of the newest ids",
        "Conflict-aware": "compared in the same step",
        "Lossless": "the bytes themselves",
        "Bounded": "no: it is a reference, and reads walk the thread",
        "Valid for a model": "a list of spans of linked calls and results",
        "Isolated": "the key is the pair",
        "After a crash": "nothing is left",
        "Expiry": "looked at with each call",
        "Many writers": "one process",
    },
    ways={"SupportsSearch": _SCAN},
    costs=_all(0),
)

SQLITE = Profile(
    title="SQLite",
    scheme="sqlite",
    page="sqlite.md",
    unit="transactions that write, one `fsync` each; appends that wait together share one",
    how={
        "Atomic": "one transaction",
        "Ordered": "the thread's row, under the write lock",
        "Retry-safe": "a table of the newest ids",
        "Conflict-aware": "compared in the transaction",
        "Lossless": "a BLOB or TEXT column, byte for byte",
        "Bounded": "every statement by an index",
        "Valid for a model": "tables of spans and open calls",
        "Isolated": "(tenant, id) is a unique key of bytes",
        "After a crash": "all, with `synchronous=full`; with `normal`, all but the last moments before a loss of power",
        "Expiry": "invisible immediately, removed in small steps",
        "Many writers": "processes of one machine, one at a time",
    },
    ways={"SupportsSearch": "FTS5", "SupportsReconciling": "counts, search rows, leftovers"},
    costs={**_all(0), **dict.fromkeys((*_WRITES, "delete_thread"), Cost(1, 1))},
)

REDIS = Profile(
    title="Redis, Valkey",
    scheme="redis",
    page="redis.md",
    unit="round trips",
    how={
        "Atomic": "one Lua script on keys of one slot",
        "Ordered": "a counter in the hash `meta`",
        "Retry-safe": "two hashes of the newest ids",
        "Conflict-aware": "compared in the script",
        "Lossless": "an element of the list, byte for byte",
        "Bounded": "list ends and sorted sets",
        "Valid for a model": "sorted sets of spans and open calls",
        "Isolated": "injective key names, and the owner's name in them",
        "After a crash": "the server's `appendfsync`; after a failover, what `wait_replicas` replicas had",
        "Expiry": "the server's own, of all keys of the thread",
        "Many writers": "any number of machines",
    },
    ways={"SupportsSearch": _SCAN, "SupportsReconciling": "the list of threads, counts, companions without a list"},
    costs={
        **_all(1),
        "list_threads": Cost(2, 2),
        "list_documents": Cost(1, 1, "the server walks all names of the thread"),
    },
)

POSTGRES = Profile(
    title="PostgreSQL",
    scheme="postgresql",
    page="postgres.md",
    unit="round trips (twice as many through PgBouncer)",
    how={
        "Atomic": "one statement",
        "Ordered": "the thread's row, locked by the statement",
        "Retry-safe": "a table of the newest ids",
        "Conflict-aware": "compared in the statement",
        "Lossless": "a text column, byte for byte",
        "Bounded": "one range of an index",
        "Valid for a model": "open calls in the thread's row; in a message's row, the position that it is linked to",
        "Isolated": "(tenant, id) is a unique key",
        "After a crash": "all, unless `synchronous_commit` is off; after a failover, what the replica had",
        "Expiry": "invisible immediately, removed in small steps",
        "Many writers": "any number of machines",
    },
    ways={"SupportsSearch": "tsvector and GIN, with `search=true`"},
    costs=_all(1),
)

_SEGMENTS: Mapping[str, str] = {
    "Ordered": "numbered entries: the first to create a number has it",
    "Conflict-aware": "compared with the newest entry, on which the new one stands",
    "Bounded": "the newest entry refers to the messages",
    "Valid for a model": "spans and open calls in the entry",
    "Isolated": "injective names; a hash where an id cannot be one",
    "Expiry": "invisible immediately, removed when a listing passes",
    "Many writers": "any number of machines, without a server of our own",
}

_SEGMENT_COSTS: Mapping[str, Cost] = {
    **_all(1),
    **dict.fromkeys(("append", "append trimmed", "truncate"), Cost(1, 3)),
    # Threads of one millisecond must all be read before they can be ordered.
    "list_threads": Cost(2, 22, "more if threads were active in the same millisecond"),
    "get_document": Cost(2, 2),
    "put_document": Cost(4, 4),
    "list_documents": Cost(4, 4, "of plain names"),
    "delete_thread": Cost(8, 29, "of a thread of 21 entries, all of the last hour"),
}

OBJECTS = Profile(
    title="Object storage, a directory",
    scheme="s3",
    page="objects.md",
    unit=_REQUESTS,
    how={
        **_SEGMENTS,
        "Atomic": "one object, created only if its name is free",
        "Retry-safe": "ids in the newest entries and a snapshot; an entry knows its own by a nonce",
        "Lossless": "a line of an object, byte for byte",
        "After a crash": "all, as durable as the service; in a directory, flushed (`fsync`)",
    },
    ways={"SupportsSearch": _SCAN, "SupportsReconciling": "what killed writers left, the list of threads"},
    costs=_SEGMENT_COSTS,
)

COSMOS = Profile(
    title="Cosmos DB",
    scheme="cosmos",
    page="cosmos.md",
    unit=_REQUESTS,
    how={
        **_SEGMENTS,
        "Atomic": "one item, created only if its id is free",
        "Retry-safe": "ids in the newest items and a snapshot; an item knows its own by a nonce",
        "Lossless": "a JSON text in the item, byte for byte",
        "After a crash": "all, by the account's consistency level",
    },
    ways={"SupportsSearch": _SCAN},
    costs=_SEGMENT_COSTS,
)

PROFILES = (MEMORY, SQLITE, REDIS, POSTGRES, OBJECTS, COSMOS)
