"""`holdpayd backup` and `holdpayd restore`, without lnd: what lnd says is given."""

from __future__ import annotations

import os
import shutil
import sqlite3
from collections.abc import Callable, Set
from contextlib import closing
from pathlib import Path

import pytest
from click.testing import Result

from holdpay.audit import restore as module
from holdpay.audit.check import LndSays, read_stored
from holdpay.clock import SystemClock
from holdpay.core.lightning import LndMessage, Lost, NotKnown, PaymentStatus, Reported, StoredPayment
from holdpay.core.model import Order
from holdpay.core.states import HtlcState
from holdpay.errors import LndUnavailable
from holdpay.lock import StateLock
from holdpay.store.store import SqliteStore
from tests import dumps
from tests.unit.audit.books import FULFILLED, HELD, SENT, Timed
from tests.unit.audit.test_command import config, no_log, run
from tests.unit.audit.test_database import live
from tests.unit.build import ALICE, HASH, NOW_MS, PAYEE, POLICY, attempt, order, update

__all__ = ["config", "no_log"]

HASH_2 = "22" * 32


class Said:
    """What lnd has."""

    def __init__(self) -> None:
        self.payments: list[StoredPayment] | None = []
        self.words: dict[str, LndMessage] = {}
        self.error = ""
        self.from_ms = 0

    async def ask(
        self, settings: object, clock: object, payees: Set[str], orders: list[Order], from_ms: int
    ) -> LndSays:
        self.from_ms = from_ms
        if self.error:
            raise LndUnavailable(self.error)
        said = {order.id: self.words.get(order.id, in_flight()) for order in orders}
        payments = self.payments and [payment for payment in self.payments if payment.last_node in payees]
        return LndSays(ALICE, 800_000, (), said, payments, [])


def in_flight() -> LndMessage:
    return Reported(update(PaymentStatus.IN_FLIGHT, attempt()), live=False)


def paid(payment_hash: str, status: PaymentStatus = PaymentStatus.SUCCEEDED) -> StoredPayment:
    return StoredPayment(
        payment_hash=payment_hash,
        payreq="",
        amount_msat=2_001_000,
        created_at_ms=NOW_MS,
        last_node=PAYEE,
        update=update(status, attempt()),
        leaves_by=(),
    )


@pytest.fixture
def lnd(monkeypatch: pytest.MonkeyPatch) -> Said:
    said = Said()
    monkeypatch.setattr(module, "ask_lnd", said.ask)
    return said


@pytest.fixture
def state(config: Path) -> Path:
    """The state directory. The provider's node is PAYEE."""
    config.write_text(config.read_text() + f'[provider]\npayee_pubkeys = ["{PAYEE}"]\n')
    state = config.with_name("state")
    state.mkdir(mode=0o700)
    return state


@pytest.fixture(params=["first-use", "warn", "off"])
def loose(config: Path, request: pytest.FixtureRequest) -> Path:
    """The state directory, where a node that is not listed, as PAYEE is not, may have been paid."""
    config.write_text(config.read_text() + f'[provider]\npayee_check = "{request.param}"\n')
    state = config.with_name("state")
    state.mkdir(mode=0o700)
    return state


def written(state: Path, *events: Timed, order_id: str = "abcdefghjk") -> None:
    with closing(SqliteStore(state / "holdpay.db")) as store:
        live(store, order(id=order_id, key=order_id), *events)


def backed_up(config: Path, *options: str) -> Path:
    """A backup of what is there now, beside the configuration."""
    copy = config.with_name("copy.db")
    done = run("backup", copy, "--config", config, *options)
    assert done.exit_code == 0, done.output
    return copy


def restored(config: Path, copy: Path, *options: str) -> Result:
    return run("restore", copy, "--config", config, *options)


def open_orders(state: Path) -> list[Order]:
    with closing(SqliteStore(state / "holdpay.db")) as store:
        return store.open_orders()


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


# --- backup -----------------------------------------------------------------------------------------------------------


def test_a_backup_says_what_is_in_it_and_passes_the_check_as_the_database_does(config: Path, state: Path) -> None:
    written(state, *FULFILLED)
    done = run("backup", config.with_name("copy.db"), "--config", config)
    assert done.exit_code == 0
    assert "copy.db is written and checked: " in done.stdout
    assert "the journal up to row 9, tables as of 00" in done.stdout
    assert "It holds codes, numbers and preimages" in done.stdout
    checked = run("check", "--offline", "--database", config.with_name("copy.db"), "--config", config)
    assert checked.exit_code == 0, checked.output
    assert "copy.db" in checked.stdout


