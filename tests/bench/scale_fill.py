"""A database as it is after years: real rows of real orders, again and again, each with an identity of its own.

python -m tests.bench.scale_fill DIRECTORY PYTHON makes the orders, through a daemon and the sandbox, and prints where.
"""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from holdpay._pb.v1 import holdpay_pb2 as pb
from holdpay.app import DATABASE
from holdpay.sandbox.sms4sats_knobs import Scenario
from holdpay.sandbox.world import SandboxWorld
from holdpay.store.journal import name_of_hash, name_of_reply
from holdpay.store.reading import name_of_item
from holdpay.store.sealing import seal, unseal
from tests.bench import endpoints
from tests.bench.daemon import running, write_config
from tests.harness import Daemon, Seen, fresh_key, is_over

PACE: Final = 40.0
DAY_MS: Final = 24 * 3600 * 1000
KEPT_DAYS: Final = 29
"""Over so many days the orders are spread: none is to be erased yet."""
TO_ERASE_DAYS: Final = 40
"""So long ago the first ones were closed, which are to be erased."""
CODE: Final = pb.SubmitRequest(code=pb.CodeSpec(countries=["england"], service="openai"))
OTHERS: Final = (
    pb.SubmitRequest(sms=pb.SmsSpec(phone="+12025550123", message="See you at eight at the station.")),
    pb.SubmitRequest(email=pb.EmailSpec(address="satoshi@example.com", message="See you at eight.")),
)
CODES: Final = 16
REFUNDED: Final = 4


async def real_orders(directory: Path, python: Path) -> Path:
    """Orders of each kind that can end within a minute, most of them codes, some of them refunded, made by a daemon.
    Returns its database, in which all are closed."""
    async with SandboxWorld(directory, pace=PACE) as world:
        config = write_config(directory, await endpoints.of_sandbox(world), pace=PACE)
        async with running(config, python) as daemon:
            world.provider.knobs.queue.extend([Scenario(no_number=True, gives_up_after_s=60)] * REFUNDED)
            for _ in range(REFUNDED):
                await _order(daemon, CODE)
            requests = [*[CODE] * CODES, *OTHERS]
            made = [await _order(daemon, request) for request in requests]
            for request_id in made:
                await daemon.until(request_id, is_over, within_s=120)
            while await daemon.listed(open_only=True):
                await asyncio.sleep(0.1)
    return directory / "state" / DATABASE


async def _order(daemon: Daemon, request: pb.SubmitRequest) -> str:
    fresh = pb.SubmitRequest(idempotency_key=fresh_key())
    fresh.MergeFrom(request)
    made: Seen = await daemon.submit(fresh)
    return str(made.id)


def fill(path: Path, originals: Path, closed: int, to_erase: int) -> None:
    """Adds so many closed orders to a database that nobody has open, ``to_erase`` of them long ago."""
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as conn:
        for pragma in ("synchronous = OFF", "journal_mode = OFF", "cache_size = -200000", "foreign_keys = OFF"):
            conn.execute(f"PRAGMA {pragma}").fetchall()
        conn.create_function("resealed", 4, _resealed, deterministic=True)
        conn.execute("ATTACH ? AS t", (str(originals),))
        kept = conn.execute(
            "SELECT name, sql FROM main.sqlite_master WHERE type IN ('index', 'trigger') AND sql IS NOT NULL"
        ).fetchall()
        for name, sql in kept:
            conn.execute(f"DROP {'TRIGGER' if 'TRIGGER' in sql else 'INDEX'} main.{name}")
        conn.execute("BEGIN")
        for statement in _statements(conn, closed, to_erase):
            conn.execute(statement)
        conn.execute("COMMIT")
        for _, sql in kept:
            conn.execute(sql)
        conn.execute("DETACH t")
        conn.execute("PRAGMA journal_mode = WAL").fetchall()


def _resealed(key: bytes, kind: str, where: str, sealed: bytes | str | None) -> bytes | str | None:
    """``where``: the place of the original and that of its copy, by which each of them is sealed."""
    if sealed is None or isinstance(sealed, str):
        return sealed
    name = {"reply": name_of_reply, "hash": name_of_hash, "item": name_of_item}[kind]
    before, after = ([int(number) for number in place.split(",")] for place in where.split(">"))
    return seal(key, name(*after), unseal(key, name(*before), sealed))  # type: ignore[operator]


