"""The commands that manage threads, in a pipe and on a terminal."""

from __future__ import annotations

import asyncio
import json
import re
import subprocess
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from click.testing import CliRunner, Result

from everthread import Store, ThreadKey, new_message, open_store, opening
from everthread.cli.exit_statuses import EXIT_FAILED, EXIT_NOT_FOUND, EXIT_UNAVAILABLE, EXIT_USAGE
from everthread.cli.group import COMMANDS, everthread
from tests.cli.driving import PROGRAM, Tty, environment, piped
from tests.operations.talks import KEY, in_this_order, kept, said, talk, texts
from tests.servers import free_port


def run(*arguments: str, store: str = "", given: str = "") -> Result:
    """Run a command in this process, with its output captured."""
    result = CliRunner().invoke(everthread, [*arguments, *(["--store", store] if store else [])], input=given)
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def objects(result: Result) -> list[dict[str, Any]]:
    return [json.loads(line) for line in result.stdout.splitlines()]


def on(url: str, work: Callable[[Store], Awaitable[Any]]) -> Any:
    async def opened() -> Any:
        async with open_store(url) as store:
            return await work(store)

    return asyncio.run(opened())


def seed(url: str, *names: str, turns: int = 2) -> None:
    async def write(store: Store) -> None:
        for name in names:
            await talk(store, ThreadKey(name), turns)
        await in_this_order(store, *map(ThreadKey, names))

    on(url, write)


# threads


def test_threads_are_listed_newest_first(url: str) -> None:
    seed(url, "first", "second")
    rows = [line.split("\t") for line in run("threads", store=url).stdout.splitlines()]
    assert [row[:4] for row in rows] == [["1", "second", "Trip to Rome", "8"], ["2", "first", "Trip to Rome", "8"]]
    second, first = objects(run("threads", "--json", store=url))
    assert (second["number"], second["thread_id"], second["messages"]) == (1, "second", 8)
    assert first["last_activity"] <= second["last_activity"]


def test_the_cursor_continues_a_list_of_threads(url: str) -> None:
    seed(url, *(f"t{number}" for number in range(5)), turns=1)
    seen: list[str] = []
    more: list[str] = []
    while True:
        page = run("threads", "-n", "2", "--json", *more, store=url)
        seen += [thread["thread_id"] for thread in objects(page)]
        found = re.search(r"(--cursor) (\S+)", page.stderr)
        if found is None:
            break
        more = list(found.groups())
    assert seen == ["t4", "t3", "t2", "t1", "t0"]
    assert len(objects(run("threads", "--all", "--json", store=url))) == 5


def test_threads_can_be_filtered_by_length(url: str) -> None:
    seed(url, "short", turns=1)
    seed(url, "long", turns=3)
    [found] = objects(run("threads", "--longer-than", "4", "--json", store=url))
    assert (found["thread_id"], found["messages"]) == ("long", 12)


def test_threads_can_be_filtered_by_title_tag_and_age(url: str) -> None:
    seed(url, "a", "b")
    run("rename", "a", "Naples by train", store=url)
    run("tag", "b", "customer=acme", "stars:=5", store=url)

    def names(*options: str) -> list[str]:
        return [thread["thread_id"] for thread in objects(run("threads", "--json", *options, store=url))]

    assert names("--title", "NAPLES") == ["a"]
    assert names("--tag", "customer=acme", "--tag", "stars=5") == ["b"]
    assert names("--tag", "stars:=5", "--title", "naples") == []
    assert names("--newer-than", "1h", "-n", "1") == ["b"]
    assert names("--older-than", "1h") == []
    assert run("threads", "--older-than", "soon", store=url).exit_code == EXIT_USAGE
    assert run("threads", "--title", "x", "--cursor", "y", store=url).exit_code == EXIT_USAGE


def test_threads_lists_one_tenant(url: str) -> None:
    on(url, lambda store: talk(store.tenant("acme")))
    assert objects(run("threads", "--json", store=url)) == []
    assert objects(run("threads", "--json", "--tenant", "acme", store=url))[0]["tenant"] == "acme"


def test_control_characters_of_a_title_are_made_visible(url: str) -> None:
    on(url, lambda store: store.append(KEY, [said("user", "x")], default_title="a\tb\n\x1b[31mc"))
    assert run("threads", store=url).stdout.split("\t")[2] == "a b ␛[31mc"