def test_a_backup_into_a_folder_is_named_by_the_time_and_the_newest_are_kept(config: Path, state: Path) -> None:
    written(state)
    folder = config.with_name("backups")
    folder.mkdir()
    for name in (
        "holdpay-20200101T000000Z.db",
        "holdpay-20200102T000000Z.db",
        "holdpay-20200103T000000Z.db",
        "mine.db",
    ):
        (folder / name).touch()
    done = run("backup", folder, "--keep", "2", "--config", config)
    assert done.exit_code == 0, done.output
    assert "2 older backups were deleted." in done.stdout
    oldest, newest, mine = sorted(path.name for path in folder.iterdir())
    assert (oldest, mine) == ("holdpay-20200103T000000Z.db", "mine.db")
    assert newest > "holdpay-2026"


def test_a_backup_that_was_just_made_is_kept_although_the_clock_was_set_back(config: Path, state: Path) -> None:
    written(state)
    folder = config.with_name("backups")
    folder.mkdir()
    (folder / "holdpay-20990101T000000Z.db").touch()
    assert run("backup", folder, "--keep", "1", "--config", config).exit_code == 0
    (left,) = folder.iterdir()
    assert left.name < "holdpay-2099"


def test_a_backup_that_fails_deletes_no_older_one(config: Path, state: Path) -> None:
    folder = config.with_name("backups")
    folder.mkdir()
    (folder / "holdpay-20200101T000000Z.db").touch()
    done = run("backup", folder, "--keep", "1", "--config", config)
    assert (done.exit_code, "There is no database" in done.stderr) == (4, True)
    assert len(list(folder.iterdir())) == 1


def test_keep_without_a_folder_is_an_error_of_usage(config: Path, state: Path) -> None:
    done = run("backup", config.with_name("copy.db"), "--keep", "2", "--config", config)
    assert (done.exit_code, "needs a FOLDER" in done.stderr) == (2, True)


# --- restore ----------------------------------------------------------------------------------------------------------


def test_what_is_restored_is_what_was_copied_and_the_database_that_was_there_is_kept(
    config: Path, state: Path, lnd: Said
) -> None:
    written(state, *HELD)
    (held,) = open_orders(state)
    copy = backed_up(config)
    before_copy = copy.read_bytes()
    (state / "holdpay.db").write_bytes(b"damaged")
    done = restored(config, copy)
    assert done.exit_code == 3, done.output
    assert "The database is restored, as it was at 20" in done.stdout
    assert f"Open in the copy: 1 ({held.id})." in done.stdout
    (kept,) = (path for path in state.iterdir() if path.name.endswith("Z"))
    assert kept.name.startswith("holdpay.db.before-restore-")
    assert str(kept) in done.stdout
    assert kept.read_bytes() == b"damaged"
    assert copy.read_bytes() == before_copy
    (found,) = open_orders(state)
    assert (found.htlc, found.number, found.payment and found.payment.payment_hash) == (
        HtlcState.IN_FLIGHT,
        held.number,
        HASH,
    )
    assert found.restored_at_ms is not None
    assert read_stored(state / "holdpay.db", POLICY, NOW_MS).findings == []
    for name in ("holdpay.db", "holdpay.db.newest"):
        assert (state / name).stat().st_mode & 0o777 == 0o600, name
    assert not [name for name in content(state) if "restoring" in name]


def test_a_copy_by_other_means_is_restored_too_with_what_is_only_in_its_log(
    config: Path, state: Path, lnd: Said
) -> None:
    with closing(SqliteStore(state / "holdpay.db")) as store:
        live(store, order(), *HELD)
        other = config.with_name("other")
        shutil.copytree(state, other)
    for path in state.iterdir():
        path.unlink()
    done = restored(config, other / "holdpay.db")
    assert done.exit_code == 3, done.output
    assert len(open_orders(state)) == 1
    assert lnd.from_ms == NOW_MS + 15_000 - module.CLOCKS_DIFFER_MS, "until then all is in it"


def test_the_database_that_was_put_in_place_by_hand_is_restored_where_it_lies(
    config: Path, state: Path, lnd: Said
) -> None:
    written(state, *HELD)
    copy = backed_up(config)
    copy.replace(state / "holdpay.db")
    assert restored(config, state / "holdpay.db").exit_code == 3
    assert len(open_orders(state)) == 1


def test_a_restored_order_whose_payment_was_still_to_be_sent_is_only_looked_up(
    config: Path, state: Path, lnd: Said
) -> None:
    written(state, *SENT[:2])
    copy = backed_up(config)
    lnd.words["abcdefghjk"] = NotKnown()
    assert restored(config, copy).exit_code == 3
    (found,) = open_orders(state)
    assert found.htlc is HtlcState.UNKNOWN
    assert found.giving_up is not None
    assert read_stored(state / "holdpay.db", POLICY, NOW_MS).findings == []


