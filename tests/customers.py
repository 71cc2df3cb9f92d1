"""Customers who live through the daemon's deaths: they come back with the same keys and forget nothing."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import random
from collections.abc import Awaitable, Iterator
from dataclasses import dataclass, field

import grpc
import grpc.aio

from holdpay._pb.v1 import holdpay_pb2 as pb
from holdpay._pb.v1 import holdpay_pb2_grpc as pb_grpc
from holdpay.sandbox.sms4sats_catalog import SERVICES
from holdpay.sms4sats.catalog import bundled
from tests.harness import Seen, code_request, is_over, told

_DAEMON_IS_GONE = {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED}


@dataclass(slots=True)
class Customer:
    """Asks with one idempotency key until the order is over, and holds the daemon to everything that it ever said."""

    line: pb_grpc.HoldpayAsyncStub
    key: str
    country: str
    service: str
    cancels_after_s: float | None = None
    """Since the order was accepted; None: never."""
    told: list[bytes] = field(default_factory=list)
    order: Seen = field(default_factory=Seen)

    @property
    def is_done(self) -> bool:
        return is_over(self.order)

    async def run(self) -> None:
        async with contextlib.AsyncExitStack() as stack:
            if self.cancels_after_s is not None:
                canceling = asyncio.ensure_future(self._cancel(self.cancels_after_s))
                stack.callback(canceling.cancel)
            while not self.is_done:
                await self._survive(self._listen())

    async def _listen(self) -> None:
        """The whole story of the order, from its beginning: what was told before must be told again, word by word."""
        request = code_request(country=self.country, service=self.service, idempotency_key=self.key)
        heard = 0
        async for update in told(self.line.Submit(request, wait_for_ready=True)):
            assert not self.order.id or update.request.id == self.order.id, "one key, two orders"
            words = update.SerializeToString(deterministic=True)
            if heard < len(self.told):
                assert words == self.told[heard], f"order {self.order.id}: update {heard} was told differently before"
            else:
                self.told.append(words)
                self.order = Seen(update.request)
            heard += 1
        assert heard >= len(self.told), f"order {self.order.id}: {len(self.told)} updates were told before, now {heard}"

    async def _cancel(self, after_s: float) -> None:
        while not self.order.id:
            await asyncio.sleep(0.05)
        await asyncio.sleep(after_s)
        has_said_so = False

        async def say() -> None:
            nonlocal has_said_so
            await self.line.CancelRequest(pb.CancelRequestRequest(request_id=self.order.id), wait_for_ready=True)
            has_said_so = True

        while not has_said_so:
            await self._survive(say())

    async def _survive(self, asking: Awaitable[None]) -> None:
        try:
            await asking
        except grpc.aio.AioRpcError as error:
            # A refusal looks alike: lnd is not there, or the provider. The same request is made again.
            if error.code() not in _DAEMON_IS_GONE:
                raise
            await asyncio.sleep(0.1)


class Crowd:
    """So many orders at a time; when one is over, the next one comes. Some are canceled, some asked for twice."""

    def __init__(self, line: pb_grpc.HoldpayAsyncStub, size: int, seed: int) -> None:
        self.customers: list[Customer] = []
        self._line = line
        self._size = size
        self._coming: list[asyncio.Task[None]] = []
        self._choices = random.Random(f"{seed} customers")
        self._keys = (f"kill-{seed}-{number}" for number in itertools.count(1))
        self._goods = self._all_goods()

    def _all_goods(self) -> Iterator[tuple[str, str]]:
        """Each request buys something else, so that a provider order tells whose it is."""
        pairs = list(itertools.product([str(country.code) for country in bundled().all], SERVICES))
        self._choices.shuffle(pairs)
        return iter(pairs)

    def come(self, cancels_after_s: float | None = None) -> None:
        """One more order; now and then two customers share its key."""
        key, goods = next(self._keys), next(self._goods)
        for _ in range(2 if self._choices.random() < 0.15 else 1):
            customer = Customer(self._line, key, *goods, cancels_after_s)
            self.customers.append(customer)
            self._coming.append(asyncio.ensure_future(customer.run()))

    def fill(self) -> None:
        """As many orders as there is room for. Raises what a customer complains about."""
        for coming in self._coming:
            if coming.done():
                coming.result()
        for _ in range(self._size - len({customer.key for customer in self.customers if not customer.is_done})):
            does_cancel = self._choices.random() < 0.25
            self.come(self._choices.uniform(0, 2.5) if does_cancel else None)

    async def left_after(self, within_s: float) -> list[Seen]:
        """Waits for the end of every order, and returns those that did not come to it."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(within_s):
                await asyncio.gather(*self._coming)
        return self.left

    @property
    def left(self) -> list[Seen]:
        """Orders that are not over."""
        return [customer.order for customer in self.customers if not customer.is_done]

    @property
    def order_ids(self) -> set[str]:
        """Of all orders that were accepted; one for each key."""
        ids = {customer.key: customer.order.id for customer in self.customers}
        assert {(customer.key, customer.order.id) for customer in self.customers} == set(ids.items()), (
            "one key, two orders"
        )
        return set(ids.values())
