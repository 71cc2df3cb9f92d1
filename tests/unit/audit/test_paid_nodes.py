"""Which nodes count as the provider's, for `check`, `restore` and `recover`, with all that is between them and lnd."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from holdpay.audit.paid_nodes import PaidNodes, paid_nodes
from holdpay.config import load
from holdpay.core.lightning import Invoice, LndMessage, NodeIdentity, OpenChannel, StoredPayment
from holdpay.core.payees import PayeeCheck
from holdpay.store.store import SqliteStore
from tests import dumps
from tests.unit.audit.books import FULFILLED
from tests.unit.audit.test_command import config, no_log, run
from tests.unit.audit.test_restore import HASH_2, backed_up, in_flight, paid, written
from tests.unit.build import ALICE, PAYEE, invoice

__all__ = ["config", "no_log"]

OTHER = "02" + "dd" * 32
FIXTURES = Path(__file__).parents[2] / "fixtures"


class Ledger:
    """An lnd that paid two nodes what no database knows."""

    def __init__(self, *_: object) -> None:
        self.paid = {"22" * 32: PAYEE, "33" * 32: OTHER}

    async def __aenter__(self) -> Ledger:
        return self

    async def __aexit__(self, *_: object) -> None:
        pass

    async def identity(self) -> NodeIdentity:
        return ALICE

    async def block_height(self) -> int:
        return 800_000

    async def channels(self) -> tuple[OpenChannel, ...]:
        return ()

    async def payment(self, payment_hash: str) -> LndMessage:
        return in_flight()

    async def payments(self, from_ms: int = 0) -> AsyncIterator[StoredPayment]:
        for payment_hash, node in self.paid.items():
            yield replace(paid(payment_hash), payreq=payment_hash, last_node=node)

    async def decode(self, payreq: str) -> Invoice:
        return replace(invoice(), payment_hash=payreq, payee=self.paid[payreq])


@pytest.fixture
def state(config: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The state directory of a daemon that may pay any node; none is listed."""
    config.write_text(config.read_text() + '[provider]\npayee_pubkeys = []\npayee_check = "off"\n')
    for module in ("check", "recover"):
        monkeypatch.setattr(f"holdpay.audit.{module}.LndLedger", Ledger)
    state = config.with_name("state")
    state.mkdir(mode=0o700)
    return state


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The payment hashes that recover asks the provider about."""
    hashes: list[str] = []

    async def ask(
        settings: object, clock: object, found: list[tuple[StoredPayment, Invoice]], tell: object
    ) -> tuple[list[Any], str]:
        hashes.extend(payment.payment_hash for payment, _ in found)
        return [], ""

    monkeypatch.setattr("holdpay.audit.recover._ask_provider", ask)
    return hashes


def findings(config: Path, *options: str | Path) -> list[tuple[str, str | None]]:
    """Code and payment hash of what check finds about payments that the journal does not know."""
    report = json.loads(run("check", "--config", config, "--json", *options).stdout)
    wanted = {"stranger", "payees-unknown"}
    return [(found["code"], found.get("payment_hash8")) for found in report["findings"] if found["code"] in wanted]


def test_a_restore_asks_lnd_for_payments_to_the_nodes_that_the_copy_knows(config: Path, state: Path) -> None:
    written(state, *FULFILLED)
    copy = backed_up(config)
    (state / "holdpay.db").write_bytes(b"damaged")
    done = run("restore", copy, "--config", config)
    assert done.exit_code == 4, done.output
    assert "1 payment to the provider's node that it does not know (22222222…)" in done.stderr


def test_check_finds_payments_to_the_nodes_that_the_database_knows(config: Path, state: Path) -> None:
    written(state, *FULFILLED)
    assert [code for code, _ in findings(config)] == ["stranger"]


def test_check_of_a_copy_counts_the_nodes_of_the_database_beside_it_too(config: Path, state: Path) -> None:
    written(state)
    copy = backed_up(config)
    written(state, *FULFILLED, order_id="bcdefghjkm")
    assert [code for code, _ in findings(config, "--database", copy)] == ["stranger"]


def test_check_says_so_where_nobody_knows_which_nodes_were_paid(config: Path, state: Path) -> None:
    written(state)
    assert [code for code, _ in findings(config)] == ["payees-unknown"]


def test_recover_looks_for_payments_to_the_nodes_that_an_empty_database_trusts(
    config: Path, state: Path, asked: list[str]
) -> None:
    SqliteStore(state / "holdpay.db").close()
    assert run("payees", "add", PAYEE, "--config", config).exit_code == 0
    done = run("recover", "--config", config)
    assert done.exit_code == 0, done.output
    assert asked == [HASH_2]
    assert "another node" not in done.stderr


def test_recover_says_which_payments_it_cannot_know_of(config: Path, state: Path, asked: list[str]) -> None:
    config.write_text(config.read_text().replace("payee_pubkeys = []", f'payee_pubkeys = ["{PAYEE}"]'))
    done = run("recover", "--config", config)
    assert asked == [HASH_2]
    assert "If holdpayd paid another node, add that to provider.payee_pubkeys" in done.stderr


@pytest.mark.parametrize(
    ("listed", "recorded", "check", "are_known"),
    [
        ({PAYEE}, set(), PayeeCheck.PIN, True),
        ({PAYEE}, set(), PayeeCheck.WARN, False),
        ({PAYEE}, set(), PayeeCheck.FIRST_USE, False),
        ({PAYEE}, set(), PayeeCheck.OFF, False),
        (set(), {OTHER}, PayeeCheck.OFF, True),
        ({PAYEE}, {OTHER}, PayeeCheck.FIRST_USE, True),
        (set(), set(), PayeeCheck.OFF, False),
    ],
)
def test_a_list_alone_tells_the_nodes_only_if_no_other_is_paid(
    listed: set[str], recorded: set[str], check: PayeeCheck, are_known: bool
) -> None:
    nodes = PaidNodes(frozenset(listed), frozenset(recorded), check)
    assert nodes.all == listed | recorded
    assert nodes.are_known is are_known


def test_the_nodes_of_a_database_of_an_older_release_count(config: Path, state: Path) -> None:
    old = dumps.restore(FIXTURES / "database-0008.sql", config.with_name("old.db"))
    assert paid_nodes(load(config), old).recorded


def test_a_database_that_cannot_be_read_takes_no_other_along(config: Path, state: Path) -> None:
    written(state, *FULFILLED)
    garbage, cut = config.with_name("garbage.db"), config.with_name("cut.db")
    garbage.write_bytes(b"garbage" * 1000)
    cut.touch()
    missing = config.with_name("missing.db")
    assert paid_nodes(load(config), garbage, cut, missing, state / "holdpay.db").all == {PAYEE}


def test_what_is_only_in_the_log_of_a_database_counts(config: Path, state: Path) -> None:
    with closing(SqliteStore(state / "holdpay.db")):
        written(state, *FULFILLED)
        assert (state / "holdpay.db-wal").stat().st_size
        assert paid_nodes(load(config), state / "holdpay.db").all == {PAYEE}