def _statements(conn: sqlite3.Connection, closed: int, to_erase: int) -> Iterator[str]:
    """Round n of the originals; one of an order's columns that is a time is later by ``r.ms``."""
    ((first, count),) = conn.execute("SELECT min(no), count(*) FROM t.orders").fetchall()
    ((rows,),) = conn.execute("SELECT max(cursor) FROM t.journal").fetchall()
    ((no, cursor),) = conn.execute(
        "SELECT (SELECT coalesce(max(no), 0) FROM main.orders), (SELECT coalesce(max(cursor), 0) FROM main.journal)"
    ).fetchall()
    ((original_ms,),) = conn.execute("SELECT max(closed_at_ms) FROM t.orders").fetchall()
    ids, rounds, long_ago = f"{no} + 1 - {first} + r.n * {count}", -(-closed // count), -(-to_erase // count)
    now_ms = int(time.time() * 1000)
    since_ms, step_ms = now_ms - KEPT_DAYS * DAY_MS, KEPT_DAYS * DAY_MS // rounds
    erase_ms = now_ms - TO_ERASE_DAYS * DAY_MS
    yield "CREATE TEMP TABLE r (n INTEGER PRIMARY KEY, ms INTEGER NOT NULL)"
    yield f"""
        INSERT INTO r SELECT value, iif(value < {long_ago}, {erase_ms}, {since_ms} + value * {step_ms}) - {original_ms}
        FROM (WITH RECURSIVE s(value) AS (SELECT 0 UNION ALL SELECT value + 1 FROM s LIMIT {rounds}) SELECT * FROM s)
    """
    yield "CREATE TEMP TABLE hashes (no INTEGER PRIMARY KEY, hash TEXT NOT NULL)"
    yield f"INSERT INTO hashes SELECT o.no + {ids}, lower(hex(randomblob(32))) FROM r CROSS JOIN t.orders o"
    at = f"{cursor} + r.n * {rows}"

    def seq_at(place: str) -> str:
        return f"{place} || ',' || x.seq"

    new_id = f"printf('%010x', ((o.no + {ids}) * 679891637639) & 1099511627775)"
    special = {
        "requests": {"id": new_id, "key": "'key-' || hex(randomblob(12))"},
        "orders": {
            "no": f"x.no + {ids}",
            "id": new_id,
            "request_id": new_id,
            "provider_order_id": f"(SELECT hash FROM hashes WHERE no = x.no + {ids})",
        },
        "secrets": {"request_id": new_id, "spec": "x.spec"},
        "payments": {"payment_hash": f"(SELECT hash FROM hashes WHERE no = x.order_no + {ids})"},
        "journal": {"cursor": f"x.cursor + {at}"},
        "replies": {
            "cursor": f"x.cursor + {at}",
            "said": f"resealed(k.key, 'reply', x.cursor || '>' || (x.cursor + {at}), x.said)",
            "raw_sha256": f"resealed(k.key, 'hash', x.cursor || '>' || (x.cursor + {at}), x.raw_sha256)",
        },
        "items": {
            "cursor": f"x.cursor + {at}",
            "text": f"resealed(k.key, 'item', {seq_at('x.cursor')} || '>' || {seq_at(f'(x.cursor + {at})')}, x.text)",
        },
        "ledger": {"id": "NULL"},
    }
    of_order = "JOIN t.orders o ON o.no = x.order_no"
    joins = {
        "requests": "JOIN t.orders o ON o.request_id = x.id",
        "orders": "JOIN t.orders o ON o.no = x.no",
        "secrets": "JOIN t.orders o ON o.request_id = x.request_id",
        "replies": "JOIN t.journal j ON j.cursor = x.cursor JOIN t.keys k ON k.order_no = j.order_no",
        "items": "JOIN t.keys k ON k.order_no = x.order_no",
    }
    tables = "requests orders keys secrets payments dispatches htlc_attempts charges journal replies items ledger"
    for table in tables.split():
        columns = [row[1] for row in conn.execute(f"PRAGMA t.table_info({table})")]
        values = ", ".join(_value(column, special.get(table, {}), ids) for column in columns)
        order = "x.cursor" if table in {"journal", "replies"} else "x.rowid"
        if table in {"dispatches", "htlc_attempts", "items"}:
            order = "x.order_no"
        join = joins.get(table, of_order)
        yield f"INSERT INTO main.{table} SELECT {values} FROM r CROSS JOIN t.{table} x {join} ORDER BY r.n, {order}"


def _value(column: str, special: dict[str, str], ids: str) -> str:
    if column in special:
        return special[column]
    if column == "order_no":
        return f"x.order_no + {ids}"
    return f'x."{column}" + r.ms' if column.endswith("_ms") else f'x."{column}"'


if __name__ == "__main__":
    Path(sys.argv[1]).mkdir(exist_ok=True)
    print(asyncio.run(real_orders(Path(sys.argv[1]).resolve(), Path(sys.argv[2]))))
