"""Everything that a person can make go wrong in a running sandbox, by name."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from holdpay.sandbox.world import SandboxWorld

Play = Callable[["SandboxWorld", float], Awaitable[None]]


class UnknownTrick(ValueError):
    """There is no such trick, or its value is wrong."""


@dataclass(frozen=True, slots=True)
class Trick:
    """``value`` names what NAME=VALUE takes, and its unit; None: it takes none."""

    value: str | None
    help: str
    play: Play


def _next_order(**changes: Any) -> Play:
    """The next order goes like this; a field that is ``...`` takes the trick's value."""

    async def play(world: SandboxWorld, value: float) -> None:
        given: dict[str, Any] = {name: value if change is ... else change for name, change in changes.items()}
        knobs = world.provider.knobs
        knobs.queue.append(replace(knobs.scenario, **given))

    return play


def _provider(name: str, kind: type[int] | type[float] = int) -> Play:
    async def play(world: SandboxWorld, value: float) -> None:
        setattr(world.provider.knobs, name, kind(value))

    return play


def _lnd(act: Callable[[SandboxWorld, float], Awaitable[object] | object]) -> Play:
    async def play(world: SandboxWorld, value: float) -> None:
        result = act(world, value)
        if isinstance(result, Awaitable):
            await result

    return play


TRICKS: dict[str, Trick] = {
    "no-number": Trick(None, "the next order finds no number and is refunded", _next_order(no_number=True)),
    "no-code": Trick(None, "the next order gets a number and no code, and is refunded", _next_order(no_code=True)),
    "gives-up": Trick(
        "SECONDS", "likewise, when the provider gives up after so long", _next_order(no_code=True, gives_up_after_s=...)
    ),
    "late-settle": Trick("SECONDS", "the next order settles so long after its code", _next_order(settle_lag_s=...)),
    "late-cancel": Trick(
        "SECONDS",
        "the next order has no number, and its money comes back so late",
        _next_order(no_number=True, cancel_lag_s=...),
    ),
    "overprice": Trick(
        "PERCENT",
        "the next invoice asks so much more than the quote (more than 2 is refused)",
        _next_order(overprice_percent=...),
    ),
    "other-order-id": Trick(None, "the next order's id is not the payment hash", _next_order(other_order_id=True)),
    "flips": Trick(None, "every second reply about the next order is that of an unpaid one", _next_order(flips=True)),
    "price": Trick("SAT", "what an order costs from now on; holdpayd asks again after 10 s", _provider("price_sat")),
    "stock": Trick(
        "NUMBERS", "how many numbers there are from now on; holdpayd asks again after 10 s", _provider("stock")
    ),
    "refuse-orders": Trick("TIMES", "the provider refuses orders", _provider("refuse_orders")),
    "http-429": Trick("TIMES", "the provider answers Too Many Requests", _provider("http_429")),
    "http-500": Trick("TIMES", "the provider answers an internal error", _provider("http_500")),
    "garbage": Trick("TIMES", "the provider answers garbage", _provider("garbage")),
    "slow": Trick(
        "SECONDS", "every answer of the provider takes so long from now on (0 ends it)", _provider("slow_s", float)
    ),
    "routing-failures": Trick(
        "TIMES", "the next HTLCs fail on their way (0 ends it)", _lnd(lambda w, v: w.lnd.fail_routing(int(v)))
    ),
    "late-send": Trick(
        "SECONDS",
        "every payment reaches lnd so late from now on (0 ends it)",
        _lnd(lambda w, v: w.lnd.set_knobs(send_delay_s=v)),
    ),
    "hung-stream": Trick(
        None, "the payment streams that are open now stay open and silent", _lnd(lambda w, v: w.lnd.hang_streams())
    ),
    "unsigned": Trick(
        "TIMES",
        "the next HTLCs never get into their channel, as if lnd were killed before it signs them (0 ends it)",
        _lnd(lambda w, v: w.lnd.leave_unsigned(int(v))),
    ),
    "delete-payments": Trick(
        None, "lnd deletes its records of payments that have ended", _lnd(lambda w, v: w.lnd.delete_ended_payments())
    ),
    "payee-offline": Trick(None, "the provider's node goes away", _lnd(lambda w, v: _online(w, "payee", False))),
    "payee-online": Trick(None, "the provider's node comes back", _lnd(lambda w, v: _online(w, "payee", True))),
    "lnd-locked": Trick(None, "lnd restarts and waits for its password", _lnd(lambda w, v: w.lnd.lock())),
    "lnd-unlocked": Trick(None, "lnd gets its password", _lnd(lambda w, v: w.lnd.unlock())),
    "lnd-stopped": Trick(None, "lnd stops", _lnd(lambda w, v: w.lnd.stop())),
    "lnd-killed": Trick(None, "lnd dies", _lnd(lambda w, v: w.lnd.kill())),
    "lnd-started": Trick(None, "lnd starts again", _lnd(lambda w, v: w.lnd.start())),
    "new-certificate": Trick(
        None, "lnd restarts with a new TLS certificate", _lnd(lambda w, v: w.lnd.renew_certificate())
    ),
    "other-node": Trick(
        None, "another node answers at lnd's address, for good", _lnd(lambda w, v: w.lnd.replace_node())
    ),
    "blocks": Trick("BLOCKS", "the chain grows", _lnd(lambda w, v: w.lnd.mine(int(v)))),
}


def _online(world: SandboxWorld, who: str, online: bool) -> None:
    world.lnd.set_online(who, online=online)


async def play(world: SandboxWorld, text: str) -> str:
    """``NAME`` or ``NAME=VALUE``. Returns what happens now. Raises UnknownTrick."""
    name, separator, given = text.partition("=")
    trick = TRICKS.get(name)
    if trick is None:
        raise UnknownTrick(f"There is no trick {name!r}. `holdpayd sandbox tricks` lists them all.")
    if (trick.value is not None) != bool(separator):
        wanted = f"{name}={trick.value}" if trick.value else name
        raise UnknownTrick(f"This trick is played as {wanted}.")
    try:
        value = float(given) if separator else 0.0
    except ValueError:
        raise UnknownTrick(f"{given!r} is not a number. Play it as {name}={trick.value}.") from None
    await trick.play(world, value)
    return trick.help if trick.value is None else f"{name} is now {value:,g} {trick.value.lower()}: {trick.help}"
