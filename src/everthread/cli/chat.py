"""``everthread chat``: its options and help. What it does is in `client`, loaded when it runs."""

from __future__ import annotations

import sys

import click

from everthread._extras import import_extra

EXAMPLES = """\b
Examples:
  everthread chat
  everthread chat --store sqlite:///trips.db
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


@click.command(epilog=EXAMPLES)
@click.option(
    "--store",
    "store_option",
    metavar="URL",
    help="Where threads are kept. Default: EVERTHREAD_STORE, else REDIS_URL, else SQLite in your data folder.",
)
@click.option("--thread", "thread_id", metavar="ID", help="Go on with this thread, or begin it.")
@click.option("--model", "model_option", metavar="NAME", help="The model, or 'offline'.")
@click.option(
    "--max-messages",
    type=click.IntRange(min=1),
    default=200,
    show_default=True,
    help="How many of its newest messages a thread keeps.",
)
def chat(store_option: str | None, thread_id: str | None, model_option: str | None, max_messages: int) -> None:
    """Talk to an agent whose conversations are kept.

    Quit, come back in another shell or on another machine, load the thread and go on.
    """
    for module in ("rich", "prompt_toolkit", "platformdirs", "agent_framework", "agent_framework_openai"):
        import_extra(module, "chat")
    from everthread.cli.client import run

    sys.exit(run(store_option, thread_id, model_option, max_messages))
