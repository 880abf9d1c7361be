"""Operations on whole threads, stores and lists of messages: one module for each verb. Commands call them."""

from everthread.operations.message_lists import inspect_messages, repair_messages

__all__ = ["inspect_messages", "repair_messages"]
