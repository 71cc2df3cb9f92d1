"""As tests/e2e/test_kill.py, on real nodes: the daemon beside alice is killed, and alice too; the invoices are carol's.

HOLDPAY_KILL_SEED=N replays the plan of a seed.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import re
import time
from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

import pytest

from holdpay.sandbox.carol import Carol
from holdpay.sandbox.sms4sats import SimulatedSms4Sats
from holdpay.sandbox.sms4sats_knobs import Scenario
from tests.books import Books, JournalOrder
from tests.customers import Crowd
from tests.harness import Daemon
from tests.integration.market import FAST, PACE, open_shop
from tests.killing import AfterEvent, AfterStart, AtWrite, Life, Moment, live_and_die, open_line, quicken
from tests.ledgers import last_payment_index, provider_orders, read_journal, real_payments
from tests.reconcile import reconcile
from tests.regtest.net import Net
from tests.regtest.node import Node

pytestmark = pytest.mark.real

KILLS_OF_LND_AT = (1, 5, 9)
"""Lives of the daemon in which alice dies too."""
CROWD = 8
END_WITHIN_S = 60.0
"""When only orders are left whose payment lnd never sent, which stay for good."""
LATEST_END_S = 300.0
"""Of all others, however busy the machine is."""

CONFIG = f"""
[limits]
max_open_orders = 1000
max_pending_sat = 10000000
max_spend_per_day_sat = 100000000
{re.sub(r"pay_within_s = .*", "pay_within_s = 40", FAST)}settled_grace_s = 6
"""

WAYS = (
    Scenario(),
    Scenario(number_after_s=5, code_after_s=10, as_numbers=False),
    Scenario(code_after_s=90),
    Scenario(settle_lag_s=60),
    Scenario(code_after_s=60, settle_lag_s=-30),
    Scenario(code_after_s=10_000, settle_lag_s=-9_980),
    Scenario(no_number=True, gives_up_after_s=40),
    Scenario(no_number=True, gives_up_after_s=40, cancel_lag_s=40),
    Scenario(no_number=True, gives_up_after_s=60, cancel_lag_s=-30),
    Scenario(no_code=True, gives_up_after_s=80),
)
MUST_END = {"fulfilled", "refunded"}
"""Ends that every run shows; of the rarer ones the orders may have been canceled, all of them."""


@dataclass(slots=True, kw_only=True)
class Auditor:
    """Compares the three books, from the moment that it is made with."""

    alice: Node
    carol: Carol
    provider: SimulatedSms4Sats
    database: Path
    after_index: int
    opened_with_msat: int

    async def audit(self, *, is_over: bool, when: str, never_sent: Collection[str] = ()) -> tuple[JournalOrder, ...]:
        """While the daemon is dead. Returns the journal."""
        journal = read_journal(self.database)
        books = Books(
            journal=journal,
            lnd=await real_payments(self.alice, await self.carol.pubkey(), self.after_index),
            provider=await provider_orders(self.provider.orders.values(), self.carol),
            gone_msat=self.opened_with_msat - await local_msat(self.alice),
            never_sent=frozenset(never_sent),
        )
        found = reconcile(books, is_over=is_over)
        assert not found, f"{when}:\n" + "\n".join(map(str, found))
        return journal


async def local_msat(node: Node) -> int:
    """What the node owns in its channels."""
    return int((await node.rest.get("/v1/balance/channels"))["local_balance"]["msat"])


class Reaper:
    """Kills alice now and then, and starts her again."""

    def __init__(self, alice: Node, seed: int) -> None:
        self.kills = 0
        self._alice = alice
        self._rng = random.Random(f"{seed} lnd")
        self._reaping: asyncio.Task[None] | None = None

    @property
    def is_at_work(self) -> bool:
        return self._reaping is not None and not self._reaping.done()

    def kill_soon(self) -> None:
        self._reaping = asyncio.ensure_future(self._kill(self._rng.uniform(0.5, 2.5)))

    async def rest(self) -> None:
        """Returns when alice is well."""
        if self._reaping is not None:
            await self._reaping

    async def _kill(self, after_s: float) -> None:
        await asyncio.sleep(after_s)
        await self._alice.kill()
        self.kills += 1
        await self._alice.start()
        await self._alice.wait_active_channels()


def plan(seed: int) -> list[Moment]:
    """When to kill the daemon, life by life."""
    rng = random.Random(f"{seed} moments")
    events = ("order_placed", "dispatch_intended", "dispatch_intended", "payment_reported", "provider_replied")
    moments: list[Moment] = [
        *(AfterEvent(event, rng.choice((0, 0.002)), 2.0) for event in events),
        *(AtWrite(int(rng.uniform(1, 6) ** 2), 4.0) for _ in range(4)),
        *(AfterStart(rng.uniform(0, 2), is_serving=True) for _ in range(4)),
    ]
    rng.shuffle(moments)
    return moments


async def until_over(crowd: Crowd, alice: Node) -> None:
    began_s = time.monotonic()
    while (left := crowd.left) and (waited_s := time.monotonic() - began_s) < LATEST_END_S:
        if waited_s > END_WITHIN_S and {order.payment_hash for order in left} <= await alice.hashes_without_htlc():
            return
        await asyncio.sleep(0.5)


async def test_whenever_daemon_and_lnd_are_killed_nothing_is_lost_and_nothing_is_paid_twice(
    healthy_net: Net, tmp_path: Path
) -> None:
    seed = int(os.environ.get("HOLDPAY_KILL_SEED") or random.SystemRandom().randrange(10**6))
    print(f"HOLDPAY_KILL_SEED={seed} replays this plan; the daemon's log is {tmp_path / 'daemon.log'}")
    began_s = time.monotonic()
    alice, carol_node = healthy_net["alice"], healthy_net["carol"]
    async with (
        open_shop(healthy_net, tmp_path, extra_config=CONFIG) as (provider, config),
        open_line(tmp_path / "holdpay.sock") as line,
        contextlib.aclosing(
            Carol(f"https://{carol_node.rest_address}", carol_node.tls_cert_path, carol_node.admin_macaroon_path)
        ) as carol,
    ):
        quicken(config)
        provider.knobs.cancel_from_s = 0.9 * PACE
        ways = random.Random(f"{seed} ways")
        for _ in range(10):
            provider.knobs.queue.extend(ways.sample(WAYS, len(WAYS)))
        (tmp_path / "state").mkdir(mode=0o700)
        auditor = Auditor(
            alice=alice,
            carol=carol,
            provider=provider,
            database=tmp_path / "state" / "holdpay.db",
            after_index=await last_payment_index(alice),
            opened_with_msat=await local_msat(alice),
        )
        crowd, reaper, daemon = Crowd(line, CROWD, seed), Reaper(alice, seed), Daemon(config, tmp_path / "holdpay.sock")
        moments = plan(seed)
        for number, moment in enumerate(moments):
            crowd.fill()
            if number in KILLS_OF_LND_AT:
                await reaper.rest()
                reaper.kill_soon()
            await live_and_die(await daemon.launch(), Life(line, tmp_path / "state", 0), moment)
            if not reaper.is_at_work:
                await auditor.audit(is_over=False, when=f"killed {moment}")
        await reaper.rest()
        await daemon.launch()
        await until_over(crowd, alice)
        left = await crowd.left_after(1)
        never_sent = {order.payment_hash for order in left}
        assert never_sent <= await alice.hashes_without_htlc(), left
        assert len(never_sent) <= CROWD * reaper.kills
        await daemon.kill()
        journal = await auditor.audit(is_over=True, when="when all was over", never_sent=never_sent)
    ends = Counter(order.end for order in journal)
    print(
        f"{len(moments)} kills of the daemon, {reaper.kills} of lnd, {len(journal)} orders in"
        f" {time.monotonic() - began_s:.0f} s: {dict(ends)}"
    )
    assert crowd.order_ids == {order.id for order in journal}
    assert set(ends) >= MUST_END
    assert reaper.kills == len(KILLS_OF_LND_AT)
