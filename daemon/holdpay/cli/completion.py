"""`holdpay completion`: the script that makes a shell complete this command."""

from __future__ import annotations

import click


@click.command(short_help="Print the completion script of a shell.")
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion(ctx: click.Context, *, shell: str) -> None:
    """Print the completion script of SHELL, for example: holdpay completion bash > /etc/bash_completion.d/holdpay"""
    from click.shell_completion import get_completion_class

    from holdpay.cli.root import COMPLETE_VARIABLE, PROGRAM

    shell_class = get_completion_class(shell)
    assert shell_class is not None
    click.echo(shell_class(ctx.find_root().command, {}, PROGRAM, COMPLETE_VARIABLE).source())
