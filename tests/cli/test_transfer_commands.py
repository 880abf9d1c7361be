"""``everthread export``, ``import`` and ``copy``, in a pipe and on a terminal."""

from __future__ import annotations

import json
import os
import pty
import subprocess
from pathlib import Path

import pytest
import redis as redis_py

from everthread import NewMessage, ThreadKey, open_store
from everthread.adapters.agent_framework import EverthreadHistoryProvider
from tests.cli.driving import PROGRAM, environment
from tests.servers import Server
from tests.transfer.conversations import everything, fill, turn


def run(*arguments: str, home: Path, **settings: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [PROGRAM, *arguments],
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        timeout=60,
        env=environment(home, **settings),
        check=False,
    )


@pytest.fixture
async def url(tmp_path: Path) -> str:
    """A filled SQLite store."""
    place = f"sqlite:///{tmp_path}/source.db"
    async with open_store(place) as store:
        await fill(store)
    return place


async def seen(url: str, tenant: str = "") -> object:
    async with open_store(url) as store:
        return await everything(store, tenant)


async def test_export_and_import_carry_everything(url: str, tmp_path: Path) -> None:
    target = f"sqlite:///{tmp_path}/target.db"
    exported = run("export", str(tmp_path / "x.jsonl"), "--store", url, home=tmp_path)
    assert (exported.returncode, exported.stderr) == (0, "")
    assert "10 threads (10 new)" in exported.stdout
    imported = run("import", str(tmp_path / "x.jsonl"), "--store", target, "--json", home=tmp_path)
    assert imported.returncode == 0, imported.stderr
    assert json.loads(imported.stdout)["threads"] == {"new": 10}
    again = json.loads(run("import", str(tmp_path / "x.jsonl"), "-s", target, "--json", home=tmp_path).stdout)
    assert (again["written"], again["threads"], again["problems"]) == (0, {"unchanged": 10}, [])
    assert await seen(target) == await seen(url)


async def test_copy_takes_named_stores_of_any_engine(url: str, tmp_path: Path, plain_redis_server: Server) -> None:
    target = f"redis://127.0.0.1:{plain_redis_server.port}/3?prefix=copied"
    settings = {"EVERTHREAD_CONFIG": str(tmp_path / "config.toml")}
    (tmp_path / "config.toml").write_text(f'[stores.new]\nurl = "{target}"\n[stores.old]\nurl = "{url}"\n')
    planned = run("copy", "@old", "@new", "--dry-run", home=tmp_path, **settings)
    assert planned.returncode == 0, planned.stderr
    assert "plain\tnew\t24\t\n" in planned.stdout
    assert "would be copied" in planned.stdout
    assert await seen(target) == {}
    copied = run("copy", "@old", "@new", home=tmp_path, **settings)
    assert copied.returncode == 0, copied.stderr
    assert await seen(target) == await seen(url)


async def test_a_conflict_is_reported_and_ends_with_1(url: str, tmp_path: Path) -> None:
    target = f"sqlite:///{tmp_path}/target.db"
    async with open_store(target) as store:
        await store.append(ThreadKey("plain"), [NewMessage(b'"mine"')])
    copied = run("copy", url, target, "--threads", "plain", "--threads", "trim*", home=tmp_path)
    assert copied.returncode == 1
    assert "conflict: 'plain'" in copied.stderr
    assert "1 conflict, 1 new" in copied.stdout


async def test_each_failure_has_its_exit_status(url: str, tmp_path: Path) -> None:
    assert run("copy", url, "redis://:pa55word@127.0.0.1:1/0", home=tmp_path).returncode == 4
    assert run("copy", url, f"sqlite:///{tmp_path}/t.db", "--threads", "nobody", home=tmp_path).returncode == 3
    assert run("import", str(tmp_path / "nowhere"), "--store", url, home=tmp_path).returncode == 1
    assert run("import", "x", "--from", "word", "--store", url, home=tmp_path).returncode == 2
    assert run("import", "x", "--prefix", "p", "--store", url, home=tmp_path).returncode == 2
    refused = run("import", "redis://:pa55word@127.0.0.1:1/0", "--from", "redis-lists", "-s", url, home=tmp_path)
    assert refused.returncode == 4
    assert "pa55word" not in refused.stderr
    (tmp_path / "bad").write_text('{"type":"export","version":1}\n{"type":"thread"}\n')
    bad = run("import", str(tmp_path / "bad"), "--store", url, home=tmp_path)
    assert (bad.returncode, "Traceback" in bad.stderr) == (1, False)


