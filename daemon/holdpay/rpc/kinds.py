"""The kinds of orders as the interface has them: what a client asks for, and what was understood.

A new kind has one function in each of the two halves, and one line in the half's table.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from holdpay._pb.v1 import holdpay_pb2 as pb
from holdpay.core.kinds import CodeSpec, EmailSpec, FundSpec, RentalSpec, SmsSpec, UnknownSpec
from holdpay.core.kinds.spec import KindName
from holdpay.core.model import Order
from holdpay.core.strategy import Strategy
from holdpay.engine.wanted import (
    Asked,
    CodeWanted,
    EmailWanted,
    FundWanted,
    RentalWanted,
    SmsWanted,
    StrategyWanted,
    Wanted,
)
from holdpay.errors import InvalidRequest

KINDS: Final = {kind: pb.Kind.Value(f"KIND_{kind.name}") for kind in KindName}
_KINDS_BACK = {number: kind for kind, number in KINDS.items()}


def kind_from_pb(number: int) -> KindName | None:
    """KIND_UNSPECIFIED is None. Raises InvalidRequest for a number that this version does not know."""
    if number != pb.KIND_UNSPECIFIED and number not in _KINDS_BACK:
        raise InvalidRequest(f"There is no kind {number}. See Kind in holdpay.proto.", field="kind")
    return _KINDS_BACK.get(pb.Kind.ValueType(number))


# --- what a client asks for -------------------------------------------------------------------------------------------


def asked_from_pb(request: pb.SubmitRequest, client: str) -> Asked:
    """What goes with every request. ``client``: who asks."""
    return Asked(
        client=client,
        key=request.idempotency_key,
        max_price_sat=request.max_price_sat if request.HasField("max_price_sat") else None,
        max_fee_sat=request.max_fee_sat if request.HasField("max_fee_sat") else None,
        is_prepaid=request.prepaid,
        force=request.force,
    )


def wanted_from_pb(request: pb.SubmitRequest) -> Wanted:
    """What is wanted, in the client's words. Raises InvalidRequest if nothing is that this version knows."""
    name = request.WhichOneof("spec")
    if name is None:
        raise InvalidRequest("The request does not say what it wants. Set one of code, rental, sms, email or fund.")
    return _WANTED[name](getattr(request, name))


def _code_wanted(spec: pb.CodeSpec) -> CodeWanted:
    return CodeWanted(
        countries=tuple(spec.countries) or ("",),
        service=spec.service,
        is_real_phone=spec.real_phone,
        ref=spec.ref if spec.HasField("ref") else None,
        strategy=_strategy_wanted(spec.strategy),
    )


def _strategy_wanted(said: pb.Strategy) -> StrategyWanted:
    return StrategyWanted(
        attempts=said.attempts if said.HasField("attempts") else None,
        max_total_sat=said.max_total_sat if said.HasField("max_total_sat") else None,
        within_s=said.within_s if said.HasField("within_s") else None,
        number_within_s=said.number_within_s if said.HasField("number_within_s") else None,
        sms_within_s=said.sms_within_s if said.HasField("sms_within_s") else None,
    )


def strategy_to_pb(strategy: Strategy | None) -> pb.Strategy | None:
    """As it was understood."""
    if strategy is None:
        return None
    return pb.Strategy(
        attempts=strategy.attempts,
        max_total_sat=strategy.max_total_sat,
        within_s=strategy.within_s,
        number_within_s=strategy.number_within_s,
        sms_within_s=strategy.sms_within_s,
    )


def _rental_wanted(spec: pb.RentalSpec) -> RentalWanted:
    return RentalWanted(
        country=spec.country,
        service=spec.service if spec.HasField("service") else None,
        weeks=spec.weeks if spec.HasField("weeks") else None,
        ref=spec.ref if spec.HasField("ref") else None,
    )


def _sms_wanted(spec: pb.SmsSpec) -> SmsWanted:
    return SmsWanted(
        phone=spec.phone,
        country=spec.country if spec.HasField("country") else None,
        message=spec.message,
        webhook_url=spec.webhook_url if spec.HasField("webhook_url") else None,
        ref=spec.ref if spec.HasField("ref") else None,
    )


def _email_wanted(spec: pb.EmailSpec) -> EmailWanted:
    return EmailWanted(
        address=spec.address,
        message=spec.message,
        webhook_url=spec.webhook_url if spec.HasField("webhook_url") else None,
    )


def _fund_wanted(spec: pb.FundSpec) -> FundWanted:
    return FundWanted(amount_sat=spec.amount_sat)


_WANTED: Mapping[str, Callable[[Any], Wanted]] = {
    "code": _code_wanted,
    "rental": _rental_wanted,
    "sms": _sms_wanted,
    "email": _email_wanted,
    "fund": _fund_wanted,
}
"""By the field's name in SubmitRequest."""


# --- what was understood ----------------------------------------------------------------------------------------------


def add_understood(message: pb.Request, order: Order) -> None:
    """Sets the one of ``message``'s fields that is for the order's kind."""
    spec = order.spec
    match spec:
        case CodeSpec():
            message.code.CopyFrom(_code_bought(spec))
        case RentalSpec():
            message.rental.CopyFrom(_rental_bought(spec, order))
        case SmsSpec():
            message.sms.CopyFrom(
                pb.SmsBought(phone=spec.phone, message=spec.message, webhook_url=spec.webhook_url, ref=spec.ref)
            )
        case EmailSpec():
            message.email.CopyFrom(
                pb.EmailBought(address=spec.address, message=spec.message, webhook_url=spec.webhook_url)
            )
        case FundSpec():
            message.fund.CopyFrom(pb.FundBought(amount_sat=spec.amount_sat))
        case UnknownSpec():
            pass  # the kind says it


def _code_bought(spec: CodeSpec) -> pb.CodeBought:
    return pb.CodeBought(
        country_code=spec.country,
        country=spec.country_name,
        service=spec.service,
        service_name=spec.service_name,
        real_phone=spec.is_real_phone,
        ref=spec.ref,
    )


def _rental_bought(spec: RentalSpec, order: Order) -> pb.RentalBought:
    return pb.RentalBought(
        country_code=spec.country,
        country=spec.country_name,
        service=spec.service,
        service_name=spec.service_name,
        weeks=spec.weeks,
        ends_at_ms=spec.ends_at_ms(order),
        ref=spec.ref,
    )
