"""What can be made to go wrong at the simulated sms4sats, while it runs."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """How one order goes. Seconds are of the simulated world (``Clock.pace``), counted from when the HTLC is held."""

    paid_lag_s: float = 0.3
    """From holding the HTLC to saying ``paid``."""
    number_after_s: float = 12.0
    code_after_s: float = 40.0
    no_number: bool = False
    no_code: bool = False
    gives_up_after_s: float = 1260.0
    """When an order without number or code is called over: the promise."""
    settle_lag_s: float = 0.5
    """From showing the code to settling; negative: settled first."""
    cancel_lag_s: float = 0.5
    """From saying that the order is over to canceling the hold invoice; negative: canceled first."""
    code: str = ""
    """Empty: a random one of six digits."""
    as_numbers: bool = True
    """Code and phone number as JSON numbers, as the reference shows them; else as strings."""
    flips: bool = False
    """Every second status reply is that of an unpaid order."""
    overprice_percent: float = 0.0
    """How much more than the quote the invoice asks."""
    other_order_id: bool = False
    """The order id is not the payment hash."""
    invoice_expiry_s: int = 86_400
    invoice_cltv_delta: int = 40


@dataclass(slots=True, kw_only=True)
class Knobs:
    """Of the whole server.

    The counts go down with each use; ``only_path`` confines 429, 500 and garbage to one path.
    """

    scenario: Scenario = field(default_factory=Scenario)
    """Of every order for which none is queued."""
    queue: deque[Scenario] = field(default_factory=deque)
    """Of the next orders, one each."""
    price_sat: int = 3000
    stock: int = 28
    cancel_from_s: float = 120.0
    """Seconds of the simulated world since the order was paid (created, if it was not)."""
    refuse_orders: int = 0
    http_429: int = 0
    retry_after_s: int = 1
    http_500: int = 0
    garbage: int = 0
    only_path: str = ""
    slow_s: float = 0.0
    """Ordinary seconds before each answer."""


def changed_scenario(scenario: Scenario, changes: Mapping[str, Any]) -> Scenario:
    """Raises ValueError for an unknown field or a wrong type."""
    _check_is_object(changes)
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
