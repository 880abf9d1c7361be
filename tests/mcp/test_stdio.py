"""``everthread mcp`` in a process of its own, with the protocol's client, or with other input."""

from __future__ import annotations

import json
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from everthread import ThreadKey, open_store
from everthread.cli.exit_statuses import EXIT_INTERRUPTED, EXIT_UNAVAILABLE
from everthread.mcp.outline import Outline
from everthread.wrappers.encryption.encrypted import Encrypted, Keyring
from everthread.wrappers.encryption.master_keys import keys_from_file
from tests.cli.driving import PATIENCE, PROGRAM, environment, piped
from tests.cli.test_commands import run
from tests.cli.test_missing_store import contents
from tests.mcp.clients import failure, fill, over_stdio, value
from tests.operations.talks import KEY, talk
from tests.servers import free_port

HELLO = {
    "jsonrpc": "2.0",
    "id": 1,
    "method": "initialize",
    "params": {
        "protocolVersion": "2025-06-18",
        "capabilities": {},
        "clientInfo": {"name": "test", "version": "1"},
    },
}


async def test_a_client_reads_and_changes_nothing(url: str, tmp_path: Path) -> None:
    await fill(url, talk)
    before = contents(tmp_path)
    async with over_stdio(tmp_path, "--store", url) as client:
        assert "data" in (client.instructions or "")
        [thread] = (await value(client, "list_threads"))["threads"]
        found = (await value(client, "search_messages", query="question"))["found"]
        assert {each["thread_id"] for each in found} == {thread["thread_id"]} == {"trip"}
        assert len((await value(client, "read_thread", thread_id="trip"))["messages"]) == 12
        assert "UnknownTool" in await failure(client, "rename_thread", thread_id="trip", title="Naples")
    assert contents(tmp_path) == before


async def test_write_changes_threads_of_its_tenant(url: str, tmp_path: Path) -> None:
    await fill(url, lambda store: talk(store, ThreadKey("trip", "acme")))
    await fill(url, talk)
    async with over_stdio(tmp_path, "--store", url, "--tenant", "acme", "--write") as client:
        await value(client, "rename_thread", thread_id="trip", title="Naples")
        assert (await value(client, "delete_thread", thread_id="trip", next_seq=12))["deleted"]
    async with open_store(url) as store:
        thread = await store.get_thread(KEY)
        assert thread is not None
        assert thread.title == "Trip to Rome"
        assert await store.get_thread(ThreadKey("trip", "acme")) is None


async def test_an_encrypted_store_is_read_with_its_keys(tmp_path: Path) -> None:
    url, keys = f"sqlite:///{tmp_path}/threads.db", tmp_path / "keys"
    keys.write_text(run("new-key", "2026").stdout)
    async with Encrypted(open_store(url), Keyring(keys_from_file(keys))) as store:
        await talk(store)
    async with over_stdio(tmp_path, "--store", url, EVERTHREAD_KEYRING=f"file:{keys}") as client:
        assert (await value(client, "search_messages", query="answer"))["found"]
        assert (await value(client, "list_threads"))["threads"][0]["title"] == "Trip to Rome"


