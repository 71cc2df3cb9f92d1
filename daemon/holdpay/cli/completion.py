"""`completion` of both programs: the script that makes a shell complete them."""

from __future__ import annotations

import os
import sys

import click


@click.command(short_help="Print the completion script of a shell.")
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion(ctx: click.Context, *, shell: str) -> None:
    """Print the script that completes this program in SHELL. For bash it goes into /etc/bash_completion.d/.

    Packages and scripts/install have put it into its place already.
    """
    from click.shell_completion import get_completion_class

    shell_class = get_completion_class(shell)
    assert shell_class is not None
    root = ctx.find_root()
    program = root.info_name or ""
    click.echo(shell_class(root.command, {}, program, f"_{program.upper()}_COMPLETE").source())


def refuse_half_a_completion(program: str) -> None:
    """Ends the process, with a sentence, where a completion is asked for without what its script hands over."""
    asked = os.environ.get(f"_{program.upper()}_COMPLETE", "")
    if not asked.endswith("_complete"):
        return
    at = os.environ.get("COMP_CWORD")
    if "COMP_WORDS" not in os.environ or at is None or not (at.isdecimal() or asked == "fish_complete"):
        click.echo(
            "Error: A completion was asked for without COMP_WORDS and COMP_CWORD. Its script hands them over:"
            f" {program} completion bash",
            err=True,
        )
        sys.exit(2)
