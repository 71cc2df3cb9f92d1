"""docs/kinds.md is whole: each endpoint, call and kind has its command and its test, and all of them exist."""

from __future__ import annotations

import json
import re
from importlib.resources import files
from pathlib import Path

import click
import pytest

from holdpay._pb.v1 import holdpay_pb2 as pb
from holdpay.cli.kinds import KINDS
from holdpay.cli.rent import messages
from holdpay.cli.root import cli
from holdpay.core.kinds.spec import KindName

REPO = Path(__file__).parents[2]
PAGE = (REPO / "docs" / "kinds.md").read_text()
DESCRIPTION = json.loads(files("holdpay").joinpath("data", "sms4sats.openapi.json").read_text("utf-8"))
CALLS = [method.name for method in pb.DESCRIPTOR.services_by_name["Holdpay"].methods]
ROWS = [line for line in PAGE.splitlines() if line.startswith(("| `GET ", "| `POST "))]


@pytest.mark.parametrize("path", sorted(set(DESCRIPTION["paths"]) - {"/"}))
def test_each_endpoint_has_a_row(path: str) -> None:
    methods = [method.upper() for method in DESCRIPTION["paths"][path]]
    assert all(any(row.startswith(f"| `{method} {path}`") for row in ROWS) for method in methods)


@pytest.mark.parametrize("call", CALLS)
def test_each_call_is_named(call: str) -> None:
    assert f"`{call}`" in PAGE


@pytest.mark.parametrize("kind", KindName)
def test_each_kind_has_its_line_and_its_place_on_the_command_line(kind: KindName) -> None:
    assert re.search(rf"^\|[^|]*`{kind.value}`", PAGE, re.MULTILINE)
    assert kind.value in KINDS


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.split("`")[1])
def test_what_a_row_names_exists(row: str) -> None:
    _, _, calls, commands, tests, real, _ = row.split("|")
    assert set(re.findall(r"`([A-Z]\w+)`", calls)) <= set(CALLS)
    assert re.search("`[A-Z]", calls)
    assert re.search("`[h-]", commands)
    for path in re.findall(r"`(tests/\S+)`", tests + real):
        assert (REPO / path).is_file()
    assert "tests/" in tests


@pytest.mark.parametrize("words", sorted(set(re.findall(r"`holdpay ([a-z ]+)`", PAGE))))
def test_each_command_exists(words: str) -> None:
    if words == "rent messages":
        assert messages.name == "messages"
        return
    found: click.Command = cli
    for word in words.split():
        assert isinstance(found, click.Group)
        found = found.commands[word]
