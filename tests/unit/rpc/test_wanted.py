"""What a client asks for arrives at the desk as it was said: what was not said is None, and 0 is a value."""

from __future__ import annotations

import pytest

from holdpay._pb.v1 import holdpay_pb2 as pb
from holdpay.core.kinds.spec import KindName
from holdpay.engine.wanted import Asked, CodeWanted, EmailWanted, FundWanted, RentalWanted, SmsWanted, Wanted
from holdpay.errors import InvalidRequest
from holdpay.rpc.kinds import asked_from_pb, kind_from_pb, wanted_from_pb

LEAST: dict[str, tuple[pb.SubmitRequest, Wanted]] = {
    "code": (
        pb.SubmitRequest(code=pb.CodeSpec(countries=["0"], service="oi")),
        CodeWanted(countries=("0",), service="oi"),
    ),
    "rental": (pb.SubmitRequest(rental=pb.RentalSpec(country="usa")), RentalWanted(country="usa")),
    "sms": (pb.SubmitRequest(sms=pb.SmsSpec(phone="+1", message="m")), SmsWanted(phone="+1", message="m")),
    "email": (pb.SubmitRequest(email=pb.EmailSpec(address="a", message="m")), EmailWanted(address="a", message="m")),
    "fund": (pb.SubmitRequest(fund=pb.FundSpec(amount_sat=7)), FundWanted(amount_sat=7)),
}
ALL: dict[str, tuple[pb.SubmitRequest, Wanted]] = {
    "code": (
        pb.SubmitRequest(code=pb.CodeSpec(countries=["usa"], service="oi", real_phone=True, ref="r")),
        CodeWanted(countries=("usa",), service="oi", is_real_phone=True, ref="r"),
    ),
    "rental": (
        pb.SubmitRequest(rental=pb.RentalSpec(country="usa", service="oi", weeks=0, ref="")),
        RentalWanted(country="usa", service="oi", weeks=0, ref=""),
    ),
    "sms": (
        pb.SubmitRequest(sms=pb.SmsSpec(phone="1", country="usa", message="m", webhook_url="w", ref="r")),
        SmsWanted(phone="1", country="usa", message="m", webhook_url="w", ref="r"),
    ),
    "email": (
        pb.SubmitRequest(email=pb.EmailSpec(address="a", message="m", webhook_url="w")),
        EmailWanted(address="a", message="m", webhook_url="w"),
    ),
}


def test_every_kind_of_the_core_can_be_asked_for() -> None:
    names = {field.name for field in pb.SubmitRequest.DESCRIPTOR.oneofs_by_name["spec"].fields}
    assert names == {kind.value for kind in KindName} - {KindName.UNKNOWN.value} == set(LEAST)


@pytest.mark.parametrize(
    ("request_", "wanted"), [*LEAST.values(), *ALL.values()], ids=[*LEAST, *(f"all of {name}" for name in ALL)]
)
def test_what_is_wanted_arrives_as_it_was_said(request_: pb.SubmitRequest, wanted: Wanted) -> None:
    assert wanted_from_pb(request_) == wanted


def test_a_request_that_wants_nothing_is_refused() -> None:
    with pytest.raises(InvalidRequest):
        wanted_from_pb(pb.SubmitRequest(idempotency_key="k"))


def test_a_limit_of_zero_is_a_limit_and_an_absent_one_is_none() -> None:
    assert asked_from_pb(pb.SubmitRequest(idempotency_key="k"), "ann") == Asked(client="ann", key="k")
    given = pb.SubmitRequest(idempotency_key="k", max_price_sat=0, max_fee_sat=0, force=True, prepaid=True)
    assert asked_from_pb(given, "") == Asked(key="k", max_price_sat=0, max_fee_sat=0, force=True, is_prepaid=True)


def test_a_filter_names_every_kind_or_none_and_no_other() -> None:
    assert kind_from_pb(pb.KIND_UNSPECIFIED) is None
    assert {kind_from_pb(number) for number in pb.Kind.values() if number} == set(KindName)
    with pytest.raises(InvalidRequest):
        kind_from_pb(99)
