"""The interactive client with piped input, on real stores, across processes."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
from pathlib import Path

import pytest

from everthread import Retention, Store, ThreadKey, new_message, open_store
from everthread.listing import title_of
from tests.cli.driving import PROGRAM, environment, piped, said_to
from tests.openai_server import Failure, scripted_openai
from tests.servers import Server, free_port, redis_server

pytestmark = pytest.mark.slow

MENU = "[1] send a message  [2] show this thread's history  [3] load a saved thread  [4] start a new thread  [0] exit"


@pytest.fixture(params=["sqlite", "redis"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/threads.db"
    server: Server = request.getfixturevalue("plain_redis_server")
    prefix: str = request.getfixturevalue("fresh_prefix")
    return f"redis://127.0.0.1:{server.port}/0?prefix={prefix}"


def test_another_process_continues_the_thread(store: str, tmp_path: Path) -> None:
    first = piped("1\nI am Ana\n0\n", "--store", store, home=tmp_path)
    assert first.returncode == 0, first.stderr
    assert "Noted: “I am Ana" in first.stdout
    second = piped("hello\n3\n2\nwhat is my name?\n0\n", "--store", store, home=tmp_path)
    assert second.returncode == 0, second.stderr
    listed, _, loaded = second.stdout.partition("  2  I am Ana  2 messages, ")
    assert "Ana" not in listed
    assert "Noted: “I am Ana" in loaded
    assert "You told me: “I am Ana”" in loaded


def test_piped_output_is_plain_lines_without_prompts(store: str, tmp_path: Path) -> None:
    done = piped("1\nI am Ana\n0\n", "--store", store, home=tmp_path)
    assert "\x1b" not in done.stdout
    assert MENU in done.stdout.splitlines()
    assert "you>" not in done.stdout
    assert "message>" not in done.stdout
    assert done.stderr == ""


def test_the_header_names_thread_and_store(tmp_path: Path) -> None:
    done = piped("", "--thread", "trip 7", "--store", f"sqlite:///{tmp_path}/kept.db", home=tmp_path)
    assert "trip 7" in done.stdout
    assert "kept.db" in done.stdout


def test_the_end_of_the_input_exits_with_0(store: str, tmp_path: Path) -> None:
    done = piped("", "--store", store, home=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.rstrip().endswith("Goodbye.")


def test_the_end_of_the_input_in_a_question_exits_with_0(tmp_path: Path) -> None:
    for text in ("1\n", "hello\n3\n"):
        done = piped(text, home=tmp_path)
        assert (done.returncode, done.stderr) == (0, "")
        assert "Goodbye." in done.stdout


def test_a_thread_named_by_its_id_is_continued(store: str, tmp_path: Path) -> None:
    piped("I am Ana\n", "--thread", "trip:7", "--store", store, home=tmp_path)
    done = piped("what is my name?\n", "--thread", "trip:7", "--store", store, home=tmp_path)
    assert "  Noted: “I am Ana" in done.stdout
    assert "TravelPlanner> You told me: “I am Ana”" in done.stdout
    assert done.stdout.endswith(f" chat --store {shlex.quote(store)} --thread trip:7\n")


def test_history_shows_every_message(store: str, tmp_path: Path) -> None:
    done = piped("2\nI am Ana\n/history\n0\n", "--store", store, home=tmp_path)
    before, _, after = done.stdout.partition("Noted: “I am Ana")
    assert "This thread is empty" in before
    assert "user  " in after
    assert "  I am Ana\n" in after
    assert "  Noted: “I am Ana”" in after


def test_a_new_thread_is_empty(tmp_path: Path) -> None:
    done = piped("I am Ana\nwhat is my name?\n4\nwhat is my name?\n0\n", home=tmp_path)
    _, _, fresh = done.stdout.partition("You told me: “I am Ana”")
    assert "You have not told me anything yet" in fresh


@pytest.mark.parametrize("word", ["exit", "quit", "QUIT", "/exit", "help"])
def test_commands_are_not_sent_as_messages(word: str, tmp_path: Path) -> None:
    done = piped(f"{word}\n0\n", home=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert "TravelPlanner>" not in done.stdout
    assert ("choose:" in done.stdout) is (word == "help")


def test_a_wrong_choice_is_reported_and_not_sent(tmp_path: Path) -> None:
    done = piped(f"7\n/what\nhello\n3\n0\n9\n{'9' * 5000}\nLisbon\nn\n\n2\n0\n", home=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "There is no choice 7" in done.stdout
    assert "There is no choice /what" in done.stdout
    assert "There is no thread 0 in the list" in done.stdout
    assert "There is no thread 9 in the list" in done.stdout
    assert "There is no thread lisbon in the list" in done.stdout
    assert "There are no more threads." in done.stdout
    assert done.stdout.count("user  ") == 1


def test_loading_without_saved_threads_says_so(tmp_path: Path) -> None:
    assert "No threads are saved here yet." in piped("3\n0\n", home=tmp_path).stdout


def test_a_number_can_be_sent_as_a_message(tmp_path: Path) -> None:
    done = piped("1\n2\n2\n0\n", home=tmp_path)
    assert "user  " in done.stdout
    assert "\n  2\n" in done.stdout


def test_saved_threads_are_listed_in_numbered_pages(tmp_path: Path) -> None:
    talk = "".join(f"I am Traveller{number}\n4\n" for number in range(12))
    piped(talk, home=tmp_path)
    done = piped("3\nn\n12\n0\n", home=tmp_path)
    listing = done.stdout.splitlines()
    assert any(line.startswith("  1  I am Traveller11  2 messages") for line in listing)
    assert any(line.startswith(" 12  I am Traveller0  2 messages") for line in listing)
    assert "Noted: “I am Traveller0" in done.stdout


def test_a_thread_keeps_at_most_max_messages(tmp_path: Path) -> None:
    done = piped("one\ntwo\nthree\n2\n0\n", "--max-messages", "4", home=tmp_path)
    history = done.stdout[done.stdout.index("user  ") :]
    assert "  one\n" not in history
    assert "  two\n" in history
    assert "  three\n" in history


async def test_chat_trims_only_with_a_retention(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/t.db"
    async with open_store(url) as store:
        for name, retention in (("small", Retention(4)), ("all", Retention()), ("usual", None)):
            await store.append(ThreadKey(name), [new_message({"role": "user", "content": "x"})] * 250)
            if retention is not None:
                await store.update_thread(ThreadKey(name), retention=retention)
        for name in ("small", "all", "usual"):
            piped("hello\n0\n", "--thread", name, "--store", url, home=tmp_path)
        left = {name: await _count(store, ThreadKey(name)) for name in ("small", "all", "usual")}
        assert left == {"small": 4, "all": 252, "usual": 252}
        piped("hello\n0\n", "--thread", "usual", "--store", f"{url}?max_messages=50", home=tmp_path)
        assert await _count(store, ThreadKey("usual")) == 50
        piped("hello\n0\n", "--thread", "all", "--store", url, "--max-messages", "6", home=tmp_path)
        assert await _count(store, ThreadKey("all")) == 6


async def test_a_long_thread_keeps_its_messages_and_title_in_chat(tmp_path: Path) -> None:
    url, key = f"sqlite:///{tmp_path}/t.db", ThreadKey("long")
    async with open_store(url) as store:
        contents = [[{"type": "text", "text": f"message {number}"}] for number in range(1000)]
        await store.append(key, [new_message({"type": "message", "role": "user", "contents": c}) for c in contents])
        with scripted_openai("Hi.") as model:
            settings = {"OPENAI_BASE_URL": model.url, "OPENAI_API_KEY": "unused"}
            done = piped("hello\n0\n", "--thread", "long", "--store", url, home=tmp_path, **settings)
        assert done.returncode == 0, done.stderr
        assert len(said_to(model)) == 202
        assert await _count(store, key) == 1002
        thread = await store.get_thread(key)
        assert thread is not None
        assert await title_of(store, thread) == "message 0"


async def _count(store: Store, key: ThreadKey) -> int:
    thread = await store.get_thread(key)
    return 0 if thread is None else thread.count


async def test_chat_uses_a_named_store_and_its_tenant(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/t.db"
    (tmp_path / "config.toml").write_text(f'[stores.prod]\nurl = "{url}"\ntenant = "acme"\n')
    settings = {"EVERTHREAD_CONFIG": str(tmp_path / "config.toml")}
    first = piped("I am Ana\n0\n", "@prod", "--thread", "trip", home=tmp_path, **settings)
    assert first.stdout.endswith(" chat @prod --thread trip\n")
    again = piped("3\n1\n0\n", "--store", url, "--tenant", "acme", home=tmp_path)
    assert "1  I am Ana  2 messages" in again.stdout
    assert "Noted: “I am Ana" in again.stdout
    assert again.stdout.endswith(f" chat --store {url} --tenant acme --thread trip\n")
    async with open_store(url) as store:
        assert await _count(store, ThreadKey("trip", "acme")) == 2
        assert len(await store.list_threads()) == 0


def test_the_default_store_is_private_in_the_data_folder(tmp_path: Path) -> None:
    done = piped("I am Ana\n0\n", home=tmp_path)
    assert done.returncode == 0, done.stderr
    (found,) = tmp_path.rglob("threads.db")
    assert found.parent.stat().st_mode & 0o077 == 0


def test_store_option_precedes_everthread_store_precedes_redis_url(tmp_path: Path) -> None:
    urls = {name: f"sqlite:///{tmp_path}/{name}.db" for name in ("option", "own", "redis")}
    settings = {"EVERTHREAD_STORE": urls["own"], "REDIS_URL": urls["redis"]}
    assert "option.db" in piped("", "--store", urls["option"], home=tmp_path, **settings).stdout
    assert "own.db" in piped("", home=tmp_path, **settings).stdout
    assert "redis.db" in piped("", home=tmp_path, REDIS_URL=urls["redis"]).stdout
    assert "redis.db" in piped("", home=tmp_path, EVERTHREAD_STORE="", REDIS_URL=urls["redis"]).stdout


def test_an_unreachable_store_gives_one_message_without_the_password(tmp_path: Path) -> None:
    port = free_port()
    done = piped("hello\n", "--store", f"redis://:s3cret%21pass@127.0.0.1:{port}/0", home=tmp_path)
    assert done.returncode == 4
    for part in (f"127.0.0.1:{port}", "TLS", "6380", "firewall"):
        assert part in done.stderr
    everything = done.stdout + done.stderr
    assert "Traceback" not in everything
    assert "s3cret" not in everything


def test_a_wrong_password_is_not_printed(tmp_path: Path) -> None:
    with redis_server("redis", "--requirepass", "the-right-one") as server:
        done = piped("hello\n", "--store", f"redis://:Wr0ngPassw0rd@127.0.0.1:{server.port}/0", home=tmp_path)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert "password" in done.stderr.lower()
    assert "Wr0ngPassw0rd" not in done.stdout + done.stderr


@pytest.mark.parametrize(
    ("url", "status"),
    [("nothing://here", 1), ("/no/scheme", 1), ("/proc/none/threads.db", 4), ("sqlite:////proc/none/threads.db", 4)],
)
def test_an_invalid_store_ends_without_a_traceback(url: str, status: int, tmp_path: Path) -> None:
    done = piped("hello\n", "--store", url, home=tmp_path)
    assert done.returncode == status
    assert done.stderr.strip()
    assert "Traceback" not in done.stderr


def test_an_openai_compatible_server_gets_the_earlier_turns(tmp_path: Path) -> None:
    with scripted_openai("Hello Ana.", "You are Ana.") as model:
        settings = {"OPENAI_BASE_URL": model.url, "OPENAI_API_KEY": "key-of-the-test"}
        done = piped("I am Ana\nwho am I?\n0\n", "--model", "scripted", home=tmp_path, **settings)
    assert done.returncode == 0, done.stderr
    assert "TravelPlanner> Hello Ana.\n" in done.stdout
    assert "TravelPlanner> You are Ana.\n" in done.stdout
    assert "key-of-the-test" not in done.stdout
    assert model.requests[-1]["model"] == "scripted"
    assert said_to(model)[0][1].startswith("You are TravelPlanner")
    assert said_to(model)[1:] == [("user", "I am Ana"), ("assistant", "Hello Ana."), ("user", "who am I?")]


def test_azure_openai_takes_a_key(tmp_path: Path) -> None:
    with scripted_openai("Hello Ana.") as model:
        settings = {"AOAI_ENDPOINT": model.url.removesuffix("/v1"), "AOAI_DEPLOYMENT": "my-deployment"}
        done = piped("I am Ana\n", home=tmp_path, AOAI_API_KEY="key-of-the-test", **settings)
    assert done.returncode == 0, done.stderr
    assert "TravelPlanner> Hello Ana." in done.stdout
    assert "my-deployment (Azure OpenAI" in done.stdout
    assert model.headers[0]["api-key"] == "key-of-the-test"


def test_azure_openai_takes_the_azure_cli_login(tmp_path: Path) -> None:
    cli = tmp_path / "az"
    token = {"accessToken": "token-of-the-cli", "expires_on": 4102444800, "expiresOn": "2100-01-01 00:00:00.000000"}
    cli.write_text(f"#!/bin/sh\necho '{json.dumps(token)}'\n")
    cli.chmod(0o755)
    with scripted_openai("Hello Ana.") as model:
        settings = {"AOAI_ENDPOINT": model.url.removesuffix("/v1"), "AOAI_DEPLOYMENT": "my-deployment"}
        done = piped("I am Ana\n", home=tmp_path, PATH=f"{tmp_path}:{os.environ['PATH']}", **settings)
    assert done.returncode == 0, done.stderr
    assert "TravelPlanner> Hello Ana." in done.stdout
    assert model.headers[0]["authorization"] == "Bearer token-of-the-cli"


def test_a_failed_model_stores_nothing_and_prints_no_key(tmp_path: Path) -> None:
    with scripted_openai(RuntimeError("no such key: key-of-the-test")) as model:
        settings = {"OPENAI_BASE_URL": model.url, "OPENAI_API_KEY": "key-of-the-test"}
        done = piped("I am Ana\n2\n0\n", home=tmp_path, **settings)
    assert done.returncode == 1
    assert "The model did not answer." in done.stderr
    assert "Your message was not stored." in done.stderr
    assert "Traceback" not in done.stderr
    assert "key-of-the-test" not in done.stdout + done.stderr
    assert "This thread is empty" in done.stdout


@pytest.mark.parametrize(
    ("status", "remedy"),
    [
        (401, "Check OPENAI_API_KEY."),
        (404, "Check --model or OPENAI_MODEL and OPENAI_BASE_URL."),
        (429, "Wait a moment"),
        (503, "status 503"),
    ],
)
def test_a_model_failure_names_its_remedy(status: int, remedy: str, tmp_path: Path) -> None:
    with scripted_openai(then=Failure(status)) as model:
        done = piped("I am Ana\n0\n", home=tmp_path, OPENAI_BASE_URL=model.url, OPENAI_API_KEY="key-of-the-test")
    assert done.returncode == 1
    told = done.stderr.splitlines()
    assert len(told) == 2
    assert told[0].startswith("The model did not answer. ")
    assert remedy in told[0]


def test_an_unreachable_model_names_its_remedy(tmp_path: Path) -> None:
    url = f"http://127.0.0.1:{free_port()}/v1"
    done = piped("I am Ana\n0\n", home=tmp_path, OPENAI_BASE_URL=url)
    assert "It cannot be reached. Check the network and OPENAI_BASE_URL." in done.stderr
    assert "Traceback" not in done.stderr


def test_stored_escape_sequences_do_not_reach_the_terminal(tmp_path: Path) -> None:
    hostile = "I am Ana\x1b]0;owned\x07 \x1b[2J"
    done = piped(f"{hostile}\n2\n3\n\n0\n", "--thread", hostile, home=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "owned" in done.stdout
    assert not {"\x1b", "\x07"} & set(done.stdout)


def test_input_that_is_not_utf8_is_sent_with_replacements(tmp_path: Path) -> None:
    done = subprocess.run(
        [PROGRAM, "chat"], input=b"I am Ana \xff\xfe\n0\n", capture_output=True, env=environment(tmp_path), check=False
    )
    assert done.returncode == 0
    assert "Noted: “I am Ana".encode() in done.stdout


def test_ctrl_c_while_waiting_for_input_leaves_with_130(tmp_path: Path) -> None:
    with subprocess.Popen(
        [PROGRAM, "chat"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(tmp_path) | {"PYTHONUNBUFFERED": "1"},
    ) as process:
        assert process.stdin
        assert process.stdout
        assert process.stderr
        # Not after a reply: while one is being stored, Ctrl-C belongs to the reply.
        process.stdin.write("2\n")
        process.stdin.flush()
        while "This thread is empty" not in process.stdout.readline():
            pass
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 130
        assert "Traceback" not in process.stderr.read()
