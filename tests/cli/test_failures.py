"""Every failure of a command is one line with an exit status, and never a traceback."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from everthread import StoreUnavailableError, ThreadNotFoundError
from everthread.cli import runner
from everthread.cli.group import TRACEBACK, everthread
from tests.cli.driving import PROGRAM, Tty, environment
from tests.servers import free_port

COMMANDS = (
    ["compact", "t"],
    ["copy", "memory:", "memory:"],
    ["export", "-"],
    ["import", "x"],
    ["prune", "--max-messages", "1", "--yes"],
    ["summarize", "t"],
    ["undo", "t", "--yes"],
    ["fork", "t"],
    ["delete", "t", "--yes"],
    ["delete-tenant", "t", "--yes"],
    ["tag", "t", "a=1"],
    ["rename", "t", "x"],
    ["retention", "t"],
    ["recall", "follow", "--once"],
    ["search", "x"],
    ["show", "t"],
    ["threads"],
    ["usage"],
)
FAILURES = (
    (StoreUnavailableError("It cannot be reached."), 4),
    (ThreadNotFoundError("There is none."), 3),
    (ValueError("what Ana said"), 1),
    (OverflowError("what Ana said"), 1),
    (RecursionError("what Ana said"), 1),
    (UnicodeDecodeError("utf-8", b"what Ana said", 0, 1, "no"), 1),
    (PermissionError(13, "Permission denied", "a\nfile"), 1),
    (KeyboardInterrupt(), 130),
)


def ended(arguments: list[str], capfd: pytest.CaptureFixture[str]) -> tuple[object, str]:
    """Return the exit status and the standard error."""
    with pytest.raises(SystemExit) as end:
        everthread(arguments)
    return end.value.code, capfd.readouterr().err


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command[0])
def test_each_failure_of_each_command_is_one_line(
    command: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("EVERTHREAD_STORE", "memory:")
    for error, status in FAILURES:

        def fail(*_: object, error: BaseException = error, **__: object) -> None:
            raise error

        monkeypatch.setattr(runner, "open_place", fail)
        code, told = ended(command, capfd)
        assert (code, len(told.splitlines())) == (status, 0 if status == 130 else 1), told
        assert "Ana" not in told


@pytest.mark.parametrize("command", [*COMMANDS, ["doctor"], ["chat"]], ids=lambda command: command[0])
def test_an_unreachable_store_is_one_line_and_status_4(
    command: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    url = f"redis://:pa55word@127.0.0.1:{free_port()}/0?retries=0"
    monkeypatch.setenv("EVERTHREAD_STORE", url)
    if command[0] == "copy":
        command = ["copy", url, "memory:"]
    if command[0] == "import":
        (tmp_path / "x").write_text('{"type":"export","version":2}\n')
    code, told = ended(command, capfd)
    assert code == 4, told
    assert len(told.splitlines()) <= 1
    assert "pa55word" not in told


def test_a_defect_shows_its_traceback_only_on_request(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise ValueError("what Ana said")

    monkeypatch.setattr(runner, "open_place", fail)
    monkeypatch.setenv("EVERTHREAD_STORE", "memory:")
    _, told = ended(["threads"], capfd)
    assert told.startswith("Error: Unexpected ValueError (tests.cli.test_failures, line ")
    monkeypatch.setenv(TRACEBACK, "1")
    with pytest.raises(ValueError, match="Ana"):
        everthread(["threads"])


def test_ctrl_c_at_a_question_ends_with_130(tmp_path: Path) -> None:
    store = f"sqlite:///{tmp_path}/t.db"
    with Tty("--thread", "t", "--store", store, home=tmp_path) as chat:
        chat.enter("I am Ana")
        chat.expect("Noted: “I am")
        chat.enter("0")
        chat.exit_status()
    with Tty("delete", "t", "--store", store, home=tmp_path, program=(PROGRAM,)) as tty:
        tty.expect(r"\[y/N\]")
        tty.type("\x03")
        assert tty.exit_status() == 130
        assert "Aborted" not in tty.raw


def test_the_testing_kit_names_the_extra_that_it_lacks(tmp_path: Path) -> None:
    for missing in ("pytest", "hypothesis"):
        code = f"import sys; sys.modules[{missing!r}] = None; import everthread.testing"
        run = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, env=environment(tmp_path), check=False
        )
        assert "ConfigurationError" in run.stderr
        assert "pip install 'everthread[testing]'" in run.stderr
