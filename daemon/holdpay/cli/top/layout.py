"""How the state looks on so many columns and lines. Pure: ``lines`` is a function of its arguments."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from holdpay._pb.v1 import holdpay_pb2 as pb
from holdpay.cli import render
from holdpay.cli.kinds import number_of, order_of
from holdpay.cli.top.limits import Limit, limits
from holdpay.cli.top.state import Row, State
from holdpay.cli.top.table import Table
from holdpay.cli.top.text import (
    BAD,
    FAINT,
    GOOD,
    HEADING,
    LEVEL_STYLES,
    ODD,
    PLAIN,
    REVERSE,
    Glyphs,
    Line,
    Style,
    bar,
    cell,
    columns_of,
    filled,
    seconds,
    text,
    wrapped,
)

_WARNED_AT = 80
"""Percent of a limit."""
_TWO_BARS = 78
"""Columns for two bars beside each other."""
_LONGEST_NAME = 11
_USUAL_WORDS = 21
"""Columns behind a bar that are kept for "9,091 of 100,000 sat", so that bars are of one length."""
_ALARM = LEVEL_STYLES["warning"]
_DAY_MS = 86_400_000
_FEW = 3
"""Lines that a part may have before the next ones get theirs."""


def lines(state: State, columns: int, height: int, now_ms: int, glyphs: Glyphs) -> list[Line]:
    """``height`` lines of at most ``columns`` columns."""
    page = _Page(columns, now_ms, glyphs)
    found = page.explanation(state, height) if state.page is not None else page.overview(state, height)
    return [line.cut(columns, glyphs) for line in found[:height]]


def page_lines(height: int) -> int:
    """How many lines a key for a page goes on: one of those that were shown stays."""
    return max(height - 3, 1)


def fitted(state: State, columns: int, height: int) -> State:
    """``state`` with an explanation that is not turned beyond its end."""
    if state.page is None:
        return state
    most = max(len(_explanation(state.page.reply, columns)) - (height - 2), 0)
    return replace(state, page=replace(state.page, first_line=min(state.page.first_line, most)))


@dataclass(frozen=True, slots=True)
class _Page:
    columns: int
    now_ms: int
    glyphs: Glyphs

    def overview(self, state: State, height: int) -> list[Line]:
        rows = state.rows(self.now_ms)
        chosen = state.place(rows)
        alarms, node, bars = self._alarms(state), self._node(state), self._bars(state)
        about = self._about(rows[chosen]) if rows else []
        said = [text((line, HEADING)) for line in wrapped(state.said, self.columns)]
        table = Table(
            columns=self.columns, now_ms=self.now_ms, block_height=state.status.lnd.block_height, glyphs=self.glyphs
        )
        few_rows = min(max(len(rows), 1), _FEW)
        share = _share(
            height - 2,
            (
                ("said", len(said)),
                ("table", 1 + few_rows),
                ("alarms", min(len(alarms), _FEW)),
                ("node", len(node)),
                ("bars", len(bars)),
                ("about", min(len(about), _FEW)),
                ("events", 1 + _FEW),
                ("table", len(rows) - few_rows),
                ("alarms", len(alarms) - _FEW),
                ("about", len(about) - _FEW),
                ("events", height),
            ),
        )
        return [
            self._head(state),
            *alarms[: share["alarms"]],
            *node[: share["node"]],
            *bars[: share["bars"]],
            *table.lines(rows, chosen, share["table"]),
            *about[: share["about"]],
            *filled([text(("LAST EVENTS", HEADING)), *self._events(state)], share["events"]),
            *said[: share["said"]],
            self._foot(state),
        ]

    def _head(self, state: State) -> Line:
        status = state.status
        name = ("holdpay", HEADING), f" {self.glyphs.dot} {status.client}" if status.client else ""
        if state.gone is not None:
            away = f"THE DAEMON IS AWAY for {seconds(self.now_ms - state.gone.since_ms)}"
            return self._with_right(text(*name, "  ", (away, BAD)), "connecting again")
        words = ("orders are taken", GOOD) if status.ready else ("orders are not taken now", BAD)
        return self._with_right(text(*name, "  ", words), f"up {seconds(self.now_ms - status.started_at_ms)}")

    def _with_right(self, line: Line, words: str) -> Line:
        """``words`` and the time of day at the right edge, where there is room."""
        clock = render.clock_time(self.now_ms)
        for right in (f"{words}  {clock}", clock):
            room = self.columns - line.columns - columns_of(right)
            if room >= 2:
                return line + text(" " * room, (right, FAINT))
        return line

    def _foot(self, state: State) -> Line:
        if state.canceling:
            return text((f"Cancel {state.canceling}? y: yes, else: no", HEADING + REVERSE))
        if state.page is not None:
            return self._keys("turn", "any key back", "q quit")
        return self._keys("select", "enter explain", "c cancel", "q quit")

    def _keys(self, moves: str, *keys: str) -> Line:
        """What the arrows do is left out first where there is no room."""
        arrows, wide = self.glyphs.arrows, f"  {self.glyphs.dot}  "
        ways = (
            wide.join((f"{arrows} {moves}", *keys)),
            "  ".join((f"{arrows} {moves}", *keys)),
            " ".join((arrows, *keys)),
        )
        fitting = (way for way in ways if columns_of(way) <= self.columns)
        return text((next(fitting, ways[-1]), FAINT))

    def _alarms(self, state: State) -> list[Line]:
        """What is wrong, the most urgent first."""
        status = state.status
        found: list[tuple[str, Style]] = []
        if state.gone is not None:
            found.append((f"What is below is as it was before. {state.gone.why}", BAD))
        if status.not_ready_reason:
            found.append((status.not_ready_reason, BAD))
        found += [(f"ALARM: {alarm}", _ALARM) for alarm in status.alarms]
        return [text((line, style)) for words, style in found for line in wrapped(words, self.columns, 2)]

    def _node(self, state: State) -> list[Line]:
        lnd, provider = state.status.lnd, state.status.provider
        lines = [
            self._fact("lnd", lnd.state or "?", GOOD if lnd.state == "ready" else BAD, self._lnd_words(lnd)),
            self._fact("sms4sats", *self._provider_state(provider), self._provider_words(provider)),
        ]
        if provider.last_error:
            lines.append(self._fact("", "failed", ODD, [provider.last_error]))
        return lines

    def _fact(self, name: str, state: str, style: Style, words: Iterable[str]) -> Line:
        rest = "".join(f" {self.glyphs.dot} {word}" for word in words)
        return text((f"{name:<9}", HEADING), (state, style), rest)

    def _lnd_words(self, lnd: pb.LndStatus) -> Iterator[str]:
        if lnd.state != "ready" and lnd.HasField("answered_at_ms"):
            yield f"as of {seconds(self.now_ms - lnd.answered_at_ms)} ago"
        if lnd.block_height:
            yield f"{render.height(lnd.block_height)}, {'' if lnd.synced_to_chain else 'not '}synced"
        if lnd.HasField("local_balance_sat") and lnd.state == "ready":
            yield f"{render.sat(lnd.local_balance_sat)} spendable"
        yield from (word for word in (lnd.alias, lnd.version.partition(" ")[0], lnd.network) if word)

    def _provider_state(self, provider: pb.ProviderStatus) -> tuple[str, Style]:
        if not provider.HasField("answered_at_ms"):
            return "not asked yet", ODD if provider.last_error else PLAIN
        ago = f"answered {seconds(self.now_ms - provider.answered_at_ms)} ago"
        return ago, ODD if provider.last_error else GOOD

    def _provider_words(self, provider: pb.ProviderStatus) -> Iterator[str]:
        if not provider.url:
            return  # a client is not told
        yield f"{provider.requests_per_s:g} requests/s at most"
        yield f"{provider.due_questions:,} due, {provider.question_delay_s:.1f} s behind"

    def _bars(self, state: State) -> list[Line]:
        """One beside the other where there is room."""
        found = list(limits(state.status))
        names = min(max((len(limit.name) for limit in found), default=0), _LONGEST_NAME)
        beside = 2 if self.columns >= _TWO_BARS else 1
        width = (self.columns - 2 * (beside - 1)) // beside
        shown = [self._limit(limit, names, width) for limit in found]
        return [_beside(shown[at : at + beside]) for at in range(0, len(shown), beside)]

    def _limit(self, limit: Limit, names: int, width: int) -> Line:
        room = max(width - names - 2 - max(columns_of(limit.words), _USUAL_WORDS), 4)
        percent = (limit.spent + limit.reserved) * 100 // limit.most if limit.most else 100
        style = BAD if percent >= 100 else ODD if percent >= _WARNED_AT else GOOD
        parts = ((self.glyphs.spent, limit.spent), (self.glyphs.reserved, limit.reserved))
        drawn = bar(room, parts, limit.most, self.glyphs.free)
        line = text(cell(limit.name, names, self.glyphs), " ", (drawn, style), " ", limit.words)
        return line.cut(width, self.glyphs).padded(width)

    def _about(self, row: Row) -> list[Line]:
        request, out = row.request, row.out
        order, number = order_of(request), number_of(request)
        facts = [
            f"{request.id}: {request.what}",
            f"number {render.phone(number)}" if number else "",
            f"client {request.client}" if request.client else "",
            f"{render.msat(order.locked_msat)} out" if order.locked_msat and not request.terminal else "",
        ]
        found: list[tuple[str, Style]] = [("; ".join(fact for fact in facts if fact) + ".", PLAIN)]
        if order.hold_why and not request.terminal:
            found.append((f"{row.level.capitalize()}: {order.hold_why}", LEVEL_STYLES.get(row.level, PLAIN)))
        found += [(f"ALARM: {alarm}", _ALARM) for alarm in request.alarms if alarm != order.hold_why]
        if request.terminal and request.reason:
            found.append((request.reason, PLAIN))
        elif out is not None and out.next:
            found.append((f"Next: {out.next}", PLAIN))
        if out is not None:
            found += [(_htlc(htlc), BAD if _is_offline(htlc) else FAINT) for htlc in out.htlcs]
        return [text((line, style)) for words, style in found for line in wrapped(words, self.columns, 2)]

    def _events(self, state: State) -> list[Line]:
        """The latest first."""
        found = []
        for event in reversed(state.events):
            words = (event.text, LEVEL_STYLES.get(event.level, PLAIN))
            found.append(text((f"{self._when(event.at_ms)} ", FAINT), f"{event.request.id} ", words))
        return found

    def _when(self, at_ms: int) -> str:
        """The time of day; of what is more than a day ago the date and the minute."""
        is_old = self.now_ms - at_ms >= _DAY_MS
        return render.date_time(at_ms)[5:16] if is_old else render.clock_time(at_ms)

    def explanation(self, state: State, height: int) -> list[Line]:
        assert state.page is not None
        body = _explanation(state.page.reply, self.columns)
        shown = body[state.page.first_line : state.page.first_line + height - 2]
        return [self._head(state), *filled(shown, height - 2), self._foot(state)]


def _explanation(reply: pb.ExplainRequestResponse, columns: int) -> list[Line]:
    pairs = (("Order", f"{reply.request.id}: {reply.request.what}"), ("Now", reply.summary))
    found = [(name, words) for name, words in (*pairs, ("Money", reply.money), ("Next", reply.next)) if words]
    lines = []
    for name, words in found:
        for at, line in enumerate(wrapped(words, max(columns - 7, 1))):
            lines.append(text((f"{name if at == 0 else '':<7}", HEADING), line))
    lines += [text(), text(("What happened", HEADING))]
    for entry in reply.history:
        words = f"{render.date_time(entry.at_ms)}  {entry.text}"
        lines += [text(line) for line in wrapped(words, columns, 2)]
    return lines


def _beside(parts: Sequence[Line]) -> Line:
    line = parts[0]
    for part in parts[1:]:
        line = line + text("  ") + part
    return line


def _share(height: int, wishes: Sequence[tuple[str, int]]) -> dict[str, int]:
    """Lines for each part: as the wishes come, as long as there are any."""
    given: dict[str, int] = {}
    left = max(height, 0)
    for part, wanted in wishes:
        got = min(max(wanted, 0), left)
        given[part] = given.get(part, 0) + got
        left -= got
    return given


def _is_offline(htlc: pb.HtlcOut) -> bool:
    return htlc.HasField("peer_online") and not htlc.peer_online


def _htlc(htlc: pb.HtlcOut) -> str:
    peer = htlc.peer_alias or htlc.peer_pubkey[:16] or "a peer that is not known"
    online = " (OFFLINE)" if _is_offline(htlc) else " (online)" if htlc.peer_online else ""
    return f"By channel {htlc.channel} to {peer}{online}"
