"""What the buyers of the simulation want."""

from __future__ import annotations

from random import Random

from holdpay.core.kinds import AnySpec, CodeSpec, EmailSpec, FundSpec, RentalSpec, SmsSpec, UnknownSpec
from holdpay.engine.wanted import CodeWanted, EmailWanted, FundWanted, RentalWanted, SmsWanted, Wanted
from tests.simulation.provider import PRICES_SAT

_COUNTRY = 187
_NAME = "United States"
KINDS = ("code",) * 8 + ("sms",) * 4 + ("email",) * 2 + ("rental",) * 3 + ("fund",) * 3


def draw_spec(rng: Random) -> tuple[AnySpec, int]:
    """One order's, and its price in sat."""
    kind = rng.choice(KINDS)
    if kind == "fund":
        amount_sat = rng.choice((2_000, 2_000, 8_000))
        return FundSpec(amount_sat=amount_sat), amount_sat
    specs: dict[str, AnySpec] = {
        "code": CodeSpec(country=_COUNTRY, country_name=_NAME, service="oi", service_name="OpenAI"),
        "rental": RentalSpec(country=_COUNTRY, country_name=_NAME, service="full", service_name="any service", weeks=1),
        "sms": SmsSpec(phone="+19871234567", message="hello"),
        "email": EmailSpec(address="ann@example.org", message="hello"),
    }
    return specs[kind], PRICES_SAT[kind]


def draw_wanted(rng: Random) -> Wanted:
    """One order's, in a client's words."""
    spec, _ = draw_spec(rng)
    match spec:
        case FundSpec(amount_sat=amount_sat):
            return FundWanted(amount_sat=amount_sat)
        case RentalSpec():
            return RentalWanted(country=str(_COUNTRY))
        case SmsSpec(phone=phone, message=message):
            return SmsWanted(phone=phone, message=message)
        case EmailSpec(address=address, message=message):
            return EmailWanted(address=address, message=message)
        case CodeSpec(service=service):
            return CodeWanted(countries=(str(_COUNTRY),), service=service)
        case UnknownSpec():
            raise AssertionError("nobody can order that")
