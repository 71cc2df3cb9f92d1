"""The database read for an audit: healthy ones, damaged ones, and one that a daemon is writing to."""

from __future__ import annotations

import sqlite3
import tempfile
from contextlib import closing
from pathlib import Path

import pytest

from holdpay.audit.books import Booked, OrderBook
from holdpay.audit.check import read_stored
from holdpay.audit.database import DatabaseUnreadable, StoredBooks
from holdpay.audit.findings import Finding, Severity
from holdpay.core.machine import decide
from holdpay.core.model import Order
from holdpay.ports import Limits
from holdpay.store.journal import RAW_LIMIT_BYTES
from holdpay.store.store import SqliteStore
from tests.dumps import restore
from tests.spoiling import spoil
from tests.unit.audit.books import FULFILLED, HELD, KINDS, LOST, PREPAID, Timed, prepaid, without_items
from tests.unit.audit.conftest import AsNobody
from tests.unit.build import NOW_MS, POLICY, SMS, S, order

LIMITS = Limits(max_open_orders=8, max_pending_sat=100_000, max_spend_per_day_sat=100_000)


def live(store: SqliteStore, request: Order, *events: Timed, raw: str | None = None) -> Order:
    """An order's life, through the store's own write path."""
    return go_on(store, store.create(request, LIMITS, request.created_at_ms), *events, raw=raw)


