"""What a journal row must be to be believed, and where a list ends."""

from __future__ import annotations

import json
from typing import Any, cast

import pytest

from holdpay.ports import OrderFilter
from holdpay.store.journal import Written, written
from holdpay.store.listing import where
from holdpay.store.packing import pack, relative
from tests.unit.build import NOW_MS

CHANGE: dict[str, str | int | None] = {"state": "paid", "state_since_ms": NOW_MS}


def row(*lines: str) -> Any:
    return cast(Any, {"entry": pack(relative("\n".join(lines), NOW_MS)), "at_ms": NOW_MS})


@pytest.mark.parametrize(
    ("lines", "data", "notes"),
    [
        ((), None, ()),
        (('{"a":1}',), '{"a":1}', ()),
        (('{"a":1}', '["odd","odder"]'), '{"a":1}', ("odd", "odder")),
        (("", '["odd"]'), None, ("odd",)),
    ],
)
def test_a_row_says_event_change_data_and_notes_as_far_as_it_has_them(
    lines: tuple[str, ...], data: str | None, notes: tuple[str, ...]
) -> None:
    assert written(row("provider_replied", json.dumps(CHANGE), *lines)) == Written(
        "provider_replied", CHANGE, data, notes
    )


@pytest.mark.parametrize(("change", "notes"), [("[]", "[]"), ("{}", "{}"), ("{}", '["odd", 1]'), ("1", "1")])
def test_a_row_whose_parts_are_of_another_shape_is_not_believed(change: str, notes: str) -> None:
    with pytest.raises(ValueError, match="entry"):
        written(row("provider_replied", change, "", notes))


@pytest.mark.parametrize(
    ("created_before_ms", "bound", "values"),
    [
        (None, "(r.created_at_ms, r.id) < (?, ?)", [NOW_MS, "abc"]),
        (NOW_MS + 1, "(r.created_at_ms, r.id) < (?, ?)", [NOW_MS, "abc"]),
        (NOW_MS, "r.created_at_ms < ?", [NOW_MS]),
        (NOW_MS - 1, "r.created_at_ms < ?", [NOW_MS - 1]),
    ],
)
def test_of_two_upper_bounds_the_lower_one_is_looked_up(
    created_before_ms: int | None, bound: str, values: list[Any]
) -> None:
    text, given = where(OrderFilter(before=(NOW_MS, "abc"), created_before_ms=created_before_ms, limit=7))
    order = "ORDER BY r.created_at_ms DESC, r.id DESC LIMIT ?"
    assert text == f"SELECT r.id FROM requests r WHERE 1 AND {bound} {order}"
    assert given == [*values, 7]
