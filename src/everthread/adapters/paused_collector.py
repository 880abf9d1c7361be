"""Pause the garbage collector while a large page is converted to objects."""

from __future__ import annotations

import gc
from collections.abc import Generator
from contextlib import contextmanager

LARGE_PAGE = 500
"""The collector pauses for this number of messages or more."""


@contextmanager
def paused_collector(messages: int) -> Generator[None]:
    """Pause the garbage collector if there are many messages; it is on again afterwards if it was on before.

    None of the new objects is garbage yet, and with 20,000 messages the collector's passes over them take as long as
    making them. The pause ends with the page. There must be no ``await`` in it: the pause applies to the whole process.

    Args:
        messages: The number of messages that are converted.
    """
    if messages < LARGE_PAGE or not gc.isenabled():
        yield
        return
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