def go_on(store: SqliteStore, now: Order, *events: Timed, raw: str | None = None) -> Order:
    """What comes next in it."""
    for after_s, event in events:
        at_ms = NOW_MS + after_s * S
        step = decide(now, event, POLICY, at_ms)
        store.commit(now, event, step, raw, at_ms)
        now = step.order
    return now


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A healthy database with one order that got its code."""
    path = tmp_path / "holdpay.db"
    store = SqliteStore(path)
    live(store, order(), *FULFILLED, raw='{"status":"OK"}')
    store.close()
    return path


def found(path: Path) -> list[Finding]:
    return read_stored(path, POLICY, NOW_MS).findings


def codes(path: Path) -> set[str]:
    return {finding.code for finding in found(path) if finding.severity is Severity.ERROR}


# --- healthy ---


@pytest.mark.parametrize(
    "dump", sorted((Path(__file__).parents[2] / "fixtures").glob("database-*.sql")), ids=lambda dump: dump.stem
)
def test_a_database_of_an_earlier_release_has_no_error_before_and_after_it_is_brought_up_to_date(
    dump: Path, tmp_path: Path
) -> None:
    old = restore(dump, tmp_path / "holdpay.db")
    assert codes(old) == set()
    SqliteStore(old).close()
    assert codes(old) == set()


def test_a_healthy_database_has_no_findings(path: Path) -> None:
    stored = read_stored(path, POLICY, NOW_MS)
    assert (stored.findings, stored.order_count, stored.journal_row_count) == ([], 1, 9)


def test_an_order_whose_code_was_erased_is_healthy(path: Path) -> None:
    store = SqliteStore(path)
    assert sum(store.erase_codes(NOW_MS + 3600 * S, NOW_MS + 7200 * S)) == 1
    store.close()
    assert found(path) == []


def test_a_code_left_in_an_erased_order_is_found(path: Path) -> None:
    spoil(path, "UPDATE orders SET erased_at_ms = 1")
    assert codes(path) == {"erased-in-part"}


def test_a_book_is_read_as_it_was_written(path: Path) -> None:
    with StoredBooks(path) as books:
        (order_id,) = books.order_ids()
        book = books.book(order_id)
        assert isinstance(book, OrderBook)
        assert book.order == books.order(order_id)
        assert without_items(book.order) == book.journal[-1].after
        assert book.booked == Booked(reserved_msat=2_001_002, spent_msat=2_001_002)
        assert [row.event for row in book.journal] == [None, *(event for _, event in FULFILLED)]
        assert books.payment_hashes() == {book.order.payment.payment_hash if book.order.payment else None}


def test_a_database_is_read_while_a_daemon_writes_to_it_and_as_of_one_moment(path: Path) -> None:
    store = SqliteStore(path)
    with StoredBooks(path) as books:
        live(store, order(id="second", key="key-2", created_at_ms=NOW_MS + S))
        assert books.order_ids() == ["abcdefghjk"]
        assert books.file_findings() == []
    with StoredBooks(path) as books:
        assert books.order_ids() == ["abcdefghjk", "second"]
    assert found(path) == []
    store.close()


def test_what_is_only_in_the_log_of_a_killed_daemon_is_read(path: Path) -> None:
    store = SqliteStore(path)
    live(store, order(id="second", key="key-2", created_at_ms=NOW_MS + S))
    killed = path.with_name("killed.db")
    for suffix in ("", "-wal"):
        killed.with_name(killed.name + suffix).write_bytes(path.with_name(path.name + suffix).read_bytes())
    store.close()
    with StoredBooks(killed) as books:
        assert books.order_ids() == ["abcdefghjk", "second"]


def test_reading_writes_nothing_into_the_database(path: Path) -> None:
    before = path.read_bytes()
    found(path)
    assert path.read_bytes() == before
    with StoredBooks(path) as books, pytest.raises(sqlite3.OperationalError, match="readonly"):
        books._conn.execute("DELETE FROM orders")


def test_a_reply_that_was_cut_is_not_taken_for_a_changed_one(tmp_path: Path) -> None:
    path = tmp_path / "holdpay.db"
    store = SqliteStore(path)
    live(store, order(), *HELD, raw="é" * RAW_LIMIT_BYTES)
    store.close()
    assert found(path) == []


# --- planted ---


VALUES = {
    "an item": "SELECT text FROM items WHERE kind = 'code'",
    "a state": "SELECT CAST('delivered' AS BLOB)",
    "a reply": "SELECT said FROM replies WHERE cursor = 7",
    "the hash of a reply": "SELECT raw_sha256 FROM replies WHERE cursor = 7",
    "a row of the journal": "SELECT entry FROM journal WHERE cursor = 7",
    "a key": "SELECT key FROM keys",
}


@pytest.mark.parametrize("at", [0, 3, -2])
@pytest.mark.parametrize("value", VALUES)
def test_a_flipped_bit_in_a_value_is_found(path: Path, value: str, at: int) -> None:
    with closing(sqlite3.connect(path)) as conn:
        (found,) = conn.execute(VALUES[value]).fetchone()
    data = bytearray(path.read_bytes())
    data[data.index(found) + at % len(found)] ^= 0x01
    path.write_bytes(data)
    assert codes(path)


def test_flipped_bytes_in_a_page_are_found(path: Path) -> None:
    data = bytearray(path.read_bytes())
    for page in range(4096, len(data), 4096):
        data[page : page + 8] = b"\xff" * 8
    path.write_bytes(data)
    assert codes(path) & {"database-damaged", "database-unreadable"}


def test_a_file_that_is_no_database_is_a_finding(path: Path) -> None:
    path.write_bytes(b"garbage" * 1000)
    assert codes(path) == {"database-unreadable"}


def test_a_truncated_file_is_a_finding(path: Path) -> None:
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2 // 4096 * 4096])
    assert codes(path)


def test_bytes_that_are_no_text_are_a_finding(path: Path) -> None:
    spoil(path, "UPDATE orders SET reason = CAST(x'ff' AS TEXT)")
    assert "tables-differ" in codes(path)


@pytest.mark.parametrize(
    ("statement", "code"),
    [
        ("UPDATE items SET text = '999999' WHERE kind = 'code'", "items-differ"),
        ("UPDATE items SET seen_at_ms = 1", "items-differ"),
        ("DELETE FROM items WHERE kind = 'number'", "items-differ"),
        ("DELETE FROM items", "delivery-lost"),
        ("UPDATE items SET kind = 'nonsense'", "database-damaged"),
        ("UPDATE orders SET state = 'paid'", "tables-differ"),
        ("UPDATE orders SET state = 'elsewhere'", "database-damaged"),
        ("UPDATE orders SET reserved_msat = 1", "reserved-differs"),
        ("UPDATE requests SET spec = '{'", "database-damaged"),
        ("UPDATE requests SET spec = json_set(spec, '$.kind', 'tea')", "database-damaged"),
        ("UPDATE requests SET is_prepaid = 1", "other-funding"),
        ("DELETE FROM requests", "database-damaged"),
        ("UPDATE payments SET htlc = 'in_flight'", "closed-with-money-out"),
        ("UPDATE payments SET preimage = NULL", "preimage-missing"),
        ("UPDATE payments SET fee_msat = 7", "tables-differ"),
        ("UPDATE htlc_attempts SET expiry_height = 7", "attempts-differ"),
        ("DELETE FROM htlc_attempts", "attempts-differ"),
        ("UPDATE dispatches SET fee_limit_msat = 7", "dispatches-differ"),
        ("DELETE FROM dispatches", "dispatches-differ"),
        ("UPDATE ledger SET msat = 7 WHERE what = 'spend'", "ledger-differs"),
        ("DELETE FROM ledger WHERE what = 'reserve'", "ledger-differs"),
        ("DELETE FROM journal WHERE cursor = 4", "journal-gap"),
        ("DELETE FROM journal WHERE cursor = 9", "journal-gap"),
        ("DELETE FROM journal WHERE cursor = 9", "tables-differ"),
        ("DELETE FROM journal WHERE cursor = 1", "journal-unreadable"),
        ("DELETE FROM journal", "no-journal"),
        ("UPDATE journal SET change = '{' WHERE cursor = 4", "journal-unreadable"),
        ("UPDATE journal SET change = '[]' WHERE cursor = 4", "journal-unreadable"),
        ("UPDATE journal SET change = json_set(change, '$.state', 'elsewhere') WHERE cursor = 4", "journal-unreadable"),
        ("UPDATE journal SET change = json_set(change, '$.state', 'paid') WHERE cursor = 4", "journal-broken"),
        ("UPDATE journal SET change = '{}' WHERE cursor = 9", "tables-differ"),
        ("UPDATE journal SET event = 'wished' WHERE cursor = 4", "journal-unreadable"),
        ("UPDATE journal SET data = '{' WHERE cursor = 4", "journal-unreadable"),
        ('UPDATE replies SET raw = \'{"status":"KO"}\' WHERE cursor = 4', "raw-changed"),
        ("UPDATE replies SET data = replace(data, '15551234567', '4915') WHERE cursor = 7", "journal-broken"),
        ("UPDATE replies SET data = replace(data, '012345', '4915') WHERE cursor = 8", "items-differ"),
        ("UPDATE replies SET data = replace(data, 'true', 'false') WHERE cursor = 6", "journal-broken"),
        ("DELETE FROM replies WHERE cursor = 7", "journal-unreadable"),
        ("DELETE FROM orders", "database-damaged"),
        ("DROP INDEX orders_open", "database-damaged"),
        ("CREATE TABLE mine (x)", "database-damaged"),
        ("INSERT INTO _sqlite_migrations VALUES (99, 'holdpay', '9999_later', '')", "newer-schema"),
    ],
)
def test_a_row_changed_by_hand_is_found(path: Path, statement: str, code: str) -> None:
    spoil(path, statement)
    assert code in codes(path)
    assert not any(secret in f.text for f in found(path) for secret in ("999999", "012345", "15551234567", "1" * 64))


def test_the_rows_after_one_that_cannot_be_read_are_not_blamed(path: Path) -> None:
    spoil(path, "UPDATE journal SET change = '{' WHERE cursor = 5")
    assert codes(path) == {"journal-unreadable"}
    assert read_stored(path, POLICY, NOW_MS).findings[0].text == "Row 5 of its journal cannot be read."


def test_a_dropped_trigger_is_found(path: Path) -> None:
    with sqlite3.connect(path, isolation_level=None) as conn:
        conn.execute("DROP TRIGGER journal_is_kept")
    conn.close()
    assert codes(path) == {"database-damaged"}


def test_a_second_order_of_the_same_hash_is_found(path: Path) -> None:
    """UNIQUE keeps it out as long as nobody makes the table anew."""
    spoil(
        path,
        "CREATE TABLE copy AS SELECT * FROM payments",
        "DROP TABLE payments",
        "ALTER TABLE copy RENAME TO payments",
        "INSERT INTO requests SELECT 'another', '', 'key-2', " + _columns_from(path, "fingerprint", "requests"),
        "INSERT INTO orders SELECT 2, 'another', 'another', " + _columns_from(path, "kind"),
        "INSERT INTO payments SELECT 2, " + _columns_from(path, "payment_hash", "payments"),
    )
    assert "shared" in codes(path)


def _columns_from(path: Path, first: str, table: str = "orders") -> str:
    with sqlite3.connect(path) as conn:
        names = [row[1] for row in conn.execute(f"PRAGMA table_info({table})")]
    conn.close()
    wanted = ", ".join(f'"{name}"' for name in names[names.index(first) :])
    return f"{wanted} FROM {table}"


@pytest.mark.parametrize("table", ["orders", "requests", "ledger", "main.journal"])
def test_a_row_that_was_given_to_another_client_is_found(path: Path, table: str) -> None:
    spoil(path, f"UPDATE {table} SET client = 'bob'")
    (finding,) = found(path)
    assert (finding.code, finding.severity) == ("database-damaged", Severity.ERROR)
    assert "is of one client here and of another there" in finding.text


def test_a_request_without_an_order_is_found(path: Path) -> None:
    spoil(path, "INSERT INTO requests SELECT 'another', '', 'key-2', " + _columns_from(path, "fingerprint", "requests"))
    assert [(f.code, f.text) for f in found(path)] == [("database-damaged", "Request another has no order.")]


LIVES = {
    **KINDS,
    **{f"{name}, prepaid": (prepaid(), life) for name, life in PREPAID.items()},
}


@pytest.mark.parametrize(("request_", "life"), LIVES.values(), ids=LIVES)
def test_a_database_of_every_kind_and_both_fundings_is_healthy(
    request_: Order, life: tuple[Timed, ...], tmp_path: Path
) -> None:
    path = tmp_path / "holdpay.db"
    store = SqliteStore(path)
    live(store, request_, *life, raw="{}")
    store.close()
    assert found(path) == []
    store = SqliteStore(path)
    is_erased = sum(store.erase_codes(NOW_MS + 3600 * S, NOW_MS + 7200 * S))
    store.close()
    assert is_erased == (read_stored(path, POLICY, NOW_MS).relevant[0].is_closed)
    assert found(path) == []


def test_what_the_buyer_wrote_that_is_left_in_an_erased_order_is_found(tmp_path: Path) -> None:
    path = tmp_path / "holdpay.db"
    store = SqliteStore(path)
    live(store, order(spec=SMS, is_prepaid=True), *LOST, (20, ended_by_a_person))
    store.close()
    spoil(path, "UPDATE orders SET erased_at_ms = 1", "DELETE FROM replies")
    assert codes(path) == {"erased-in-part"}
    spoil(path, "DELETE FROM secrets")
    assert found(path) == []


ended_by_a_person = PREPAID["written off"][-1][1]


@pytest.mark.parametrize(
    ("statement", "code"),
    [
        ("UPDATE charges SET state = 'refused'", "tables-differ"),
        ("UPDATE charges SET state = 'lent'", "database-damaged"),
        ("UPDATE charges SET amount_sat = 1", "ledger-differs"),
        ("DELETE FROM charges", "end-contradicts"),
        (
            "UPDATE journal SET change = json_set(change, '$.\"charge.state\"', 'refused') WHERE cursor = 3",
            "journal-broken",
        ),
    ],
)
def test_a_charge_changed_by_hand_is_found(statement: str, code: str, tmp_path: Path) -> None:
    path = tmp_path / "holdpay.db"
    store = SqliteStore(path)
    live(store, prepaid(), *PREPAID["fulfilled"])
    store.close()
    spoil(path, statement)
    assert code in codes(path)


# --- of an older holdpay ---

OLDER = Path(__file__).parents[2] / "fixtures" / "database-0002.sql"


@pytest.fixture
def older(tmp_path: Path) -> Path:
    """Of tables that have not even the same columns."""
    return restore(OLDER, tmp_path / "older.db")


def test_an_older_database_is_a_warning_and_is_read_as_the_next_start_makes_it(older: Path) -> None:
    before = older.read_bytes()
    stored = read_stored(older, POLICY, NOW_MS)
    assert {(f.severity, f.code) for f in stored.findings} == {
        (Severity.WARNING, "older-schema"),
        (Severity.NOTE, "other-policy"),
    }
    assert (stored.order_count, stored.journal_row_count) == (12, 65)
    assert older.read_bytes() == before


def test_damage_in_an_older_database_is_found(older: Path) -> None:
    spoil(older, "UPDATE payments SET preimage = NULL WHERE htlc = 'settled'")
    assert {"preimage-missing", "tables-differ"} <= codes(older)


def test_an_older_database_that_cannot_be_brought_up_to_date_is_a_finding(older: Path) -> None:
    spoil(older, "DROP TABLE htlc_attempts")
    assert codes(older) == {"database-unreadable"}
    assert read_stored(older, POLICY, NOW_MS).findings[0].text.startswith("The database cannot be brought up to date")


# --- what cannot be opened ---


def test_a_missing_database_is_a_warning_that_names_recover(tmp_path: Path) -> None:
    (finding,) = found(tmp_path / "holdpay.db")
    assert (finding.severity, finding.code) == (Severity.WARNING, "no-database")
    assert "recover" in finding.todo


def test_an_empty_file_is_as_good_as_none(tmp_path: Path) -> None:
    (tmp_path / "holdpay.db").touch()
    assert [finding.code for finding in found(tmp_path / "holdpay.db")] == ["no-database"]


def test_a_database_in_a_folder_without_write_access_is_read(path: Path, as_nobody: AsNobody) -> None:
    with tempfile.TemporaryDirectory(prefix="holdpay-audit-") as folder:
        copy = Path(folder, path.name)
        copy.write_bytes(path.read_bytes())
        copy.chmod(0o444)
        Path(folder).chmod(0o555)
        assert as_nobody(lambda: found(copy) == [])
        Path(folder).chmod(0o755)


def test_a_database_of_somebody_else_is_a_finding(path: Path, as_nobody: AsNobody) -> None:
    path.parent.chmod(0)  # so that it is closed to its owner, too, who runs this test unless root does
    is_told = as_nobody(lambda: [each.code for each in found(path)] == ["database-forbidden"])
    path.parent.chmod(0o700)
    assert is_told


def test_a_folder_in_the_databases_place_is_no_crash(tmp_path: Path) -> None:
    (tmp_path / "holdpay.db").mkdir()
    with pytest.raises(DatabaseUnreadable):
        StoredBooks(tmp_path / "holdpay.db").__enter__()


def test_open_orders_and_recent_ones_are_kept_for_the_comparison_with_lnd(path: Path) -> None:
    store = SqliteStore(path)
    live(store, order(id="second", key="key-2", created_at_ms=NOW_MS + S))
    store.close()
    month_ms = 31 * 24 * 3600 * S
    assert [o.id for o in read_stored(path, POLICY, NOW_MS + 3600 * S).relevant] == ["abcdefghjk", "second"]
    assert [o.id for o in read_stored(path, POLICY, NOW_MS + month_ms).relevant] == ["second"]
