"""TravelPlanner, with its threads in Redis: for the betas of Agent Framework."""

from __future__ import annotations

import os
from typing import Any

from agent_framework import ChatAgent
from beta.offline import OfflineChatClient

from everthread.adapters.agent_framework_beta import RedisChatMessageStore

KEY_PREFIX = "lab11"
MAX_MESSAGES = 200
INSTRUCTIONS = "You plan trips. Be concise, and always use the facts that the user gave you earlier."


def build_agent(redis_url: str) -> ChatAgent:
    """Return the agent. Each of its threads gets a store; all stores share one connection."""

    def store_factory() -> RedisChatMessageStore:
        return RedisChatMessageStore(redis_url=redis_url, key_prefix=KEY_PREFIX, max_messages=MAX_MESSAGES)

    return ChatAgent(
        chat_client=chat_client(),
        name="TravelPlanner",
        instructions=INSTRUCTIONS,
        chat_message_store_factory=store_factory,
    )


def chat_client() -> Any:
    """Return Azure OpenAI if it is configured, or else a model without network."""
    endpoint, deployment = os.environ.get("AOAI_ENDPOINT"), os.environ.get("AOAI_DEPLOYMENT")
    if not endpoint or not deployment:
        return OfflineChatClient()
    from agent_framework.azure import AzureOpenAIChatClient
    from azure.identity import AzureCliCredential

    return AzureOpenAIChatClient(endpoint=endpoint, deployment_name=deployment, credential=AzureCliCredential())
