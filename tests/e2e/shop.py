"""The sandbox with the real daemon beside it, and the books of the simulated lnd to compare with."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from holdpay.sandbox.lnd_network import Network
from holdpay.sandbox.payee import Settled
from holdpay.sandbox.tricks import play
from holdpay.sandbox.world import SandboxWorld
from tests.harness import Daemon, Seen, is_held, is_over

PACE = 50.0
PRICE_MSAT = 3_000_000
FEE_MSAT = 1_003
"""The simulated peer asks 1 sat and one millionth."""

FOR_EVER_S = 1e9

CLOSE_UNPAID_AFTER_S = 1

QUICK = f"""
[limits]
max_open_orders = 100
max_pending_sat = 1000000
max_spend_per_day_sat = 10000000
[payment]
pay_within_s = 60
close_unpaid_after_s = {CLOSE_UNPAID_AFTER_S}
retry_delays_s = [0, 1]
max_dispatches = 5
confirm_unpaid_s = 1
prove_absent_s = 2
settled_grace_s = 30
[guard]
in_transit_s = 1
refund_s = 1
"""
"""Waits of a second where an operator's are minutes, and limits that do not get in the way. What ends an order for
which the machine was too slow is longer."""


class Books:
    """What the simulated lnd itself has: HTLCs by payment hash, and the money in its channels."""

    def __init__(self, network: Network) -> None:
        self._network = network
        self._opened_with_msat = self._local_msat()

    def _local_msat(self) -> int:
        return sum(channel.local_msat for channel in self._network.channels.values())

    @property
    def gone_msat(self) -> int:
        """What has left the channels since the beginning: spent, or out."""
        return self._opened_with_msat - self._local_msat()

    def htlcs(self, payment_hash: str) -> int:
        """How many HTLCs were ever sent for a hash."""
        return len(self._results(payment_hash))

    def settled(self, payment_hash: str) -> int:
        """How many of them were settled: two would be a double payment."""
        return sum(isinstance(result, Settled) for result in self._results(payment_hash))

    def _results(self, payment_hash: str) -> list[object]:
        ours = [htlc for htlc in self._network.htlcs.values() if htlc.payment_hash.hex() == payment_hash]
        return [htlc.result.result() if htlc.result.done() else None for htlc in ours]


@dataclass(slots=True)
class Shop:
    """A running sandbox and a running daemon."""

    world: SandboxWorld
    daemon: Daemon
    books: Books

    def next_order(self, **changes: object) -> None:
        """How the next order goes: fields of `Scenario`."""
        knobs = self.world.provider.knobs
        knobs.queue.append(replace(knobs.scenario, **changes))  # type: ignore[arg-type]

    async def play(self, *tricks: str) -> None:
        for trick in tricks:
            await play(self.world, trick)

    async def buy(self, **fields: object) -> Seen:
        """An order, from the request to its end."""
        order = await self.daemon.order(**fields)
        return await self.daemon.until(order.id, is_over)

    async def held(self, *, has_number: bool = True, **fields: object) -> Seen:
        """An order that stays held until ``deliver`` or ``give_back``."""
        self.next_order(code_after_s=FOR_EVER_S, no_number=not has_number, gives_up_after_s=FOR_EVER_S)
        order = await self.daemon.order(**fields)
        return await self.daemon.until(order.id, lambda now: is_held(now) and bool(now.number) is has_number)

    async def deliver(self, order: Seen) -> None:
        """The provider gets the SMS, and settles."""
        self.show_code(order)
        await self.settle(order)

    async def give_back(self, order: Seen) -> None:
        """The provider calls the order over, and cancels the hold invoice."""
        self.call_over(order)
        await self.release(order)

    def show_code(self, order: Seen) -> None:
        """The provider gets the SMS, and settles nothing yet."""
        self.world.provider.orders[order.payment_hash].code = "246810"

    async def settle(self, order: Seen) -> None:
        """The provider takes the money."""
        await self.world.payee.settle(self.world.provider.orders[order.payment_hash].preimage)

    def call_over(self, order: Seen) -> None:
        """The provider calls the order over; the money is still out."""
        self.world.provider.orders[order.payment_hash].error = "No available number"

    async def release(self, order: Seen) -> None:
        """The money comes back."""
        await self.world.payee.cancel(self.world.provider.orders[order.payment_hash].payment_hash)

    @property
    def sends(self) -> int:
        """How many SendPaymentV2 calls lnd ever took, the refused duplicates included."""
        return self.world.lnd.node.db._last_index

    @property
    def polls(self) -> int:
        """Requests for the status of orders, all together."""
        return self.world.provider.requests["/orderstatus"]

    async def audit(self) -> None:
        """Our books against those of lnd, over all closed orders; no money may be out."""
        listed = await self.daemon.every()
        for order in listed:
            assert order.terminal, order
            assert self.books.settled(order.payment_hash) == (1 if order.spent_msat else 0), order
        assert sum(order.spent_msat for order in listed) == self.books.gone_msat


@contextlib.asynccontextmanager
async def open_shop(
    directory: Path,
    *,
    pace: float = PACE,
    extra_config: str = QUICK,
    edit_config: Callable[[str], str] = lambda text: text,
    environment: Mapping[str, str] | None = None,
) -> AsyncIterator[Shop]:
    """From the first look at lnd to a daemon that takes orders. A test may stop or kill the daemon itself."""
    async with SandboxWorld(directory, pace=pace, extra_config=extra_config) as world:
        world.config.write_text(edit_config(world.config.read_text()))
        daemon = Daemon(world.config, world.socket, environment)
        try:
            await daemon.start_ready()
            yield Shop(world, daemon, Books(world.lnd.network))
        finally:
            await daemon.stop()


@contextlib.asynccontextmanager
async def open_account_shop(folder: Path) -> AsyncIterator[Shop]:
    """The same, with the key of the prepaid account."""
    key = folder / "api-key"
    key.write_text("sandbox-key\n")
    key.chmod(0o600)

    def with_account(text: str) -> str:
        return text.replace("[provider]\n", f'[provider]\napi_key_file = "{key}"\n')

    async with open_shop(folder, edit_config=with_account, extra_config=QUICK) as opened:
        yield opened
