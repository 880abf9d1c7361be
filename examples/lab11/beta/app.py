"""Talk to TravelPlanner: for the betas of Agent Framework. REDIS_URL names the store."""

from __future__ import annotations

import sys

from agent_framework import AgentThread, ChatAgent
from beta.travel_agent import build_agent
from menu import ask, choose, interactive_demo, main, show

from everthread.adapters.agent_framework_beta import RedisChatMessageStore


class TravelChat:
    """The agent and the current thread."""

    def __init__(self, agent: ChatAgent) -> None:
        self.agent = agent
        self.thread, self.store = create_thread(agent)

    def key(self) -> str:
        return self.store.redis_key

    async def send(self) -> None:
        prompt = await ask("You: ")
        if prompt:
            print(f"TravelPlanner: {(await self.agent.run(prompt, thread=self.thread)).text}")

    async def show_history(self) -> None:
        messages = await self.store.list_messages()
        show([(message.role.value, message.text) for message in messages])

    async def load(self) -> None:
        saved = (await self.store.list_threads()).items
        chosen = await choose([f"{each.title or each.key.thread_id} ({each.count} messages)" for each in saved])
        if chosen is not None:
            loaded = self.store.for_thread(saved[chosen].key.thread_id)
            thread = self.agent.get_new_thread()
            thread.message_store = loaded
            await self.store.aclose()
            self.thread, self.store = thread, loaded
            print(f"Loaded {self.key()}")
            await self.show_history()

    async def start_fresh(self) -> None:
        await self.store.aclose()
        self.thread, self.store = create_thread(self.agent)


def create_thread(agent: ChatAgent) -> tuple[AgentThread, RedisChatMessageStore]:
    """Start a thread with a store of its own."""
    thread = agent.get_new_thread()
    store = thread.message_store
    if not isinstance(store, RedisChatMessageStore):
        raise TypeError("The agent's threads are not kept in Redis: give it a chat_message_store_factory.")
    return thread, store


async def talk(redis_url: str) -> None:
    chat = TravelChat(build_agent(redis_url))
    choices = {"1": chat.send, "2": chat.show_history, "3": chat.load, "4": chat.start_fresh}
    try:
        await interactive_demo(chat.key, choices)
    finally:
        await chat.store.aclose()


if __name__ == "__main__":
    sys.exit(main(talk))
