"""Old copies of a daemon's database: as it was right after something had happened."""

from __future__ import annotations

import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

from holdpay.audit.books import OrderBook
from holdpay.audit.database import StoredBooks
from holdpay.config import load
from holdpay.core.machine import decide
from holdpay.ports import Limits
from holdpay.store.newest import allow
from holdpay.store.store import SqliteStore

_NO_LIMITS = Limits(max_open_orders=2**31, max_pending_sat=2**50, max_spend_per_day_sat=2**50)


def as_of(config: Path, database: Path, event: str, folder: Path) -> Path:
    """A copy in ``folder`` that the daemon could have left right after this event of each order: the same requests and
    events, written anew up to there."""
    folder.mkdir()
    policy = load(config).policy()
    copy = folder / "holdpay.db"
    with StoredBooks(database) as books, closing(SqliteStore(copy)) as store:
        for order_id in books.order_ids():
            book = books.book(order_id)
            assert isinstance(book, OrderBook), book
            first, *rows = book.journal
            now = store.create(first.after, _NO_LIMITS, first.at_ms)
            for row in rows if event != "order_requested" else ():
                assert row.event is not None
                step = decide(now, row.event, policy, row.at_ms)
                store.commit(now, row.event, step, None, row.at_ms)
                now = step.order
                if _name(row.event) == event:
                    break
    return copy


def _name(event: object) -> str:
    from holdpay.core.events import event_name

    return event_name(event)  # type: ignore[arg-type]


def put_by_hand(copy: Path, database: Path, *, is_known: bool = False) -> None:
    """As `cp` would, with the daemon stopped. ``is_known``: nothing tells holdpayd that it is an old one."""
    for file in database.parent.glob(f"{database.name}*"):
        file.unlink()
    shutil.copyfile(copy, database)
    if is_known:
        allow(database, 0)


def journal(database: Path) -> list[tuple[int, bytes]]:
    """Its rows, from the first one on."""
    with closing(sqlite3.connect(f"{database.as_uri()}?mode=ro", uri=True)) as conn:
        return conn.execute("SELECT cursor, entry FROM journal ORDER BY cursor").fetchall()
