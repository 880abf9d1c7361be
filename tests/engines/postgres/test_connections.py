"""What happens between the PostgreSQL engine and a server that is slow, restarts, or is reached through PgBouncer."""

from __future__ import annotations

import asyncio
import logging
import time

import asyncpg
import pytest

from everthread import (
    Appended,
    ConfigurationError,
    OutcomeUnknownError,
    StoreUnavailableError,
    ThreadKey,
    new_message,
    open_store,
    read_all,
)
from everthread.engines.postgres import PostgresStore
from everthread.engines.postgres.connection import Connector
from tests.postgres_server import (
    PostgresServer,
    fresh_url,
    postgres_server,
    schema_of,
)
from tests.servers import free_port

KEY = ThreadKey("t")
TURN = [new_message({"role": "user", "content": "Hello"}), new_message({"role": "assistant", "content": "Hi"})]
SECRET = "correct-horse"


async def until_blocked(admin: asyncpg.Connection, count: int = 1) -> None:
    """Returns when so many sessions wait for a lock."""
    deadline = time.monotonic() + 60
    while await admin.fetchval("SELECT count(DISTINCT pid) FROM pg_locks WHERE NOT granted") < count:
        assert time.monotonic() < deadline, "nobody waits for the lock"
        await asyncio.sleep(0.01)


async def test_a_borrowed_pool_is_used_and_never_closed(url: str, postgres: PostgresServer) -> None:
    async with asyncpg.create_pool(postgres.url(), min_size=1, max_size=2) as pool:
        async with PostgresStore.from_pool(pool, schema=schema_of(url)) as store:
            await asyncio.gather(*(store.append(KEY, TURN) for _ in range(20)))
            await asyncio.gather(*(store.read_last(KEY, 3) for _ in range(20)))
            assert SECRET not in repr(store)
        assert await pool.fetchval(f"SELECT count(*) FROM {schema_of(url)}.messages") == 40


async def test_a_store_closes_its_connections(url: str, admin: asyncpg.Connection) -> None:
    name = f"closing_{schema_of(url)}"
    async with open_store(f"{url}&application_name={name}") as store:
        await asyncio.gather(*(store.read(KEY) for _ in range(10)))
    deadline = time.monotonic() + 60
    while await admin.fetchval("SELECT count(*) FROM pg_stat_activity WHERE application_name = $1", name):
        assert time.monotonic() < deadline, "a connection stayed open"
        await asyncio.sleep(0.01)


async def test_more_callers_than_connections_all_get_their_answer(url: str) -> None:
    async with open_store(url, pool_size=2) as store:
        await store.append(KEY, TURN)
        pages = await asyncio.gather(*(store.read(KEY) for _ in range(100)))
        assert {len(page) for page in pages} == {2}


async def test_cancelled_calls_leave_no_broken_connection(url: str, admin: asyncpg.Connection) -> None:
    async with open_store(url, pool_size=3) as store:
        await store.append(KEY, TURN)
        async with admin.transaction():
            await admin.execute(f"LOCK TABLE {schema_of(url)}.threads IN ACCESS EXCLUSIVE MODE")
            tasks = [asyncio.create_task(call) for call in (store.read(KEY), store.update_thread(KEY, title="x"))]
            await until_blocked(admin, 2)
            for task in tasks:
                task.cancel()
            for task in tasks:
                with pytest.raises(asyncio.CancelledError):
                    await task
        assert [len(await store.read(KEY)) for _ in range(5)] == [2] * 5
        thread = await store.get_thread(KEY)
        assert thread is not None
        assert thread.title is None


async def test_a_locked_thread_does_not_fail_the_appends_sent_with_it(url: str, admin: asyncpg.Connection) -> None:
    async with open_store(url, timeout=3) as store:
        keys = [ThreadKey(str(number)) for number in range(5)]
        for key in keys:
            await store.append(key, TURN)
        async with admin.transaction():
            await admin.execute(f"SELECT FROM {schema_of(url)}.threads WHERE thread_id = '2' FOR UPDATE")
            answers = await asyncio.gather(*(store.append(key, TURN) for key in keys), return_exceptions=True)
        assert [isinstance(answer, Appended) for answer in answers] == [True, True, False, True, True]
        assert isinstance(answers[2], StoreUnavailableError)
        assert not isinstance(answers[2], OutcomeUnknownError)
        assert len(await store.read(keys[2])) == 2


async def test_a_statement_timeout_is_a_typed_error(url: str, admin: asyncpg.Connection) -> None:
    async with open_store(url, timeout=1) as store:
        await store.append(KEY, TURN)
        async with admin.transaction():
            await admin.execute(f"LOCK TABLE {schema_of(url)}.messages IN ACCESS EXCLUSIVE MODE")
            with pytest.raises(StoreUnavailableError, match="timeout"):
                await store.read(KEY)
        assert len(await store.read(KEY)) == 2


