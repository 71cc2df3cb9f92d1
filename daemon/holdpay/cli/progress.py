"""What a person reads while a request goes on: a line for each thing that changed, and on a terminal a live line."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TextIO

import click

from holdpay.cli import render
from holdpay.cli.app import Clock
from holdpay.cli.kinds import kind_of, number_of, numbers_of, order_of, texts
from holdpay.cli.top.text import bar, columns_of, head

if TYPE_CHECKING:
    from holdpay._pb.v1 import holdpay_pb2 as pb

_ENDS = {
    "fulfilled": "done: {came} and is paid",
    "fulfilled_free": "done: {came}, and nothing was charged",
    "refunded": "over: {thing} did not come; the money is back",
    "canceled_unpaid": "over: canceled before anything was paid",
    "invoice_rejected": "over: the invoice broke our rules; nothing was paid",
    "provider_refused": "over: the provider did not take the order; nothing was paid",
    "no_place": "over: it waited in vain for a place among the holds; nothing was ordered, nothing was spent",
    "payment_failed": "over: no payment got through; nothing was spent",
    "charged_unfulfilled": "over: paid, but {thing} did not come; write to the provider's support",
    "outcome_unknown": "over: {thing} did not come, and nobody can say whether it was paid; it counts as spent",
}
_SENDINGS = {"delivered": "the provider says that it was delivered", "failed": "the provider says that sending failed"}
"""Of how a sending goes, what the phase does not say."""


def limits(request: pb.Request) -> str:
    """How much may be spent for it."""
    order = order_of(request)
    if request.prepaid:
        return f"for up to {render.sat(order.max_price_sat)} of the prepaid account"
    return f"for up to {render.sat(order.max_price_sat)} and a fee of up to {render.sat(order.max_fee_sat)}"


def changes(before: pb.Request | None, request: pb.Request, *, with_phase: bool = True) -> Iterator[str]:
    """The lines for what is in `request` and was not in `before` (None: nothing was known).

    ``with_phase`` False: where a live line shows the phase, it needs no line of its own.
    """
    order_before = None if before is None or len(before.orders) < len(request.orders) else order_of(before)
    yield from _turn_changes(before, request)
    if with_phase:
        yield from _phase_changes(before, request)
    yield from _item_changes(before, request)
    yield from _money_changes(order_before, order_of(request), is_prepaid=request.prepaid)
    yield from _wish_changes(before, request)
    if request.reason and not request.going_on and (before is None or before.reason != request.reason):
        yield request.reason
    known = set(before.alarms) if before is not None else set()
    yield from (f"ALARM: {alarm}" for alarm in request.alarms if alarm not in known)
    yield from _level_changes(order_before, order_of(request), request.alarms)
    if request.terminal and not (before is not None and before.terminal):
        end, kind = render.enum_text(request, "end"), kind_of(request)
        yield _ENDS.get(end or "", f"over: {end}").format(thing=kind.thing, came=kind.came)


def _turn_changes(before: pb.Request | None, request: pb.Request) -> Iterator[str]:
    """From one order of the request to the next one."""
    known = 0 if before is None else len(before.orders)
    order = order_of(request)
    if len(request.orders) > max(1, known):
        yield f"now {order.country} ({len(request.orders)} of {request.strategy.attempts})"
    was_moved_on = before is not None and known == len(request.orders) and bool(order_of(before).moved_on)
    if order.moved_on and not was_moved_on:
        yield f"{order.moved_on}; the order is being canceled"
    if request.going_on and not (before is not None and before.going_on):
        what = "nothing was paid" if render.enum_text(order, "htlc") == "none" else "the money is back"
        yield f"{order.country} brought no code ({order.reason.rstrip('.')}); {what}; the next order is being made"


_URGENT = ("warning", "critical")


def _level_changes(before: pb.Order | None, order: pb.Order, alarms: Sequence[str]) -> Iterator[str]:
    """What is the matter with money that is out, as far as it is no alarm of the clock's."""
    was = "" if before is None else render.enum_text(before, "hold_level") or ""
    level = render.enum_text(order, "hold_level") or ""
    if level == was or any(order.hold_why in alarm for alarm in alarms if order.hold_why):
        return
    if level in _URGENT:
        yield f"{level.upper()}: {order.hold_why}"
    elif was in _URGENT and level:
        yield f"the {was} level is over"


def _phase_changes(before: pb.Request | None, request: pb.Request) -> Iterator[str]:
    phase = order_of(request).phase
    is_known = before is not None and len(before.orders) == len(request.orders) and order_of(before).phase == phase
    if phase and not request.terminal and not request.going_on and not is_known:
        yield phase


