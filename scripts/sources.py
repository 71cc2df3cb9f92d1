"""What people's reference is made from, the man pages and docs/ alike: the commands, and config.example.toml.

Of others than the standard library only click, and what the commands import: the build runs it where holdpay's
dependencies are not.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import click

from holdpay.cli.rent import MESSAGES, Rent, messages

_TITLE = re.compile(r"# --- (.+?) -+$")
_TABLE = re.compile(r"#?(\[\[?[\w.]+\]\]?)$")
_KEY = re.compile(r"#?((\w+) = .+)$")
_COMMENT = re.compile(r"# ?(.*)$")


# --- the commands ---------------------------------------------------------------------------------------------------


def walk(
    command: click.Command, name: str, parent: click.Context | None = None, **settings: Any
) -> Iterator[click.Context]:
    """A program and each command below it that is shown, a group before what is in it; as a call would make them, with
    further ``settings`` of click.Context."""
    context = command.context_class(command, info_name=name, parent=parent, **{**command.context_settings, **settings})
    yield context
    if isinstance(command, click.Group):
        for below in command.list_commands(context):
            inner = command.get_command(context, below)
            if inner is not None and not inner.hidden:
                yield from walk(inner, below, context, **settings)
    if isinstance(command, Rent):  # no group, since countries stand where its commands would
        yield from walk(messages, f"{name} {MESSAGES}", parent, **settings)


# --- the configuration ----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Key:
    """``shown``: the line of its value. ``says``: the paragraphs above it, of one line or several."""

    name: str
    shown: str
    says: list[str]


@dataclass(slots=True)
class Chapter:
    """A part of the example configuration. ``table``: as it stands there, brackets and all; empty: it has none."""

    title: str
    table: str = ""
    says: list[str] = field(default_factory=list)
    keys: list[Key] = field(default_factory=list)


def read_example(text: str) -> list[Chapter]:
    """config.example.toml: what stands before the first title, then a chapter for each title and for each further
    table below it."""
    chapters = [Chapter("")]
    waiting: list[str] = []  # paragraphs of comment that belong to what comes next
    running = False
    for line in text.splitlines():
        current = chapters[-1]
        if title := _TITLE.match(line):
            current.says += waiting
            chapters.append(Chapter(title[1]))
            waiting, running = [], False
        elif table := _TABLE.match(line):
            if current.table:
                current = Chapter(current.title)
                chapters.append(current)
            current.table, current.says, waiting, running = table[1], current.says + waiting, [], False
        elif key := _KEY.match(line):
            current.keys.append(Key(key[2], key[1], waiting))
            waiting, running = [], False
        elif comment := _COMMENT.match(line):
            if running and not comment[1].startswith("No default:"):
                waiting[-1] += f"\n{comment[1]}"
            else:
                waiting.append(comment[1])
            running = True
        else:
            running = False
    return chapters
