"""Talk to TravelPlanner: for the betas of Agent Framework. REDIS_URL says where the threads are kept."""

from __future__ import annotations

import asyncio
import os
import sys

from agent_framework import AgentThread, ChatAgent
from travel_agent import build_agent

from everthread import EverthreadError
from everthread.adapters.agent_framework import RedisChatMessageStore

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


def create_thread(agent: ChatAgent) -> tuple[AgentThread, RedisChatMessageStore]:
    """A fresh thread and its store."""
    thread = agent.get_new_thread()
    store = thread.message_store
    if not isinstance(store, RedisChatMessageStore):
        raise TypeError("The agent's threads are not kept in Redis: give it a chat_message_store_factory.")
    return thread, store


async def send(agent: ChatAgent, thread: AgentThread) -> None:
    prompt = await ask("You: ")
    if prompt:
        print(f"TravelPlanner: {(await agent.run(prompt, thread=thread)).text}")


async def show_history(store: RedisChatMessageStore) -> None:
    messages = await store.list_messages()
    if not messages:
        print("This thread is empty.")
    for message in messages:
        print(f"- {message.role.value.upper()}: {message.text}")


async def load_thread(
    agent: ChatAgent, thread: AgentThread, store: RedisChatMessageStore
) -> tuple[AgentThread, RedisChatMessageStore]:
    """Lets the user choose a saved thread; the current one if they do not."""
    saved = (await store.list_threads()).items
    if not saved:
        print("No thread is saved yet.")
        return thread, store
    for number, each in enumerate(saved, 1):
        print(f"  {number}. {each.title or each.key.thread_id} ({each.count} messages)")
    choice = await ask("Number: ")
    if not choice or not choice.isdecimal() or not 1 <= int(choice) <= len(saved):
        print("Nothing was loaded.")
        return thread, store
    loaded = store.for_thread(saved[int(choice) - 1].key.thread_id)
    thread = agent.get_new_thread()
    thread.message_store = loaded
    await store.aclose()
    print(f"Loaded {loaded.redis_key}")
    await show_history(loaded)
    return thread, loaded


async def interactive_demo(agent: ChatAgent) -> None:
    thread, store = create_thread(agent)
    try:
        while True:
            print(MENU.format(key=store.redis_key))
            choice = await ask("Choose an option: ")
            if choice in {None, "0"}:
                print("Goodbye.")
                return
            if choice == "1":
                await send(agent, thread)
            elif choice == "2":
                await show_history(store)
            elif choice == "3":
                thread, store = await load_thread(agent, thread, store)
            elif choice == "4":
                await store.aclose()
                thread, store = create_thread(agent)
            elif choice:
                print("Please type 1, 2, 3, 4 or 0.")
    finally:
        await store.aclose()


def main() -> int:
    redis_url = os.environ.get("REDIS_URL")
    if not redis_url:
        print("Set REDIS_URL, for example to redis://localhost:6379/0.", file=sys.stderr)
        return 2
    try:
        asyncio.run(interactive_demo(build_agent(redis_url)))
    except EverthreadError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