def _item_changes(before: pb.Request | None, request: pb.Request) -> Iterator[str]:
    def news(kind: str) -> list[str]:
        known_seq = 0 if before is None else max((item.seq for item in before.items), default=0)
        new = (item for item in request.items if item.seq > known_seq)
        return [item.text for item in new if render.enum_text(item, "kind") == kind]

    if news("number"):
        yield _number_line(before, request)
    new_codes = news("code")
    if new_codes and len(new_codes) == len(texts(request, "code")) and _may_lack_zeros(request):
        yield "the provider sent the code as a number: zeros at its beginning may be missing"
    if new_codes and len(texts(request, "code")) > 1:
        yield f"the provider sent another code; the first one counts, `holdpay orders show {request.id}` shows all"
    if count := len(news("message")):
        came = "a message came" if count == 1 else f"{count:,} messages came"
        of_rental = request.WhichOneof("understood") == "rental"
        yield f"{came}; read with `holdpay {'rent messages' if of_rental else 'orders show'} {request.id}`"
    yield from (_SENDINGS[text] for text in news("sending") if text in _SENDINGS)
    unread = texts(request, "unread")
    if unread and not request.fulfilled and (before is None or texts(before, "unread") != unread):
        yield f"the provider's reply could not be read; see it with `holdpay orders show {request.id}`"


def _may_lack_zeros(request: pb.Request) -> bool:
    return next(item.may_lack_zeros for item in request.items if render.enum_text(item, "kind") == "code")


def _number_line(before: pb.Request | None, request: pb.Request) -> str:
    *earlier, number = (render.phone(number) for number in numbers_of(request))
    if not earlier:
        return f"the number is {number}"
    if before is not None and number_of(before) is not None:
        return f"the provider replaced the number: it is {number} now, no longer {earlier[-1]}"
    return f"the number is {number}; it replaced {earlier[-1]}"


def _money_changes(before: pb.Order | None, order: pb.Order, *, is_prepaid: bool) -> Iterator[str]:
    was_locked_msat, locked_msat = _surely_locked_msat(before), _surely_locked_msat(order)
    if locked_msat and (locked_msat != was_locked_msat or _is_news(before, order, "expiry_height")):
        yield locked(order)
    was_spent = None if before is None else (before.spent_msat, before.charge)
    is_being_charged = render.enum_text(order, "charge") == "intended"
    if order.spent_msat and was_spent != (order.spent_msat, order.charge) and not is_being_charged:
        yield spent(order, is_prepaid=is_prepaid)
    if was_locked_msat and not locked_msat and not order.spent_msat:
        yield "nothing is locked any more"
    if order.dispatches > max(1, before.dispatches if before is not None else 1):
        yield f"payment try {order.dispatches}"
    if _is_news(before, order, "next_dispatch_at_ms") and order.dispatches:
        yield f"the payment is tried again at {render.clock_time(order.next_dispatch_at_ms)}"


def _surely_locked_msat(order: pb.Order | None) -> int:
    """Nothing while the first HTLC attempt is being made: in milliseconds it is known what it locks."""
    if order is None:
        return 0
    htlc = render.enum_text(order, "htlc")
    is_beginning = htlc == "dispatching" or (htlc == "in_flight" and not order.HasField("expiry_height"))
    return 0 if is_beginning else order.locked_msat


def _wish_changes(before: pb.Request | None, request: pb.Request) -> Iterator[str]:
    if not request.HasField("cancel_wanted_at_ms") or (before is not None and before.HasField("cancel_wanted_at_ms")):
        return
    order = order_of(request)
    when = f"; the provider can be asked from {render.clock_time(order.cancel_from_ms)} on"
    yield f"you asked to cancel{when if order.HasField('cancel_from_ms') and not request.terminal else ''}"


def _is_news(before: pb.Order | None, order: pb.Order, name: str) -> bool:
    """Whether an optional field is there now, and was absent or different before."""
    if not order.HasField(name):  # type: ignore[arg-type]  # the stub lists the names one by one
        return False
    return before is None or getattr(before, name) != getattr(order, name) or not before.HasField(name)  # type: ignore[arg-type]


def locked(order: pb.Order) -> str:
    """What is out and how long it can stay out."""
    parts = [f"{render.msat(order.locked_msat)} locked"]
    if order.HasField("promise_until_ms"):
        parts.append(f"the provider promises an end by {render.clock_time(order.promise_until_ms)}")
    if order.HasField("expiry_height"):
        parts.append(f"{render.height(order.expiry_height)} ends it at the latest")
    return "; ".join(parts)


def spent(order: pb.Order, *, is_prepaid: bool) -> str:
    amount = render.msat(order.spent_msat)
    if is_prepaid:
        perhaps = "" if render.enum_text(order, "charge") == "charged" else "perhaps "
        return f"{perhaps}spent {amount} of the prepaid account"
    fee = f", {render.msat(order.fee_msat)} of it routing fee" if order.HasField("fee_msat") else ""
    return f"spent {amount}{fee}"


def cost(request: pb.Request) -> str:
    """What something costs that has just arrived, settled or about to be."""
    order = order_of(request)
    if order.spent_msat:
        return f"Cost: {render.msat(order.spent_msat)}{' of the prepaid account' if request.prepaid else ''}."
    if order.paid_before:
        return "Cost: nothing now; your node had paid this hold invoice before."
    if order.locked_msat:
        return f"Cost: {render.msat(order.locked_msat)}, locked until the HTLC settles."
    return "Cost: nothing so far."