REFUSED: dict[str, tuple[tuple[Timed, ...], Callable[[Path, Said], object], str]] = {
    "lnd paid what the copy does not know": (
        HELD,
        lambda copy, lnd: setattr(
            lnd, "payments", [paid(HASH), paid(HASH_2), paid("33" * 32, PaymentStatus.IN_FLIGHT)]
        ),
        "lnd has 2 payments to the provider's node that it does not know (22222222…, 33333333…). Nothing was changed.",
    ),
    "lnd has an order of it in flight that was not sent in it": (
        SENT[:2],
        lambda copy, lnd: None,
        "too old: 1 order of it went on at lnd (abcdefghjk)",
    ),
    "lnd did not say": (
        HELD,
        lambda copy, lnd: lnd.words.update(abcdefghjk=Lost("away")),
        "1 order of it went on at lnd",
    ),
    "lnd is away": (HELD, lambda copy, lnd: setattr(lnd, "error", "It is away."), "lnd could not be asked"),
    "lnd may not be asked": (HELD, lambda copy, lnd: setattr(lnd, "payments", None), "does not allow ListPayments"),
    "there is no file": (HELD, lambda copy, lnd: copy.unlink(), "There is no file"),
    "it is a folder": (HELD, lambda copy, lnd: make_folder(copy), "is no file. Name a copy"),
    "it is no database": (HELD, lambda copy, lnd: copy.write_text("garbage" * 999), "cannot be restored"),
    "it is another database": (HELD, lambda copy, lnd: other_database(copy), "is no database of holdpayd's"),
    "it is damaged": (HELD, lambda copy, lnd: damage(copy), "cannot be restored"),
    "it contradicts itself": (HELD, lambda copy, lnd: contradict(copy), "contradicts itself: "),
    "it is a mixture of two": (
        HELD,
        lambda copy, lnd: change(copy, "UPDATE payments SET htlc = 'none'"),
        "copy.db cannot be restored: order abcdefghjk is not what its journal says last",
    ),
    "it is of a newer holdpay": (HELD, lambda copy, lnd: make_newer(copy), "written by a newer holdpay (9999_later)"),
}


def other_database(path: Path) -> None:
    path.unlink()
    change(path, "CREATE TABLE music (id)")


