"""The Redis engine: each hook is one script, which is atomic on the server."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any, Final, Self

import msgspec

from everthread._extras import missing_extra
from everthread.capabilities import SupportsReconciling
from everthread.engines._listing import PAGE_BYTES, Listed, looked_at
from everthread.engines._names import NameRange
from everthread.engines._tenants import ListingTenants
from everthread.engines.base import AppendRequest, ThreadChange
from everthread.engines.redis import scripts
from everthread.engines.redis.errors import ServerError, refused
from everthread.engines.redis.health import checks
from everthread.engines.redis.keys import Names, tag_in
from everthread.engines.redis.reconcile import Reconciliation, tenants_of
from everthread.engines.redis.records import (
    ABSENT,
    CONFLICT,
    DONE,
    OTHER_OWNER,
    OTHER_SCHEMA,
    append_arguments,
    number,
    page_of,
    rewrite_arguments,
    tail_commands,
    tail_page,
    thread_of,
    update_arguments,
)
from everthread.errors import (
    ConflictError,
    CorruptRecordError,
    EverthreadError,
    InvalidIdentifierError,
    SchemaError,
    ThreadNotFoundError,
)
from everthread.model import (
    Appended,
    Document,
    HealthCheck,
    Inconsistency,
    MessagePage,
    Rewrite,
    Thread,
    ThreadKey,
    Truncated,
    check_identifier,
)

try:
    from everthread.engines.redis.client.router import Router
    from everthread.engines.redis.client.urls import client_connector, connector
    from everthread.engines.redis.recency import Recency
except ImportError as error:
    raise missing_extra("redis", error) from error

DEFAULT_PREFIX: Final = "chat_messages"
_BATCH: Final = 200


class RedisStore(ListingTenants, SupportsReconciling):
    """Store threads on Redis (6.2 or newer) or Valkey, without modules.

    The messages of a thread are a list at ``{prefix}:{thread_id}`` (of another tenant:
    ``{prefix}@{tenant}:{thread_id}``), one plain JSON message per element. A list that another program wrote there is
    read unchanged; the first write adds the companion keys.

    Use `from_url` or `from_client`.

    Args:
        connect: Makes the router when the store is opened.
        server: The name of the server in errors.
        address: The server's URL without secrets.
        prefix: The beginning of all keys.
        spread: The keys are on several servers (a cluster), and recency indexes apart from threads.
        clock: Returns seconds since 1970, instead of the server's clock; for tests.
    """

    def __init__(
        self,
        connect: Callable[[], Router],
        *,
        server: str,
        address: str,
        prefix: str = DEFAULT_PREFIX,
        spread: bool = False,
        clock: Callable[[], float] | None = None,
        **options: Any,
    ) -> None:
        super().__init__(clock=clock or time.time, **options)
        self._connect = connect
        self._server = server
        self._address = address
        self._names = Names(prefix, spread=spread)
        self._own_clock = clock
        self._router: Router | None = None
        # On a single server, scripts update the index, so there is nothing to note.
        self._recency = Recency(lambda script, index, notes: self._connected().run(script, index, notes))

    @classmethod
    def from_url(cls, url: str, **options: Any) -> Self:
        """Return the store at a URL: one server, a cluster, or a primary that sentinels name.

        ``redis://``, ``unix://``, ``redis+cluster://host1,host2``, ``redis+sentinel://host1,host2,host3/name``, and
        with TLS ``rediss://``, ``rediss+cluster://``, ``rediss+sentinel://``. redis-py parses it and its own options.

        Args:
            url: The URL.
            options: Those of all engines, and these, in the query or as keywords: ``prefix``; ``timeout`` (seconds,
                default 5: to connect, and to wait for a reply); ``retries`` (how often a call is sent again: 3, with
                cluster and sentinels 60); ``failover_timeout`` (seconds, default 30: how long calls wait for a new
                primary, with cluster and sentinels); ``wait_replicas`` and ``wait_timeout`` (milliseconds, default
                1000: a write succeeds when this number of replicas has it, else it raises `OutcomeUnknownError`);
                ``auth=entra`` (Microsoft Entra ID); ``sentinel_username``, ``sentinel_password``; ``spread=true`` (one
                address stands for a whole cluster). As a keyword only: ``credential_provider`` (redis-py's).

        Raises:
            ConfigurationError: The URL or an option is wrong.
        """
        connect, settings = connector(url, options)
        return cls(connect, **settings)

    @classmethod
    def from_client(cls, client: Any, **options: Any) -> Self:
        """Return a store on the server of a caller's ``redis.asyncio.Redis``.

        The store connects with the client's settings (address, TLS, credentials, timeouts), over its own
        connection. It neither uses nor closes those of the client.

        Args:
            client: The client; also one from ``Sentinel.master_for``. For a cluster, use `from_url`.
            options: ``prefix``, ``wait_replicas``, ``wait_timeout``, ``retention``, ``max_message_bytes``.
        """
        connect, settings = client_connector(client, options)
        return cls(connect, **settings)

    @property
    def location(self) -> str:
        """The URL of server and prefix without user and password."""
        if self._names.prefix == DEFAULT_PREFIX:
            return self._address
        return f"{self._address}{'&' if '?' in self._address else '?'}prefix={self._names.prefix}"

    async def _open(self) -> None:
        router = self._connect()
        try:
            await router.open()
        except ServerError as error:
            raise refused(self._server, error) from None
        self._router = router

    async def _close(self) -> None:
        await self._recency.close()
        if self._router is not None:
            await self._router.close()

    def _release(self) -> None:
        if self._router is not None:
            self._router.release()

    def _translate(self, error: Exception) -> EverthreadError | None:
        return refused(self._server, error) if isinstance(error, ServerError) else None

    async def reconcile(self, tenant: str = "", *, repair: bool = False) -> tuple[Inconsistency, ...]:
        check_identifier(tenant, "tenant", may_be_empty=True)
        if repair:
            self._check_writable()
        await self.open()
        comparison = Reconciliation(self._names, tenant, self._connected(), self._get_thread)
        return await self._translated(comparison.run(repair=repair))

    async def diagnose(self) -> tuple[HealthCheck, ...]:
        await self.open()
        return await self._translated(self._diagnose())

    async def _diagnose(self) -> tuple[HealthCheck, ...]:
        router, infos = self._connected(), dict[str, str]()
        for server, slot in (await router.primaries()).items():
            try:
                # The key does not exist; it selects the server.
                text = await router.run(scripts.INFO, b"{%b}" % tag_in(slot), [])
            except ServerError as error:
                # A tenant's user may not use this key.
                if error.code != "NOPERM":
                    raise
                text = b""
            infos[server] = text.decode(errors="replace")
        return tuple(checks(infos, self._address, router.encryption(), datetime.now(UTC)))

    # Messages

    async def _append(self, request: AppendRequest) -> Appended:
        key = request.key
        reply = await self._write(scripts.APPEND, key, append_arguments(request), request.expected_seq)
        self._note_activity(key, reply[4:])
        return Appended(reply[1], reply[2], reply[3] == 1)

    async def _read(self, key: ThreadKey, start: int, stop: int | None, limit: int | None) -> MessagePage:
        if start == 0 and stop is None and limit is None:
            page = await self._read_tail(key, b"0")
            if page is not None:
                return page
        reply = await self._run(scripts.READ, key, [b"from", b"%d" % start, number(stop), number(limit)])
        return page_of(key, reply)

    async def _read_last(self, key: ThreadKey, count: int, before: int | None) -> MessagePage:
        if before is None and count > 0:
            page = await self._read_tail(key, b"%d" % -count)
            if page is not None:
                return page
        return page_of(key, await self._run(scripts.READ, key, [b"last", b"%d" % count, number(before)]))

    async def _read_tail(self, key: ThreadKey, start: bytes) -> MessagePage | None:
        """Return all messages from an index on, or ``None`` if a script has to read them.

        Measured with 200 messages: 25 µs of the server's time; a script takes 350.
        """
        names = self._names.of(key)
        try:
            reply = await self._connected().transact(names, tail_commands(names, start))
        except ServerError as error:
            raise refused(self._server, error, names.names[0]) from None
        if failed := next((part for part in reply if isinstance(part, Exception)), None):
            raise refused(self._server, ServerError(str(failed)), names.names[0])
        now_ms = None if self._own_clock is None else int(self._own_clock() * 1000)
        return tail_page(key, names, reply, now_ms)

    async def _truncate(
        self, key: ThreadKey, start: int, stop: int | None, expected_seq: int | None = None
    ) -> Truncated:
        arguments = [b"%d" % start, number(stop), number(expected_seq)]
        reply = await self._write(scripts.TRUNCATE, key, arguments, expected_seq)
        self._note_activity(key, reply[4:])
        return Truncated(reply[1], reply[2], reply[3])

    async def _rewrite(self, key: ThreadKey, changes: Sequence[Rewrite]) -> int:
        reply = await self._run(scripts.REWRITE, key, rewrite_arguments(key, changes))
        return 0 if reply[0] == ABSENT else reply[1]

    # Threads

    async def _get_thread(self, key: ThreadKey) -> Thread | None:
        reply = await self._run(scripts.GET, key, [])
        return None if reply[0] == ABSENT else thread_of(key, reply)

    async def _list_tenants(self, after: str, limit: int) -> list[str]:
        await self._recency.settled()
        return sorted(tenant for tenant in await tenants_of(self._names, self._connected()) if tenant > after)

    async def _list_threads(self, tenant: str, limit: int, after: tuple[int, str] | None) -> Listed:
        await self._recency.settled()
        found: list[Thread] = []
        room = PAGE_BYTES
        position = (b"", b"") if after is None else (b"%d" % after[0], after[1].encode())
        while len(found) < limit:
            wanted = limit - len(found)
            rows = await self._recent(tenant, wanted, *position)
            known, room = await looked_at([key for key, _ in rows], self._get_thread, room)
            is_last, rows = len(rows) < wanted, rows[: len(known)]
            for thread, (key, updated_ms) in zip(known, rows, strict=True):
                if thread is not None:
                    found.append(msgspec.structs.replace(thread, updated_ms=updated_ms))
                else:
                    self._note_gone(key, updated_ms)
            if room <= 0:
                return found, True
            if is_last:
                return found, False
            last, updated_ms = rows[-1]
            position = (b"%d" % updated_ms, last.thread_id.encode())
        return found, True

    def _note_gone(self, key: ThreadKey, updated_ms: int) -> None:
        """Note for the index that it lists a thread which has expired. On a single server, a script removed it."""
        # A thread may begin again in the millisecond of its last activity.
        if self._names.spread and not self.read_only and updated_ms < int(self._clock() * 1000):
            self._recency.was_gone(self._names.of(key), updated_ms + 1)

    async def _recent(self, tenant: str, limit: int, score: bytes, member: bytes) -> list[tuple[ThreadKey, int]]:
        index = self._names.index(tenant)
        flat = await self._connected().run(scripts.RECENT, index, [b"%d" % limit, score, member])
        pairs = zip(flat[::2], flat[1::2], strict=True)
        return [(ThreadKey(member.decode(), tenant), int(float(score))) for member, score in pairs]

    async def _update_thread(self, key: ThreadKey, change: ThreadChange) -> Thread:
        expected = change.expected_revision
        reply = await self._write(scripts.UPDATE, key, update_arguments(change), expected, ConflictError.at_revision)
        return thread_of(key, reply)

    async def _restore_position(self, key: ThreadKey, next_seq: int, expected_seq: int, expire_ms: int | None) -> None:
        arguments = [b"%d" % next_seq, b"%d" % expected_seq, number(expire_ms)]
        reply = await self._write(scripts.RESTORE_POSITION, key, arguments, expected_seq)
        self._note_activity(key, reply[1:])

    async def _restore_times(self, key: ThreadKey, created_ms: int, updated_ms: int) -> Thread:
        reply = await self._write(scripts.RESTORE_TIMES, key, [b"%d" % created_ms, b"%d" % updated_ms])
        if self._names.spread:
            self._recency.was_restored(self._names.of(key), updated_ms, reply.pop())
        return thread_of(key, reply)

    async def _delete_thread(self, key: ThreadKey, expected_seq: int | None = None) -> bool:
        reply = await self._write(scripts.DELETE, key, [number(expected_seq)], expected_seq)
        if self._names.spread:
            self._recency.was_gone(self._names.of(key), reply[2])
        return reply[1] == 1

    async def _delete_tenant(self, tenant: str) -> int:
        total = 0
        while deleted := await self._delete_listed(tenant):
            total += deleted
        return total

    async def _delete_listed(self, tenant: str) -> int:
        """Delete the threads in the index, in one pass; the index may keep entries of threads that were gone."""
        await self._recency.settled()
        deleted, position = 0, (b"", b"")
        while rows := await self._recent(tenant, _BATCH, *position):
            deleted += sum(await asyncio.gather(*(self._delete_thread(key) for key, _ in rows)))
            last, updated_ms = rows[-1]
            position = (b"%d" % updated_ms, last.thread_id.encode())
        return deleted

    # Documents

    async def _get_document(self, key: ThreadKey, name: str) -> Document | None:
        reply = await self._run(scripts.GET_DOCUMENT, key, [name.encode()])
        if reply[0] == ABSENT or reply[1] is None:
            return None
        try:
            revision, updated_ms, value = reply[1].split(b" ", 2)
            return Document(name, value, int(revision), int(updated_ms))
        except ValueError:
            raise CorruptRecordError(f"The document {name!r} of {key} is damaged on the server.") from None

    async def _put_document(self, key: ThreadKey, name: str, value: bytes, expected_revision: int | None) -> Document:
        reply = await self._run(scripts.PUT_DOCUMENT, key, [name.encode(), value, number(expected_revision)])
        if reply[0] == CONFLICT:
            raise ConflictError.at_revision(f"Document {name!r} of {key}", reply[1], expected_revision)
        self._note_activity(key, reply[3:])
        return Document(name, value, reply[1], reply[2])

    async def _delete_document(self, key: ThreadKey, name: str) -> bool:
        reply = await self._run(scripts.DELETE_DOCUMENT, key, [name.encode()])
        return reply[0] == DONE and reply[1] == 1

    async def _list_documents(self, key: ThreadKey, names: NameRange) -> tuple[str, ...]:
        what = [names.prefix.encode(), names.start.encode(), number(names.limit)]
        reply = await self._run(scripts.LIST_DOCUMENTS, key, what)
        return () if reply[0] == ABSENT else names.pick(name.decode() for name in reply[1])

    # Running scripts

    def _note_activity(self, key: ThreadKey, times: Sequence[int]) -> None:
        """Note an activity for the index if the script could not; then its reply ends with the time."""
        if times:
            self._recency.was_active(self._names.of(key), times[0])

    def _connected(self) -> Router:
        assert self._router is not None
        return self._router

    async def _write(
        self,
        script: scripts.Script,
        key: ThreadKey,
        arguments: list[bytes],
        expected: int | None = None,
        conflict: Callable[[object, int, int | None], ConflictError] = ConflictError.at_position,
    ) -> Any:
        reply = await self._run(script, key, arguments)
        if reply[0] == ABSENT:
            raise ThreadNotFoundError(f"There is no {key}.")
        if reply[0] == CONFLICT:
            raise conflict(key, reply[1], expected)
        return reply

    async def _run(self, script: scripts.Script, key: ThreadKey, arguments: list[bytes]) -> Any:
        names = self._names.of(key)
        now = b"" if self._own_clock is None else b"%d" % int(self._own_clock() * 1000)
        now = b"r" + now if self.read_only else now
        try:
            reply = await self._connected().run(script, names, [names.owner, now, names.member, *arguments])
        except ServerError as error:
            raise refused(self._server, error, names.names[0]) from None
        if reply[0] == OTHER_OWNER:
            raise InvalidIdentifierError(
                f"{key} has the same key ({names.names[0].decode()!r}) as a thread of another prefix or tenant: "
                "choose a prefix that no other one continues with a colon."
            )
        if reply[0] == OTHER_SCHEMA:
            raise SchemaError(f"{key} was written by a newer everthread (schema {reply[1]}): upgrade.")
        return reply
