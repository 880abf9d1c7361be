"""The Lua scripts: each is the shared beginning and one file, run whole on the server in one round trip."""

from __future__ import annotations

from hashlib import sha1
from importlib.resources import files
from typing import Final

from everthread.engines.redis._wire import packed, request

_FOLDER = files("everthread.engines.redis") / "lua"


class Command:
    """What is sent to a server, up to its arguments, in the wire's encoding.

    Attributes:
        by_hash: The beginning that names a script by its hash.
        by_source: The beginning that holds the script, which also makes the server remember it.
        writes: Whether it may change a thread, so that a lost answer leaves its outcome unknown.
        repeatable: Whether it may be sent again when its outcome is unknown.
    """

    __slots__ = ("by_hash", "by_source", "repeatable", "writes")

    def __init__(
        self, by_hash: bytes, by_source: bytes = b"", *, writes: bool = False, repeatable: bool = True
    ) -> None:
        self.by_hash = by_hash
        self.by_source = by_source
        self.writes = writes
        self.repeatable = repeatable


class Script(Command):
    """A Lua script, put together from files of the folder beside this module."""

    __slots__ = ("sha", "source")

    def __init__(self, *names: str, writes: bool = False, repeatable: bool = True) -> None:
        self.source = b"\n".join((_FOLDER / f"{name}.lua").read_bytes() for name in names)
        self.sha = sha1(self.source, usedforsecurity=False).hexdigest().encode()
        by_hash, by_source = packed([b"EVALSHA", self.sha]), packed([b"EVAL", self.source])
        super().__init__(by_hash, by_source, writes=writes, repeatable=repeatable)


MULTI: Final = request([b"MULTI"])
EXEC: Final = request([b"EXEC"])
TRANSACTION: Final = Command(MULTI, MULTI)
PING: Final = Command(request([b"PING"]))
ASKING: Final = Command(request([b"ASKING"]))

# An append knows by its id whether it was done before; the other writes would tell of their second time.
APPEND: Final = Script("thread", "append", writes=True)
TRUNCATE: Final = Script("thread", "truncate", writes=True, repeatable=False)
# A second time it finds nothing that still is what was read.
REWRITE: Final = Script("thread", "rewrite", writes=True)
UPDATE: Final = Script("thread", "describe", "update", writes=True, repeatable=False)
# A second time it sets what is set.
RESTORE_TIMES: Final = Script("thread", "describe", "restore_times", writes=True)
DELETE: Final = Script("thread", "delete", writes=True, repeatable=False)
PUT_DOCUMENT: Final = Script("thread", "put_document", writes=True, repeatable=False)
DELETE_DOCUMENT: Final = Script("thread", "delete_document", writes=True, repeatable=False)

READ: Final = Script("thread", "read")
GET: Final = Script("thread", "describe", "get")
RECENT: Final = Script("recent")
# The index alone, where it lies apart from the threads: what is done twice changes nothing.
NOTE: Final = Script("note")
GET_DOCUMENT: Final = Script("thread", "get_document")
LIST_DOCUMENTS: Final = Script("thread", "list_documents")
