"""The kinds of orders, each in its own module. To add one: a module, its class here, one proto message, one command."""

from __future__ import annotations

from holdpay.core.kinds.code import CodeSpec
from holdpay.core.kinds.fund import FundSpec
from holdpay.core.kinds.message import EmailSpec, SmsSpec
from holdpay.core.kinds.rental import RentalSpec
from holdpay.core.kinds.unknown import UnknownSpec

__all__ = ["AnySpec", "CodeSpec", "EmailSpec", "FundSpec", "RentalSpec", "SmsSpec", "UnknownSpec"]

AnySpec = CodeSpec | RentalSpec | SmsSpec | EmailSpec | FundSpec | UnknownSpec
