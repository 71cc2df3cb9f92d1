"""Orders that ended, for statistics: read beside the daemon's connection, in another thread, and not more than some."""

from __future__ import annotations

import contextlib
import json
import sqlite3
from pathlib import Path
from typing import Any, Final

from holdpay.core.states import End
from holdpay.core.stats import Outcome
from holdpay.ports import MOST_OUTCOMES

# Of a request by its client; the operator's own have none (see ``clients``), and None is everybody.
_OF: Final = {True: "r.client = :client AND r.client <> '' AND ", False: ""}
# The latest dispatch ended when the payment did, whatever its end.
_ENDED_AT: Final = "coalesce(d.failed_at_ms, iif(d.n = p.dispatch_count, p.htlc_since_ms, d.at_ms))"
_WHILE_OUT: Final = f"""
    SELECT coalesce(sum(max(0, {_ENDED_AT} - d.at_ms)), 0) FROM dispatches d WHERE d.order_no = o.no
"""  # noqa: S608 - our own words only
_FIRST_ITEM: Final = "SELECT min(i.seen_at_ms) FROM items i WHERE i.order_no = o.no AND i.kind IN"


def select_outcomes(*, is_of_client: bool) -> str:
    """Newest first."""
    return f"""
        SELECT o.kind, r.spec, o.country, o.country_name, o.created_at_ms, o."end",
          ({_FIRST_ITEM} ('number')) AS number_at_ms,
          ({_FIRST_ITEM} ('code', 'message')) AS code_at_ms,
          (SELECT coalesce(sum(l.msat), 0) FROM ledger l WHERE l.order_no = o.no AND l.what = 'spend') AS spent_msat,
          coalesce(p.fee_msat, 0) AS fee_msat, coalesce(p.amount_msat, 0) AS amount_msat,
          ({_WHILE_OUT}) AS locked_ms
        FROM requests r CROSS JOIN orders o ON o.request_id = r.id LEFT JOIN payments p ON p.order_no = o.no
        WHERE {_OF[is_of_client]}r.created_at_ms >= :since_ms AND o."end" IS NOT NULL
        ORDER BY r.created_at_ms DESC, r.id DESC LIMIT :most
    """  # noqa: S608 - our own words only


def read_outcomes(path: Path, since_ms: int, client: str | None) -> list[Outcome]:
    """Of requests since then; ``client`` None: of all. Raises sqlite3.Error."""
    uri = f"{path.absolute().as_uri()}?mode=ro"
    with contextlib.closing(sqlite3.connect(uri, uri=True)) as conn:
        conn.row_factory = sqlite3.Row
        given = {"since_ms": since_ms, "client": client, "most": MOST_OUTCOMES}
        return [_outcome(row) for row in conn.execute(select_outcomes(is_of_client=client is not None), given)]


def _outcome(row: sqlite3.Row) -> Outcome:
    spec: dict[str, Any] = json.loads(row["spec"])
    created_at_ms, spent_msat = row["created_at_ms"], row["spent_msat"]
    is_elsewhere = row["country"] is not None
    return Outcome(
        kind=row["kind"],
        country_code=row["country"] if is_elsewhere else spec.get("country"),
        country=(row["country_name"] if is_elsewhere else spec.get("country_name")) or "",
        service_code=spec.get("service") or "",
        service=spec.get("service_name") or "",
        created_at_ms=created_at_ms,
        end=End(row["end"]),
        number_after_ms=_after_ms(row["number_at_ms"], created_at_ms),
        code_after_ms=_after_ms(row["code_at_ms"], created_at_ms),
        spent_msat=spent_msat,
        fee_msat=row["fee_msat"] if spent_msat else 0,
        amount_msat=row["amount_msat"],
        locked_ms=row["locked_ms"],
    )


def _after_ms(at_ms: int | None, since_ms: int) -> int | None:
    return None if at_ms is None else max(0, at_ms - since_ms)
