"""The new database that recover writes: whole or not at all, and only where no order is recorded."""

from __future__ import annotations

import contextlib
import sqlite3
from pathlib import Path
from typing import Any, cast

import pytest

from holdpay.audit import recover as module
from holdpay.audit.check import read_stored
from holdpay.audit.rebuild import Rebuilt
from holdpay.audit.recover import RecoverRefused, Survey, refuse_if_used, write
from holdpay.core.events import ProviderStatus
from holdpay.core.states import End, HtlcState
from holdpay.errors import ProviderProtocolError, ProviderRefused, ProviderUnavailable, StoreError
from holdpay.ports import Lane, Reply
from holdpay.store.store import SqliteStore
from tests.unit.audit.test_database import live
from tests.unit.audit.test_rebuild import BY_NAME, rebuilt
from tests.unit.build import ALICE, NOW_MS, POLICY, S, order

LATER_MS = NOW_MS + 60 * S


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "holdpay.db"


def survey(*orders: Rebuilt) -> Survey:
    return Survey(node=ALICE, rebuilt=list(orders or (rebuilt(BY_NAME["in flight, number"]),)))


def files(path: Path) -> set[str]:
    return {file.name for file in path.parent.iterdir()}


def test_what_was_found_is_on_disk_as_the_daemon_expects_it(path: Path) -> None:
    write(path, survey(), POLICY, LATER_MS)
    assert files(path) == {"holdpay.db", "holdpay.db.newest"}
    assert {file.stat().st_mode & 0o777 for file in path.parent.iterdir()} == {0o600}
    store = SqliteStore(path)
    (recovered,) = store.open_orders()
    store.close()
    assert recovered == rebuilt(BY_NAME["in flight, number"]).order
    assert recovered.htlc is HtlcState.IN_FLIGHT


def test_the_new_database_passes_its_own_check(path: Path) -> None:
    write(path, survey(rebuilt(BY_NAME["settled, code"])), POLICY, LATER_MS)
    assert read_stored(path, POLICY, LATER_MS).findings == []
    store = SqliteStore(path)
    (update, *_) = reversed(store.updates(0, None, 100))
    store.close()
    assert update.order.end is End.FULFILLED


def test_limits_do_not_stop_what_has_happened_already(path: Path) -> None:
    many = [rebuilt(BY_NAME["in flight, number"])]
    write(path, survey(*many), POLICY, LATER_MS)
    with sqlite3.connect(path) as conn:
        (reserved_msat,) = conn.execute("SELECT reserved_msat FROM orders").fetchone()
    conn.close()
    assert reserved_msat == many[0].order.reserved_msat > 0


# --- what is there already ---


def test_a_database_with_an_order_is_left_alone(path: Path) -> None:
    store = SqliteStore(path)
    live(store, order())
    store.close()
    before = path.read_bytes()
    with pytest.raises(RecoverRefused, match="already holds 1 order;"):
        write(path, survey(), POLICY, LATER_MS)
    assert path.read_bytes() == before
    assert "holdpay.db.recovering" not in files(path)


def test_an_order_that_is_only_in_the_log_counts(path: Path) -> None:
    store = SqliteStore(path)
    live(store, order())
    with pytest.raises(RecoverRefused):
        refuse_if_used(path)
    store.close()


def test_a_damaged_database_is_left_alone(path: Path) -> None:
    path.write_bytes(b"garbage" * 1000)
    with pytest.raises(RecoverRefused, match="cannot be read"):
        write(path, survey(), POLICY, LATER_MS)
    assert path.read_bytes() == b"garbage" * 1000


def test_a_database_without_orders_is_kept_under_another_name(path: Path) -> None:
    SqliteStore(path).close()
    before = path.read_bytes()
    write(path, survey(), POLICY, LATER_MS)
    (kept,) = path.parent.glob("holdpay.db.before-recover-*Z")
    assert kept.read_bytes() == before


def test_an_empty_file_counts_as_no_database(path: Path) -> None:
    path.touch()
    refuse_if_used(path)


def test_the_log_of_a_lost_database_is_not_played_into_the_new_one(path: Path) -> None:
    store = SqliteStore(path)
    live(store, order())
    log = path.with_name("holdpay.db-wal").read_bytes()
    store.close()
    path.unlink()
    path.with_name("holdpay.db-wal").write_bytes(log)

    write(path, survey(), POLICY, LATER_MS)

    store = SqliteStore(path)
    assert [found.id for found in store.open_orders()] == [rebuilt(BY_NAME["in flight, number"]).order.id]
    store.close()
    (kept,) = path.parent.glob("holdpay.db.before-recover-*-wal")
    assert kept.read_bytes() == log


# --- the provider's word ---

