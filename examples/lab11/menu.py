"""The part of the client in which no framework has a part: the menu, questions, and how it ends."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence

from everthread import EverthreadError

MENU = """
Thread: {key}
  [1] send a message
  [2] show this thread's history
  [3] load a saved thread and go on
  [4] start a fresh thread
  [0] exit"""


async def ask(question: str) -> str | None:
    """What the user types, or ``None`` at the end of input."""
    try:
        return (await asyncio.to_thread(input, question)).strip()
    except EOFError:
        return None


async def choose(saved: Sequence[str]) -> int | None:
    """Lets the user choose one of the saved threads; its place in the list, or ``None``."""
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
    """Prints who said what."""
    if not history:
        print("This thread is empty.")
    for role, text in history:
        print(f"- {role.upper()}: {text}")


async def interactive_demo(key: Callable[[], str], choices: Mapping[str, Callable[[], Awaitable[None]]]) -> None:
    """Shows the menu, and does what the user chooses, until they leave."""
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


def main(talk: Callable[[str], Coroutine[None, None, None]]) -> int:
    """Talks in the Redis that REDIS_URL names; returns the exit status."""
    redis_url = os.environ.get("REDIS_URL")
    if not redis_url:
        print("Set REDIS_URL, for example to redis://localhost:6379/0.", file=sys.stderr)
        return 2
    try:
        asyncio.run(talk(redis_url))
    except EverthreadError as error:
        print(error, file=sys.stderr)
        return 1
    return 0
