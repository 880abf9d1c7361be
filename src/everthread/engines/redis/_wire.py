"""Commands in the encoding of the wire (RESP: https://redis.io/docs/latest/develop/reference/protocol-spec/).

Measured with the 18 arguments of an append: 1.9 µs; formatting each by itself took 3.3, and hiredis takes 2.9.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

_END: Final = b"\r\n"
_MOST_PREPARED = 1024
_LENGTHS: Final = [b"\r\n$%d\r\n" % size for size in range(_MOST_PREPARED)]


def packed(arguments: Iterable[bytes], before: Iterable[bytes] = (), after: bytes = b"") -> bytes:
    """Arguments of a command, each led by a line end, so that what is packed apart can be put together.

    Args:
        arguments: What is packed.
        before: What goes before it as it is.
        after: What goes behind it as it is.
    """
    parts = [*before]
    add = parts.append
    for argument in arguments:
        size = len(argument)
        add(_LENGTHS[size] if size < _MOST_PREPARED else b"\r\n$%d\r\n" % size)
        add(argument)
    add(after)
    return b"".join(parts)


def request(arguments: Sequence[bytes]) -> bytes:
    """A whole command."""
    return begun_request(len(arguments), (), arguments)


def begun_request(count: int, beginning: Iterable[bytes], arguments: Sequence[bytes]) -> bytes:
    """A whole command, whose first arguments were packed before.

    Args:
        count: How many arguments it has in all.
    """
    return packed(arguments, (b"*%d" % count, *beginning), _END)
