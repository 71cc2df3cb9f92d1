"""One request followed to what the user waits for (`code`, `rent`, ...). Imports grpc: import this module late."""

from __future__ import annotations

import sys
from contextlib import closing
from typing import Protocol

from holdpay._pb.v1 import holdpay_pb2 as pb
from holdpay.cli import progress, render
from holdpay.cli.app import App
from holdpay.cli.exit_codes import ExitCode, of_end
from holdpay.cli.failure import Failure
from holdpay.cli.feed import Feed, TimedOut
from holdpay.cli.kinds import Until, answer_of, code_of, is_paid, kind_of, number_of, order_of
from holdpay.cli.output import OutputLost


class View(Protocol):
    """Where a request's story goes."""

    def accepted(self, request: pb.Request) -> None:
        """The daemon has the request: said once, first."""

    def update(self, update: pb.RequestUpdate) -> None: ...

    def answer(self, text: str, request: pb.Request) -> None:
        """What was waited for."""

    def note(self, text: str) -> None:
        """A sentence for people."""

    def close(self) -> None: ...


class TextView:
    """For people: progress on stderr, and only the answer on stdout."""

    def __init__(self, app: App) -> None:
        self._screen = progress.Screen(sys.stderr, app.clock)
        self._last: pb.Request | None = None
        self._paid_at_ms: int | None = None
        """Since when the money of the latest order is out."""

    def accepted(self, request: pb.Request) -> None:
        self._screen.line(f"Order {request.id}: {request.what}{_turn(request)}, {progress.limits(request)}.")
        self._screen.line(f"Key {request.idempotency_key}.")

    def update(self, update: pb.RequestUpdate) -> None:
        request = update.request
        elapsed = render.span(update.at_ms - request.created_at_ms)
        self._screen.live(self._live(update))
        for text in progress.changes(self._last, request, with_phase=not self._screen.is_live):
            self._screen.line(f"{elapsed:>8}  {text}")
        self._last = request

    def _live(self, update: pb.RequestUpdate) -> progress.Live | None:
        request = update.request
        if not order_of(request).locked_msat:
            self._paid_at_ms = None
        elif self._paid_at_ms is None:
            self._paid_at_ms = update.at_ms
        if request.terminal:
            return None
        end = progress.countdown(request, self._paid_at_ms)
        return progress.Live(order_of(request).phase, request.created_at_ms, end)

    def answer(self, text: str, request: pb.Request) -> None:
        self._screen.live_off()
        render.out(render.plain(text))
        if text == answer_of(request):
            self._screen.line(progress.cost(request))

    def note(self, text: str) -> None:
        self._screen.line(text)

    def close(self) -> None:
        self._screen.close()


class JsonView:
    """For programs: one JSON object per update on stdout, and nothing else there."""

    def accepted(self, request: pb.Request) -> None:
        render.note(f"Order {request.id}. Key {render.plain(request.idempotency_key)}.")

    def update(self, update: pb.RequestUpdate) -> None:
        render.echo_json(update)

    def answer(self, text: str, request: pb.Request) -> None:
        """It is in the update."""

    def note(self, text: str) -> None:
        render.note(text)

    def close(self) -> None: ...


def make_view(app: App, *, as_json: bool) -> View:
    return JsonView() if as_json else TextView(app)


