"""The error tree. A class's docstring is its default message; every message that reaches a person says what to do next.

HoldpayError
├── ConfigError                 the configuration cannot be used (exit 78)
├── InvalidRequest              the client asked for something that cannot be
├── OrderNotFound
├── KeyTaken                    an idempotency key used with other parameters
├── PriceTooHigh
├── LimitExceeded               one of [limits], named
├── NotReady                    lnd cannot be used now
├── ProviderError
│   ├── ProviderUnavailable     retryable: no answer, 429, 5xx
│   ├── ProviderRefused         it answered no
│   └── ProviderProtocolError   it answered something that makes no sense
├── LndError
│   ├── LndUnavailable          retryable: down, locked, starting
│   ├── LndDenied               the macaroon does not allow it
│   ├── LndRefused              LND answered with an error of its own
│   └── LndWrongNode            another node answers at the address
├── StoreError                  ends the process
└── InvariantViolation          ends the process: we contradicted ourselves

A failed payment, a payment that LND does not know and an illegal remote event are values, not errors.
"""

from __future__ import annotations


class HoldpayError(Exception):
    """Something went wrong in holdpay."""

    retryable = False

    def __init__(self, message: str | None = None) -> None:
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
    """The request cannot be understood. See `holdpay --help`."""


class OutOfStock(HoldpayError):
    """The provider shows no stock for this service. Order with --force to try all the same."""


class OrderNotFound(HoldpayError):
    """There is no such order. `holdpay orders list` shows them all."""


class KeyTaken(HoldpayError):
    """This idempotency key belongs to a request with other parameters. Use another key."""


class PriceTooHigh(HoldpayError):
    """The price is over the limit. Raise --max-price or payment.max_price_sat."""


class LimitExceeded(HoldpayError):
    """A limit of the daemon is reached. See [limits] in the configuration."""


class NotReady(HoldpayError):
    """The daemon cannot take orders now. `holdpay status` says why."""

    retryable = True


class ProviderError(HoldpayError):
    """The provider could not be used."""


class ProviderUnavailable(ProviderError):
    """The provider does not answer. Try again later."""

    retryable = True

    def __init__(self, message: str | None = None, retry_after_s: float | None = None, raw: str | None = None) -> None:
        self.retry_after_s = retry_after_s
        self.raw = raw
        super().__init__(message)


class ProviderRefused(ProviderError):
    """The provider refused."""

    def __init__(self, message: str | None = None, raw: str | None = None) -> None:
        self.raw = raw
        super().__init__(message)


class ProviderProtocolError(ProviderError):
    """The provider's answer makes no sense."""

    def __init__(self, message: str | None = None, raw: str | None = None) -> None:
        self.raw = raw
        super().__init__(message)


class LndError(HoldpayError):
    """lnd could not be used."""


class LndUnavailable(LndError):
    """lnd cannot be reached. See that it runs and is unlocked."""

    retryable = True


class LndDenied(LndError):
    """lnd does not accept the macaroon. Bake it anew with the documented line."""


class LndRefused(LndError):
    """lnd refused the call."""


class LndWrongNode(LndError):
    """Another node answers at lnd's address. Point lnd.address at the node that paid the open orders."""


class StoreError(HoldpayError):
    """The database cannot be used. See the log; nothing was paid that is not recorded."""


class InvariantViolation(HoldpayError):
    """holdpay contradicted itself and stops before it does harm. Please report this."""
