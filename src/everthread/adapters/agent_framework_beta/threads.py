"""Restore an ``AgentThread`` of the betas that another process serialized.

The betas ask a thread's message store for its state and then keep only the messages in it, so a thread
with messages in another place comes back empty, under a new id, without an error (microsoft/agent-framework,
issues 1636, 1991 and 3364). No beta will be repaired any more. So importing the message stores repairs three methods of
``AgentThread``, for threads with such a store only: ``serialize`` keeps the store's state, and
``update_from_thread_state`` (which ``agent.deserialize_thread`` calls) and ``deserialize`` continue the conversation
that it names, or raise.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from functools import cache, wraps
from typing import Any

from everthread._extras import import_extra
from everthread.adapters.agent_framework_beta.chat_message_store import EverthreadChatMessageStore
from everthread.adapters.agent_framework_beta.messages import message_codec
from everthread.adapters.agent_framework_beta.redis_chat_message_store import RedisChatMessageStore
from everthread.adapters.agent_framework_beta.runs import note_runs
from everthread.errors import ConfigurationError, UnsupportedError
from everthread.messages.codec import as_list, as_object

__all__ = ["EverthreadChatMessageStore", "RedisChatMessageStore", "restore_thread"]

STORE_STATE = "chat_message_store_state"


async def restore_thread(agent: Any, serialized_thread: Mapping[str, Any], **kwargs: Any) -> Any:
    """Return the ``AgentThread`` that ``thread.serialize()`` described, in this or any other process.

        state = await thread.serialize()                      # here: JSON values, no secret
        thread = await restore_thread(agent, state)           # there: the same conversation

    ``redis_url=`` or ``store=`` names the place of the conversation. Otherwise the agent's factory does, if it makes
    message stores of everthread; a state that names another place is then refused. Otherwise ``REDIS_URL`` or
    ``EVERTHREAD_STORE`` in the environment does, or the state, which can name a Redis server only.

    Args:
        agent: The agent of the thread.
        serialized_thread: The result of ``AgentThread.serialize()``.
        kwargs: ``redis_url=`` or ``store=``.

    Raises:
        ConfigurationError: The state does not name a thread, as when it was serialized without everthread: it would
            come back empty.
    """
    _repair_threads()
    if not isinstance(serialized_thread, Mapping):
        raise ConfigurationError(f"A serialized thread is a mapping, not a {type(serialized_thread).__name__}.")
    state = as_object(serialized_thread.get(STORE_STATE))
    _refuse_lost(state)
    thread = agent.get_new_thread()
    if serialized_thread.get("service_thread_id") is not None:
        # A thread that the model's service keeps cannot have a message store, which a factory has given it.
        thread = type(thread)(context_provider=thread.context_provider)
    elif "store_metadata" in state and not isinstance(thread.message_store, EverthreadChatMessageStore):
        thread.message_store = await _store_from(state, kwargs)
    await thread.update_from_thread_state(serialized_thread, **kwargs)
    return thread


@cache
def _repair_threads() -> None:
    """Make ``AgentThread`` keep the state of message stores; see the module's docstring.

    Raises:
        UnsupportedError: The installed Agent Framework is not one of the betas.
    """
    message_codec()
    framework = import_extra("agent_framework", "agent-framework")
    thread_class = framework.AgentThread
    _repair_serialize(thread_class)
    _repair_update(thread_class)
    _repair_deserialize(thread_class)
    note_runs(getattr(framework, "ChatAgent", None) or framework.Agent)


def _repair_serialize(thread_class: Any) -> None:
    original = thread_class.serialize

    @wraps(original)
    async def serialize(self: Any, **kwargs: Any) -> dict[str, Any]:
        state = await original(self, **kwargs)
        store = self.message_store
        if isinstance(store, EverthreadChatMessageStore):
            state[STORE_STATE] = {**as_object(state.get(STORE_STATE)), **await store.serialize(**kwargs)}
        return state

    thread_class.serialize = serialize


def _repair_update(thread_class: Any) -> None:
    original = thread_class.update_from_thread_state

    @wraps(original)
    async def update_from_thread_state(self: Any, serialized_thread_state: Any, **kwargs: Any) -> None:
        state, store = as_object(as_object(serialized_thread_state).get(STORE_STATE)), self.message_store
        if "store_metadata" not in state:
            if isinstance(store, EverthreadChatMessageStore):
                _refuse_lost(state)
            await original(self, serialized_thread_state, **kwargs)
        elif store is None:
            self.message_store = await _store_from(state, kwargs)
        else:
            await _checked(store).update_from_state(state, **kwargs)

    thread_class.update_from_thread_state = update_from_thread_state


def _repair_deserialize(thread_class: Any) -> None:
    original = thread_class.deserialize.__func__

    @wraps(original)
    async def deserialize(cls: Any, serialized_thread_state: Any, *, message_store: Any = None, **kwargs: Any) -> Any:
        state = as_object(as_object(serialized_thread_state).get(STORE_STATE))
        if "store_metadata" not in state:
            if isinstance(message_store, EverthreadChatMessageStore):
                _refuse_lost(state)
            return await original(cls, serialized_thread_state, message_store=message_store, **kwargs)
        thread = cls(message_store=message_store)
        await thread.update_from_thread_state(serialized_thread_state, **kwargs)
        return thread

    thread_class.deserialize = classmethod(deserialize)


async def _store_from(state: Mapping[str, object], kwargs: Mapping[str, Any]) -> EverthreadChatMessageStore:
    is_redis = "redis_url" in as_object(state["store_metadata"])
    kind = RedisChatMessageStore if is_redis else EverthreadChatMessageStore
    return await kind.deserialize(state, **kwargs)


def _checked(store: object) -> EverthreadChatMessageStore:
    if not isinstance(store, EverthreadChatMessageStore):
        raise ConfigurationError(
            f"everthread stores the messages of this thread, and a {type(store).__name__} would start it empty: give "
            "the agent a chat_message_store_factory of everthread, or use restore_thread."
        )
    return store


def _refuse_lost(state: Mapping[str, object]) -> None:
    # The betas leave a store's state without messages of a thread with messages in another place.
    if state and "store_metadata" not in state and not as_list(state.get("messages")):
        raise ConfigurationError(
            "This state does not name its thread: Agent Framework dropped the id when the thread was serialized "
            "without everthread, and to continue would start it empty. Make a message store with the thread's id."
        )


with suppress(ConfigurationError, UnsupportedError):  # Message stores raise them when they are made.
    _repair_threads()
