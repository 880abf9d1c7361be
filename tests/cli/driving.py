"""Run ``everthread`` in a pseudo-terminal, or with its input piped."""

from __future__ import annotations

import errno
import fcntl
import os
import pty
import re
import select
import struct
import subprocess
import sys
import termios
import time
from pathlib import Path
from typing import Any

from tests.openai_server import ScriptedOpenAI

PROGRAM = str(Path(sys.executable).with_name("everthread"))
PATIENCE = 120.0
PROMPT = r"(?:you|message|stay|\[y/n\])>"
_ESCAPES = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)|\x1b[=>78]|\r")
# Makes the terminal the controlling one, so that Ctrl-C in it is a signal, and then runs the program.
_IN_A_TERMINAL = "import os, sys; os.login_tty(0); os.execv(sys.argv[1], sys.argv[1:])"
_SETTINGS = ("OPENAI_", "AZURE_", "AOAI_", "EVERTHREAD_", "XDG_", "REDIS_URL", "NO_COLOR", "COLUMNS", "LINES")


def environment(home: Path, **settings: str) -> dict[str, str]:
    """Return this environment without the client's variables, and with a home of its own."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(_SETTINGS)}
    # Without the variable, prompt_toolkit asks the terminal where its cursor is and waits for the answer.
    fixed = {"HOME": str(home), "TERM": "xterm-256color", "PROMPT_TOOLKIT_NO_CPR": "1", "PYTHONUTF8": "1"}
    return kept | fixed | settings


def piped(
    text: str, *arguments: str, home: Path, program: tuple[str, ...] = (PROGRAM, "chat"), **settings: str
) -> subprocess.CompletedProcess[str]:
    """Run the client with ``text`` as its input."""
    return subprocess.run(
        [*program, *arguments],
        input=text,
        capture_output=True,
        text=True,
        encoding="utf-8",
        timeout=PATIENCE,
        env=environment(home, **settings),
        check=False,
    )


def said_to(model: ScriptedOpenAI) -> list[tuple[str, str]]:
    """Return role and text of each message of the last request."""
    return [(message["role"], _text(message["content"])) for message in model.requests[-1]["messages"]]


def _text(content: Any) -> str:
    return content if isinstance(content, str) else "".join(part["text"] for part in content)


class Tty:
    """The client in a pseudo-terminal; ``with`` kills it at the end."""

    def __init__(
        self,
        *arguments: str,
        home: Path,
        program: tuple[str, ...] = (PROGRAM, "chat"),
        columns: int = 100,
        rows: int = 40,
        **settings: str,
    ) -> None:
        self.raw = self._unread = ""
        self._fd, inside = pty.openpty()
        fcntl.ioctl(inside, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
        self._process = subprocess.Popen(
            [sys.executable, "-IS", "-c", _IN_A_TERMINAL, *program, *arguments],
            stdin=inside,
            stdout=inside,
            stderr=inside,
            env=environment(home, **settings),
        )
        os.close(inside)

    def __enter__(self) -> Tty:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()
        os.close(self._fd)

    def type(self, text: str) -> None:
        os.write(self._fd, text.encode())

    def enter(self, line: str) -> None:
        """Wait for the prompt, and type a line and Enter."""
        self.expect(PROMPT)
        self.type(line + "\r")

    def expect(self, pattern: str) -> re.Match[str]:
        """Wait until the pattern is in the output after the last match, and return the match."""
        deadline = time.monotonic() + PATIENCE
        while True:
            text = _ESCAPES.sub("", self._unread)
            found = re.search(pattern, text)
            if found:
                # The rest is stored without escapes, which no test needs.
                self._unread = text[found.end() :]
                return found
            if not self._read(deadline):
                raise AssertionError(f"{pattern!r} did not come; there was: {text[-2000:]!r}")

    def interrupt(self, answer: str) -> None:
        """Press Ctrl-C until the answer comes, for programs that ask with ``input()``.

        That loses a signal that arrives just before its read begins: a person presses again.
        """
        for _ in range(int(PATIENCE / 10)):
            self.type("\x03")
            deadline = time.monotonic() + 10
            while answer not in self.raw and self._read(deadline):
                pass
            if answer in self.raw:
                return
        raise AssertionError(f"{answer!r} did not come; there was: {self.raw[-2000:]!r}")

    def exit_status(self) -> int:
        """Wait for the end of the process; ``raw`` has its output."""
        deadline = time.monotonic() + PATIENCE
        while self._read(deadline):
            pass
        return self._process.wait(PATIENCE)

    def _read(self, deadline: float) -> bool:
        ready, _, _ = select.select([self._fd], [], [], max(0.0, deadline - time.monotonic()))
        try:
            piece = os.read(self._fd, 65_536).decode(errors="replace") if ready else ""
        except OSError as error:
            # Linux reports the end of the other side of a terminal like this.
            if error.errno != errno.EIO:
                raise
            piece = ""
        self.raw += piece
        self._unread += piece
        return bool(piece)