async def test_an_existing_file_is_replaced_only_with_yes(url: str, tmp_path: Path) -> None:
    path = tmp_path / "x.html"
    path.write_text("mine")
    refused = run("export", str(path), "--format", "html", "--store", url, home=tmp_path)
    assert (refused.returncode, f"{path} exists." in refused.stderr) == (2, True)
    assert path.read_text() == "mine"
    assert run("export", str(path), "--format", "html", "--yes", "--store", url, home=tmp_path).returncode == 0
    assert path.read_text().startswith("<!doctype html>")


async def test_a_folder_is_no_file_to_replace(url: str, tmp_path: Path) -> None:
    refused = run("export", str(tmp_path), "--store", url, home=tmp_path)
    assert (refused.returncode, "give --folder" in refused.stderr) == (2, True)


async def test_standard_output_contains_only_the_threads(url: str, tmp_path: Path) -> None:
    exported = run("export", "-", "--threads", "plain", "--store", url, home=tmp_path)
    assert [json.loads(line)["type"] for line in exported.stdout.splitlines()][:2] == ["export", "thread"]
    assert "exported: 24 messages" in exported.stderr
    assert run("export", "-", "--json", "--store", url, home=tmp_path).returncode == 2


async def test_a_tenant_is_copied_and_renamed(tmp_path: Path) -> None:
    url, target = f"sqlite:///{tmp_path}/a.db", f"sqlite:///{tmp_path}/b.db"
    async with open_store(url) as store:
        await fill(store, "acme")
    for arguments in (["--tenant", "acme"], ["--tenant", "acme", "--to-tenant", "new"]):
        assert run("copy", url, target, *arguments, home=tmp_path).returncode == 0
    assert run("export", str(tmp_path / "x"), "--store", url, "--tenant", "acme", home=tmp_path).returncode == 0
    assert run("import", str(tmp_path / "x"), "--store", target, "--tenant", "third", home=tmp_path).returncode == 0
    expected = await seen(url, "acme")
    assert [await seen(target, tenant) for tenant in ("acme", "new", "third", "")] == [expected] * 3 + [{}]


async def test_an_exported_tenant_can_be_imported_into_the_default_one(tmp_path: Path) -> None:
    url, target = f"sqlite:///{tmp_path}/a.db", f"sqlite:///{tmp_path}/b.db"
    async with open_store(url) as store:
        await store.append(ThreadKey("t", "acme"), turn(0))
    assert run("export", str(tmp_path / "x"), "--store", url, "--tenant", "acme", home=tmp_path).returncode == 0
    assert run("import", str(tmp_path / "x"), "--store", target, "--tenant", "", home=tmp_path).returncode == 0
    assert await seen(target) == await seen(url, "acme")
    assert await seen(target, "acme") == {}


async def test_skip_unreadable_reports_records_and_ends_with_1(tmp_path: Path, plain_redis_server: Server) -> None:
    target = f"sqlite:///{tmp_path}/t.db"
    with redis_py.Redis(port=plain_redis_server.port, db=4) as client:
        client.rpush("damaged:t", turn(0)[0].payload, '{"secret":NaN}', turn(0)[3].payload)
    source = f"redis://127.0.0.1:{plain_redis_server.port}/4"
    arguments = ("import", source, "--from", "redis-lists", "--prefix", "damaged", "-s", target)
    refused = run(*arguments, home=tmp_path)
    assert (refused.returncode, await seen(target)) == (1, {})
    for _ in range(2):
        done = run(*arguments, "--skip-unreadable", home=tmp_path)
        assert done.returncode == 1
        assert "skipped: thread 't', position 1: payload is not JSON" in done.stderr
        assert "1 unreadable left out" in done.stdout
        assert "secret" not in done.stderr
    as_json = json.loads(run(*arguments, "--skip-unreadable", "--json", home=tmp_path).stdout)
    assert [record["place"] for record in as_json["skipped"]] == ["thread 't', position 1"]
    async with open_store(target) as store:
        page = await store.read(ThreadKey("t"))
    assert [(message.seq, message.payload) for message in page] == [(0, turn(0)[0].payload), (2, turn(0)[3].payload)]


