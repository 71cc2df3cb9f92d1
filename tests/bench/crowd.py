"""Many open orders, as a daemon finds them at its start, with an lnd and a provider that know them: a process.

python -m tests.bench.crowd DIRECTORY ORDERS: writes the database and config.toml into DIRECTORY, prints ``ready``, and
does what stdin says, a line each: ``lnd down``, ``lnd up``. Ends when its stdin is closed.

Each order is paid and has its number; the SMS is still to come. Nobody waits for that longer than the run.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import sys
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from holdpay.app import DATABASE
from holdpay.core.events import ProviderReplied, ProviderStatus
from holdpay.core.items import Item, ItemKind
from holdpay.core.kinds import CodeSpec
from holdpay.core.model import Order, Payment, Request
from holdpay.core.states import HtlcState, OrderState
from holdpay.core.step import Step
from holdpay.ports import Limits, MoneyTotals
from holdpay.sandbox.bolt11 import payment_hash_of
from holdpay.sandbox.lnd_model import Hop, Route
from holdpay.sandbox.lnd_network import OutgoingHtlc
from holdpay.sandbox.sms4sats_funding import ByHoldInvoice
from holdpay.sandbox.sms4sats_knobs import Scenario
from holdpay.sandbox.sms4sats_numbers import ReceiveOrder
from holdpay.sandbox.sms4sats_orders import Sale
from holdpay.sandbox.world import SandboxWorld
from holdpay.store.store import SqliteStore
from tests.bench import endpoints
from tests.bench.daemon import write_crowded_config
from tests.bench.loops import LoopFailed

AMOUNT_SAT: Final = 2_000
HELD_FOR_S: Final = 300
"""Each order was paid at some time within the last five minutes."""
NUMBER: Final = "15551234567"
_NO_LIMITS: Final = Limits(max_open_orders=1_000_000, max_pending_sat=10**12, max_spend_per_day_sat=10**12)
_NOTHING: Final = MoneyTotals(open_orders=0, settled_orders=0, pending_msat=0, spent_day_msat=0)


@dataclass(frozen=True, slots=True)
class _Member:
    """One order of the crowd."""

    preimage: bytes
    payreq: str
    paid_at_s: float

    @property
    def payment_hash(self) -> bytes:
        return payment_hash_of(self.preimage)


def _members(count: int) -> list[_Member]:
    rng, now_s = random.Random(count), time.time()
    return [
        _Member(rng.randbytes(32), f"lnsb20u1crowd{number}", now_s - rng.uniform(1, HELD_FOR_S))
        for number in range(count)
    ]


# --- what lnd and the provider know -----------------------------------------------------------------------------------


def _tell_lnd(world: SandboxWorld, member: _Member) -> None:
    node, network, amount_msat = world.lnd.node, world.lnd.network, AMOUNT_SAT * 1000
    chan_id = next(iter(network.channels))
    payee = world.payee.pubkey_bytes.hex()
    route = Route(
        network.height + 100,
        amount_msat + 1000,
        (
            Hop(chan_id, network.peer_pubkey, amount_msat, 1000, network.height + 60),
            Hop(chan_id + 1, payee, amount_msat, 0, network.height + 60),
        ),
    )
    paid_at_ns = int(member.paid_at_s * 1e9)
    node.db.init(member.payment_hash, amount_msat, member.payreq, paid_at_ns)
    _, attempt = node.db.register(member.payment_hash, route, paid_at_ns)
    network.htlcs[attempt.attempt_id] = OutgoingHtlc(
        payment_hash=member.payment_hash,
        amount_msat=route.total_amt_msat,
        chan_id=chan_id,
        htlc_index=attempt.attempt_id,
        expiry_height=route.total_time_lock_height,
        final_expiry_height=network.height + 60,
        result=asyncio.get_running_loop().create_future(),
        is_locked_in=True,
    )


def _tell_provider(world: SandboxWorld, member: _Member) -> None:
    sale = Sale(
        order_id=member.payment_hash.hex(),
        preimage=member.preimage,
        payreq=member.payreq,
        price_sat=AMOUNT_SAT,
        funding=ByHoldInvoice(world.payee, member.preimage),
        scenario=Scenario(),
        created_at_s=member.paid_at_s,
    )
    order = ReceiveOrder(sale, "United States", "OpenAI", "")
    order.paid_at_s, order.number = member.paid_at_s, NUMBER
    order.life = world.provider._numbers._shop.spawn(_no_sms())
    world.provider._numbers.orders[order.order_id] = order


async def _no_sms() -> None:
    """An order's life from its number on, until it is canceled."""
    await asyncio.Event().wait()


# --- what the daemon finds --------------------------------------------------------------------------------------------


