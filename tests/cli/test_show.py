"""``everthread show`` finds threads and selects messages; ``tenants`` and the hint name tenants."""

from __future__ import annotations

import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from everthread import Store, ThreadKey, new_message, open_store
from everthread.cli.exit_statuses import EXIT_NOT_FOUND, EXIT_USAGE
from tests.cli.driving import PROGRAM, Tty
from tests.cli.test_commands import objects, on, run
from tests.operations.talks import call, in_this_order, result, said

NOW = datetime.now(UTC)


@pytest.fixture
def url(tmp_path: Path) -> str:
    """Two threads of the customer acme with messages of three days, and one of another customer."""
    url = f"sqlite:///{tmp_path}/threads.db"

    async def fill(store: Store) -> None:
        for name, customer in (("rome-1", "acme"), ("rome-2", "acme"), ("oslo", "other")):
            key = ThreadKey(name)
            for days in (2, 1, 0):
                texts = {"user": f"{name}: question {days}", "assistant": f"{name}: answer {days}"}
                values = ({"role": role, "content": text} for role, text in texts.items())
                at = NOW - timedelta(days=days)
                await store.append(key, [new_message(value, created_at=at) for value in values])
            await store.update_thread(key, title=f"Trip to {name}", metadata={"customer": customer})
        await store.append(ThreadKey("rome-1"), [call("c"), result("c")])
        await in_this_order(store, ThreadKey("oslo"), ThreadKey("rome-2"), ThreadKey("rome-1"))

    on(url, fill)
    return url


def shown(url: str, *arguments: str) -> list[tuple[str, int]]:
    done = run("show", *arguments, "--json", store=url)
    assert done.exit_code == 0, done.output
    return [(message["thread_id"], message["seq"]) for message in objects(done)]


def test_the_beginning_of_an_id_or_title_is_enough(url: str) -> None:
    for name in ("osl", "Trip to oslo", "trip to O"):
        assert shown(url, name, "--last", "1") == [("oslo", 5)]
    for name, text in (("rome", "'rome-1', 'rome-2'"), ("paris", "There is no thread 'paris'")):
        refused = run("show", name, store=url)
        assert (refused.exit_code, text in refused.stderr.replace("'rome-2', 'rome-1'", "'rome-1', 'rome-2'")) == (
            EXIT_NOT_FOUND,
            True,
        )


@pytest.mark.parametrize(
    ("arguments", "positions"),
    [
        (["--role", "assistant"], [1, 3, 5, 6]),
        (["--role", "user", "--last", "2"], [2, 4]),
        (["--since", "36h"], [2, 3, 4, 5, 6, 7]),
        (["--since", "36h", "--until", "12h"], [2, 3]),
        (["--tool", "weather"], [6, 7]),
        (["--grep", "ANSWER"], [1, 3, 5]),
        (["--grep", "sunny"], [7]),
        (["--until", "30d"], []),
    ],
    ids=lambda value: " ".join(map(str, value)),
)
def test_filters_select_messages(url: str, arguments: list[str], positions: list[int]) -> None:
    assert [seq for _, seq in shown(url, "rome-1", *arguments)] == positions


def test_one_command_shows_what_the_agent_said_to_a_customer(url: str) -> None:
    found = shown(url, "--tag", "customer=acme", "--role", "assistant", "--since", "36h", "--until", "12h")
    assert found == [("rome-1", 3), ("rome-2", 3)]
    assert shown(url, "--threads", "*-2", "--last", "1") == [("rome-2", 5)]
    text = run("show", "--tag", "customer=other", "--role", "assistant", "--since", "36h", store=url).stdout
    assert "answer 1" in text
    assert "answer 2" not in text


@pytest.mark.parametrize(
    "arguments", [[], ["--follow", "--since", "1d"], ["oslo", "--tag", "a=b"], ["--since", "soon"]]
)
def test_an_unclear_choice_is_wrong_usage(url: str, arguments: list[str]) -> None:
    assert run("show", *arguments, store=url).exit_code == EXIT_USAGE


def test_json_has_one_form_for_all_formats(url: str) -> None:
    asked, answered = objects(run("show", "rome-1", "--tool", "weather", "--json", store=url))
    assert asked["calls"] == [{"id": "c", "name": "weather", "arguments": "{}"}]
    assert (answered["role"], answered["results"]) == ("tool", [{"id": "c", "text": "sunny"}])
    assert asked["schema"] == 1


