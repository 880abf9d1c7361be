"""``everthread completion``: the script that makes a shell complete commands, options and named stores."""

from __future__ import annotations

import click

EXAMPLES = """\b
Examples:
  eval "$(everthread completion bash)"                         in ~/.bashrc
  eval "$(everthread completion zsh)"                          in ~/.zshrc
  everthread completion fish > ~/.config/fish/completions/everthread.fish
"""


@click.command(epilog=EXAMPLES)
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion(ctx: click.Context, shell: str) -> None:
    """Print the completion script of a shell."""
    from click.shell_completion import get_completion_class

    kind = get_completion_class(shell)
    assert kind is not None
    if shell == "bash":
        # Otherwise bash takes @prod for two words, as in an address, and never asks what @pr may become.
        click.echo("COMP_WORDBREAKS=${COMP_WORDBREAKS//@/}")
    click.echo(kind(ctx.find_root().command, {}, "everthread", "_EVERTHREAD_COMPLETE").source())
