"""The table of requests: which columns there are on so many columns of the terminal, and what is in them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from holdpay.cli import render
from holdpay.cli.kinds import brief, order_of
from holdpay.cli.top.state import Row
from holdpay.cli.top.text import FAINT, HEADING, LEVEL_STYLES, PLAIN, REVERSE, Glyphs, Line, cell, filled, seconds, text

NARROW = 70
WIDE = 110
_LEVELS = {"warning": "warn", "critical": "CRIT"}


@dataclass(frozen=True, slots=True)
class _Column:
    """``width`` 0: it gets its ``share`` of what the others leave."""

    heading: str
    cell: Callable[[Row], str]
    width: int = 0
    share: int = 0
    to_right: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    columns: int
    now_ms: int
    block_height: int
    """lnd's latest. 0: not known, or not told to a client."""
    glyphs: Glyphs

    def lines(self, rows: Sequence[Row], chosen: int, height: int) -> list[Line]:
        """Exactly ``height`` lines, the heading first. Where there are more rows it says which ones are shown."""
        room = max(height - 1, 0)
        first = min(max(chosen - room // 2, 0), max(len(rows) - room, 0))
        shown = rows[first : first + room]
        name = "ORDER" if len(shown) == len(rows) else f"{first + 1}-{first + len(shown)} of {len(rows)}"
        columns = self._columns(rows, name)
        names = " ".join(cell(it.heading, it.width, self.glyphs, to_right=it.to_right) for it in columns)
        lines = [self._row(row, columns, is_chosen=row is rows[chosen]) for row in shown]
        nothing = [] if rows else [text(("  nothing is open", FAINT))]
        return filled([text((f"  {names}", HEADING)), *lines, *nothing], height)

    def _row(self, row: Row, columns: Sequence[_Column], *, is_chosen: bool) -> Line:
        sign = self.glyphs.chosen if is_chosen else " "
        cells = (cell(it.cell(row), it.width, self.glyphs, to_right=it.to_right) for it in columns)
        style = FAINT if row.request.terminal else LEVEL_STYLES.get(row.level, PLAIN)
        return text((f"{sign} {' '.join(cells)}", style + REVERSE if is_chosen else style))

    def _columns(self, rows: Sequence[Row], name: str) -> list[_Column]:
        is_narrow = self.columns < NARROW
        has_clients = self.columns >= WIDE and any(row.request.client for row in rows)
        id_width = max(min(max((len(row.request.id) for row in rows), default=10), 13), len(name))
        wanted = (
            (True, _Column(name, lambda row: row.request.id, id_width)),
            (has_clients, _Column("CLIENT", lambda row: row.request.client or "-", 10)),
            (not is_narrow, _Column("WHAT", lambda row: brief(row.request), share=3)),
            (True, _Column("PHASE", _phase, share=5)),
            (not is_narrow, _Column("SAT OUT", _sat_out, 7, to_right=True)),
            (True, _Column("PROMISE", self._promise, 7, to_right=True)),
            (self.columns >= NARROW - 20, _Column("EXPIRY", self._expiry, 9, to_right=True)),
            (True, _Column("LEVEL", lambda row: _LEVELS.get(row.level, row.level) or "-", 5)),
        )
        found = [column for is_wanted, column in wanted if is_wanted]
        left = self.columns - 2 - sum(it.width for it in found) - (len(found) - 1)
        shares = sum(it.share for it in found)
        return [replace(it, width=max(left * it.share // shares, 0)) if it.share else it for it in found]

    def _promise(self, row: Row) -> str:
        """Until the wait ends by the provider's promise; behind a minus: since then."""
        order = order_of(row.request)
        if row.request.terminal or not order.locked_msat or not order.HasField("promise_until_ms"):
            return "-"
        left_ms = order.promise_until_ms - self.now_ms
        return seconds(left_ms) if left_ms >= 0 else f"-{seconds(-left_ms)}"

    def _expiry(self, row: Row) -> str:
        """Blocks and about hours to the expiry height; the height itself where lnd's is not known."""
        order = order_of(row.request)
        if row.request.terminal or not order.HasField("expiry_height"):
            return "-"
        if row.out is not None and row.out.HasField("blocks_left"):
            left = row.out.blocks_left
        elif self.block_height:
            left = order.expiry_height - self.block_height
        else:
            return f"@{order.expiry_height:,}"
        return f"{left:,}b ~{left / 6:,.0f}h" if left > 0 else "passed"


def _phase(row: Row) -> str:
    if row.request.terminal:
        return (render.enum_text(row.request, "end") or "over").replace("_", " ")
    return "the next order is being made" if row.request.going_on else order_of(row.request).phase


def _sat_out(row: Row) -> str:
    locked_msat = order_of(row.request).locked_msat
    return f"{-(-locked_msat // 1000):,}" if locked_msat and not row.request.terminal else "-"
