"""The lines that ``--json`` prints are the documented objects."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from everthread.cli.group import COMMANDS
from everthread.cli.json_output import OBJECTS, schema
from everthread.cli.reference import reference
from tests.cli.test_bad_record import corrupt
from tests.cli.test_commands import on, run, seed
from tests.openai_server import scripted_openai
from tests.operations.talks import talk

PRINTING = (
    "threads",
    "show trip --raw",
    "show trip",
    "tenants",
    "search question",
    "search question --scan",
    "recall follow --once",
    "recall status",
    "search --by-meaning question",
    "usage --max-messages 5",
    "rename trip Naples",
    "tag trip a=1 b:=[1]",
    "retention trip --max-messages 500 --expire-after 90d",
    "retention trip",
    "threads",
    "fork trip --at 4 --dry-run",
    "fork trip --at 4",
    "undo trip --dry-run",
    "undo trip --yes",
    "delete no trip-fork-4 --yes",
    "summarize trip --keep-turns 0 --dry-run",
    "summarize trip --keep-turns 0",
    "summarize trip --keep-turns 0",
    "summarize --all --dry-run",
    "summarize --all --keep-turns 0",
    "export FOLDER/out.jsonl --dry-run",
    "export FOLDER/out.jsonl",
    "import FOLDER/out.jsonl --dry-run",
    "import FOLDER/out.jsonl --tenant other",
    "copy URL sqlite:///FOLDER/new.db --dry-run",
    "copy URL sqlite:///FOLDER/new.db",
    "doctor",
    "doctor --repair --dry-run",
    "doctor --repair --yes --backup FOLDER/backup",
    "doctor --undo FOLDER/backup --yes",
    "doctor --repair --yes --backup FOLDER/again",
    "prune --max-messages 1 --dry-run",
    "prune --max-messages 1 --yes",
    "rewrap --keyring file:FOLDER/keys --accept-plain --dry-run",
    "rewrap --keyring file:FOLDER/keys --accept-plain",
    "delete-tenant acme --dry-run",
    "delete-tenant acme --yes --receipt FOLDER/receipt",
    "compact --store file://FOLDER/objects",
    "config show",
)


@pytest.fixture
def url(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    url = f"sqlite:///{tmp_path}/threads.db"
    seed(url, "trip", "work", "broken", turns=3)
    on(url, lambda store: talk(store.tenant("acme")))
    corrupt(url, "broken", 2)
    (tmp_path / "keys").write_text(run("new-key", "2026").stdout)
    on(f"file://{tmp_path}/objects", talk)
    (tmp_path / "config.toml").write_text('[stores.a]\nurl = "memory:"\nmax_messages = 5\n')
    monkeypatch.setenv("EVERTHREAD_CONFIG", str(tmp_path / "config.toml"))
    monkeypatch.setenv("EVERTHREAD_STORE", url)
    return url


def fitting(line: bytes, command: str) -> list[type[msgspec.Struct]]:
    """Return the objects of a command that a line can be."""
    found: list[type[msgspec.Struct]] = []
    for shape in OBJECTS[command]:
        try:
            msgspec.json.decode(line, type=shape)
        except msgspec.ValidationError:
            continue
        if set(json.loads(line)) <= set(shape.__struct_encode_fields__):
            found.append(shape)
    return found


def test_each_line_is_an_object_of_its_command(url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: set[type[msgspec.Struct]] = set()
    with scripted_openai(Exception("no"), then="Summary.") as model:
        monkeypatch.setenv("OPENAI_BASE_URL", model.url)
        for text in PRINTING:
            words = text.replace("FOLDER", str(tmp_path)).replace("URL", url).split()
            name = " ".join(words[:2]) if words[0] in {"config", "recall"} else words[0]
            done = run(*words, *([] if "--raw" in words else ["--json"]))
            assert done.exit_code in {0, 1, 3}, (text, done.output)
            for line in done.stdout.splitlines():
                shapes = fitting(line.encode(), name)
                assert len(shapes) == 1, (text, line, shapes)
                seen.add(shapes[0])
    documented = {shape for shapes in OBJECTS.values() for shape in shapes}
    names = sorted(shape.__name__ for shape in documented - seen)
    assert names == ["FailedSummary", "PlannedChange"]


def test_a_failed_summary_is_an_object(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with scripted_openai(then=OSError("no")) as model:
        monkeypatch.setenv("OPENAI_BASE_URL", model.url)
        done = run("summarize", "--all", "--keep-turns", "0", "--json", store=url)
    shapes = [fitting(line.encode(), "summarize")[0].__name__ for line in done.stdout.splitlines()]
    assert shapes[0] == "FailedSummary"
    assert shapes[-1] == "SummaryTotals"


def test_every_field_has_a_description() -> None:
    for command in OBJECTS:
        for name, shape in schema(command)["$defs"].items():
            assert shape["description"], name
            for field, value in shape["properties"].items():
                assert "description" in value or "const" in value or "enum" in value, (name, field)


def test_the_reference_holds_every_command_option_and_field() -> None:
    page = reference()
    inner = {"config add", "config show", "config remove", "config path", "recall follow", "recall status"}
    for command in set(COMMANDS) - {"config", "recall"} | inner:
        assert f"### `everthread {command}`" in page
    for part in ("`--older-than AGE`", "`thread_id`", "| 141 |", "`Limits`"):
        assert part in page
    assert list(_headings(page)) == sorted(set(_headings(page)), key=page.index)


def _headings(page: str) -> Iterator[Any]:
    return (line for line in page.splitlines() if line.startswith("### "))
