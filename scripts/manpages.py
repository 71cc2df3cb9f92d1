"""The man pages: of a program from its click commands, so from what `--help` says; of the configuration from
config.example.toml. The build puts them into the wheel (scripts/build_hook.py), so none can be out of date.

Standard library and click only: it runs where holdpay's dependencies are not.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import click

from scripts.sources import read_example, walk

AS_IT_IS = "\b"
"""click's mark: the lines of the paragraph below it stay lines."""
_ROFF = {"\\": r"\e", "-": r"\-", "'": r"\(aq", "`": r"\(ga", "^": r"\(ha", "~": r"\(ti", '"': r"\(dq"}


@dataclass(frozen=True, slots=True)
class Page:
    """Where a page belongs, and what its first and last lines say. ``date``: of the release, or empty."""

    name: str
    section: int
    purpose: str
    version: str
    date: str
    see_also: tuple[str, ...]

    @property
    def file(self) -> str:
        return f"{self.name}.{self.section}"


def command_page(page: Page, command: click.Command, closing: dict[str, list[tuple[str, str]]]) -> str:
    """The page of a program. ``closing``: further sections, each of terms with what they mean."""
    ctx, *below_it = walk(command, page.name)
    parts = [*head(page), synopsis(ctx), '.SH "DESCRIPTION"', *prose(command.help or ""), *options(ctx, ".SH")]
    parts += ['.SH "COMMANDS"']
    for below in sorted(filter(is_called, below_it), key=lambda each: each.command_path):
        parts += [f'.SS "{roff(below.command_path.removeprefix(page.name + " "))}"', usage(below)]
        parts += [*prose(below.command.help or ""), *options(below, None), *prose(below.command.epilog or "")]
    parts += ['.SH "EXIT STATUS"', *prose(without_title(command.epilog or ""))]
    for title, terms in closing.items():
        parts += [f'.SH "{roff(title)}"', *(line for term, text in terms for line in tagged(roff(term), [text]))]
    return finished(page, parts)


def config_page(page: Page, example: str) -> str:
    """The page of the configuration."""
    opening, *chapters = read_example(example)
    parts = [*head(page), '.SH "DESCRIPTION"', *(line for text in opening.says for line in paragraph(text))]
    for chapter in chapters:
        title = f"{chapter.table} {chapter.title.removeprefix(chapter.table.strip('[]') + ': ')}".strip()
        parts += [f'.SH "{roff(title)}"', *(line for text in chapter.says for line in paragraph(text))]
        for key in chapter.keys:
            parts += tagged(roff(key.shown), key.says)
    return finished(page, parts)


def is_called(ctx: click.Context) -> bool:
    """It is no group that only holds others."""
    return not isinstance(ctx.command, click.Group) or ctx.command.invoke_without_command


def head(page: Page) -> list[str]:
    first = f'.TH "{roff(page.name.upper())}" "{page.section}" "{page.date}" "holdpay {page.version}" "holdpay"'
    return [first, '.SH "NAME"', f"{roff(page.name)} \\- {roff(page.purpose)}"]


def finished(page: Page, parts: list[str]) -> str:
    others = ", ".join(f"\\fB{roff(name)}\\fR({name_section})" for name, name_section in map(split, page.see_also))
    lines = "\n".join([*parts, '.SH "SEE ALSO"', others]).split("\n")
    # A heading begins a paragraph itself.
    kept = [
        line for before, line in pairwise(["", *lines]) if not (line == ".PP" and before.startswith((".SH", ".SS")))
    ]
    return "\n".join([*kept, ""])


def split(file: str) -> tuple[str, str]:
    name, _, section = file.rpartition(".")
    return name, section


def synopsis(ctx: click.Context) -> str:
    return f'.SH "SYNOPSIS"\n{usage(ctx)}'


def usage(ctx: click.Context) -> str:
    pieces = " ".join(ctx.command.collect_usage_pieces(ctx))
    return f".PP\n\\fB{roff(ctx.command_path)}\\fR {roff(pieces)}"


def options(ctx: click.Context, heading: str | None) -> Iterator[str]:
    records = [record for param in ctx.command.get_params(ctx) if (record := param.get_help_record(ctx))]
    if heading:
        yield f'{heading} "OPTIONS"'
    for names, text in records:
        if text:  # an argument without: the usage has named it
            yield from tagged(roff(names), [text])


def tagged(term: str, texts: list[str]) -> list[str]:
    """A term in bold, with its paragraphs indented below."""
    first, *others = texts or [""]
    lines = [".TP", f"\\fB{term}\\fR", *(roff_line(line) for line in first.splitlines())]
    for text in others:
        lines += [".IP", *(roff_line(line) for line in text.splitlines())]
    return lines


def prose(text: str) -> list[str]:
    """click's help: paragraphs between empty lines."""
    lines: list[str] = []
    for block in re.split(r"\n\s*\n", text.strip("\n")):
        plain = block.strip("\n")
        if plain.startswith(AS_IT_IS):
            lines += [".PP", ".nf", *(roff_line(line.rstrip()) for line in plain.splitlines()[1:]), ".fi"]
        elif plain.strip():
            lines += paragraph(plain)
    return lines


def paragraph(text: str) -> list[str]:
    return [".PP", *(roff_line(line.strip()) for line in text.splitlines())]


def without_title(epilog: str) -> str:
    """The section's own title says it already."""
    return epilog.replace("Exit codes:\n", "", 1)


def roff_line(line: str) -> str:
    """A line of text: one that begins with a control character is none of them."""
    text = roff(line)
    return f"\\&{text}" if text.startswith((".", "\\(aq")) else text


def roff(text: str) -> str:
    """Characters that mean something to roff, or that it would turn into others, as what they are."""
    return "".join(_ROFF.get(character, character) for character in text)
