"""`archdsl completion`: the script by which a shell completes this program's arguments."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

from archdsl.cli.options import Status
from archdsl.cli.output import write


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion(ctx: click.Context, shell: str) -> Status:
    """Print the completion script of a shell.

    \b
    Examples:
      eval "$(archdsl completion bash)"                  in ~/.bashrc
      eval "$(archdsl completion zsh)"                   in ~/.zshrc
      archdsl completion fish | source                   in config.fish
    """
    chosen = get_completion_class(shell)
    assert chosen is not None, "click knows these shells"
    root = ctx.find_root()
    write(chosen(root.command, {}, "archdsl", "_ARCHDSL_COMPLETE").source() + "\n")
    return 0
