"""``everthread chat``: its options and help. What it does is in `client`, loaded when it runs."""

from __future__ import annotations

import sys

import click

from everthread._extras import import_extra
from everthread.cli.common import StoreCommand, find_place, store_option, tenant_option

EXAMPLES = """\b
Examples:
  everthread chat
  everthread chat --store sqlite:///trips.db
  everthread chat @prod --tenant acme
  everthread chat --store rediss://:PASSWORD@NAME.redis.cache.windows.net:6380/0
  OPENAI_BASE_URL=http://localhost:8080/v1 everthread chat --model my-model
  printf '1\\nI am Ana\\n0\\n' | everthread chat

\b
The model:
  Azure OpenAI   AOAI_ENDPOINT and AOAI_DEPLOYMENT; AOAI_API_KEY, or else your
                 Azure CLI or default credential
  OpenAI         OPENAI_API_KEY; OPENAI_BASE_URL for any compatible server;
                 --model or OPENAI_MODEL
  offline        if none of these is set, or with --model offline: a small model
                 of our own that needs nothing and answers from the thread alone

\b
Ctrl-C while a reply arrives stops it: your message and what had arrived are
kept, or neither if nothing had. Ctrl-C again leaves.
Exit status: 0 after [0] or the end of input, 130 after Ctrl-C, 1 if the store or
the model cannot be used (with piped input also if a message could not be sent).
"""


@click.command(cls=StoreCommand, epilog=EXAMPLES)
@store_option
@tenant_option
@click.option("--thread", "thread_id", metavar="ID", help="Go on with this thread, or begin it.")
@click.option("--model", "model_option", metavar="NAME", help="The model, or 'offline'.")
@click.option(
    "--max-messages",
    type=click.IntRange(min=1),
    help="How many of its newest messages a thread keeps. Default: what the thread or its store says, else 200.",
)
def chat(
    store_option: str | None,
    tenant_option: str | None,
    thread_id: str | None,
    model_option: str | None,
    max_messages: int | None,
) -> None:
    """Talk to an agent whose conversations are kept.

    Quit, come back in another shell or on another machine, load the thread and go on.
    """
    for module in ("rich", "prompt_toolkit", "platformdirs", "agent_framework", "agent_framework_openai"):
        import_extra(module, "chat")
    from everthread.cli.client import run

    sys.exit(run(find_place(store_option, tenant_option), thread_id, model_option, max_messages))