def mcp(text: str, home: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return piped(text, *arguments, home=home, program=(PROGRAM, "mcp"))


def test_a_store_that_cannot_be_reached_ends_it(tmp_path: Path) -> None:
    done = mcp("", tmp_path, "--store", f"redis://:hunter2@127.0.0.1:{free_port()}")
    assert (done.returncode, done.stdout) == (EXIT_UNAVAILABLE, "")
    assert len(done.stderr.splitlines()) == 1
    assert "hunter2" not in done.stderr


async def test_other_input_ends_no_server_and_is_not_shown(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/threads.db"
    await fill(url, talk)
    lines = ["no JSON", "", "[]", '{"jsonrpc": "2.0", "method": "hidden words"}', '"' + "x" * 3_000_000 + '"']
    done = mcp("\n".join([*lines, json.dumps(HELLO), ""]), tmp_path, "--store", url)
    assert (done.returncode, done.stderr) == (0, "")
    answers: list[dict[str, Any]] = [json.loads(line) for line in done.stdout.splitlines()]
    assert [each["result"]["serverInfo"]["name"] for each in answers if each.get("id") == 1] == ["everthread"]
    assert len(done.stdout) < 10_000
    assert "hidden words" not in done.stdout


async def test_a_request_that_is_no_message_is_answered(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/threads.db"
    await fill(url, talk)
    call = '{"jsonrpc": "2.0", "id": 10, "method": "tools/call", "params": %s}'
    lines = [call.replace("%s", each) for each in (r'{"name": "\ud800"}', "[" * 100_000 + "]" * 100_000, "{")]
    lines += ['{"jsonrpc": "2.0", "id": 1.5, "method": "ping"}', '[{"jsonrpc": "2.0", "id": 8, "method": "ping"}]']
    lines += [r'{"jsonrpc": "2.0", "id": "\ud800", "method": "ping"}']
    # These are no requests.
    lines += [
        r'{"jsonrpc": "2.0", "method": "notifications/\ud800"}',
        r'{"jsonrpc": "2.0", "id": 9, "result": "\ud800"}',
    ]
    done = mcp("\n".join([*lines, json.dumps(HELLO), ""]), tmp_path, "--store", url)
    assert (done.returncode, done.stderr) == (0, "")
    answers: list[dict[str, Any]] = [json.loads(line) for line in done.stdout.splitlines()]
    assert [each["id"] for each in answers] == [10, 10, None, None, None, None, 1]
    assert {each["error"]["code"] for each in answers[:-1]} == {-32700}


@pytest.mark.parametrize("id_first", [True, False], ids=["id first", "id last"])
async def test_a_request_that_is_too_long_is_answered(tmp_path: Path, id_first: bool) -> None:
    url = f"sqlite:///{tmp_path}/threads.db"
    await fill(url, talk)
    # Quotes, braces and names in nested values are not those of the request.
    query = '\\"}{' * 200_000
    head, params = {"jsonrpc": "2.0", "method": "tools/call"}, {"id": 99, "arguments": {"query": query, "id": [98]}}
    long = {"id": "seven", **head, "params": params} if id_first else {**head, "params": params, "id": "seven"}
    notification = {"jsonrpc": "2.0", "method": "notifications/progress", "params": {"id": 5, "text": query}}
    lines = [
        json.dumps(HELLO),
        json.dumps(long),
        json.dumps(notification),
        "x" * 1_100_000,
        json.dumps(HELLO | {"id": 2}),
    ]
    done = mcp("\n".join([*lines, ""]), tmp_path, "--store", url)
    assert (done.returncode, done.stderr) == (0, "")
    answers: list[dict[str, Any]] = [json.loads(line) for line in done.stdout.splitlines()]
    assert sorted(str(each["id"]) for each in answers if "id" in each) == ["1", "2", "None", "seven"]
    [refused] = [each for each in answers if each.get("id") == "seven"]
    assert "1,048,576 bytes" in refused["error"]["message"]


@given(
    st.recursive(
        st.none() | st.integers() | st.text(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)
    )
)
def test_an_outline_has_the_top_level_of_an_object(value: object) -> None:
    whole = {"id": "é\\", "a": value, 'b"': [value], "method": "m"}
    data = json.dumps(whole).encode()
    for size in (1, 7, 10_000):
        found = Outline.of(data[at : at + size] for at in range(0, len(data), size)).value()
        # It gives up if the top level itself is too long.
        assert found is None or (found["id"], found["method"], found['b"']) == (whole["id"], "m", 0)
        assert found is not None or len(json.dumps(value)) > 3_000


async def test_an_interrupt_ends_a_waiting_server(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/threads.db"
    await fill(url, talk)
    command, pipe = [PROGRAM, "mcp", "--store", url], subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, env=environment(tmp_path)) as server:
        assert server.stdin
        assert server.stdout
        server.stdin.write(json.dumps(HELLO).encode() + b"\n")
        server.stdin.flush()
        assert b"everthread" in server.stdout.readline()
        server.send_signal(signal.SIGINT)
        assert server.wait(PATIENCE) == EXIT_INTERRUPTED
        assert server.stderr
        assert b"Traceback" not in server.stderr.read()