def _fill(path: Path, members: list[_Member], world: SandboxWorld) -> None:
    path.parent.mkdir(mode=0o700)
    store = SqliteStore(path)
    # Nothing is lost if this process dies meanwhile; and nothing is limited, so nothing needs to be added up.
    store._conn.execute("PRAGMA synchronous = OFF")
    store.totals = lambda now_ms: _NOTHING  # type: ignore[method-assign]
    for number, member in enumerate(members):
        bare = _requested(number, member)
        after = _held(bare, member, world)
        event = ProviderReplied(after.state_since_ms, ProviderStatus(is_paid=True, number=NUMBER))
        store.create(bare, _NO_LIMITS, bare.created_at_ms)
        store.commit(bare, event, Step(after, is_change=True), '{"status":"OK"}', after.state_since_ms)
    store.close()


def _requested(number: int, member: _Member) -> Order:
    at_ms = int(member.paid_at_s * 1000) - 500
    spec = CodeSpec(country=187, country_name="United States", service="dr", service_name="OpenAI")
    request = Request(
        id=f"crowd{number:05d}", key=f"crowd-{number}", fingerprint="f" * 64, spec=spec, created_at_ms=at_ms
    )
    return Order(
        id=request.id,
        request=request,
        created_at_ms=at_ms,
        pay_by_ms=at_ms + 600_000,
        max_price_sat=AMOUNT_SAT,
        max_fee_sat=20,
        quote_sat=AMOUNT_SAT,
        state_since_ms=at_ms,
        place_at_ms=at_ms,
    )


def _held(order: Order, member: _Member, world: SandboxWorld) -> Order:
    paid_at_ms = int(member.paid_at_s * 1000)
    payment = Payment(
        payment_hash=member.payment_hash.hex(),
        payreq=member.payreq,
        payee=world.payee.pubkey_bytes.hex(),
        amount_msat=AMOUNT_SAT * 1000,
        expires_at_ms=paid_at_ms + 86_400_000,
        final_cltv_delta=40,
        node_pubkey=world.lnd.node.pubkey,
        node_network=world.lnd.node.network_name,
        htlc=HtlcState.IN_FLIGHT,
        htlc_since_ms=paid_at_ms,
        dispatch_count=1,
        fee_limit_msat=10_000,
        is_known_to_lnd=True,
        reached_payee=True,
        money_out_since_ms=paid_at_ms,
        expiry_height=world.lnd.network.height + 100,
        fee_msat=1000,
        attempt_count=1,
    )
    return replace(
        order,
        state=OrderState.NUMBER_ASSIGNED,
        state_since_ms=paid_at_ms + 500,
        place_count=1,
        provider_order_id=payment.payment_hash,
        payreq=member.payreq,
        items=(Item(kind=ItemKind.NUMBER, text=NUMBER, seen_at_ms=paid_at_ms + 500),),
        payment=payment,
    )


# --- the process ------------------------------------------------------------------------------------------------------


async def serve(directory: Path, count: int) -> None:
    """Until stdin is closed, also by the death of whoever started this."""
    async with SandboxWorld(directory) as world:
        members = _members(count)
        for member in members:
            _tell_lnd(world, member)
            _tell_provider(world, member)
        _fill(directory / "state" / DATABASE, members, world)
        write_crowded_config(directory, await endpoints.of_sandbox(world))
        print("ready", flush=True)
        while line := await asyncio.to_thread(sys.stdin.readline):
            match line.strip():
                case "lnd down":
                    await world.lnd.kill()
                case "lnd up":
                    await world.lnd.start()
            print("done", flush=True)


class Crowd:
    """That process, as its owner sees it."""

    def __init__(self, directory: Path, process: asyncio.subprocess.Process) -> None:
        self.config = directory / "config.toml"
        self._process = process

    async def tell(self, what: str) -> None:
        """``lnd down`` or ``lnd up``; returns when it is so."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{what}\n".encode())
        await self.heard()

    async def heard(self) -> None:
        """Waits for its next word. Raises LoopFailed if it is dead."""
        assert self._process.stdout is not None
        if not await self._process.stdout.readline():
            raise LoopFailed("The process with the crowd is dead; its own words are above.")


@contextlib.asynccontextmanager
async def crowd(directory: Path, count: int) -> AsyncIterator[Crowd]:
    """Runs it with so many open orders."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "tests.bench.crowd",
        str(directory),
        str(count),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    made = Crowd(directory, process)
    try:
        await made.heard()
        yield made
    finally:
        assert process.stdin is not None
        process.stdin.close()
        await process.wait()


if __name__ == "__main__":
    asyncio.run(serve(Path(sys.argv[1]), int(sys.argv[2])))
