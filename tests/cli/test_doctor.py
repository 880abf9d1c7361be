"""The doctor on real servers: its checks and its exit status."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest
from redis.asyncio import Redis

from everthread import Store, ThreadKey, new_message, open_store
from everthread.model import HealthCheck
from everthread.operations.doctor import SCRATCH_TENANT, examine
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


async def examined(store: Store, **options: bool) -> dict[str, HealthCheck]:
    return {fact.name: fact async for fact in examine(store, **options)}


async def test_a_healthy_store_passes_every_check(url: str) -> None:
    async with open_store(url) as store:
        facts = await examined(store)
        assert {facts[name].status for name in ("connection", "reading", "clock")} == {"ok"}
        assert facts["writing"].status in {"ok", "warning"}
        assert [fact for fact in facts.values() if fact.status == "error"] == []
        assert len(await store.list_threads(SCRATCH_TENANT)) == 0


async def test_read_only_writes_nothing(url: str) -> None:
    async with open_store(url) as store:
        assert {"writing", "clock"}.isdisjoint(await examined(store, write=False))


async def test_risky_server_settings_are_warnings(
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


async def test_missing_write_permission_is_an_error(plain_redis_server: Server, fresh_prefix: str) -> None:
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


async def test_a_wrong_clock_is_a_warning(tmp_path: Path) -> None:
    async with open_store(f"sqlite:///{tmp_path}/x.db", clock=lambda: 1_700_000_000.0) as store:
        assert (await examined(store))["clock"].status == "warning"


async def test_a_file_that_others_can_read_is_a_warning(tmp_path: Path) -> None:
    path = tmp_path / "x.db"
    async with open_store(f"sqlite:///{path}") as store:
        path.chmod(0o644)
        assert (await examined(store))["file"].status == "warning"
        path.chmod(0o600)
        assert (await examined(store))["file"].status == "ok"


def _begin(path: Path) -> None:
    """An empty store, which the doctor does not make."""

    async def opened() -> None:
        async with open_store(path):
            pass

    asyncio.run(opened())


def test_the_exit_status_follows_the_checks(tmp_path: Path) -> None:
    path = tmp_path / "x.db"
    _begin(path)
    fine = piped("", "--store", f"sqlite:///{path}", "--json", home=tmp_path, program=DOCTOR)
    assert fine.returncode == 0, fine.stderr
    facts = [json.loads(line) for line in fine.stdout.splitlines()]
    assert {"status", "name", "value", "advice", "schema"} == set(facts[0])
    path.chmod(0o644)
    assert piped("", "--store", f"sqlite:///{path}", "--strict", home=tmp_path, program=DOCTOR).returncode == 1
    path.write_bytes(b"not a database, but long enough to be looked at" * 100)
    spoilt = piped("", "--store", f"sqlite:///{path}", home=tmp_path, program=DOCTOR)
    assert spoilt.returncode == 1
    assert "not an SQLite database" in spoilt.stdout


def test_an_unreachable_server_is_reported_without_the_password(tmp_path: Path) -> None:
    url = f"redis://app:hunter2@127.0.0.1:{free_port()}/0"
    run = piped("", "--store", url, home=tmp_path, program=DOCTOR)
    assert run.returncode == 4
    assert "cannot be reached" in run.stdout
    assert "hunter2" not in run.stdout + run.stderr


def test_the_doctor_leaves_threads_unchanged(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/x.db"

    async def threads() -> list[str]:
        async with open_store(url) as store:
            await store.append(ThreadKey("a"), [new_message({"role": "user", "content": "Hello"})], append_id="1")
            return [repr(thread) for thread in await store.list_threads()]

    before = asyncio.run(threads())
    assert piped("", "--store", url, home=tmp_path, program=DOCTOR).returncode == 0
    assert asyncio.run(threads()) == before


async def test_concurrent_doctors_do_not_interfere(url: str) -> None:
    async with open_store(url) as store, open_store(url) as other:
        both = await asyncio.gather(*(examined(each) for each in (store, other, store, other)))
        assert [facts["writing"].status for facts in both if facts["writing"].status == "error"] == []
        assert len(await store.list_threads(SCRATCH_TENANT)) == 0


def test_a_url_alone_names_the_store(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/threads.db"
    _begin(tmp_path / "threads.db")
    done = piped("", url, "--json", home=tmp_path, program=DOCTOR)
    assert done.returncode == 0
    assert str(tmp_path) in done.stdout


def test_undoing_a_repair_can_be_planned(tmp_path: Path) -> None:
    url, backup = f"sqlite:///{tmp_path}/x.db", str(tmp_path / "backup")

    async def texts() -> list[str]:
        async with open_store(url) as store:
            return [message.payload.decode() for message in await store.read(ThreadKey("a"))]

    async def fill() -> None:
        async with open_store(url) as store:
            orphan = {"role": "tool", "tool_call_id": "lost", "content": "4"}
            await store.append(ThreadKey("a"), [new_message({"role": "user", "content": "Hello"})])
            await store.append(ThreadKey("a"), [new_message(orphan)])

    asyncio.run(fill())
    before = asyncio.run(texts())
    repair = piped("", "--store", url, "--repair", "--yes", "--backup", backup, home=tmp_path, program=DOCTOR)
    assert repair.returncode == 0, repair.stderr
    repaired = asyncio.run(texts())
    plan = piped("", "--store", url, "--undo", backup, "--dry-run", home=tmp_path, program=DOCTOR)
    assert (plan.returncode, plan.stdout) == (0, "found a 1 messages would be restored\n"), plan.stderr
    assert asyncio.run(texts()) == repaired != before
    assert piped("", "--store", url, "--undo", backup, "--yes", home=tmp_path, program=DOCTOR).returncode == 0
    assert asyncio.run(texts()) == before


@pytest.mark.parametrize(
    "options",
    ["--read-only --repair --yes", "--read-only --undo FILE --yes", "--repair --undo FILE --yes", "--backup FILE"],
)
def test_options_that_contradict_each_other_are_wrong_usage(options: str, tmp_path: Path) -> None:
    (tmp_path / "x").touch()
    words = options.replace("FILE", str(tmp_path / "x")).split()
    assert piped("", "--store", "memory:", *words, home=tmp_path, program=DOCTOR).returncode == 2
