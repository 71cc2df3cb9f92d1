"""One order followed to what the user waits for (`code`, `orders wait`). Imports grpc: import this module late."""

from __future__ import annotations

import sys
from contextlib import closing
from enum import StrEnum
from typing import Protocol

from holdpay._pb.v1 import holdpay_pb2 as pb
from holdpay.cli import progress, render
from holdpay.cli.app import App
from holdpay.cli.exit_codes import ExitCode, of_end
from holdpay.cli.failure import Failure
from holdpay.cli.feed import Feed, TimedOut


class Until(StrEnum):
    """What ends the wait."""

    ACCEPTED = "accepted"
    NUMBER = "number"
    CODE = "code"
    SETTLED = "settled"


class View(Protocol):
    """Where an order's story goes."""

    def accepted(self, order: pb.Order) -> None:
        """The daemon has the order: said once, first."""

    def update(self, update: pb.OrderUpdate) -> None: ...

    def answer(self, text: str, order: pb.Order) -> None:
        """The number or the code that was waited for."""

    def note(self, text: str) -> None:
        """A sentence for people."""

    def close(self) -> None: ...


class TextView:
    """For people: progress on stderr, and only the answer on stdout."""

    def __init__(self, app: App) -> None:
        self._screen = progress.Screen(sys.stderr, app.clock)
        self._last: pb.Order | None = None

    def accepted(self, order: pb.Order) -> None:
        self._screen.line(
            f"Order {order.id}: {order.service_name or order.service} in {order.country}, "
            f"for up to {render.sat(order.max_price_sat)} and a fee of up to {render.sat(order.max_fee_sat)}."
        )
        self._screen.line(f"Key {order.idempotency_key}.")

    def update(self, update: pb.OrderUpdate) -> None:
        elapsed = render.span(update.at_ms - update.order.created_at_ms)
        self._screen.live("" if update.order.terminal else update.order.phase, update.order.created_at_ms)
        for text in progress.changes(self._last, update.order):
            self._screen.line(f"{elapsed:>8}  {text}")
        self._last = update.order

    def answer(self, text: str, order: pb.Order) -> None:
        self._screen.live_off()
        render.out(render.plain(text))
        if order.HasField("code"):
            self._screen.line(progress.cost(order))

    def note(self, text: str) -> None:
        self._screen.line(text)

    def close(self) -> None:
        self._screen.close()


class JsonView:
    """For programs: one JSON object per update on stdout, and nothing else there."""

    def accepted(self, order: pb.Order) -> None:
        render.note(f"Order {order.id}. Key {render.plain(order.idempotency_key)}.")

    def update(self, update: pb.OrderUpdate) -> None:
        render.echo_json(update)

    def answer(self, text: str, order: pb.Order) -> None:
        """It is in the update."""

    def note(self, text: str) -> None:
        render.note(text)

    def close(self) -> None: ...


def make_view(app: App, *, as_json: bool) -> View:
    return JsonView() if as_json else TextView(app)