def test_threads_are_a_table_on_a_terminal(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'a.db'}"
    seed(url, "first", "second")
    with Tty("--store", url, home=tmp_path, program=(PROGRAM, "threads")) as terminal:
        terminal.expect(r"#\s+thread\s+title\s+messages\s+size\s+last activity")
        terminal.expect(r"1\s+second\s+Trip to Rome\s+8\s+\d+ B\s+just now")
        assert terminal.exit_status() == 0


def test_a_narrow_table_shortens_titles_and_never_ids(tmp_path: Path) -> None:
    url, name = f"sqlite:///{tmp_path / 'a.db'}", f"thread_{uuid4()}"
    seed(url, name)
    with Tty("--store", url, home=tmp_path, program=(PROGRAM, "threads"), columns=90) as terminal:
        terminal.expect(rf"1  {name}  Trip to R…  +8  \d+ B")
        assert terminal.exit_status() == 0
    with Tty("--store", url, home=tmp_path, program=(PROGRAM, "threads"), columns=80) as terminal:
        terminal.expect(rf"1  {name}\n   Trip to Rome, 8 messages, \d+ B, just now\n")
        assert terminal.exit_status() == 0


# show


def test_a_thread_is_shown_with_its_tool_calls_and_positions(url: str) -> None:
    seed(url, "trip")
    shown = run("show", "trip", store=url).stdout
    assert re.search(r"user .*#4\n {2}question 1\n", shown)
    assert "→ weather {}" in shown
    assert "← sunny" in shown
    last = run("show", "trip", "--last", "1", store=url).stdout
    assert "answer 1" in last
    assert "question" not in last


def test_raw_prints_payloads_unchanged(url: str) -> None:
    payload = b'{"role": "user",\n "content": "a\\nb", "n": 123456789012345678901234567890, "f": 1.0e5}'

    async def write(store: Store) -> None:
        from everthread import new_message

        await store.append(KEY, [new_message(payload)])

    on(url, write)
    result = run("show", "trip", "--raw", store=url)
    assert objects(result)[0]["payload"] == json.loads(payload)
    assert payload.replace(b"\n", b" ").decode() in result.stdout


def test_the_last_of_a_long_thread_are_shown(url: str) -> None:
    async def write(store: Store) -> None:
        for _ in range(3):
            await store.append(KEY, [said("user", "x")] * 500)

    on(url, write)
    for last in (1, 999, 1200):
        seen = [message["seq"] for message in objects(run("show", "trip", "--raw", "--last", str(last), store=url))]
        assert seen == list(range(1500 - last, 1500))


def test_follow_shows_what_another_process_writes(shared_url: str, tmp_path: Path) -> None:
    url = shared_url
    seed(url, "trip", turns=1)
    command = [PROGRAM, "show", "trip", "--raw", "--last", "1", "--follow", "--interval", "0.05", "--store", url]
    following = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment(tmp_path))
    assert following.stdout is not None
    try:
        assert json.loads(following.stdout.readline())["seq"] == 3
        on(url, lambda store: store.append(KEY, [said("user", "are you there?")]))
        assert json.loads(following.stdout.readline())["payload"]["content"] == "are you there?"
    finally:
        following.kill()
        following.wait()
        following.stdout.close()


# rename, tag, delete, undo, fork


def test_rename_and_tag_do_not_change_messages(url: str) -> None:
    seed(url, "trip")
    before = on(url, lambda store: kept(store))
    assert run("rename", "trip", "Naples", store=url).exit_code == 0
    assert objects(run("tag", "trip", "a=1", "b:=[1,2]", "--json", store=url))[0]["metadata"] == {"a": "1", "b": [1, 2]}
    assert run("tag", "trip", "--remove", "a", store=url).stdout == "b:=[1,2]\n"
    assert run("tag", "trip", store=url).stdout == "b:=[1,2]\n"
    assert objects(run("threads", "--json", store=url))[0]["title"] == "Naples"
    assert on(url, lambda store: kept(store)) == before


@pytest.mark.parametrize("wrong", ["=x", "x", ":=1", "x:={", "x:=NaN"])
def test_an_invalid_tag_is_a_usage_error(wrong: str) -> None:
    assert run("tag", "trip", wrong, store="memory:").exit_code == EXIT_USAGE


