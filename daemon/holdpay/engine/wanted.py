"""What a client asks for, in its own words: nothing is looked up or checked yet."""

from __future__ import annotations

from dataclasses import dataclass

from holdpay.core.model import OPERATOR


@dataclass(frozen=True, slots=True, kw_only=True)
class CodeWanted:
    """An activation code. ``country``, ``service``: names or codes. ``ref``: None means the configured one."""

    country: str
    service: str
    is_real_phone: bool = False
    ref: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RentalWanted:
    """A rented number. ``weeks`` None: the only duration that is offered, or the shortest."""

    country: str
    service: str | None = None
    weeks: int | None = None
    ref: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SmsWanted:
    """An SMS. ``phone``: E.164, or as people of ``country`` write it."""

    phone: str
    country: str | None = None
    message: str
    webhook_url: str | None = None
    ref: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class EmailWanted:
    """An e-mail."""

    address: str
    message: str
    webhook_url: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class FundWanted:
    """Money for the prepaid account."""

    amount_sat: int


Wanted = CodeWanted | RentalWanted | SmsWanted | EmailWanted | FundWanted


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What goes with every request. ``client``: who asks. A limit that is absent is None; 0 is one. ``force``: even if
    no stock is shown."""

    client: str = OPERATOR
    key: str
    max_price_sat: int | None = None
    max_fee_sat: int | None = None
    is_prepaid: bool = False
    force: bool = False
