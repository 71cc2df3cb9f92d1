"""What can be made to go wrong at the simulated sms4sats, while it runs."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any, Final

FAILING_STEPS: Final = ("", "sent", "delivered")


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """How one order goes. Seconds are of the simulated world (``Clock.pace``), counted from when the HTLC is held, or
    from when the balance was charged.

    Raises ValueError for a field that cannot be so.
    """

    # Every kind.
    paid_lag_s: float = 0.3
    """From holding the HTLC to saying ``paid``."""
    settle_lag_s: float = 0.5
    """From showing what is paid for (code, rented number, ``sent``, credit) to settling; negative: settled first."""
    cancel_lag_s: float = 0.5
    """From saying that the order is over to canceling the hold invoice; negative: canceled first."""
    flips: bool = False
    """Every second status reply is that of an unpaid order."""
    overprice_percent: float = 0.0
    """How much more than the quote the invoice asks, or the balance is charged."""
    other_order_id: bool = False
    """The order id is not the payment hash."""
    invoice_expiry_s: int = 86_400
    invoice_cltv_delta: int = 40

    # Receive and rental.
    no_number: bool = False
    gives_up_after_s: float = 1260.0
    """When an order without number or code is called over: the promise."""
    as_numbers: bool = True
    """Codes and phone number as JSON numbers, as the reference shows them; else as strings."""

    # Receive.
    number_after_s: float = 12.0
    code_after_s: float = 40.0
    no_code: bool = False
    code: str = ""
    """Empty: a random one of six digits."""

    # Rental: its number comes as soon as it is paid.
    messages_after_s: tuple[float, ...] = (40.0, 90.0, 150.0)
    """When each message comes; in JSON a list."""
    messages_as: str = "code"
    """``code``: it always shows the latest message only. Another name: the list of all messages under that name."""
    garbled_message: int = 0
    """Which message nobody can read, counted from 1; 0: none."""
    rental_ends_after_s: float = 14_400.0
    """No message comes any more: the reference speaks of 4 hours."""

    # Sending an SMS or e-mail.
    sent_after_s: float = 5.0
    delivered_after_s: float = 20.0
    fails_instead_of: str = ""
    """``sent``: nothing is sent, and the money goes back. ``delivered``: it was sent and paid for."""

    # Funding the balance.
    credited_after_s: float = 1.0

    def __post_init__(self) -> None:
        if self.fails_instead_of not in FAILING_STEPS:
            raise ValueError("The knob fails_instead_of takes sent, delivered or nothing.")
        if not all(isinstance(after_s, (int, float)) for after_s in self.messages_after_s):
            raise ValueError("The knob messages_after_s takes a list of seconds.")


@dataclass(slots=True, kw_only=True)
class Knobs:
    """Of the whole server.

    The counts go down with each use; ``only_path`` confines 429, 500, garbage and lost replies to one path.
    """

    scenario: Scenario = field(default_factory=Scenario)
    """Of every order for which none is queued."""
    queue: deque[Scenario] = field(default_factory=deque)
    """Of the next orders, one each."""
    price_sat: int = 3000
    """Of an activation code."""
    realphone_sat: int = 5000
    """Of an activation code on a phone of the provider's own network."""
    send_sat: int = 1000
    """Of an SMS or e-mail that is sent."""
    api_key: str = "sandbox-key"
    """Of the only account there is; empty: there is none."""
    balance_sat: int = 10_000
    """Of that account: prepaid orders and funding change it."""
    stock: int = 28
    cancel_from_s: float = 120.0
    """Seconds of the simulated world since the order was paid (created, if it was not)."""
    refuse_orders: int = 0
    http_429: int = 0
    retry_after_s: int = 1
    http_500: int = 0
    garbage: int = 0
    lost_replies: int = 0
    """Requests that change something (every POST, and /cancelorder) are carried out and never answered."""
    only_path: str = ""
    slow_s: float = 0.0
    """Ordinary seconds before each answer."""


def changed_scenario(scenario: Scenario, changes: Mapping[str, Any]) -> Scenario:
    """A list is taken for a tuple. Raises ValueError for an unknown field or a wrong type."""
    _check_is_object(changes)
    changes = {name: tuple(value) if isinstance(value, list) else value for name, value in changes.items()}
    _check(Scenario(), changes)
    return replace(scenario, **changes)


def change_knobs(knobs: Knobs, changes: Mapping[str, Any]) -> None:
    """Changes what is named; ``scenario`` is an object of its own, ``queue`` a list of them, each on top of it.

    Raises ValueError for an unknown field or a wrong type; then nothing is changed.
    """
    _check_is_object(changes)
    simple = {name: value for name, value in changes.items() if name not in {"scenario", "queue"}}
    _check(Knobs(), simple)
    scenario = changed_scenario(knobs.scenario, changes.get("scenario", {}))
    if not isinstance(changes.get("queue", []), list):
        raise ValueError("The knob queue takes a list of scenarios.")
    queued = [changed_scenario(scenario, each) for each in changes.get("queue", [])]
    knobs.scenario = scenario
    knobs.queue.extend(queued)
    for name, value in simple.items():
        setattr(knobs, name, value)


def _check_is_object(changes: object) -> None:
    if not isinstance(changes, Mapping):
        raise ValueError("Knobs are given as an object: names and values.")


def _check(defaults: object, changes: Mapping[str, Any]) -> None:
    known = {each.name: getattr(defaults, each.name) for each in fields(defaults)}  # type: ignore[arg-type]
    for name, value in changes.items():
        if name not in known:
            raise ValueError(f"There is no knob {name}; there are {', '.join(sorted(known))}.")
        wanted = (int, float) if isinstance(known[name], float) else type(known[name])
        if not isinstance(value, wanted) or (isinstance(value, bool) and not isinstance(known[name], bool)):
            raise ValueError(f"The knob {name} takes a {type(known[name]).__name__}.")
