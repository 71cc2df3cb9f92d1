"""What `holdpay top` knows and shows, and how news and keys change it. Pure: no clock, no terminal, no connection."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TypeAlias

from holdpay._pb.v1 import holdpay_pb2 as pb
from holdpay.cli import progress, render
from holdpay.cli.kinds import order_of

KEPT_EVENTS = 200
AFTERGLOW_MS = 60_000
"""So long a request that has ended is still shown."""


# --- news -------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Connected:
    """The daemon answers, for the first time or again. ``requests``: the open ones; all up to ``cursor`` is in them."""

    status: pb.GetStatusResponse
    requests: Sequence[pb.Request]
    cursor: int


@dataclass(frozen=True, slots=True)
class StatusSeen:
    status: pb.GetStatusResponse


@dataclass(frozen=True, slots=True)
class Updated:
    update: pb.RequestUpdate


@dataclass(frozen=True, slots=True)
class Lost:
    """The daemon cannot be asked. ``why`` is a sentence."""

    why: str


@dataclass(frozen=True, slots=True)
class Explained:
    reply: pb.ExplainRequestResponse


@dataclass(frozen=True, slots=True)
class Said:
    """An answer of the daemon, for people."""

    text: str


News: TypeAlias = Connected | StatusSeen | Updated | Lost | Explained | Said


# --- what the keys ask for --------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Explain:
    request_id: str


@dataclass(frozen=True, slots=True)
class Cancel:
    request_id: str


class Quit:
    """The view is over."""


Wish: TypeAlias = Explain | Cancel | Quit


# --- the state --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Event:
    """A line of the last events, and the request right after it."""

    cursor: int
    at_ms: int
    text: str
    request: pb.Request

    @property
    def level(self) -> str:
        return Row(self.request, None).level


@dataclass(frozen=True, slots=True)
class Gone:
    """The daemon is away."""

    why: str
    since_ms: int


@dataclass(frozen=True, slots=True)
class Page:
    """An explanation that is being read, from this line on."""

    reply: pb.ExplainRequestResponse
    first_line: int = 0


@dataclass(frozen=True, slots=True)
class Row:
    """A request, and what GetStatus says of its money. None: it has none out, or is not told of there."""

    request: pb.Request
    out: pb.MoneyOut | None

    @property
    def level(self) -> str:
        """The urgency of money that is out: "ok", "late", "warning", "critical". Empty: none is out."""
        if self.request.terminal:
            return ""
        of_out = render.enum_text(self.out, "level") if self.out is not None else None
        return render.enum_text(order_of(self.request), "hold_level") or of_out or ""


LEVELS = ("", "ok", "late", "warning", "critical")


@dataclass(frozen=True, slots=True, kw_only=True)
class State:
    """``cursor``: what happened up to it is in ``requests``. ``selected``: a request's id. ``canceling``: the one about
    whose cancel the user is being asked. ``explaining``: the one whose explanation is wanted. ``said``: until the next
    key."""

    status: pb.GetStatusResponse
    requests: Mapping[str, pb.Request] = field(default_factory=dict)
    cursor: int = 0
    events: tuple[Event, ...] = ()
    gone: Gone | None = None
    selected: str = ""
    explaining: str = ""
    page: Page | None = None
    canceling: str = ""
    said: str = ""

    def rows(self, now_ms: int) -> list[Row]:
        """The most urgent first, then what has money out, then the rest; the older ones first."""
        out = {money.request_id: money for money in self.status.out}
        found = [
            Row(request, out.get(request.id)) for request in self.requests.values() if not _is_past(request, now_ms)
        ]
        return sorted(found, key=_rank)

    def place(self, rows: Sequence[Row]) -> int:
        """Of the selected one among ``rows``: the first if it is not there."""
        return next((at for at, row in enumerate(rows) if row.request.id == self.selected), 0)


def _is_past(request: pb.Request, now_ms: int) -> bool:
    return request.terminal and now_ms - request.closed_at_ms > AFTERGLOW_MS


def _rank(row: Row) -> tuple[object, ...]:
    request = row.request
    has_money = order_of(request).locked_msat > 0
    return (
        request.terminal,
        -LEVELS.index(row.level) if row.level in LEVELS else 0,
        not has_money,
        request.created_at_ms,
    )


# --- how news change it -----------------------------------------------------------------------------------------------


def told(state: State, news: News, now_ms: int) -> State:
    """The state after ``news``."""
    if isinstance(news, Connected):
        return _connected(state, news, now_ms)
    if isinstance(news, StatusSeen):
        return replace(state, status=news.status)
    if isinstance(news, Updated):
        return _updated(state, news.update, now_ms)
    if isinstance(news, Lost):
        return replace(state, gone=Gone(news.why, now_ms if state.gone is None else state.gone.since_ms))
    if isinstance(news, Explained):
        return _explained(state, news.reply)
    return replace(state, said=news.text)


def _explained(state: State, reply: pb.ExplainRequestResponse) -> State:
    """One that comes too late is not wanted any more; one that comes anew is read on where it was."""
    if reply.request.id != state.explaining:
        return state
    first_line = 0 if state.page is None else state.page.first_line
    return replace(state, page=Page(reply, first_line))


def _connected(state: State, news: Connected, now_ms: int) -> State:
    """A journal that ends before the last event is another one: of a database that was restored."""
    is_another = bool(state.events) and state.events[-1].cursor > news.cursor
    ended = [request for request in state.requests.values() if request.terminal and not _is_past(request, now_ms)]
    kept = [] if is_another else ended
    return replace(
        state,
        status=news.status,
        requests={request.id: request for request in [*kept, *news.requests]},
        cursor=news.cursor,
        events=() if is_another else state.events,
        gone=None,
    )


def _updated(state: State, update: pb.RequestUpdate, now_ms: int) -> State:
    """Updates from before a connection come again: each is told of once, and none takes a request back."""
    if state.events and update.cursor <= state.events[-1].cursor:
        return state
    request = update.request
    known = state.requests.get(request.id)
    is_new = update.cursor > max(state.cursor, known.cursor if known is not None else 0)
    earlier = next((event.request for event in reversed(state.events) if event.request.id == request.id), None)
    before = known if earlier is None and is_new else earlier
    event = Event(update.cursor, update.at_ms, _words(before, update), request)
    events = (*state.events, event)[-KEPT_EVENTS:]
    if not is_new and not request.terminal:
        return replace(state, events=events)
    # A view may stay open for weeks.
    kept = {name: other for name, other in state.requests.items() if not _is_past(other, now_ms)}
    return replace(state, events=events, requests={**kept, request.id: request})


def _words(before: pb.Request | None, update: pb.RequestUpdate) -> str:
    request = update.request
    name = update.event.replace("_", " ")
    if before is None:
        return f"{name}: {request.what if not request.orders else order_of(request).phase}"
    return "; ".join(progress.changes(before, request)) or name


# --- how keys change it -----------------------------------------------------------------------------------------------


def pressed(state: State, key: str, now_ms: int, page_lines: int) -> tuple[State, Wish | None]:
    """The state after a key (see ``terminal.decode``), and what is to be done. ``page_lines``: how many a page has."""
    state = replace(state, said="", explaining=state.explaining if state.page is not None else "")
    if state.canceling:
        return _answered(state, key)
    if key == "q":
        return state, Quit()
    if state.page is not None:
        return _turned(state, state.page, key, page_lines), None
    rows = state.rows(now_ms)
    if not rows:
        return state, None
    at = state.place(rows)
    if key in _STEPS:
        to = min(max(at + _STEPS[key] * (page_lines if key.startswith("page") else 1), 0), len(rows) - 1)
        return replace(state, selected=rows[to].request.id), None
    request = rows[at].request
    state = replace(state, selected=request.id)
    if key in {"enter", "e"}:
        return replace(state, explaining=request.id), Explain(request.id)
    if key == "c":
        return _asked_to_cancel(state, request), None
    return state, None


_STEPS = {"up": -1, "k": -1, "down": 1, "j": 1, "pageup": -1, "pagedown": 1, "home": -(10**9), "end": 10**9}


def _asked_to_cancel(state: State, request: pb.Request) -> State:
    if request.terminal:
        return replace(state, said=f"{request.id} is over: there is nothing to cancel.")
    if request.HasField("cancel_wanted_at_ms"):
        return replace(state, said=f"{request.id}: a cancel is wanted already; enter explains what happens with it.")
    if not request.may_be_canceled:
        return replace(state, said=f"{request.id} cannot be canceled (any more); enter explains why.")
    return replace(state, canceling=request.id)


def _answered(state: State, key: str) -> tuple[State, Wish | None]:
    """Only a plain y cancels."""
    answered = replace(state, canceling="")
    if key == "y":
        return answered, Cancel(state.canceling)
    return replace(answered, said=f"{state.canceling} was not canceled."), None


def _turned(state: State, page: Page, key: str, page_lines: int) -> State:
    if key in _STEPS:
        step = _STEPS[key] * (page_lines if key.startswith("page") else 1)
        return replace(state, page=replace(page, first_line=max(page.first_line + step, 0)))
    return replace(state, page=None, explaining="")
