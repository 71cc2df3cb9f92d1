"""The interface is documented whole: every message field, enum value and call has its comment."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

PROTO = Path(__file__).parents[3] / "protos" / "holdpay" / "v1" / "holdpay.proto"
LINES = PROTO.read_text().splitlines()
DECLARED = re.compile(r"\s+(?:rpc (\w+)\(|(?:optional |repeated )?[\w.]+ (\w+) = \d+;|([A-Z_]+) = \d+;)")
PLACES = [number for number, line in enumerate(LINES) if DECLARED.match(line)]


@pytest.mark.parametrize("number", PLACES, ids=lambda number: LINES[number].split(" = ")[0].strip())
def test_it_has_a_comment_of_its_own(number: int) -> None:
    assert LINES[number - 1].strip().startswith("//"), f"line {number + 1} of {PROTO.name}"


def test_the_interface_was_found() -> None:
    assert len(PLACES) > 120