@dataclass(frozen=True, slots=True)
class Countdown:
    """What a wait goes on until at most, by ``name``."""

    name: str
    from_ms: int
    until_ms: int


def countdown(request: pb.Request, paid_at_ms: int | None) -> Countdown | None:
    """The earliest end of the wait: the provider's promise, or what the request's strategy says.

    ``paid_at_ms``: since when the money of its latest order is out, as far as it is known. None: there is no such end.
    """
    order, strategy = order_of(request), request.strategy
    found = []
    if strategy.HasField("within_s"):
        end_ms = request.created_at_ms + strategy.within_s * 1000
        found.append(Countdown("the end of --within", request.created_at_ms, end_ms))
    if paid_at_ms is not None and order.locked_msat:
        if order.HasField("promise_until_ms"):
            found.append(Countdown("the promised end", paid_at_ms, order.promise_until_ms))
        if strategy.HasField("number_within_s") and number_of(request) is None:
            found.append(
                Countdown("the end of --number-within", paid_at_ms, paid_at_ms + strategy.number_within_s * 1000)
            )
        if strategy.HasField("sms_within_s"):
            found.append(Countdown("the end of --sms-within", paid_at_ms, paid_at_ms + strategy.sms_within_s * 1000))
    return min(found, key=lambda end: end.until_ms, default=None)


@dataclass(frozen=True, slots=True)
class Live:
    """What the live line tells."""

    phase: str
    since_ms: int
    end: Countdown | None = None

    def words(self, now_ms: int, columns: int, signs: tuple[str, str]) -> str:
        """In at most so many columns. ``signs``: of the bar's full and its empty part."""
        text = f"{render.span(now_ms - self.since_ms):>8}  {render.plain(self.phase)} …"
        if self.end is not None:
            left_ms = self.end.until_ms - now_ms
            late = f"{self.end.name} passed {render.span(-left_ms)} ago"
            left = f"{render.span(left_ms)} to {self.end.name}" if left_ms > 0 else late
            text += f"  {_bar(self.end, now_ms, columns - columns_of(text) - len(left) - 3, signs)}{left}"
        return head(text, columns)


_LONGEST_BAR, _SHORTEST_BAR = 24, 5


def _bar(end: Countdown, now_ms: int, room: int, signs: tuple[str, str]) -> str:
    """With a space behind it. Empty: there is no room for one."""
    if room < _SHORTEST_BAR:
        return ""
    full, free = signs
    return bar(min(room, _LONGEST_BAR), [(full, now_ms - end.from_ms)], end.until_ms - end.from_ms, free) + " "


class Screen:
    """Lines on stderr; on a terminal the last line shows the present phase and the time since the order began."""

    TICK_S = 1.0

    def __init__(self, stream: TextIO, clock: Clock) -> None:
        self._stream = stream
        self._clock = clock
        self.is_live = stream.isatty() and render.obeys_escapes()
        self._shown: Live | None = None
        self._lock = threading.Lock()
        self._closed = threading.Event()
        self._ticker: threading.Thread | None = None

    def line(self, text: str) -> None:
        # Progress that nobody can read must not end the wait.
        with self._lock, contextlib.suppress(OSError):
            self._erase()
            click.echo(render.plain(text), file=self._stream)
            self._draw()

    def live(self, shown: Live | None) -> None:
        """Sets the live line; None removes it. Nothing where stderr is no terminal."""
        if not self.is_live:
            return
        with self._lock, contextlib.suppress(OSError):
            self._shown = shown
            self._erase()
            self._draw()
        if self._ticker is None:
            self._ticker = threading.Thread(target=self._tick, daemon=True)
            self._ticker.start()

    def close(self) -> None:
        self._closed.set()
        if self._ticker is not None:
            self._ticker.join()
        self.live_off()

    def live_off(self) -> None:
        """Before something is written to stdout, which is often the same terminal."""
        with self._lock, contextlib.suppress(OSError):
            self._shown = None
            self._erase()

    def _tick(self) -> None:
        while not self._closed.wait(self.TICK_S):
            with self._lock, contextlib.suppress(OSError):
                self._draw()

    def _erase(self) -> None:
        if self.is_live:
            self._stream.write("\r\x1b[K")
            self._stream.flush()

    def _draw(self) -> None:
        if self.is_live and self._shown is not None:
            # A line that wraps could not be erased.
            signs = ("█", "░") if render.is_utf8(self._stream) else ("#", ".")
            words = self._shown.words(self._clock.now_ms(), self._columns() - 1, signs)
            self._stream.write(f"\r\x1b[K{words}")
            self._stream.flush()

    def _columns(self) -> int:
        """Of this stream's terminal: stdout may be a pipe. 80 where nobody knows."""
        with contextlib.suppress(OSError, ValueError):
            return os.get_terminal_size(self._stream.fileno()).columns or 80
        return 80
