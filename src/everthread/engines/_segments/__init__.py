"""A log of immutable entries over any storage that can create an object only if its name is free.

A thread is the objects ``t/{tenant}/{thread}/{number}``. Each mutation creates the next number, which fails if another
writer has created it. An entry carries the thread's small state, so that the newest entry alone describes the thread.
See docs/decisions/0006-a-log-of-entries-over-conditional-create.md.

Read top-down: `storage` (the interface of a storage), `names` (identifiers → names), `records` (the content of
objects), `log` (the newest entry, and how to write the next one), `turns` (appends), `engine` and `store`.
"""
