"""Write docs/pictures/chat.svg: run the interactive client in a real terminal (tmux) and draw its screen.

    python tools/docs/chat_picture.py

Needs tmux, and the extra ``chat`` in the environment that runs it. The offline model answers.
"""

from __future__ import annotations

import io
import os
import re
import shlex
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from rich.console import Console
from rich.text import Text

PICTURE = Path(__file__).parents[2] / "docs" / "pictures" / "chat.svg"
COLUMNS, ROWS = 92, 31
SOCKET = f"everthread-picture-{os.getpid()}"
PATIENCE = 30.0
FIRST_RUN = (
    ("new thread", "I am Ana, and I want to go to Lisbon in May."),
    ("Noted: “I am Ana", "I love fado and seafood, but I hate crowds."),
    ("Noted: “I love", "0"),
)
SECOND_RUN = (
    ("[0] exit", "3"),
    ("number to load", "1"),
    ("assistant", "What is my name, and where do I want to go?"),
)


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="travel-") as folder:
        try:
            _start(folder)
            _type("$", "everthread chat")
            for seen, line in FIRST_RUN:
                _type(seen, line)
            _type("Goodbye", "clear")
            _wait_for("Goodbye", is_shown=False)
            _type("$", "everthread chat")
            for seen, line in SECOND_RUN:
                _type(seen, line)
            _wait_for("conversation.)")
            time.sleep(0.5)  # The prompt and the line below it are drawn after the reply.
            screen = _tmux("capture-pane", "-p", "-e")
        finally:
            _tmux("kill-server")
    PICTURE.write_text(_drawn(screen))
    sys.stdout.write(f"{PICTURE}\n")


def _start(folder: str) -> None:
    settings = {
        "HOME": folder,
        "PS1": "$ ",
        "PATH": f"{Path(sys.executable).parent}:{os.defpath}",
        "EVERTHREAD_STORE": f"sqlite:///{folder}/trips.db",
    }
    shell = shlex.join(["env", "-i", "TERM=tmux-256color", "LANG=C.UTF-8", *(f"{k}={v}" for k, v in settings.items())])
    size = ("-x", str(COLUMNS), "-y", str(ROWS))
    _tmux("-f", "/dev/null", "new-session", "-d", *size, "-c", folder, f"{shell} sh")


def _type(seen: str, line: str) -> None:
    _wait_for(seen)
    time.sleep(0.5)  # The prompt follows what was waited for.
    _tmux("send-keys", "-l", line)
    _tmux("send-keys", "Enter")


def _wait_for(text: str, *, is_shown: bool = True) -> None:
    deadline = time.monotonic() + PATIENCE
    while (text in (screen := _tmux("capture-pane", "-p"))) != is_shown:
        if time.monotonic() > deadline:
            raise SystemExit(f"{text!r} did not {'appear' if is_shown else 'go'}:\n{screen}")
        time.sleep(0.1)


def _tmux(*arguments: str) -> str:
    done = subprocess.run(["tmux", "-L", SOCKET, *arguments], capture_output=True, text=True, check=False)
    return done.stdout


def _drawn(screen: str) -> str:
    console = Console(width=COLUMNS, record=True, file=io.StringIO(), force_terminal=True)
    console.print(Text.from_ansi(screen.rstrip()), soft_wrap=True)
    # Any monospaced font does; the picture is to load nothing from elsewhere.
    return re.sub(r"@font-face \{.*?\}\s*", "", console.export_svg(title="everthread chat"), flags=re.DOTALL)


if __name__ == "__main__":
    main()