DESTRUCTIVE = [("delete", "trip"), ("undo", "trip"), ("delete-tenant", "acme")]


@pytest.mark.parametrize("command", DESTRUCTIVE)
def test_a_destructive_command_requires_yes(command: tuple[str, ...], url: str) -> None:
    seed(url, "trip")
    on(url, lambda store: talk(store.tenant("acme")))
    before = on(url, lambda store: _everything(store))
    assert run(*command, "--dry-run", store=url).exit_code == 0
    assert run(*command, store=url, given="y\n").exit_code == EXIT_USAGE
    assert on(url, lambda store: _everything(store)) == before


async def _everything(store: Store) -> list[Any]:
    threads = [*await store.list_threads(), *await store.list_threads("acme")]
    return [(thread, await kept(store, thread.key)) for thread in threads]


@pytest.mark.parametrize(("answer", "left"), [("n", 8), ("y", 4)])
def test_a_destructive_command_asks_on_a_terminal(answer: str, left: int, tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'a.db'}"
    seed(url, "trip")
    with Tty("trip", "--store", url, home=tmp_path, program=(PROGRAM, "undo")) as terminal:
        terminal.expect("answer 1")
        terminal.expect(r"Remove 4 messages of trip\?.*:")
        terminal.type(f"{answer}\r")
        assert terminal.exit_status() == (0 if answer == "y" else EXIT_FAILED)
    assert len(on(url, lambda store: kept(store))) == left


@pytest.mark.parametrize("command", ["undo", "delete"])
def test_a_message_appended_during_the_question_is_kept(command: str, url: str, tmp_path: Path) -> None:
    seed(url, "trip")
    with Tty("trip", "--store", url, home=tmp_path, program=(PROGRAM, command)) as terminal:
        terminal.expect(r"messages.*\?.*:")
        on(url, lambda store: store.append(KEY, [said("user", "wait!")]))
        terminal.type("y\r")
        terminal.expect("nother process wrote to")
        assert terminal.exit_status() == EXIT_FAILED
    assert texts(on(url, lambda store: kept(store)))[-2:] == ["answer 1", "wait!"]


def test_delete_reports_threads_that_do_not_exist(url: str) -> None:
    seed(url, "a", "b", "c")
    result = run("delete", "a", "nope", "b", "--yes", "--json", store=url)
    assert result.exit_code == EXIT_NOT_FOUND
    assert [(o["thread_id"], o["existed"], o["deleted"]) for o in objects(result)] == [
        ("a", True, True),
        ("nope", False, False),
        ("b", True, True),
    ]
    assert [o["thread_id"] for o in objects(run("threads", "--json", store=url))] == ["c"]


def test_a_dry_run_of_undo_predicts_undo(url: str) -> None:
    seed(url, "trip", turns=3)
    planned = objects(run("undo", "trip", "--turns", "2", "--dry-run", "--json", store=url))[0]
    done = objects(run("undo", "trip", "--turns", "2", "--yes", "--json", store=url))[0]
    assert (planned["would_remove"], planned["removed"]) == (8, 0)
    assert (done["removed"], done["stop"]) == (8, planned["stop"])
    assert texts(on(url, lambda store: kept(store)))[-1] == "answer 0"


def test_a_fork_can_be_planned_and_repeated(url: str) -> None:
    seed(url, "trip")
    planned = objects(run("fork", "trip", "--at", "6", "--dry-run", "--json", store=url))[0]
    made, again = (objects(run("fork", "trip", "--at", "6", "--json", store=url))[0] for _ in range(2))
    assert (planned["thread_id"], planned["stop"], planned["messages"]) == ("trip-fork-6", 5, 5)
    assert {**planned, "dry_run": False} == made
    assert again["resumed"]
    assert texts(on(url, lambda store: kept(store, ThreadKey("trip-fork-6"))))[-1] == "question 1"
    assert run("fork", "trip", "--at", "4", "--id", "trip-fork-6", store=url).exit_code == EXIT_FAILED