class Follower:
    """One wait. `run` returns the exit code, and says on stderr how to go on where the order is not over."""

    def __init__(self, app: App, feed: Feed, view: View, until: Until) -> None:
        self._app = app
        self._feed = feed
        self._view = view
        self._until = until
        self._is_code_shown = False
        self._has_caught_up = False
        self._last: pb.Order | None = None

    def run(self) -> ExitCode:
        try:
            return self._wait()
        except TimedOut:
            self._view.note(f"The time is over. {self._way_back()}")
        except KeyboardInterrupt:
            if not self._feed.is_sent:
                raise
            self._view.note(f"Interrupted. {self._way_back()}")
        except render.OutputLost as lost:
            return self._tell_of_lost_output(str(lost))
        finally:
            self._view.close()
        return ExitCode.STILL_OPEN

    def _tell_of_lost_output(self, why: str) -> ExitCode:
        known = self._last or self._feed.known
        assert known is not None
        self._view.note(
            f"The output could not be written ({why}). Read what order {known.id} brought with:"
            f" holdpay orders show {known.id}"
        )
        return ExitCode.UNEXPECTED if known.terminal else ExitCode.STILL_OPEN

    def _wait(self) -> ExitCode:
        known = self._feed.known
        if known is not None:
            self._view.accepted(known)
        with closing(self._feed.updates()) as updates:
            for update in updates:
                if known is None:
                    known = self._feed.known or update.order
                    self._view.accepted(known)
                self._view.update(update)
                verdict = self._judge_update(update, known)
                if verdict is not None:
                    return verdict
        assert known is not None
        verdict = self._judge(known)
        if verdict is None:
            raise AssertionError("an open order's feed has no end of its own")
        return verdict

    def _judge_update(self, update: pb.OrderUpdate, known: pb.Order) -> ExitCode | None:
        """Of the past, which is told as a story, only what still is so counts: a number in it may be dead.

        It ends where the story has come to ``known``. The times are no help: a clock can be set back meanwhile.
        """
        order = update.order
        is_there = not known.terminal and (order.terminal or _standing(order) == _standing(known))
        self._has_caught_up = self._has_caught_up or is_there
        self._last = order if self._has_caught_up else known
        is_told = self._has_caught_up or order.terminal or self._until is Until.ACCEPTED
        return self._judge(self._last) if is_told else None

    def _judge(self, order: pb.Order) -> ExitCode | None:
        """The exit code if the wait is over, after the answer was given."""
        if self._until is Until.SETTLED and order.HasField("code") and not self._is_code_shown:
            self._is_code_shown = True
            self._view.answer(order.code, order)
        if _has_reached(order, self._until):
            return self._give(order)
        return self._conclude(order) if order.terminal else None

    def _give(self, order: pb.Order) -> ExitCode:
        if self._until is Until.ACCEPTED:
            self._view.answer(order.id, order)
            self._view.note(f"It goes on by itself. Wait on with: holdpay orders wait {order.id}")
        elif self._until is Until.NUMBER:
            self._view.answer(render.phone(order.number), order)
            has_code = order.HasField("code")
            self._view.note(
                f"{'Its code is here already' if has_code else 'Then wait for its code with'}:"
                f" holdpay orders wait {order.id}"
            )
        elif self._until is Until.CODE:
            self._view.answer(order.code, order)
        else:
            return self._conclude(order)
        return ExitCode.DONE

    def _conclude(self, order: pb.Order) -> ExitCode:
        """The order is closed: well, or without what was waited for."""
        exit_code = of_end(render.enum_text(order, "end"))
        if exit_code is ExitCode.DONE:
            if self._is_code_shown:
                return exit_code
            missing = "number" if self._until is Until.NUMBER else "code"
            raise Failure(
                f"Order {order.id} ended well, but its {missing} is not stored any more. "
                f"Read its story with: holdpay orders explain {order.id}",
                ExitCode.UNEXPECTED,
            )
        self._view.note(f"Read what happened with: holdpay orders explain {order.id}")
        return exit_code

    def _way_back(self) -> str:
        if self._feed.is_accepted:
            order_id = self._feed.order_id
            known = self._last or self._feed.known
            if known is not None and known.terminal:
                return f"The order is over. Read what it brought with: holdpay orders show {order_id}"
            can_cancel = known is None or _can_cancel(known)
            end = f"; end it with: holdpay orders cancel {order_id}" if can_cancel else ""
            return f"The order goes on. Wait on with: holdpay orders wait {order_id}{end}"
        assert self._feed.request is not None
        key = self._feed.request.idempotency_key
        return (
            "The request was sent and no answer came, so it may have been ordered. The same command with "
            f"--key {key} asks again and orders nothing twice; `holdpay orders list --open` shows what is open."
        )


def _standing(order: pb.Order) -> tuple[object, ...]:
    """What an answer is judged by."""
    return order.state, order.htlc, order.number, order.code


def _can_cancel(order: pb.Order) -> bool:
    """Whether the daemon would take the wish: not once the code is here or the HTLC settled, and not twice."""
    is_wanted = order.HasField("cancel_wanted_at_ms")
    return not (is_wanted or order.HasField("code") or render.enum_text(order, "htlc") == "settled")


def _has_reached(order: pb.Order, until: Until) -> bool:
    if until is Until.ACCEPTED:
        return True
    if until is Until.NUMBER:  # a number receives nothing any more once the money is back
        has_ended_well = of_end(render.enum_text(order, "end")) is ExitCode.DONE
        is_dead = order.terminal or render.enum_text(order, "htlc") == "failed"
        return order.HasField("number") and (has_ended_well or not is_dead)
    if until is Until.CODE:
        return order.HasField("code")
    return order.terminal
