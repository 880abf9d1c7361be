"""The thread API: `everthread.server.thread_api`."""
