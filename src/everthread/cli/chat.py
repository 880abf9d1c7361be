"""``everthread chat``: its options and help. The client itself, `chat_client`, is imported when it runs."""

from __future__ import annotations

import sys

import click

from everthread._extras import import_extra
from everthread.cli.exit_statuses import EXIT_STATUSES
from everthread.cli.options import MODEL_HELP, StoreCommand, number_option, store_option, tenant_option
from everthread.cli.places import find_place

EXAMPLES = f"""\b
Examples:
  everthread chat
  everthread chat --store sqlite:///trips.db
  everthread chat @prod --tenant acme
  everthread chat --store rediss://:PASSWORD@NAME.redis.cache.windows.net:6380/0
  OPENAI_BASE_URL=http://localhost:8080/v1 everthread chat --model my-model
  printf '1\\nI am Ana\\n0\\n' | everthread chat

{MODEL_HELP}
  offline        if none of these is set, or with --model offline: a small model
                 of our own that needs no network and answers from the thread

\b
Ctrl-C stops a reply: your message and the part that had arrived are stored, or
neither if nothing had arrived. Ctrl-C again leaves.
With piped input, the exit status is 1 if a message could not be sent.
"""


@click.command(cls=StoreCommand, epilog=f"{EXAMPLES}\n{EXIT_STATUSES}")
@store_option
@tenant_option
@click.option("--thread", "thread_id", metavar="ID", help="Thread to continue or begin. (default: a new thread)")
@click.option("--model", "model_option", metavar="NAME", help="Model to use, or 'offline'. (default: see below)")
@number_option("--max-messages", help="Newest messages to keep. (default: the retention in force)", least=1)
@click.option(
    "--input-history/--no-input-history",
    "keeps_input",
    default=True,
    envvar="EVERTHREAD_INPUT_HISTORY",
    help="Store typed lines for the arrow keys, in a file of your data folder; never for an encrypted store. "
    "(default: on; EVERTHREAD_INPUT_HISTORY=0 turns it off)",
)
def chat(
    *,
    store_option: str | None,
    tenant_option: str | None,
    thread_id: str | None,
    model_option: str | None,
    max_messages: int | None,
    keeps_input: bool,
) -> None:
    """Talk to an agent that stores its threads.

    Quit, open the client in another shell or on another machine, load the thread and continue.
    """
    for module in ("rich", "prompt_toolkit", "platformdirs", "agent_framework", "agent_framework_openai"):
        import_extra(module, "chat")
    from everthread.cli.chat_client.client import run

    place = find_place(store_option, tenant_option)
    sys.exit(run(place, thread_id, model_option, max_messages, keeps_input=keeps_input))
