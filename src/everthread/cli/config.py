"""``everthread config``: the user's named stores."""

from __future__ import annotations

import shlex
from datetime import timedelta
from typing import TYPE_CHECKING

import click

from everthread.cli import named_stores
from everthread.cli.common import Age, Output, complete_store, counted, json_option
from everthread.cli.durations import in_words

if TYPE_CHECKING:
    from everthread.cli.named_stores import NamedStore

EXAMPLES = """\b
Examples:
  everthread config add home sqlite:////home/ana/threads.db
  everthread config add prod rediss://app@cache.example:6380/0 --password-env PROD_PASSWORD
  everthread config add prod rediss://app@cache.example:6380/0 --password-command 'pass show redis'
  everthread config add acme --url-env ACME_STORE --for-tenant acme
  everthread config add small redis://localhost:6379/0 --max-messages 500 --expire-after 90d
  everthread config show
  everthread threads @prod

\b
The file is config.toml in your configuration folder, or what EVERTHREAD_CONFIG
names. It holds no secrets, only where they are.
"""


@click.group(epilog=EXAMPLES)
def config() -> None:
    """Name stores, to use them as @NAME."""


@config.command()
def path() -> None:
    """Print where the configuration is kept."""
    click.echo(str(named_stores.config_path()))


@config.command()
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
        output.note(f"No stores are named yet in {named_stores.config_path()}: see everthread config add --help")
    output.rows(
        ("name", "store", "secret from", "tenant", "keeps"),
        [
            ((f"@{known}", _where(store), _secret(store), store.tenant, _keeps(store)), _value(known, store))
            for known, store in chosen.items()
        ],
    )


@config.command(epilog=EXAMPLES)
@click.argument("name")
@click.argument("url", required=False)
@click.option("--url-env", metavar="VARIABLE", default="", help="The environment variable that holds the whole URL.")
@click.option("--url-command", metavar="COMMAND", default="", help="The command that prints the whole URL.")
@click.option("--password-env", metavar="VARIABLE", default="", help="The variable that holds the URL's password.")
@click.option("--password-command", metavar="COMMAND", default="", help="The command that prints it.")
@click.option("--for-tenant", metavar="NAME", default="", help="Whose threads @NAME means, unless --tenant is given.")
@click.option("--keyring", metavar="WHERE", default="", help="Where its keys are: file:PATH or env:NAME.")
@click.option("--max-messages", type=click.IntRange(min=0), metavar="N", help="How many messages a thread keeps.")
@click.option("--expire-after", type=Age(), metavar="AGE", help="Forget threads without activity for so long: 90d.")
@click.option("--replace", is_flag=True, help="Replace the store of this name, if there is one.")
def add(
    *,
    name: str,
    url: str | None,
    url_env: str,
    url_command: str,
    password_env: str,
    password_command: str,
    for_tenant: str,
    keyring: str,
    max_messages: int | None,
    expire_after: timedelta | None,
    replace: bool,
) -> None:
    """Name a store.

    With --max-messages and --expire-after, what commands append there is kept so, unless a thread has a retention of
    its own. Programs that open the store give theirs.
    """
    name = named_stores.check_name(name.removeprefix("@"))
    store = named_stores.NamedStore(
        url or "",
        url_env,
        _words(url_command),
        password_env,
        _words(password_command),
        for_tenant,
        keyring,
        max_messages,
        "" if expire_after is None else in_words(expire_after),
    )
    store.check()
    found = named_stores.load()
    if name in found.stores and not replace:
        raise click.UsageError(f"There is a store @{name} already: give --replace, or another name.")
    found.stores[name] = store
    named_stores.save(found)
    click.echo(f"@{name} is {_where(store)}")


@config.command()
@click.argument("name", shell_complete=complete_store)
def remove(name: str) -> None:
    """Forget a store's name. The store itself stays as it is."""
    name = name.removeprefix("@")
    found = named_stores.load()
    found.get(name)
    del found.stores[name]
    named_stores.save(found)
    click.echo(f"@{name} is forgotten; what is stored there was not touched.")


def _words(command: str) -> tuple[str, ...]:
    try:
        return tuple(shlex.split(command))
    except ValueError as error:
        raise click.UsageError(f"The command is not well quoted: {error}.") from None


def _where(store: NamedStore) -> str:
    from everthread.settings import mask_url

    if store.url:
        return mask_url(store.url)
    return f"the URL in ${store.url_env}" if store.url_env else f"the URL that {shlex.join(store.url_command)} prints"


def _secret(store: NamedStore) -> str:
    return f"${store.password_env}" if store.password_env else shlex.join(store.password_command)


def _keeps(store: NamedStore) -> str:
    messages = "" if store.max_messages is None else counted(store.max_messages, "message")
    return ", ".join(filter(None, (messages, store.expire_after)))


def _value(name: str, store: NamedStore) -> dict[str, object]:
    import msgspec

    return {"name": name, **msgspec.to_builtins(store)}
