"""Stores around stores. `ForwardingStore` is the base for one of your own."""

from everthread.wrappers.forwarding import ABILITIES, AppendOptions, ForwardingStore, ThreadChanges

__all__ = ["ABILITIES", "AppendOptions", "ForwardingStore", "ThreadChanges"]
