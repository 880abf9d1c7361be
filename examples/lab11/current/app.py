"""Talk to TravelPlanner: for Agent Framework 1.x. REDIS_URL says where the threads are kept."""

from __future__ import annotations

import asyncio
import os
import sys

from agent_framework import Agent, AgentSession
from travel_agent import KEY_PREFIX, build_agent, open_threads

from everthread import EverthreadError
from everthread.adapters.agent_framework import EverthreadHistoryProvider

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


async def send(agent: Agent, session: AgentSession) -> None:
    prompt = await ask("You: ")
    if prompt:
        print(f"TravelPlanner: {(await agent.run(prompt, session=session)).text}")


async def show_history(history: EverthreadHistoryProvider, session: AgentSession) -> None:
    messages = await history.get_messages(session.session_id)
    if not messages:
        print("This thread is empty.")
    for message in messages:
        print(f"- {message.role.upper()}: {message.text}")


async def load_session(agent: Agent, history: EverthreadHistoryProvider, session: AgentSession) -> AgentSession:
    """Lets the user choose a saved thread; the current one if they do not."""
    saved = (await history.list_sessions()).items
    if not saved:
        print("No thread is saved yet.")
        return session
    for number, each in enumerate(saved, 1):
        print(f"  {number}. {each.title or each.session_id} ({each.message_count} messages)")
    choice = await ask("Number: ")
    if not choice or not choice.isdecimal() or not 1 <= int(choice) <= len(saved):
        print("Nothing was loaded.")
        return session
    loaded = agent.create_session(session_id=saved[int(choice) - 1].session_id)
    print(f"Loaded {KEY_PREFIX}:{loaded.session_id}")
    await show_history(history, loaded)
    return loaded


async def interactive_demo(agent: Agent, history: EverthreadHistoryProvider) -> None:
    session = agent.create_session()
    while True:
        print(MENU.format(key=f"{KEY_PREFIX}:{session.session_id}"))
        choice = await ask("Choose an option: ")
        if choice in {None, "0"}:
            print("Goodbye.")
            return
        if choice == "1":
            await send(agent, session)
        elif choice == "2":
            await show_history(history, session)
        elif choice == "3":
            session = await load_session(agent, history, session)
        elif choice == "4":
            session = agent.create_session()
        elif choice:
            print("Please type 1, 2, 3, 4 or 0.")


async def talk(redis_url: str) -> None:
    async with open_threads(redis_url) as store:
        agent, history = build_agent(store)
        await interactive_demo(agent, history)


def main() -> int:
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


if __name__ == "__main__":
    sys.exit(main())
