"""``AgentThread`` of the betas, serialized in one process and gone on with in another.

The betas ask a thread's message store for its state and then keep only the messages in it, so a thread
whose messages are kept elsewhere comes back empty, under a new id, without an error (microsoft/agent-framework,
issues 1636, 1991 and 3364). No beta will be mended any more. So the first message store of everthread that a process
makes mends three methods of ``AgentThread``, for threads with such a store and for nothing else:
``serialize`` keeps the store's state, and ``update_from_thread_state`` (which ``agent.deserialize_thread`` calls) and
``deserialize`` go on with the conversation that it names, or raise.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache, wraps
from typing import Any

from everthread._extras import import_extra
from everthread.adapters.agent_framework.chat_message_store import EverthreadChatMessageStore, RedisChatMessageStore
from everthread.codec import as_list, as_object
from everthread.errors import ConfigurationError

STORE_STATE = "chat_message_store_state"


async def restore_thread(agent: Any, serialized_thread: Mapping[str, Any], **kwargs: Any) -> Any:
    """Goes on with an ``AgentThread`` that ``thread.serialize()`` described, in this or any other process.

        state = await thread.serialize()                      # here: JSON values, no secret
        thread = await restore_thread(agent, state)           # there: the same conversation

    The agent's factory says where the conversation is if it makes message stores of everthread. Otherwise
    ``redis_url=`` or ``store=`` says it, or ``REDIS_URL`` or ``EVERTHREAD_STORE`` in the environment, or the state.

    Args:
        agent: The agent that is to go on with it.
        serialized_thread: What ``AgentThread.serialize()`` returned.
        kwargs: ``redis_url=`` or ``store=``: where the conversation is, before all else.

    Returns:
        The agent's new ``AgentThread``, on the same thread of the store.

    Raises:
        ConfigurationError: The state does not name a thread, as when it was serialized without everthread: it would
            come back empty.
    """
    keep_state_of_stores()
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
def keep_state_of_stores() -> None:
    """Makes ``AgentThread`` keep the state of message stores of everthread; see the module's docstring.

    Raises:
        UnsupportedError: The installed Agent Framework is not one of the betas.
    """
    from everthread.adapters.agent_framework.beta_messages import message_codec

    message_codec()
    thread_class = import_extra("agent_framework", "agent-framework").AgentThread
    _mend_serialize(thread_class)
    _mend_update(thread_class)
    _mend_deserialize(thread_class)


def _mend_serialize(thread_class: Any) -> None:
    original = thread_class.serialize

    @wraps(original)
    async def serialize(self: Any, **kwargs: Any) -> dict[str, Any]:
        state = await original(self, **kwargs)
        store = self.message_store
        if isinstance(store, EverthreadChatMessageStore):
            state[STORE_STATE] = {**as_object(state.get(STORE_STATE)), **await store.serialize(**kwargs)}
        return state

    thread_class.serialize = serialize


def _mend_update(thread_class: Any) -> None:
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


def _mend_deserialize(thread_class: Any) -> None:
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
            f"This thread's messages are kept by everthread, and a {type(store).__name__} would start it empty: give "
            "the agent a chat_message_store_factory of everthread, or use restore_thread."
        )
    return store


def _refuse_lost(state: Mapping[str, object]) -> None:
    # A store's state without messages is what the betas left of a thread whose messages are kept elsewhere.
    if state and "store_metadata" not in state and not as_list(state.get("messages")):
        raise ConfigurationError(
            "This state does not say which thread it is of: Agent Framework dropped that when the thread was "
            "serialized without everthread, and going on would start it empty. Make a message store with the "
            "thread's id instead."
        )