class Follower:
    """One wait. `run` returns the exit code, and says on stderr how to go on where the request is not over."""

    def __init__(self, app: App, feed: Feed, view: View, until: Until) -> None:
        self._app = app
        self._feed = feed
        self._view = view
        self._until = until
        self._is_answer_shown = False
        self._has_caught_up = False
        self._last: pb.Request | None = None

    def run(self) -> ExitCode:
        try:
            return self._wait()
        except TimedOut:
            self._view.note(f"The time is over. {self._way_back()}")
        except KeyboardInterrupt:
            if not self._feed.is_sent:
                raise
            self._view.note(f"Interrupted. {self._way_back()}")
        except OutputLost as lost:
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
                    known = self._feed.known or update.request
                    self._view.accepted(known)
                self._view.update(update)
                verdict = self._judge_update(update, known)
                if verdict is not None:
                    return verdict
        assert known is not None
        verdict = self._judge(known)
        if verdict is None:
            raise AssertionError("an open request's feed has no end of its own")
        return verdict

    def _judge_update(self, update: pb.RequestUpdate, known: pb.Request) -> ExitCode | None:
        """Of the past, which is told as a story, only what still is so counts: a number in it may be dead.

        It ends where the story has come to ``known``. The times are no help: a clock can be set back meanwhile.
        """
        request = update.request
        is_there = not known.terminal and (request.terminal or _standing(request) == _standing(known))
        self._has_caught_up = self._has_caught_up or is_there
        self._last = request if self._has_caught_up else known
        is_told = self._has_caught_up or request.terminal or self._until is Until.ACCEPTED
        return self._judge(self._last) if is_told else None

    def _judge(self, request: pb.Request) -> ExitCode | None:
        """The exit code if the wait is over, after the answer was given."""
        answer = answer_of(request)
        if self._until is Until.SETTLED and answer is not None and _is_good(request) and not self._is_answer_shown:
            self._is_answer_shown = True
            self._view.answer(answer, request)
        if _has_reached(request, self._until):
            return self._give(request)
        return self._conclude(request) if request.terminal else None

    def _give(self, request: pb.Request) -> ExitCode:
        wait_on = f"holdpay orders wait {request.id}"
        if self._until is Until.ACCEPTED:
            self._view.answer(request.id, request)
            self._view.note(f"It goes on by itself. Wait on with: {wait_on}")
        elif self._until is Until.NUMBER:
            self._view.answer(render.phone(number_of(request) or ""), request)
            if Until.CODE in kind_of(request).untils:
                is_here = code_of(request) is not None
                self._view.note(
                    f"{'Its code is here already' if is_here else 'Then wait for its code with'}: {wait_on}"
                )
        elif self._until is not Until.SETTLED:
            self._view.answer(answer_of(request) or "", request)
        elif request.terminal:
            return self._conclude(request)
        self._tell_of_more(request)
        return ExitCode.DONE

    def _tell_of_more(self, request: pb.Request) -> None:
        """It is fulfilled, or as good as that, and stays open."""
        more = kind_of(request).more
        if more and not request.terminal and self._until is not Until.ACCEPTED:
            self._view.note(more.format(id=request.id))

    def _conclude(self, request: pb.Request) -> ExitCode:
        """The request is closed: well, or without what was waited for."""
        exit_code = of_end(render.enum_text(request, "end"), render.enum_text(order_of(request), "cause"))
        if exit_code is ExitCode.DONE:
            if self._is_answer_shown:
                return exit_code
            missing = "number" if self._until is Until.NUMBER else kind_of(request).thing.removeprefix("the ")
            raise Failure(
                f"Order {request.id} ended well, but its {missing} is not stored any more. "
                f"Read its story with: holdpay orders explain {request.id}",
                ExitCode.UNEXPECTED,
            )
        self._view.note(f"Read what happened with: holdpay orders explain {request.id}")
        return exit_code

    def _way_back(self) -> str:
        if self._feed.is_accepted:
            request_id = self._feed.request_id
            known = self._last or self._feed.known
            if known is not None and known.terminal:
                return f"The order is over. Read what it brought with: holdpay orders show {request_id}"
            can_cancel = known is None or known.may_be_canceled
            end = f"; end it with: holdpay orders cancel {request_id}" if can_cancel else ""
            return f"The order goes on. Wait on with: holdpay orders wait {request_id}{end}"
        assert self._feed.submit is not None
        key = self._feed.submit.idempotency_key
        return (
            "The request was sent and no answer came, so it may have been ordered. The same command with "
            f"--key {key} asks again and orders nothing twice; `holdpay orders list --open` shows what is open."
        )


def _turn(request: pb.Request) -> str:
    """Of one that went on: what is told begins with its first order."""
    count = len(request.orders)
    return f" (order {count} of the request; the first was in {request.orders[0].country})" if count > 1 else ""


def _standing(request: pb.Request) -> tuple[object, ...]:
    """What an answer is judged by."""
    order = order_of(request)
    turn = (len(request.orders), request.going_on)
    return turn, order.state, order.htlc, order.charge, request.fulfilled, number_of(request), code_of(request)


def _is_good(request: pb.Request) -> bool:
    """A number receives nothing any more once the money is back."""
    if request.terminal:
        return of_end(render.enum_text(request, "end")) is ExitCode.DONE
    return request.fulfilled or render.enum_text(order_of(request), "htlc") != "failed"


def _has_reached(request: pb.Request, until: Until) -> bool:
    if until is Until.ACCEPTED:
        return True
    if until is Until.NUMBER:
        return number_of(request) is not None and _is_good(request)
    if until is Until.SETTLED:
        return request.terminal or (request.fulfilled and is_paid(request))
    return answer_of(request) is not None
