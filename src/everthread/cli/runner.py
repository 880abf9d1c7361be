"""Running the work of a command on its stores: opening them, errors and exit statuses, questions."""

from __future__ import annotations

import sys
from collections.abc import Callable, Coroutine, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, overload

import click
import msgspec

from everthread.cli.exit_statuses import EXIT_INTERRUPTED, CommandFailed, exit_status
from everthread.cli.plain import readable_location, sanitize
from everthread.errors import ConfigurationError, EverthreadError, MissingSchemaError
from everthread.urls import secrets_of

if TYPE_CHECKING:
    from everthread.cli.places import Place
    from everthread.contract import Store

T = TypeVar("T")


@overload
def run(work: Callable[[Store], Coroutine[Any, Any, T]], place: Place, /) -> T: ...
@overload
def run(work: Callable[[Store, Store], Coroutine[Any, Any, T]], first: Place, second: Place, /) -> T: ...
def run(work: Callable[..., Coroutine[Any, Any, T]], *places: Place) -> T:
    """Open the stores, await ``work`` with them, close them, and return its result.

    An error becomes one line without secrets, with an exit status of its kind.
    """
    # --help loads this module, and would take twice as long.
    import asyncio
    import logging

    # Drivers of Azure log each failed credential. The error says it in one line.
    logging.getLogger("azure").addHandler(logging.NullHandler())
    try:
        return asyncio.run(_with_stores(work, places))
    except EverthreadError as error:
        raise failure(error, *places) from error
    except (KeyboardInterrupt, asyncio.CancelledError):
        raise click.exceptions.Exit(EXIT_INTERRUPTED) from None


async def _with_stores(work: Callable[..., Coroutine[Any, Any, T]], places: Sequence[Place]) -> T:
    async with AsyncExitStack() as stack:
        return await work(*[await stack.enter_async_context(await _opened(place)) for place in places])


async def _opened(place: Place) -> Store:
    """Return the open store of a place. Opened read-only, a database that would get its tables is an empty store."""
    store = open_place(place)
    try:
        await store.open()
    except MissingSchemaError:
        if not place.may_create:
            raise
        return open_place(msgspec.structs.replace(place, url="memory:"))
    return store


def open_place(place: Place, *, is_guarded: bool = True) -> Store:
    """Return the store of a place, not yet connected: with its keys, or guarded against writing without them.

    Opened read-only, a store that may be created and does not exist is an empty one.

    Raises:
        ConfigurationError: The store does not exist, and the place does not allow to create it.
    """
    from everthread.cli.without_keys import WithoutKeys
    from everthread.opening import open_store

    store = open_store(place.url, **({"read_only": True} if place.read_only else {}))
    if _is_missing(store):
        if not place.may_create:
            raise ConfigurationError(f"There is no store at {store.location}. Check the path.")
        store = open_store("memory:") if place.read_only else store
    if not place.keyring:
        return WithoutKeys(store) if is_guarded else store
    from everthread.cli.keyrings import keyring_of
    from everthread.wrappers.encryption.encrypted import Encrypted

    return Encrypted(store, keyring_of(place.keyring), accept_plain=place.accept_plain)


def _is_missing(store: Store) -> bool:
    """Return whether the store is a file or folder that opening it for writing would create."""
    # It imports HTTP, which --help does not need.
    from urllib.request import url2pathname

    scheme, _, path = store.location.partition("://")
    if scheme == "sqlite":
        return not Path(readable_location(store.location)).exists()
    return scheme == "file" and not Path(url2pathname(path)).exists()


def failure(error: EverthreadError, *places: Place) -> CommandFailed:
    """Return the error that ends the command: one line without secrets, and the exit status."""
    text = str(error)
    for place in places:
        text = without_secrets(text, place.url)
    return CommandFailed(text, exit_status(error))


def without_secrets(text: str, url: str) -> str:
    """Return the text without the URL's secrets in either spelling: a second line of defense behind the engines."""
    for secret in sorted(secrets_of(url), key=len, reverse=True):
        text = text.replace(secret, "***")
    return text


def confirm(question: str, *, yes: bool) -> None:
    """Ask before something is destroyed; end the command unless the answer is yes.

    Without a terminal there is no answer: then ``--yes`` is required.
    """
    if yes:
        return
    if not sys.stdin.isatty():
        raise click.UsageError(
            f"{sanitize(question)} Standard input is not a terminal, so nothing was changed: give --yes to confirm."
        )
    from everthread.cli.questions import ask_yes_or_no

    if not ask_yes_or_no(sanitize(question)):
        raise click.Abort
