"""TravelPlanner, with its threads in Redis: for Agent Framework 1.x."""

from __future__ import annotations

import os
from typing import Any

from agent_framework import Agent

from everthread import Retention, Store, open_store
from everthread.adapters.agent_framework import EverthreadHistoryProvider
from everthread.cli.offline_model import OfflineModel

KEY_PREFIX = "lab11"
MAX_MESSAGES = 200
INSTRUCTIONS = "You plan trips. Be concise, and always use the facts that the user gave you earlier."


def open_threads(redis_url: str) -> Store:
    """Return the store of the threads, for ``async with``."""
    return open_store(redis_url, prefix=KEY_PREFIX)


def build_agent(store: Store) -> tuple[Agent, EverthreadHistoryProvider]:
    """Return the agent and the provider of its history."""
    history = EverthreadHistoryProvider(store, retention=Retention(max_messages=MAX_MESSAGES))
    agent = Agent(client=chat_client(), name="TravelPlanner", instructions=INSTRUCTIONS, context_providers=[history])
    return agent, history


def chat_client() -> Any:
    """Return Azure OpenAI if it is configured, or else a model without network."""
    endpoint, deployment = os.environ.get("AOAI_ENDPOINT"), os.environ.get("AOAI_DEPLOYMENT")
    if not endpoint or not deployment:
        return OfflineModel()
    from agent_framework.openai import OpenAIChatCompletionClient
    from azure.identity import AzureCliCredential

    return OpenAIChatCompletionClient(deployment, azure_endpoint=endpoint, credential=AzureCliCredential())
