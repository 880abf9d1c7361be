"""The exit statuses of every command, and the errors that end a command with one."""

from __future__ import annotations

import click

from everthread.errors import EverthreadError, StoreUnavailableError, ThreadNotFoundError

EXIT_FAILED = 1
EXIT_USAGE = 2
EXIT_NOT_FOUND = 3
EXIT_UNAVAILABLE = 4
EXIT_INTERRUPTED = 130
EXIT_PIPE_CLOSED = 141
"""The status that a shell reports for a program that SIGPIPE ended."""

MEANINGS = {
    0: "done",
    EXIT_FAILED: "failed, declined, or incomplete: something is left, faulty or unreadable",
    EXIT_USAGE: "wrong usage",
    EXIT_NOT_FOUND: "no such thread or tenant",
    EXIT_UNAVAILABLE: "the store cannot be reached: try again",
    EXIT_INTERRUPTED: "stopped with Ctrl-C",
    EXIT_PIPE_CLOSED: "the reader of the output ended first (| head)",
}
EXIT_STATUSES = "\b\nExit status:\n" + "\n".join(f"  {status:<4} {meaning}" for status, meaning in MEANINGS.items())


class CommandFailed(click.ClickException):
    """Ends the command with one line on standard error and an exit status."""

    def __init__(self, message: str, status: int = EXIT_FAILED) -> None:
        super().__init__(message)
        self.exit_code = status  # pyright: ignore[reportAttributeAccessIssue] - click documents it as the instance's


def exit_status(error: EverthreadError) -> int:
    """Return the exit status that stands for an error."""
    if isinstance(error, ThreadNotFoundError):
        return EXIT_NOT_FOUND
    return EXIT_UNAVAILABLE if isinstance(error, StoreUnavailableError) else EXIT_FAILED
