"""One engine a kind of storage. Found by URL scheme through the entry points ``everthread.engines``."""