async def test_writers_of_many_threads_do_not_deadlock(url: str) -> None:
    keys = [ThreadKey(str(number)) for number in range(12)]
    stores = [open_store(url, timeout=60) for _ in range(4)]

    async def write(number: int) -> None:
        order = keys[number:] + keys[:number] if number % 2 else keys[::-1]
        for _ in range(10):
            await asyncio.gather(*(stores[number].append(key, TURN) for key in order))

    await asyncio.gather(*(write(number) for number in range(4)))
    for key in keys:
        assert (await stores[0].read_last(key, 0)).next_seq == 4 * 10 * 2
    await asyncio.gather(*(store.aclose() for store in stores))


@pytest.mark.slow
async def test_a_server_that_restarts_in_mid_load_loses_and_doubles_nothing() -> None:
    with postgres_server() as server:
        async with open_store(fresh_url(server)) as store, open_store(fresh_url(server)) as other:
            stop = asyncio.Event()

            async def write(writer: int) -> int:
                turns = 0
                while not stop.is_set():
                    await (store, other)[writer % 2].append(ThreadKey(str(writer)), TURN)
                    turns += 1
                return turns

            async def read() -> None:
                while not stop.is_set():
                    await store.read_last(ThreadKey("0"), 5)

            writers = [asyncio.create_task(write(number)) for number in range(6)]
            reader = asyncio.create_task(read())
            for end in (server.stop, server.kill):
                await _until_written(store)
                await asyncio.to_thread(end)
                await asyncio.to_thread(server.start)
                await _until_written(store)
            stop.set()
            turns = await asyncio.gather(*writers)
            await reader
            for writer, count in enumerate(turns):
                kept = [m.seq async for m in read_all((store, other)[writer % 2], ThreadKey(str(writer)))]
                assert kept == list(range(count * len(TURN)))


async def _until_written(store: object) -> None:
    assert isinstance(store, PostgresStore)
    before = (await store.read_last(ThreadKey("0"), 0)).next_seq
    deadline = time.monotonic() + 60
    while (await store.read_last(ThreadKey("0"), 0)).next_seq <= before + 20:
        assert time.monotonic() < deadline, "nothing is written"
        await asyncio.sleep(0.01)


async def test_a_server_that_is_not_there_gives_one_clear_error_without_secrets() -> None:
    store = open_store(f"postgresql://ana:{SECRET}@127.0.0.1:{free_port()}/db?sslmode=disable")
    with pytest.raises(StoreUnavailableError, match="host and port") as caught:
        await store.read(KEY)
    for shown in (str(caught.value), repr(caught.value), repr(store), store.location):
        assert SECRET not in shown
    assert "127.0.0.1" in str(caught.value)


@pytest.mark.parametrize(
    "option",
    [
        "pool_size=1", "pool_size=x", "timeout=0", "timeout=nan", "connect_timeout=-1", "pgbouncer=maybe", "auth=magic",
        "schema=A", "search=true&search_language=a'b", "schema=a&schema=b",
    ],
)  # fmt: skip
def test_a_wrong_option_is_refused(option: str) -> None:
    with pytest.raises(ConfigurationError):
        open_store(f"postgresql://ana:{SECRET}@localhost/db?{option}")


async def test_a_lost_connection_is_logged_in_one_line(caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(OSError) as ours:
        await Connector().connect(host="127.0.0.1", port=free_port(), user="u", password="p")
    with pytest.raises(OSError) as others:
        await asyncpg.connect(host="127.0.0.1", port=free_port(), user="u", password="p")
    for error in (ours.value, others.value):
        logging.getLogger("asyncpg.pool").warning("Failed to restore", exc_info=error)
    (line, theirs) = caplog.records
    assert (line.name, line.exc_info) == ("everthread.postgres", None)
    assert (theirs.name, theirs.exc_info is not None) == ("asyncpg.pool", True)


async def test_an_option_that_the_driver_does_not_take_is_a_typed_error(postgres: PostgresServer) -> None:
    for wrong in ("?sslmode=perhaps", "?no_such_setting=1"):
        with pytest.raises((ConfigurationError, StoreUnavailableError)) as caught:
            await open_store(postgres.url(password=SECRET, options=wrong)).open()
        assert SECRET not in str(caught.value)


async def test_a_database_that_does_not_exist_is_a_typed_error(postgres: PostgresServer) -> None:
    with pytest.raises(ConfigurationError, match="database"):
        await open_store(postgres.url(database="nowhere")).open()