def test_a_fork_for_another_framework_reports_what_it_lacks(url: str) -> None:
    seed(url, "trip")
    image = {"role": "user", "content": [{"type": "file", "file": {"file_id": "private"}}], "name": "Ana"}
    on(url, lambda store: store.append(KEY, [new_message(image)]))
    planned = objects(run("fork", "trip", "--as", "openai-agents", "--dry-run", "--json", store=url))[0]
    made = run("fork", "trip", "--as", "openai-agents", store=url)
    assert made.exit_code == 0
    assert planned["thread_id"] in made.stdout
    assert {lost["aspect"]: (lost["count"], lost["first"]) for lost in planned["lost"]} == {
        "author": (1, planned["stop"] - 1),
        "hosted-file": (1, planned["stop"] - 1),
    }
    assert made.stderr.count("\n") == 2
    assert "names of authors, 1 from position" in made.stderr
    copy = on(url, lambda store: kept(store, ThreadKey(planned["thread_id"])))
    assert {message.format for message in copy} == {"openai-responses"}
    again = objects(run("fork", "trip", "--as", "openai-agents", "--json", store=url))[0]
    assert (again["resumed"], again["lost"]) == (True, planned["lost"])


def test_delete_tenant_erases_and_names_its_receipt(url: str, tmp_path: Path) -> None:
    on(url, lambda store: talk(store.tenant("acme")))
    seed(url, "trip")
    receipt = tmp_path / "receipt.jsonl"
    done = objects(run("delete-tenant", "acme", "--yes", "--json", "--receipt", str(receipt), store=url))[0]
    assert receipt.stat().st_mode & 0o077 == 0
    assert (done["sums"]["threads"], done["receipt"]) == (1, str(receipt))
    assert len(receipt.read_text().splitlines()) == 2
    assert [key for key, _ in _keys(on(url, lambda store: _everything(store)))] == [KEY]


def _keys(found: list[Any]) -> list[tuple[ThreadKey, Any]]:
    return [(thread.key, messages) for thread, messages in found]


def test_delete_tenant_writes_no_receipt_for_an_unknown_tenant(url: str, tmp_path: Path) -> None:
    seed(url, "trip")
    receipt = tmp_path / "receipt.jsonl"
    for option in ("--yes", "--dry-run"):
        ended = run("delete-tenant", "acne", option, "--receipt", str(receipt), store=url)
        assert (ended.exit_code, receipt.exists()) == (EXIT_NOT_FOUND, False)
        assert "Tenant 'acne' has no threads" in ended.output


def test_delete_tenant_never_erases_the_default_tenant(url: str) -> None:
    seed(url, "trip")
    assert run("delete-tenant", "", "--yes", store=url).exit_code == EXIT_USAGE
    assert run("delete-tenant", "a", "--tenant", "b", "--yes", store=url).exit_code == EXIT_USAGE
    assert len(on(url, lambda store: kept(store))) == 8