AWAY = ProviderUnavailable("sms4sats has a problem of its own (HTTP 500). Try again later.")
GARBLED = ProviderProtocolError("A web page came in place of sms4sats's answer.")
Answers = list[Exception | None]
"""In the order in which they come; None: its word."""


class Provider:
    """Answers as told, and as it should after that."""

    def __init__(self, answers: Answers) -> None:
        self.answers = answers
        self.asked = 0

    async def slot(self, lane: Lane) -> contextlib.AbstractContextManager[None]:
        return contextlib.nullcontext()

    async def order_status(self, provider_order_id: str) -> Reply[ProviderStatus]:
        self.asked += 1
        error = self.answers.pop(0) if self.answers else None
        if error is not None:
            raise error
        return Reply(ProviderStatus(is_paid=True), "{}")

    async def aclose(self) -> None:
        pass


class Waits:
    """A clock whose waits are noted, and over at once."""

    def __init__(self) -> None:
        self.slept_s: list[float] = []

    def now_ms(self) -> int:
        return LATER_MS

    async def sleep(self, seconds: float) -> None:
        self.slept_s.append(seconds)


@pytest.mark.parametrize(
    ("answers", "words", "asked", "slept_s", "problem"),
    [
        ([], [True, True, True], 3, [], ""),
        ([AWAY], [True, True, True], 4, [2], ""),
        ([AWAY, AWAY, AWAY, None, AWAY], [True, True, True], 7, [2, 5, 10, 2], ""),
        ([AWAY] * 4, [False, True, True], 6, [2, 5, 10], AWAY.message),
        ([*[AWAY] * 4, None, *[AWAY] * 4], [False, True, False], 9, [2, 5, 10] * 2, AWAY.message),
        ([AWAY] * 8, [False, False, False], 8, [2, 5, 10] * 2, AWAY.message),
        ([ProviderRefused("sms4sats says no")], [False, True, True], 3, [], ""),
        ([GARBLED], [False, True, True], 3, [], GARBLED.message),
    ],
    ids=[
        "fine",
        "one bad moment",
        "bad moments",
        "of one none",
        "now and then",
        "away",
        "unknown order",
        "a login page",
    ],
)
async def test_a_bad_moment_of_the_provider_takes_its_word_from_no_payment(
    monkeypatch: pytest.MonkeyPatch,
    answers: Answers,
    words: list[bool],
    asked: int,
    slept_s: list[float],
    problem: str,
) -> None:
    provider, clock, told = Provider(list(answers)), Waits(), list[str]()
    monkeypatch.setattr(module, "Sms4Sats", lambda *_: provider)
    monkeypatch.setattr(module, "provider_settings", lambda _: None)
    each = BY_NAME["in flight, number"]
    paid = [(each.payment, each.invoice)] * 3
    found, said = await module._ask_provider(cast("Any", None), cast("Any", clock), paid, told.append)
    assert ([one.word is not None for one in found], said) == (words, problem)
    assert (provider.asked, clock.slept_s) == (asked, slept_s)
    assert told == ["sms4sats has a problem of its own (HTTP 500). It is asked again."] * len(slept_s)


# --- half a database is none ---


def test_a_recovery_that_is_cut_short_leaves_no_database_and_can_be_run_again(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit = SqliteStore.commit
    commits = iter((True, True, False))

    def dying(self: SqliteStore, *given: object) -> int:
        if not next(commits):
            raise StoreError("The disk is full.")
        return commit(self, *given)  # type: ignore[arg-type]

    monkeypatch.setattr(SqliteStore, "commit", dying)
    with pytest.raises(StoreError, match="full"):
        write(path, survey(), POLICY, LATER_MS)
    assert not path.exists()
    monkeypatch.undo()
    write(path, survey(), POLICY, LATER_MS)
    assert files(path) == {"holdpay.db", "holdpay.db.newest"}


def test_a_new_database_that_reads_back_wrong_is_not_put_in_place(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    create = SqliteStore.create

    def forgetful(self: SqliteStore, *given: object) -> object:
        recorded = create(self, *given)  # type: ignore[arg-type]
        self._conn.execute("UPDATE orders SET state = 'number_assigned'")
        return recorded

    monkeypatch.setattr(SqliteStore, "create", forgetful)
    monkeypatch.setattr(SqliteStore, "commit", lambda *given: 0)
    with pytest.raises(StoreError, match="read back"):
        write(path, survey(), POLICY, LATER_MS)
    assert not path.exists()


def test_a_folder_that_cannot_be_written_is_a_sentence(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(module, "move_aside", refuse)
    with pytest.raises(StoreError, match=r"could not be written \(Permission denied\)\. Check the disk"):
        write(path, survey(), POLICY, LATER_MS)