async def test_a_dry_run_of_export_predicts_export(url: str, tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    planned = run("export", str(path), "--store", url, "--dry-run", "--json", home=tmp_path)
    assert (planned.returncode, path.exists()) == (0, False)
    *threads, would_be = map(json.loads, planned.stdout.splitlines())
    assert len(threads) == 10
    done = json.loads(run("export", str(path), "--store", url, "--json", home=tmp_path).stdout)
    assert {**would_be, "dry_run": False} == done
    assert (done["bytes"], done["files"], done["written"]) == (path.stat().st_size, 1, 133)
    again = run("export", str(path), "--store", url, "--dry-run", home=tmp_path)
    assert "would be exported: 133 messages, 10 threads" in again.stdout
    assert again.stdout.endswith("kB in 1 file\n")


async def test_lists_of_plain_json_are_imported(tmp_path: Path, plain_redis_server: Server) -> None:
    with redis_py.Redis(port=plain_redis_server.port, db=4) as client:
        client.rpush("lab11:t", *(message.payload for message in turn(0)))
    source = f"redis://127.0.0.1:{plain_redis_server.port}/4"
    target = f"sqlite:///{tmp_path}/t.db"
    imported = run("import", source, "--from", "redis-lists", "--prefix", "lab11", "-s", target, home=tmp_path)
    continues = f"continue with: EverthreadHistoryProvider({target!r})\n"
    assert (imported.returncode, imported.stderr) == (0, continues)
    async with open_store(target) as store:
        assert [m.payload for m in await store.read(ThreadKey("t"))] == [m.payload for m in turn(0)]


async def test_a_terminal_shows_a_bar_and_a_rate(url: str, tmp_path: Path) -> None:
    leader, follower = pty.openpty()
    process = subprocess.Popen(
        [PROGRAM, "copy", url, f"sqlite:///{tmp_path}/t.db"],
        stdin=follower,
        stdout=subprocess.PIPE,
        stderr=follower,
        env=environment(tmp_path),
    )
    os.close(follower)
    drawn = b""
    while True:
        try:
            piece = os.read(leader, 4096)
        except OSError:
            break
        if not piece:
            break
        drawn += piece
    os.close(leader)
    assert process.wait(timeout=60) == 0
    assert process.stdout is not None
    process.stdout.close()
    assert "━" in drawn.decode(errors="replace")
    assert b"copied" in drawn


async def test_an_import_prints_the_calls_that_continue_its_sessions(
    tmp_path: Path, plain_redis_server: Server
) -> None:
    message = json.dumps({"type": "message", "role": "user", "contents": [{"type": "text", "text": "hello"}]})
    with redis_py.Redis(port=plain_redis_server.port, db=7) as client:
        client.flushdb()
        for source in ("redis_memory", "notes.1"):
            client.rpush(f"chat_messages|v2|acme|app|~none|{source}|trip", message)
    target = f"sqlite:///{tmp_path}/target.db"
    arguments = (f"redis://127.0.0.1:{plain_redis_server.port}/7", "--from", "agent-framework-redis", "-s", target)
    imported = run("import", *arguments, home=tmp_path)
    assert imported.returncode == 0, imported.stderr
    calls = [line.removeprefix("continue with: ") for line in imported.stderr.splitlines()]
    assert len(calls) == 2
    for call in calls:
        async with eval(call, {"EverthreadHistoryProvider": EverthreadHistoryProvider}) as history:
            assert [each.text for each in await history.get_messages("trip")] == ["hello"]
    assert f"EverthreadHistoryProvider({target!r}, tenant='acme')" in calls