@pytest.mark.parametrize("command", ["rename trip x", "tag trip a=1", "fork trip", "retention trip --keep-all"])
def test_a_writing_command_opens_the_store_once(command: str, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    seed(url, "trip")
    opened: list[str] = []
    open_engine = opening.open_store

    def counting(url: str, **options: Any) -> Store:
        opened.append(url)
        return open_engine(url, **options)

    monkeypatch.setattr(opening, "open_store", counting)
    assert run(*command.split(), store=url).exit_code == 0
    assert opened == [url]


# Statuses, help, completion


@pytest.mark.parametrize(
    "command",
    [
        ("show", "nope"),
        ("rename", "nope", "x"),
        ("tag", "nope", "a=1"),
        ("tag", "nope"),
        ("fork", "nope"),
        ("undo", "nope", "-y"),
        ("delete", "nope", "-y"),
    ],
)
def test_a_missing_thread_ends_with_3_and_is_not_created(command: tuple[str, ...], url: str) -> None:
    on(url, lambda store: store.open())
    result = run(*command, store=url)
    assert result.exit_code == EXIT_NOT_FOUND
    assert "nope" in result.output
    assert on(url, lambda store: _everything(store)) == []


def test_an_unreachable_store_ends_with_4_without_the_password() -> None:
    result = run("threads", store=f"redis://:geheim@127.0.0.1:{free_port()}/0")
    assert result.exit_code == EXIT_UNAVAILABLE
    assert "geheim" not in result.output
    assert "127.0.0.1" in result.stderr


def test_an_empty_list_names_the_store(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/typo.db"
    on(url, lambda store: store.open())
    assert f"{tmp_path}/typo.db yet." in run("threads", store=url).stderr
    assert "tenant 'acme'" in run("threads", "--tenant", "acme", store=url).stderr


def test_a_title_can_be_removed(url: str) -> None:
    seed(url, "trip", turns=1)
    assert run("rename", "trip", "", store=url).stdout == "trip has no title now\n"
    assert run("threads", store=url).stdout.split("\t")[2] == "question 0"


def test_a_wrong_store_or_thread_id_fails_in_one_line(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/a.db"
    seed(url, "trip", turns=1)
    wrong = (
        ("threads", "--store", "nonsense"),
        ("show", "x" * 600, "--store", url),
        ("fork", "trip", "--id", "", "--store", url),
    )
    for arguments in wrong:
        result = run(*arguments)
        assert result.exit_code == EXIT_FAILED
        assert result.stderr.startswith("Error: ")


MANAGING = (
    "threads",
    "show",
    "rename",
    "tag",
    "retention",
    "delete",
    "fork",
    "undo",
    "delete-tenant",
    "config",
    "completion",
)


@pytest.mark.parametrize("command", MANAGING)
def test_help_of_each_command_has_examples(command: str) -> None:
    assert command in COMMANDS
    result = run(command, "--help")
    assert result.exit_code == 0
    assert f"everthread {command}" in result.stdout.partition("Examples:")[2]


def test_the_list_of_commands_shortens_no_sentence() -> None:
    listed = run("--help").stdout.partition("Talk:")[2].partition("Examples:")[0]
    assert "..." not in listed
    for name in COMMANDS:
        assert re.search(rf"^  {name} +[A-Z]", listed, re.MULTILINE), name


def test_one_thing_is_singular(url: str) -> None:
    on(url, lambda store: store.append(KEY, [said("user", "x")]))
    assert run("fork", "trip", store=url).stdout == "trip-fork-1 holds the 1 message before position 1\n"
    assert run("undo", "trip", "--yes", store=url).stdout == "Removed 1 message\n"
    assert run("delete", "trip", "--dry-run", store=url).stdout == "trip would be deleted, with 0 messages\n"


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_completion_script_of_each_shell_names_the_program(shell: str) -> None:
    assert "_EVERTHREAD_COMPLETE" in run("completion", shell).stdout


def test_commands_and_named_stores_are_completed(tmp_path: Path) -> None:
    config = tmp_path / "config.toml"
    config.write_text('[stores.prod]\nurl = "memory:"\n[stores.test]\nurl = "memory:"\n')
    for words, position, wanted in (
        ("everthread undo", "1", ["undo"]),
        ("everthread threads @", "2", ["@prod", "@test"]),
        ("everthread show --store @p", "3", ["@prod"]),
        ("everthread show @p", "2", ["@prod"]),
        ("everthread delete trip @t", "3", ["@test"]),
        ("everthread config remove @", "3", ["@prod", "@test"]),
    ):
        run = piped(
            "",
            home=tmp_path,
            program=(PROGRAM,),
            COMP_WORDS=words,
            COMP_CWORD=position,
            _EVERTHREAD_COMPLETE="bash_complete",
            EVERTHREAD_CONFIG=str(config),
        )
        assert [line.removeprefix("plain,") for line in run.stdout.split()] == wanted


@pytest.mark.parametrize(
    ("typed", "becomes"),
    [
        ("show @p", "show @prod "),
        ("threads --store @t", "@test "),
        ("threads --old", "--older-than "),
        ("und", "undo "),
    ],
    ids=["argument", "option's value", "option", "command"],
)
def test_bash_completes_what_was_typed(typed: str, becomes: str, tmp_path: Path) -> None:
    config = tmp_path / "config.toml"
    config.write_text('[stores.prod]\nurl = "memory:"\n[stores.test]\nurl = "memory:"\n')
    path = f"{Path(PROGRAM).parent}:/usr/bin:/bin"
    shell = ("/bin/bash", "--norc", "--noprofile", "-i")
    with Tty(home=tmp_path, program=shell, PATH=path, PS1="ready> ", EVERTHREAD_CONFIG=str(config)) as terminal:
        terminal.expect("ready> ")
        terminal.type('eval "$(everthread completion bash)"\r')
        terminal.expect(r"bash\)\"[^>]*ready> ")
        terminal.type(f"everthread {typed}\t")
        terminal.expect(re.escape(becomes))
