"""The part of the client that needs no framework: the menu, questions and the exit."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from types import FrameType

from everthread import EverthreadError

MENU = """
Thread: {key}
  [1] send a message
  [2] show this thread's history
  [3] load a saved thread and go on
  [4] start a fresh thread
  [0] exit"""


async def ask(question: str) -> str | None:
    """Return the input of the user, or ``None`` at the end of input."""
    try:
        # Not in a thread: nothing else runs while the user types, and a thread that reads cannot be interrupted.
        return input(question).strip()
    except EOFError:
        return None


async def choose(saved: Sequence[str]) -> int | None:
    """Let the user choose a saved thread, and return its index, or ``None``."""
    if not saved:
        print("No thread is saved yet.")
        return None
    for number, name in enumerate(saved, 1):
        print(f"  {number}. {name}")
    choice = await ask("Number: ")
    if not choice or not choice.isdecimal() or not 1 <= int(choice) <= len(saved):
        print("Nothing was loaded.")
        return None
    return int(choice) - 1


def show(history: Sequence[tuple[str, str]]) -> None:
    """Print each message with its role."""
    if not history:
        print("This thread is empty.")
    for role, text in history:
        print(f"- {role.upper()}: {text}")


async def interactive_demo(key: Callable[[], str], choices: Mapping[str, Callable[[], Awaitable[None]]]) -> None:
    """Show the menu and carry out each choice until the user leaves."""
    while True:
        print(MENU.format(key=key()))
        choice = await ask("Choose an option: ")
        if choice in {None, "0"}:
            print("Goodbye.")
            return
        if choice in choices:
            await choices[choice]()
        elif choice:
            print("Please type 1, 2, 3, 4 or 0.")


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def main(talk: Callable[[str], Coroutine[None, None, None]]) -> int:
    """Run the client on the Redis of REDIS_URL, and return the exit status."""
    redis_url = os.environ.get("REDIS_URL")
    if not redis_url:
        print("Set REDIS_URL, for example to redis://localhost:6379/0.", file=sys.stderr)
        return 2
    # asyncio's own handler would wait for the end of the line.
    signal.signal(signal.SIGINT, _interrupt)
    try:
        asyncio.run(talk(redis_url))
    except KeyboardInterrupt:
        print("\nGoodbye.")
        return 130
    except EverthreadError as error:
        print(error, file=sys.stderr)
        return 1
    return 0
