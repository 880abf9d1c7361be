"""``everthread usage`` sums up a tenant, and compares the sums with limits."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from everthread import ThreadKey, new_message, open_store
from tests.cli.driving import PROGRAM, piped

SAID = new_message({"role": "user", "content": "x"})
SIZE = len(SAID.payload)


@pytest.fixture
async def url(tmp_path: Path) -> str:
    url = f"sqlite:///{tmp_path}/t.db"
    async with open_store(url) as store:
        for name, tenant in (("a", "acme"), ("b", "acme"), ("c", "other")):
            await store.append(ThreadKey(name, tenant), [SAID] * 3)
    return url


@pytest.mark.parametrize(
    ("options", "limits", "status"),
    [
        ((), ("", ""), 0),
        (("--max-messages", "6", "--max-bytes", "1kB"), ("6", "1000"), 0),
        (("--max-messages", "5"), ("5", ""), 1),
        (("--max-bytes", str(6 * SIZE - 1)), ("", str(6 * SIZE - 1)), 1),
    ],
    ids=["no limit", "within", "too many messages", "too many bytes"],
)
def test_usage_compares_the_sums_with_limits(
    url: str, tmp_path: Path, options: tuple[str, ...], limits: tuple[str, str], status: int
) -> None:
    told = piped("", "--store", url, "--tenant", "acme", *options, home=tmp_path, program=(PROGRAM, "usage"))
    assert told.returncode == status, told.stderr
    rows = [line.split("\t") for line in told.stdout.splitlines()]
    assert rows == [["threads", "2", ""], ["messages", "6", limits[0]], ["bytes", str(6 * SIZE), limits[1]]]


def test_usage_prints_a_json_object(url: str, tmp_path: Path) -> None:
    options = ("--tenant", "nobody", "--max-messages", "0", "--json")
    told = piped("", "--store", url, *options, home=tmp_path, program=(PROGRAM, "usage"))
    assert told.returncode == 0
    assert json.loads(told.stdout) == {
        "schema": 1, "tenant": "nobody", "threads": 0, "messages": 0, "bytes": 0, "max_messages": 0, "max_bytes": None,
    }  # fmt: skip