async def test_a_long_thread_opens_in_the_pager(tmp_path: Path) -> None:
    pager = tmp_path / "pager"
    pager.write_text(f"#!{sys.executable}\nimport sys\nprint('PAGER', len(sys.stdin.readlines()) > 40, sys.argv[1:])\n")
    pager.chmod(0o700)
    less = tmp_path / "less"
    less.symlink_to(pager)
    url = f"sqlite:///{tmp_path}/threads.db"
    async with open_store(url) as store:
        await store.append(ThreadKey("short"), [said("user", "hello")])
        await store.append(ThreadKey("long"), [said("user", f"line {number}") for number in range(40)])
    for command, last in ((pager, r"\[\]"), (less, r"\['\+G'\]")):
        with Tty("long", "-s", url, home=tmp_path, program=(PROGRAM, "show"), PAGER=str(command)) as terminal:
            terminal.expect(rf"PAGER True {last}")
            assert terminal.exit_status() == 0
    for name, command in (("short", str(pager)), ("long", "cat"), ("long", "no-such-pager")):
        with Tty(name, "-s", url, home=tmp_path, program=(PROGRAM, "show"), PAGER=command) as terminal:
            terminal.expect("hello" if name == "short" else "line 39")
            assert terminal.exit_status() == 0
            assert "PAGER" not in terminal.raw


def test_threads_are_chosen_by_pattern_time_and_the_title_shown(url: str) -> None:
    on(url, lambda store: store.append(ThreadKey("untitled"), [said("user", "A Hotel in Bergen")]))

    def listed(*arguments: str) -> list[str]:
        return [row["thread_id"] for row in objects(run("threads", "--json", *arguments, store=url))]

    assert listed("--threads", "rome-*") == ["rome-1", "rome-2"]
    assert listed("--title", "hotel in") == ["untitled"]
    assert listed("--since", "1h", "--threads", "oslo") == ["oslo"]
    assert listed("--until", "today", "--threads", "oslo") == []


def test_tenants_are_listed_and_hinted_at(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/threads.db"
    on(url, lambda store: store.append(ThreadKey("a", "acme"), [said("user", "hello")]))
    assert [row["tenant"] for row in objects(run("tenants", "--json", store=url))] == ["acme"]
    for arguments in (["threads"], ["threads", "--title", "x"]):
        assert "'acme'" in run(*arguments, store=url).stderr
    on(url, lambda store: store.append(ThreadKey("a"), [said("user", "hello")]))
    assert [row.split("\t")[0] for row in run("tenants", store=url).stdout.splitlines()] == ["", "acme"]
    assert "'acme'" not in run("threads", "--title", "x", store=url).stderr


@pytest.mark.parametrize("scan", [[], ["--scan"]], ids=["index", "scan"])
def test_a_search_is_narrowed_and_ends_in_time(url: str, scan: list[str]) -> None:
    def found(*arguments: str) -> list[tuple[str, int]]:
        hits = objects(run("search", *arguments, *scan, "--json", store=url))
        return [(hit["thread_id"], hit["seq"]) for hit in hits]

    assert found("answer", "--tag", "customer=other", "--since", "36h") == [("oslo", 5), ("oslo", 3)]
    assert set(found("rome", "--role", "user", "--threads", "*-2")) == {("rome-2", 0), ("rome-2", 2), ("rome-2", 4)}
    assert found("answer", "--until", "36h", "--threads", "rome-1") == [("rome-1", 1)]
    stopped = run("search", "question", "--until", "30d", "-n", "1", "--seconds", "0", *scan, store=url)
    assert "--cursor" in stopped.stderr


def test_a_choice_without_a_match_says_so(url: str) -> None:
    for arguments, note in (
        (("--tag", "customer=nobody"), "No thread matches."),
        (("--tag", "customer=acme", "--role", "tool", "--grep", "nothing"), "No message matches."),
    ):
        done = run("show", *arguments, "--json", store=url)
        assert (done.exit_code, done.stdout, done.stderr) == (0, "", note + "\n")


@pytest.mark.parametrize("command", [("threads",), ("show", "rome-1"), ("show", "--since", "7d")])
def test_an_empty_tenant_leads_to_the_others(command: tuple[str, ...], url: str) -> None:
    on(url, lambda store: store.append(ThreadKey("trip", "acme"), [said("user", "hello")]))
    note = "Other tenants have threads: 'acme'"
    assert note in run(*command, "--tenant", "acne", store=url).stderr
    assert note not in run(*command, store=url).stderr
