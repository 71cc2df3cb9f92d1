"""What the Python client calls next, over any number of connections."""

from __future__ import annotations

import inspect
from typing import Any

import pytest

from holdpay._pb.v1 import holdpay_pb2 as pb
from holdpay.client import AsyncClient, Client, End, Kind, LimitReached, TimedOut, Unreachable
from holdpay.client.errors import Failure
from holdpay.client.following import FIRST_WAIT_S, LONGEST_WAIT_S, Following
from holdpay.client.types import request_of

SUBMIT = pb.SubmitRequest(idempotency_key="k")
AWAY = Failure("UNAVAILABLE", "gone", None)


def update(cursor: int, **fields: Any) -> pb.RequestUpdate:
    return pb.RequestUpdate(cursor=cursor, event="e", request=pb.Request(id="abc", **fields))


def test_a_request_is_submitted_until_it_is_accepted_and_then_only_watched() -> None:
    following = Following(submit=SUBMIT)
    assert following.next_call() == SUBMIT
    following.lost(AWAY)
    assert following.next_call() == SUBMIT, "the same key orders nothing twice"
    assert following.heard(update(5)) is not None
    assert following.next_call() == pb.WatchRequestsRequest(request_id="abc", after_cursor=5)


def test_what_was_told_before_is_not_told_again() -> None:
    following = Following(request_id="abc", after=5)
    assert following.heard(update(5)) is None
    told = following.heard(update(6))
    assert told is not None
    assert told.cursor == 6
    assert following.heard(pb.RequestUpdate(cursor=7, shutting_down=True)) is None
    assert following.next_call() == pb.WatchRequestsRequest(request_id="abc", after_cursor=6)


def test_a_stream_that_ended_is_over_unless_the_daemon_goes_away() -> None:
    following = Following(request_id="abc")
    following.heard(update(1))
    assert following.ended() is None
    following.heard(pb.RequestUpdate(shutting_down=True))
    assert following.ended() == FIRST_WAIT_S
    assert Following(after=3).ended() == FIRST_WAIT_S, "of all requests more may come"


def test_the_waits_grow_to_a_bound_and_news_begins_them_anew() -> None:
    following = Following(submit=SUBMIT)
    waits = [following.lost(AWAY) for _ in range(8)]
    assert waits[:3] == [FIRST_WAIT_S, 2 * FIRST_WAIT_S, 4 * FIRST_WAIT_S]
    assert waits[-1] == LONGEST_WAIT_S
    following.heard(update(1))
    assert following.lost(AWAY) == FIRST_WAIT_S


def test_a_refusal_a_late_answer_and_a_daemon_that_never_answered_are_raised() -> None:
    refusal = LimitReached("Too many.", "LIMIT_REACHED", {"limit": "limits.max_open_orders"})
    with pytest.raises(LimitReached) as refused:
        Following(submit=SUBMIT).lost(Failure("RESOURCE_EXHAUSTED", "Too many.", refusal))
    assert refused.value.metadata == {"limit": "limits.max_open_orders"}
    with pytest.raises(TimedOut):
        Following(submit=SUBMIT).lost(Failure("DEADLINE_EXCEEDED", "", None))
    watching = Following(after=0)
    with pytest.raises(Unreachable):
        watching.lost(AWAY)
    watching.heard(update(1))
    assert watching.lost(AWAY) == FIRST_WAIT_S, "it was there, and comes back"
    assert Following(request_id="abc", is_known=True).lost(AWAY) == FIRST_WAIT_S


def test_the_number_of_an_earlier_order_does_not_count() -> None:
    numbers = [pb.Item(seq=seq, kind=pb.ITEM_KIND_NUMBER, text=f"+{seq}") for seq in (1, 2)]
    message = pb.Request(items=numbers, orders=[pb.Order(items_from_seq=1), pb.Order(items_from_seq=3)])
    assert request_of(message).number is None
    assert not request_of(message).has("number")
    message.items.append(pb.Item(seq=3, kind=pb.ITEM_KIND_NUMBER, text="+3"))
    assert request_of(message).number == "+3"


def test_every_end_and_kind_of_the_interface_has_its_name_here_and_others_are_unknown() -> None:
    for number, name in pb.End.items():
        end = request_of(pb.Request(end=name)).end
        assert (end is None) == (name == pb.END_UNSPECIFIED)
        assert end is not End.UNKNOWN, number
    for kind in pb.Kind.values():
        assert (request_of(pb.Request(kind=kind)).kind is Kind.UNKNOWN) == (
            kind in {pb.KIND_UNSPECIFIED, pb.KIND_UNKNOWN}
        )


def _methods(kind: type) -> dict[str, list[tuple[str, Any]]]:
    public = {name: found for name, found in vars(kind).items() if not name.startswith("_")}
    return {
        name: [(each.name, each.default) for each in inspect.signature(found).parameters.values()]
        for name, found in public.items()
    }


def test_both_clients_have_the_same_methods_with_the_same_parameters_and_words() -> None:
    assert _methods(Client) == _methods(AsyncClient)
    for name in _methods(Client):
        assert inspect.getdoc(getattr(Client, name)) == inspect.getdoc(getattr(AsyncClient, name)), name
