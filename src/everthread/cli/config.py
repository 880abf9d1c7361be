"""``everthread config``: the user's named stores."""

from __future__ import annotations

import shlex
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import click
import msgspec

from everthread.cli import named_stores
from everthread.cli.durations import in_words
from everthread.cli.exit_statuses import EXIT_STATUSES
from everthread.cli.json_output import ConfiguredStore
from everthread.cli.options import SuggestingGroup, age_option, complete_store, flag_option, json_option, number_option
from everthread.cli.output import Output
from everthread.cli.plain import counted, say

if TYPE_CHECKING:
    from everthread.cli.named_stores import NamedStore

ADDING = """\b
Examples:
  everthread config add home sqlite:////home/ana/threads.db
  everthread config add prod rediss://app@cache.example:6380/0 --password-env PROD_PASSWORD
  everthread config add prod rediss://app@cache.example:6380/0 --password-command 'pass show redis'
  everthread config add acme --url-env ACME_STORE --tenant acme
  everthread config add small redis://localhost:6379/0 --max-messages 500 --expire-after 90d"""
EXAMPLES = f"""{ADDING}
  everthread config show
  everthread threads @prod

\b
The file is config.toml in your configuration folder, or the file that
EVERTHREAD_CONFIG names. It stores no secrets, only where to find them.

{EXIT_STATUSES}"""


@click.group(cls=SuggestingGroup, epilog=EXAMPLES)
def config() -> None:
    """Name stores, to use them as @NAME."""


@config.command(epilog="\b\nExamples:\n  everthread config path")
def path() -> None:
    """Print the path of the configuration file."""
    say(str(named_stores.config_path()))


@config.command(epilog="\b\nExamples:\n  everthread config show\n  everthread config show @prod --json")
@click.argument("name", required=False, shell_complete=complete_store)
@json_option
def show(name: str | None, as_json: bool) -> None:
    """Show the named stores, without secrets."""
    found = named_stores.load()
    if name is not None:
        name = name.removeprefix("@")
        found.get(name)
    output = Output(as_json=as_json)
    chosen = {known: store for known, store in sorted(found.stores.items()) if name in {None, known}}
    if not chosen and not as_json:
        output.note(f"No stores are named yet in {named_stores.config_path()}. See everthread config add --help.")
    output.rows(
        ("name", "store", "secret from", "tenant", "keeps"),
        [
            ((f"@{known}", _location(store), _secret(store), store.tenant, _keeps(store)), _value(known, store))
            for known, store in chosen.items()
        ],
    )


@config.command(
    epilog=f"{ADDING}\n\n\b\nThe limits apply to messages that commands append to this store, unless a thread has a\n"
    "retention. A program that opens the store sets its own limits."
)
@click.argument("name")
@click.argument("url", required=False)
@click.option("--url-env", metavar="VARIABLE", default="", help="Environment variable that holds the whole URL.")
@click.option("--url-command", metavar="COMMAND", default="", help="Command that prints the whole URL.")
@click.option("--password-env", metavar="VARIABLE", default="", help="Environment variable that holds the password.")
@click.option("--password-command", metavar="COMMAND", default="", help="Command that prints the password.")
@click.option(
    "--tenant", metavar="NAME", default="", help="Tenant that @NAME operates on. (default: the default tenant)"
)
@click.option("--keyring", metavar="PLACE", default="", help="Place of its keys: file:PATH or env:NAME.")
@number_option("--max-messages", help="Newest messages that a thread keeps. (default: all)")
@age_option("--expire-after", help="Delete threads after this time without activity, e.g. 90d. (default: never)")
@flag_option("--replace", help="Replace the store of this name, if there is one.")
def add(
    *,
    name: str,
    url: str | None,
    url_command: str,
    password_command: str,
    expire_after: timedelta | None,
    replace: bool,
    **settings: Any,
) -> None:
    """Name a store."""
    name = named_stores.check_name(name.removeprefix("@"))
    store = named_stores.NamedStore(
        url=url or "",
        url_command=_words(url_command),
        password_command=_words(password_command),
        expire_after="" if expire_after is None else in_words(expire_after),
        **settings,
    )
    store.check()
    found = named_stores.load()
    if name in found.stores and not replace:
        raise click.UsageError(f"There is already a store @{name}: give --replace, or another name.")
    found.stores[name] = store
    named_stores.save(found)
    say(f"@{name} is {_location(store)}")


@config.command(epilog="\b\nExamples:\n  everthread config remove @prod")
@click.argument("name", shell_complete=complete_store)
def remove(name: str) -> None:
    """Remove the name of a store. The store itself is not changed."""
    name = name.removeprefix("@")
    found = named_stores.load()
    found.get(name)
    del found.stores[name]
    named_stores.save(found)
    say(f"Removed @{name} from the configuration. The store itself is unchanged.")


def _words(command: str) -> tuple[str, ...]:
    try:
        return tuple(shlex.split(command))
    except ValueError as error:
        raise click.UsageError(f"Wrong quotes in the command: {error}.") from None


def _location(store: NamedStore) -> str:
    from everthread.urls import mask_url

    if store.url:
        return mask_url(store.url)
    return f"the URL in ${store.url_env}" if store.url_env else f"the URL that {shlex.join(store.url_command)} prints"


def _secret(store: NamedStore) -> str:
    return f"${store.password_env}" if store.password_env else shlex.join(store.password_command)


def _keeps(store: NamedStore) -> str:
    messages = "" if store.max_messages is None else counted(store.max_messages, "message")
    return ", ".join(filter(None, (messages, store.expire_after)))


def _value(name: str, store: NamedStore) -> ConfiguredStore:
    return msgspec.convert({"name": name, **msgspec.to_builtins(store)}, ConfiguredStore)
