"""The conformance kit: holds any engine to the guarantees of `everthread.contract`."""
