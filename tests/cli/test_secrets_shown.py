"""No command shows a secret of a store's URL, whether it takes the URL or refuses it."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from everthread.cli.group import everthread

SECRETS = ("QXZ@WVJ", "QXZ/WVJ", "QXZ?WVJ", "QXZ#WVJ", "QXZ&WVJ=QZJ", "QXZ%WVJ", "QXZ[WVJ]", "QXZ%40WVJ")
PLACES = (
    *(
        "redis://user:SECRET@127.0.0.1:1/0?retries=0",
        "redis:user:SECRET@h",
        "redis://127.0.0.1:1?retries=0&password=SECRET",
    ),
    *("redis+sentinel://127.0.0.1:1,127.0.0.1:2/name?sentinel_password=SECRET&failover_timeout=0.1&retries=0",),
    *("postgresql://user:SECRET@127.0.0.1:1/db", "s3://key:SECRET@bucket", "s3://b?endpoint=http://u:SECRET@h"),
)


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("command", [("threads",), ("doctor",), ("config", "add", "prod")])
def test_no_command_shows_a_piece_of_a_secret(
    place: str, command: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EVERTHREAD_CONFIG", str(tmp_path / "config.toml"))
    for secret in SECRETS:
        url = place.replace("SECRET", secret)
        arguments = [*command, url] if command[0] == "config" else [*command, "--store", url]
        result = CliRunner().invoke(everthread, arguments)
        assert result.exit_code != 0
        assert not [piece for piece in ("QXZ", "WVJ", "QZJ") if piece in result.output + str(result.exception)]
    assert not (tmp_path / "config.toml").exists()
