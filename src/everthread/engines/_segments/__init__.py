"""A log of immutable entries over any storage that can create an object only if its name is free.

`storage` says what a storage must do, `threads` helps those that block, `engine` is an `everthread.contract.Store`
over one. In between: `names` (identifiers → names), `records` (what an entry holds), `cutting` (where a thread may be
cut), `log` (the newest entry, and how the next one is written), `cache`, `turns` (appends), `joining` (objects that
take the place of others), `compaction`, `rewriting`, `recency` (the list of threads) and `documents`. For the doctor:
`diagnosis` (what a storage is, and whether it keeps the rules) and `reconciling` (what killed writers left). Nothing
here knows which storage it is.

A thread is the objects ``t/{tenant}/{thread}/{number}``. Each mutation creates the next number, which fails if
somebody else has created it, and carries the thread's small running state, so the newest entry alone says what
the thread is. See docs/decisions/0006-a-log-of-entries-over-conditional-create.md.
"""
