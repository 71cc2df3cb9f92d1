"""The error tree. A class's docstring is its default message; every message that reaches a person says what to do next.

A client of the interface may be any program, so the messages name no command line. A class's ``reason`` and an error's
``metadata`` reach clients as ``google.rpc.ErrorInfo``; holdpay.proto lists them.

HoldpayError
├── ConfigError                 the configuration cannot be used (exit 78)
├── InvalidRequest              the client asked for something that cannot be
│   ├── UnknownCountry
│   └── UnknownService
├── OutOfStock
├── OrderNotFound
├── OrderUnreadable             its row in the database makes no sense
├── KeyTaken                    an idempotency key used with other parameters
├── PriceTooHigh
│   └── PriceUnknown
├── LimitExceeded               one of [limits], or of a client's, named
├── NotAllowed                  this client may not
├── NotReady                    lnd cannot be used now
├── NotPayable                  lnd sees no way to pay an order, and none was made
├── ProviderError
│   ├── ProviderUnavailable     retryable: no answer, 429, 5xx
│   ├── ProviderRefused         it answered no
│   │   └── ProviderKeyMissing  not even asked: the account's key is not configured
│   └── ProviderProtocolError   it answered something that makes no sense
├── LndError
│   ├── LndUnavailable          retryable: down, locked, starting
│   ├── LndDenied               the macaroon does not allow it
│   ├── LndRefused              LND answered with an error of its own
│   └── LndWrongNode            another node answers at the address
├── StoreError                  ends the process
│   └── DatabaseGone            and keeps it down
└── InvariantViolation          we contradicted ourselves: puts the order into quarantine

A failed payment, a payment that LND does not know and an illegal remote event are values, not errors.
"""

from __future__ import annotations

from typing import ClassVar


class HoldpayError(Exception):
    """Something went wrong in holdpay."""

    retryable = False
    reason: ClassVar[str] = "UNEXPECTED"
    """For programs, UPPER_SNAKE_CASE; part of the interface."""

    def __init__(self, message: str | None = None, **metadata: str | int) -> None:
        self.metadata = {name: str(value) for name, value in metadata.items()}
        """What the message says, for programs; a name ends in its unit."""
        super().__init__(message or (self.__class__.__doc__ or "").strip())

    @property
    def message(self) -> str:
        return str(self.args[0])


class ConfigError(HoldpayError):
    """The configuration cannot be used. Run `holdpayd --check-config`."""

    def __init__(self, problems: list[str]) -> None:
        self.problems = problems
        super().__init__("\n".join(problems))


class InvalidRequest(HoldpayError):
    """The request cannot be understood. See holdpay.proto."""

    reason = "INVALID_REQUEST"


class UnknownCountry(InvalidRequest):
    """There is no such country. ListCountries names them all."""

    reason = "UNKNOWN_COUNTRY"


class UnknownService(InvalidRequest):
    """The provider lists no such service in this country. ListServices names them all."""

    reason = "UNKNOWN_SERVICE"


class OutOfStock(HoldpayError):
    """The provider shows no stock for this service. Try another country."""

    reason = "OUT_OF_STOCK"


class OrderNotFound(HoldpayError):
    """There is no such order."""

    reason = "ORDER_NOT_FOUND"


class OrderUnreadable(HoldpayError):
    """The order's row in the database makes no sense. See `holdpayd check`."""

    reason = "ORDER_UNREADABLE"


class KeyTaken(HoldpayError):
    """This idempotency key belongs to a request with other parameters. Use another key."""

    reason = "KEY_TAKEN"


class PriceTooHigh(HoldpayError):
    """The price is over the limit."""

    reason = "PRICE_TOO_HIGH"


class PriceUnknown(PriceTooHigh):
    """The provider names no price for this, so the request has to say how much it may cost."""

    reason = "PRICE_UNKNOWN"


class BalanceTooLow(HoldpayError):
    """The prepaid account has too little for this. Put money into it, or order without it."""

    reason = "BALANCE_TOO_LOW"


class LimitExceeded(HoldpayError):
    """A limit of the daemon is reached. See [limits] in the configuration."""

    reason = "LIMIT_REACHED"


class NotAllowed(HoldpayError):
    """This client may not do that. The operator may, or allow it in the configuration."""

    reason = "NOT_ALLOWED"


class TooManyStreams(HoldpayError):
    """Too many clients follow orders. End some of them, or ask with GetRequest."""

    reason = "TOO_MANY_STREAMS"


class NotReady(HoldpayError):
    """The daemon cannot take orders now. Its status says why."""

    retryable = True
    reason = "NOT_READY"


class NotPayable(HoldpayError):
    """lnd sees no way to pay this now."""

    retryable = True
    reason = "NOT_PAYABLE"


class ProviderError(HoldpayError):
    """The provider could not be used."""

    reason = "PROVIDER_ERROR"


class ProviderUnavailable(ProviderError):
    """The provider does not answer. Try again later."""

    retryable = True
    reason = "PROVIDER_UNAVAILABLE"

    def __init__(
        self,
        message: str | None = None,
        retry_after_s: float | None = None,
        raw: str | None = None,
        *,
        is_turned_away: bool = False,
    ) -> None:
        """``is_turned_away``: for sure nothing was carried out, since the request was not let in, or never sent."""
        self.is_turned_away = is_turned_away
        self.retry_after_s = retry_after_s
        self.raw = raw
        super().__init__(message, **({} if retry_after_s is None else {"retry_after_s": f"{retry_after_s:g}"}))


class ProviderRefused(ProviderError):
    """The provider refused."""

    reason = "PROVIDER_REFUSED"

    def __init__(self, message: str | None = None, raw: str | None = None) -> None:
        self.raw = raw
        super().__init__(message)


class ProviderKeyMissing(ProviderRefused):
    """The prepaid account's API key is not configured. Name the file that holds it in provider.api_key_file."""

    reason = "PROVIDER_KEY_MISSING"


class ProviderProtocolError(ProviderError):
    """The provider's answer makes no sense."""

    reason = "PROVIDER_GARBLED"

    def __init__(self, message: str | None = None, raw: str | None = None, unread: str | None = None) -> None:
        """``unread``: the answer, cut, if a person may find in it what was paid for. Never to be logged, as ``raw``."""
        self.raw = raw
        self.unread = unread
        super().__init__(message)


class LndError(HoldpayError):
    """lnd could not be used."""

    reason = "LND_ERROR"


class LndUnavailable(LndError):
    """lnd cannot be reached. See that it runs and is unlocked."""

    retryable = True
    reason = "LND_UNAVAILABLE"


class LndDenied(LndError):
    """lnd does not accept the macaroon. Bake it anew with the documented line."""

    reason = "LND_DENIED"


class LndRefused(LndError):
    """lnd refused the call."""

    reason = "LND_REFUSED"


class LndWrongNode(LndError):
    """Another node answers at lnd's address. Point lnd.address at the node that paid the open orders."""

    reason = "LND_WRONG_NODE"


class StoreError(HoldpayError):
    """The database cannot be used. See the log; nothing was paid that is not recorded."""


class DatabaseGone(StoreError):
    """Its folder is gone, and a start would begin an empty one. Put it back, then start holdpayd."""


class InvariantViolation(HoldpayError):
    """holdpay contradicted itself. Please report this."""
