"""Commands that create a store that does not exist, and dry runs, which write nothing."""

from __future__ import annotations

import asyncio
from pathlib import Path

import asyncpg
import pytest

from everthread.cli.exit_statuses import EXIT_FAILED
from everthread.cli.group import COMMANDS
from tests.cli.test_commands import objects, on, run
from tests.operations.talks import talk
from tests.postgres_server import PostgresServer, fresh_url

BEGIN_ONE = {"chat", "import"}
NEED_NONE = {"completion", "config", "new-key"}
REFUSED = (
    "compact trip",
    "copy STORE memory:",
    "delete trip --yes",
    "delete trip --dry-run",
    "delete-tenant acme --yes",
    "doctor",
    "doctor --read-only",
    "doctor --repair --dry-run",
    "export out.jsonl",
    "fork trip",
    "fork trip --dry-run",
    "mcp",
    "view --no-open",
    "view --no-open --write",
    "mcp --write",
    "prune --max-messages 1 --yes",
    "prune --max-messages 1 --dry-run",
    "recall follow --once",
    "recall status",
    "rename trip new",
    "retention trip",
    "retention trip --keep-all",
    "retention trip --expire-after 1d",
    "rewrap --keyring file:keys",
    "rewrap --keyring file:keys --dry-run",
    "search refund",
    "search refund --scan",
    "show trip",
    "summarize trip",
    "summarize trip --dry-run",
    "tag trip",
    "tag trip a=1",
    "threads",
    "undo trip --yes",
    "tenants",
    "usage",
)


@pytest.fixture(params=["sqlite:///{}/typo.db", "file://{}/typo"], ids=["sqlite", "folder"])
def missing(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.chdir(tmp_path)
    return request.param.format(tmp_path)


@pytest.mark.parametrize("command", REFUSED)
def test_a_command_creates_no_store(command: str, missing: str, tmp_path: Path) -> None:
    words = [missing if word == "STORE" else word for word in command.split()]
    done = run(*words, store="" if words[0] == "copy" else missing)
    assert done.exit_code == EXIT_FAILED, done.output
    assert "There is no " in done.output
    assert list(tmp_path.iterdir()) == []


def test_the_table_holds_every_command() -> None:
    refused = {command.split()[0] for command in REFUSED}
    assert refused | BEGIN_ONE | NEED_NONE == set(COMMANDS)


@pytest.mark.parametrize("command", ["import export.jsonl", "copy sqlite:///from.db STORE"])
def test_import_and_copy_create_the_target_unless_dry_run(command: str, missing: str, tmp_path: Path) -> None:
    on("sqlite:///from.db", talk)
    assert run("export", "export.jsonl", store="sqlite:///from.db").exit_code == 0
    words = [missing if word == "STORE" else word for word in command.split()]
    store = "" if words[0] == "copy" else missing
    before = contents(tmp_path)
    planned = run(*words, "--dry-run", "--json", store=store)
    assert planned.exit_code == 0, planned.output
    assert contents(tmp_path) == before
    done = run(*words, "--json", store=store)
    assert done.exit_code == 0, done.output
    assert objects(planned)[-1] == {**objects(done)[-1], "dry_run": True}
    assert on(missing, lambda store: store.list_threads()).items


@pytest.mark.parametrize("command", ["import export.jsonl", "copy sqlite:///from.db STORE"])
def test_a_dry_run_predicts_a_transfer_into_an_empty_database(
    command: str, postgres: PostgresServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    on("sqlite:///from.db", talk)
    assert run("export", "export.jsonl", store="sqlite:///from.db").exit_code == 0
    url = fresh_url(postgres)
    words = [url if word == "STORE" else word for word in command.split()]
    store = "" if words[0] == "copy" else url
    planned = run(*words, "--dry-run", "--json", store=store)
    assert planned.exit_code == 0, planned.output
    assert "There are no tables in" in run("threads", store=url).output
    done = run(*words, "--json", store=store)
    assert objects(planned)[-1] == {**objects(done)[-1], "dry_run": True}


@pytest.mark.parametrize("refusal", ["migrate=false", "no rights"])
def test_a_dry_run_fails_if_the_transfer_could_not_begin(
    refusal: str, postgres: PostgresServer, tmp_path: Path
) -> None:
    source, url = f"sqlite:///{tmp_path}/from.db", fresh_url(postgres)
    on(source, talk)
    if refusal == "migrate=false":
        url += "&migrate=false"
    else:
        asyncio.run(create_guest(postgres))
        url = url.replace("postgres@", "guest@")
    planned, done = run("copy", source, url, "--dry-run"), run("copy", source, url)
    assert "There are no tables in" in done.stderr
    assert (planned.exit_code, planned.stderr) == (done.exit_code, done.stderr)


async def create_guest(postgres: PostgresServer) -> None:
    """Create a role that may not create schemas."""
    connection = await asyncpg.connect(postgres.url())
    await connection.execute("CREATE ROLE guest LOGIN")
    await connection.close()


DRY = (
    "copy from.db STORE --dry-run",
    "delete trip --dry-run",
    "delete-tenant acme --dry-run",
    "doctor --repair --dry-run",
    "export out.jsonl --dry-run",
    "fork trip --at 4 --dry-run",
    "import export.jsonl --dry-run",
    "prune --max-messages 1 --dry-run",
    "rewrap --keyring file:keys --accept-plain --dry-run",
    "rewrap --keyring file:keys --accept-plain --new-key --forget-old --dry-run",
    "summarize trip --keep-turns 0 --dry-run",
    "summarize --all --keep-turns 0 --dry-run",
    "undo trip --dry-run",
)


@pytest.mark.parametrize("command", DRY)
def test_a_dry_run_writes_to_no_file(command: str, missing: str, tmp_path: Path) -> None:
    for url in (missing, "sqlite:///from.db"):
        on(url, talk)
        on(url, lambda store: talk(store.tenant("acme")))
    assert run("export", "export.jsonl", store="sqlite:///from.db").exit_code == 0
    (tmp_path / "keys").write_text(run("new-key", "2026").stdout)
    before = contents(tmp_path)
    words = [missing if word == "STORE" else word for word in command.split()]
    done = run(*words, store="" if words[0] == "copy" else missing)
    assert done.exit_code in {0, EXIT_FAILED}, done.output
    assert "Error" not in done.stderr
    assert contents(tmp_path) == before


def contents(folder: Path) -> dict[str, bytes]:
    # A reader of an SQLite file creates an empty log (-wal) and its index (-shm).
    files = {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    return {name: data for name, data in files.items() if data and not name.endswith("-shm")}