def make_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def damage(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[4096 * 2 : 4096 * 12] = b"\xff" * 4096 * 10
    path.write_bytes(data)


def contradict(path: Path) -> None:
    change(path, "UPDATE payments SET amount_msat = amount_msat + 1")


def make_newer(path: Path) -> None:
    change(
        path, "INSERT INTO _sqlite_migrations (migration_set, name, applied_at) VALUES ('holdpay', '9999_later', '')"
    )


def change(path: Path, sql: str) -> None:
    with closing(sqlite3.connect(path, isolation_level=None)) as conn:
        conn.execute(sql)


@pytest.mark.parametrize(("events", "spoil", "said"), REFUSED.values(), ids=REFUSED)
def test_a_copy_is_refused_and_nothing_is_changed(
    config: Path,
    state: Path,
    lnd: Said,
    events: tuple[Timed, ...],
    spoil: Callable[[Path, Said], object],
    said: str,
) -> None:
    written(state, *events)
    copy = backed_up(config)
    spoil(copy, lnd)
    before = content(state)
    done = restored(config, copy)
    assert done.exit_code == 4, done.output
    assert said in done.stderr
    assert {name: data for name, data in content(state).items() if name != "lock"} == before


def lose(state: Path) -> None:
    for path in state.iterdir():
        path.unlink()


def test_an_old_copy_is_refused_also_if_only_the_copy_knows_the_node_that_was_paid(
    config: Path, loose: Path, lnd: Said
) -> None:
    written(loose, *FULFILLED)
    copy = backed_up(config)
    lose(loose)
    lnd.payments = [paid(HASH_2)]
    done = restored(config, copy)
    assert done.exit_code == 4, done.output
    assert (
        "lnd has 1 payment to the provider's node that it does not know (22222222…). Nothing was changed."
        in done.stderr
    )
    assert not (loose / "holdpay.db").exists()


def test_an_old_copy_is_refused_also_if_only_the_database_that_is_replaced_knows_the_node_that_was_paid(
    config: Path, loose: Path, lnd: Said
) -> None:
    written(loose)
    copy = backed_up(config)
    written(loose, *FULFILLED, order_id="bcdefghjkm")
    lnd.payments = [paid(HASH)]
    before = content(loose)
    done = restored(config, copy)
    assert done.exit_code == 4, done.output
    assert f"that it does not know ({HASH[:8]}…)" in done.stderr
    assert {name: data for name, data in content(loose).items() if name != "lock"} == before


def test_a_node_counts_although_it_was_forgotten_or_was_only_added_by_hand(
    config: Path, loose: Path, lnd: Said
) -> None:
    lnd.payments = [paid(HASH_2)]
    for events, sql in (
        ((), f"INSERT INTO payees (pubkey, trust, added_at_ms, times) VALUES ('{PAYEE}', 'by-hand', 1, 0)"),
        (FULFILLED, "DELETE FROM payees"),
    ):
        written(loose, *events)
        change(loose / "holdpay.db", sql)
        copy = backed_up(config)
        lose(loose)
        done = restored(config, copy)
        assert (done.exit_code, "is too old" in done.stderr) == (4, True), done.output
        copy.unlink()


def test_recover_is_told_the_nodes_that_only_a_database_knows(config: Path, loose: Path, lnd: Said) -> None:
    written(loose, *FULFILLED)
    copy = backed_up(config)
    lnd.payments = [paid(HASH_2)]
    assert (
        "(first add to provider.payee_pubkeys 02cccccc…; `lncli listpayments` has it whole"
        in restored(config, copy).stderr
    )


def test_where_nobody_knows_which_nodes_were_paid_a_copy_is_only_taken_without_lnd(
    config: Path, loose: Path, lnd: Said
) -> None:
    written(loose)
    copy = backed_up(config)
    lose(loose)
    done = restored(config, copy)
    assert done.exit_code == 4, done.output
    assert "Nobody knows to which nodes anything was paid after the copy: " in done.stderr
    assert "--without-lnd goes without" in done.stderr
    assert not (loose / "holdpay.db").exists()
    assert restored(config, copy, "--without-lnd").exit_code == 3


def test_where_only_the_listed_nodes_are_paid_a_copy_without_any_payment_is_taken(
    config: Path, state: Path, lnd: Said
) -> None:
    written(state)
    copy = backed_up(config)
    lose(state)
    assert restored(config, copy).exit_code == 3
    assert open_orders(state)


def test_what_lnd_paid_by_hand_before_the_copy_is_no_reason(config: Path, state: Path, lnd: Said) -> None:
    written(state, *HELD)
    began_ms = SystemClock().now_ms()
    copy = backed_up(config)
    restored(config, copy)
    assert began_ms <= lnd.from_ms + module.CLOCKS_DIFFER_MS <= SystemClock().now_ms()


def test_a_failed_payment_that_the_copy_does_not_know_is_no_reason(config: Path, state: Path, lnd: Said) -> None:
    written(state, *HELD)
    copy = backed_up(config)
    lnd.payments = [paid(HASH_2, PaymentStatus.FAILED)]
    assert restored(config, copy).exit_code == 3


def test_without_lnd_it_is_not_asked_and_the_operator_is_told_what_is_not_known(
    config: Path, state: Path, lnd: Said
) -> None:
    written(state, *FULFILLED)
    copy = backed_up(config)
    lnd.error = "It is away."
    done = restored(config, copy, "--without-lnd")
    assert done.exit_code == 0, done.output
    assert "lnd was not asked: `holdpayd check` shows what it paid after the copy" in done.stdout


def test_a_running_daemon_is_not_robbed_of_its_database(config: Path, state: Path, lnd: Said) -> None:
    written(state, *HELD)
    copy = backed_up(config)
    with StateLock(state):
        done = restored(config, copy)
    assert (done.exit_code, "Stop it first" in done.stderr) == (75, True)


def test_a_restore_that_is_killed_leaves_the_database_that_was_there_and_can_be_run_again(
    config: Path, state: Path, lnd: Said, monkeypatch: pytest.MonkeyPatch
) -> None:
    written(state, *HELD)
    copy = backed_up(config)
    before = (state / "holdpay.db").read_bytes()
    pid = os.fork()
    if pid == 0:
        monkeypatch.setattr(module, "move_aside", lambda *_: os._exit(9))
        try:
            restored(config, copy)
        finally:
            os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 9
    assert (state / "holdpay.db").read_bytes() == before
    assert restored(config, copy).exit_code == 3
    assert not [name for name in content(state) if "restoring" in name]


def test_an_older_release_is_brought_up_to_date(config: Path, state: Path, lnd: Said) -> None:
    old = dumps.restore(Path(__file__).parents[2] / "fixtures" / "database-0008.sql", config.with_name("old.db"))
    done = restored(config, old, "--without-lnd")
    assert done.exit_code == 3, done.output
    assert open_orders(state)
    assert not [name for name in content(state) if "restoring" in name]
