"""The doctor on real servers: what it tells of them, and with which exit status."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest
from redis.asyncio import Redis

from everthread import Store, ThreadKey, new_message, open_store
from everthread.doctor import SCRATCH_TENANT, examine
from everthread.model import Fact
from tests.cli.driving import PROGRAM, piped
from tests.postgres_server import PostgresServer, fresh_url
from tests.servers import Server, free_port

DOCTOR = (PROGRAM, "doctor")


@pytest.fixture(params=["memory", "sqlite", "redis", "postgres", "file"])
def url(
    request: pytest.FixtureRequest,
    tmp_path: Path,
    plain_redis_server: Server,
    postgres: PostgresServer,
    fresh_prefix: str,
) -> str:
    urls = {
        "memory": "memory:",
        "sqlite": f"sqlite:///{tmp_path}/threads.db",
        "redis": f"redis://127.0.0.1:{plain_redis_server.port}?prefix={fresh_prefix}",
        "postgres": fresh_url(postgres),
        "file": f"file://{tmp_path}/objects",
    }
    return urls[request.param]


async def examined(store: Store, **options: bool) -> dict[str, Fact]:
    return {fact.name: fact async for fact in examine(store, **options)}


async def test_a_healthy_store_reads_and_writes_and_keeps_nothing_of_the_examination(url: str) -> None:
    async with open_store(url) as store:
        facts = await examined(store)
        assert {facts[name].status for name in ("connection", "reading", "clock")} == {"ok"}
        assert facts["writing"].status in {"ok", "warning"}
        assert [fact for fact in facts.values() if fact.status == "error"] == []
        assert len(await store.list_threads(SCRATCH_TENANT)) == 0


async def test_read_only_writes_nothing(url: str) -> None:
    async with open_store(url) as store:
        assert {"writing", "clock"}.isdisjoint(await examined(store, write=False))


async def test_servers_are_named_with_what_endangers_their_data(
    plain_redis_server: Server, postgres: PostgresServer, fresh_prefix: str
) -> None:
    port = plain_redis_server.port
    async with Redis(port=port) as client, open_store(f"redis://127.0.0.1:{port}?prefix={fresh_prefix}") as store:
        facts = await examined(store)
        assert facts["server"].value.startswith("Redis 8")
        assert facts["encryption"].value == "none, within this machine"
        await client.config_set("maxmemory-policy", "allkeys-lru")
        try:
            assert (await examined(store))["eviction"].status == "warning"
        finally:
            await client.config_set("maxmemory-policy", "noeviction")
    async with open_store(fresh_url(postgres)) as store:
        facts = await examined(store)
        assert facts["server"].value.startswith("PostgreSQL 18")
        assert facts["role"].status == "warning", "a superuser"


async def test_a_user_that_may_not_write_is_told_so(plain_redis_server: Server, fresh_prefix: str) -> None:
    port, user = plain_redis_server.port, f"reader-{fresh_prefix}"
    async with Redis(port=port) as client:
        await client.execute_command("ACL", "SETUSER", user, "on", ">s3cret", "~*", "+@read", "+@connection", "+eval",
                                     "+evalsha", "+time")  # fmt: skip
        try:
            async with open_store(f"redis://{user}:s3cret@127.0.0.1:{port}?prefix={fresh_prefix}") as store:
                facts = await examined(store)
        finally:
            await client.execute_command("ACL", "DELUSER", user)
    assert facts["writing"].status == "error"
    assert facts["server"].status == "warning"
    assert "s3cret" not in str(facts)


async def test_a_clock_that_is_wrong_is_noticed(tmp_path: Path) -> None:
    async with open_store(f"sqlite:///{tmp_path}/x.db", clock=lambda: 1_700_000_000.0) as store:
        assert (await examined(store))["clock"].status == "warning"


async def test_a_file_that_others_can_read_is_pointed_out(tmp_path: Path) -> None:
    path = tmp_path / "x.db"
    async with open_store(f"sqlite:///{path}") as store:
        path.chmod(0o644)
        assert (await examined(store))["file"].status == "warning"
        path.chmod(0o600)
        assert (await examined(store))["file"].status == "ok"


def test_the_exit_status_tells_scripts_how_it_went(tmp_path: Path) -> None:
    path = tmp_path / "x.db"
    fine = piped("", "--store", f"sqlite:///{path}", "--json", home=tmp_path, program=DOCTOR)
    assert fine.returncode == 0, fine.stderr
    facts = [json.loads(line) for line in fine.stdout.splitlines()]
    assert {"status", "name", "value", "advice"} == set(facts[0])
    path.chmod(0o644)
    assert piped("", "--store", f"sqlite:///{path}", "--strict", home=tmp_path, program=DOCTOR).returncode == 1
    path.write_bytes(b"not a database, but long enough to be looked at" * 100)
    spoilt = piped("", "--store", f"sqlite:///{path}", home=tmp_path, program=DOCTOR)
    assert spoilt.returncode == 1
    assert "not an SQLite database" in spoilt.stdout


def test_a_server_that_does_not_answer_is_said_without_the_password(tmp_path: Path) -> None:
    url = f"redis://app:hunter2@127.0.0.1:{free_port()}/0"
    run = piped("", "--store", url, home=tmp_path, program=DOCTOR)
    assert run.returncode == 4
    assert "cannot be reached" in run.stdout
    assert "hunter2" not in run.stdout + run.stderr


def test_the_examination_leaves_threads_as_they_are(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/x.db"

    async def threads() -> list[str]:
        async with open_store(url) as store:
            await store.append(ThreadKey("a"), [new_message({"role": "user", "content": "Hello"})], append_id="1")
            return [repr(thread) for thread in await store.list_threads()]

    before = asyncio.run(threads())
    assert piped("", "--store", url, home=tmp_path, program=DOCTOR).returncode == 0
    assert asyncio.run(threads()) == before


async def test_doctors_at_one_time_do_not_meet_and_leave_few_names(url: str) -> None:
    async with open_store(url) as store, open_store(url) as other:
        both = await asyncio.gather(*(examined(each) for each in (store, other, store, other)))
        assert [facts["writing"].status for facts in both if facts["writing"].status == "error"] == []
        assert len(await store.list_threads(SCRATCH_TENANT)) == 0


def test_the_store_may_be_named_without_an_option(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/threads.db"
    done = piped("", url, "--json", home=tmp_path, program=DOCTOR)
    assert done.returncode == 0
    assert str(tmp_path) in done.stdout
