"""The structure that model services require of a conversation: the faults of a list, and their repair. No I/O."""
