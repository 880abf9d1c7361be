"""``everthread completion``: a script that completes commands, options and named stores in a shell."""

from __future__ import annotations

import click

from everthread.cli.exit_statuses import EXIT_STATUSES

EXAMPLES = f"""\b
Examples:
  eval "$(everthread completion bash)"                         in ~/.bashrc
  eval "$(everthread completion zsh)"                          in ~/.zshrc
  everthread completion fish > ~/.config/fish/completions/everthread.fish

{EXIT_STATUSES}"""


@click.command(epilog=EXAMPLES)
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion(ctx: click.Context, shell: str) -> None:
    """Print the completion script of a shell."""
    from click.shell_completion import get_completion_class

    kind = get_completion_class(shell)
    assert kind is not None
    if shell == "bash":
        # Otherwise bash splits @prod into two words, as in an address, and never completes @pr.
        click.echo("COMP_WORDBREAKS=${COMP_WORDBREAKS//@/}")
    click.echo(kind(ctx.find_root().command, {}, "everthread", "_EVERTHREAD_COMPLETE").source())
