"""Talk to TravelPlanner: for Agent Framework 1.x. REDIS_URL names the store."""

from __future__ import annotations

import sys

from agent_framework import Agent
from current.travel_agent import KEY_PREFIX, build_agent, open_threads
from menu import ask, choose, interactive_demo, main, show

from everthread.adapters.agent_framework import EverthreadHistoryProvider


class TravelChat:
    """The agent and the current session."""

    def __init__(self, agent: Agent, history: EverthreadHistoryProvider) -> None:
        self.agent, self.history = agent, history
        self.session = agent.create_session()

    def key(self) -> str:
        return f"{KEY_PREFIX}:{self.session.session_id}"

    async def send(self) -> None:
        prompt = await ask("You: ")
        if prompt:
            print(f"TravelPlanner: {(await self.agent.run(prompt, session=self.session)).text}")

    async def show_history(self) -> None:
        messages = await self.history.get_messages(self.session.session_id)
        show([(message.role, message.text) for message in messages])

    async def load(self) -> None:
        saved = (await self.history.list_sessions()).items
        chosen = await choose([f"{each.title or each.session_id} ({each.message_count} messages)" for each in saved])
        if chosen is not None:
            self.session = self.agent.create_session(session_id=saved[chosen].session_id)
            print(f"Loaded {self.key()}")
            await self.show_history()

    async def start_fresh(self) -> None:
        self.session = self.agent.create_session()


async def talk(redis_url: str) -> None:
    async with open_threads(redis_url) as store:
        chat = TravelChat(*build_agent(store))
        choices = {"1": chat.send, "2": chat.show_history, "3": chat.load, "4": chat.start_fresh}
        await interactive_demo(chat.key, choices)


if __name__ == "__main__":
    sys.exit(main(talk))
