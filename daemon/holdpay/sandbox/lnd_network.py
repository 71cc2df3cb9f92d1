"""What lies around the sandbox LND: its channels, the peer that forwards, the payee, and the chain's height.

We - (channels) - peer - payee. HTLCs live here and not in the node, so that they outlast its restarts; a result comes
back only while everybody on its way is online.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field

from coincurve import PrivateKey

from holdpay.sandbox.clock import Clock
from holdpay.sandbox.lnd_model import Failure, FailureCode, Route
from holdpay.sandbox.lnd_routing import Graph, OurChannel
from holdpay.sandbox.payee import Answer, IncomingHtlc, Payee, Settled

PEER_INDEX, PAYEE_INDEX = 1, 2  # failure_source_index; 0 is our own node
# What a dead payee leaves with the peer comes back to us this many blocks after the payee's HTLC expired: seen on a
# real net with an HTLC of some thousand sat, which the peer does not find worth a claim on chain. (A large one: 3.)
PEER_CLOSES_AFTER_BLOCKS = 56
# After our own force close the HTLC's time-out needs this many blocks to be final.
OWN_CLOSE_BLOCKS = 2
CHANNEL_RESERVE_DIVISOR = 100

Result = Settled | Failure


@dataclass(slots=True)
class Knobs:
    """What can be turned while the sandbox LND runs. Ordinary seconds."""

    # Every answer and every message of a stream comes this late.
    lag_s: float = 0.002
    # A SendPaymentV2 takes this long to arrive, even if its sender goes away: until then LND knows nothing of it.
    send_delay_s: float = 0.0
    # Between the first message of a payment and its first HTLC.
    attempt_delay_s: float = 0.005
    # One way between us and the payee.
    forward_delay_s: float = 0.003
    # As GetInfo shows it; besides, every block makes it false for a moment.
    synced_to_chain: bool = True


@dataclass(slots=True)
class OutgoingHtlc:
    """An HTLC that we offered to the peer."""

    payment_hash: bytes
    amount_msat: int
    chan_id: int
    htlc_index: int
    expiry_height: int
    final_expiry_height: int  # of the HTLC that the peer offers to the payee
    result: asyncio.Future[Result]
    is_locked_in: bool = False


@dataclass(slots=True)
class Channel:
    """One of our channels to the peer."""

    chan_id: int
    capacity_sat: int
    local_msat: int  # without pending HTLCs
    remote_msat: int
    pending: dict[int, OutgoingHtlc] = field(default_factory=dict)  # by htlc_index
    next_htlc_index: int = 0

    @property
    def unsettled_msat(self) -> int:
        return sum(htlc.amount_msat for htlc in self.pending.values())

    @property
    def spendable_msat(self) -> int:
        return max(self.local_msat - self.capacity_sat * 1000 // CHANNEL_RESERVE_DIVISOR, 0)


class Network:
    """Surroundings of one node."""

    def __init__(self, clock: Clock, payee: Payee, knobs: Knobs, *, height: int, channels: tuple[Channel, ...]) -> None:
        self._clock = clock
        self._payee = payee
        self._knobs = knobs
        self._tasks: set[asyncio.Task[None]] = set()
        self._moved = asyncio.Event()
        self._failures: deque[Failure] = deque()
        self._unsigned = 0
        self._online = {"node": False, "peer": True, "payee": True}
        self.peer_pubkey = PrivateKey().public_key.format().hex()
        self.height = height
        self.channels = {channel.chan_id: channel for channel in channels}
        self.closing: dict[int, Channel] = {}  # by force, until the last of their HTLCs is resolved
        self.htlcs: dict[int, OutgoingHtlc] = {}  # by attempt id

    def is_online(self, who: str) -> bool:
        return self._online[who]

    def set_online(self, who: str, *, online: bool) -> None:
        """`who` is "node", "peer" or "payee"."""
        if who not in self._online:
            raise ValueError(f"nobody is called {who!r} here: there are {', '.join(self._online)}")
        self._online[who] = online
        self._wake()

    def fail_next(self, times: int, failure: Failure) -> None:
        """Let the next HTLCs fail instead of reaching the payee; 0: no more of them."""
        self._failures = deque([failure] * times)

    def leave_unsigned(self, times: int) -> None:
        """Let the next HTLCs never get into their channel, as when lnd is killed before it signs them (issue 9340)."""
        self._unsigned = times

    def graph(self, own_pubkey: str) -> Graph:
        is_up = self._online["peer"]
        return Graph(
            own_pubkey=own_pubkey,
            peer_pubkey=self.peer_pubkey,
            payee_pubkey=self._payee.pubkey_bytes.hex(),
            last_chan_id=short_channel_id(1, 1),
            channels=[OurChannel(c.chan_id, c.spendable_msat if is_up else 0) for c in self.channels.values()],
            height=self.height,
        )

    def offer(
        self, attempt_id: int, route: Route, *, payment_hash: bytes, payment_secret: bytes, total_msat: int
    ) -> OutgoingHtlc:
        """Send an HTLC along the route."""
        channel = self.channels[route.hops[0].chan_id]
        htlc = OutgoingHtlc(
            payment_hash=payment_hash,
            amount_msat=route.total_amt_msat,
            chan_id=channel.chan_id,
            htlc_index=channel.next_htlc_index,
            expiry_height=route.total_time_lock_height,
            final_expiry_height=route.hops[-1].expiry_height,
            result=asyncio.get_running_loop().create_future(),
        )
        self.htlcs[attempt_id] = htlc
        if self._unsigned:
            self._unsigned -= 1
            return htlc
        channel.next_htlc_index += 1
        channel.local_msat -= htlc.amount_msat
        channel.pending[htlc.htlc_index] = htlc
        incoming = IncomingHtlc(
            payment_hash=payment_hash,
            payment_secret=payment_secret,
            amount_msat=route.receiver_amt_msat,
            total_msat=total_msat,
            expiry_height=htlc.final_expiry_height,
            answer=lambda answer: self._spawn(self._bring_back(htlc, _as_result(answer), "payee", "peer", "node")),
        )
        self._spawn(self._forward(htlc, incoming))
        return htlc

    async def mine(self, blocks: int) -> None:
        for _ in range(blocks):
            self.height += 1
            if self._online["payee"]:
                self._payee.on_block(self.height)
            for htlc in list(self.htlcs.values()):
                self._on_block(htlc)
            self._wake()
            await self._clock.sleep_s(0)

    def close(self) -> None:
        for task in self._tasks:
            task.cancel()

    async def _forward(self, htlc: OutgoingHtlc, incoming: IncomingHtlc) -> None:
        await self._clock.sleep_s(self._knobs.forward_delay_s)
        htlc.is_locked_in = True
        if self._failures:
            await self._bring_back(htlc, self._failures.popleft(), "peer", "node")
        elif not self._online["payee"]:
            await self._bring_back(htlc, Failure(FailureCode.UNKNOWN_NEXT_PEER, PEER_INDEX), "peer", "node")
        else:
            self._payee.receive(incoming, self.height)

    async def _bring_back(self, htlc: OutgoingHtlc, result: Result, *way: str) -> None:
        await self._clock.sleep_s(self._knobs.forward_delay_s)
        await self._until(lambda: all(self._online[who] for who in way))
        self._resolve(htlc, result)

    def _on_block(self, htlc: OutgoingHtlc) -> None:
        if not self._is_pending(htlc):
            return
        if not self._online["peer"]:
            # Our own lnd goes on chain exactly at the expiry height (lnd: DefaultOutgoingBroadcastDelta is 0).
            if self.height >= htlc.expiry_height + OWN_CLOSE_BLOCKS:
                self._resolve(htlc, Failure(FailureCode.PERMANENT_CHANNEL_FAILURE, 0))
            if self.height >= htlc.expiry_height and htlc.chan_id in self.channels and not htlc.result.done():
                self.closing[htlc.chan_id] = self.channels.pop(htlc.chan_id)
        elif not self._online["payee"] and self.height >= htlc.final_expiry_height + PEER_CLOSES_AFTER_BLOCKS:
            self._resolve(htlc, Failure(FailureCode.PERMANENT_CHANNEL_FAILURE, PEER_INDEX))

    def _resolve(self, htlc: OutgoingHtlc, result: Result) -> None:
        if htlc.result.done():
            return
        htlc.result.set_result(result)
        channel = self._channel(htlc)
        del channel.pending[htlc.htlc_index]
        if htlc.chan_id in self.closing:
            if not channel.pending:
                del self.closing[htlc.chan_id]
            return
        if isinstance(result, Settled):
            channel.remote_msat += htlc.amount_msat
        else:
            channel.local_msat += htlc.amount_msat

    def _channel(self, htlc: OutgoingHtlc) -> Channel:
        return self.channels.get(htlc.chan_id) or self.closing[htlc.chan_id]

    def _is_pending(self, htlc: OutgoingHtlc) -> bool:
        return not htlc.result.done() and self._channel(htlc).pending.get(htlc.htlc_index) is htlc

    async def _until(self, condition: Callable[[], bool]) -> None:
        while not condition():
            await self._moved.wait()

    def _wake(self) -> None:
        self._moved.set()
        self._moved = asyncio.Event()

    def _spawn(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def _as_result(answer: Answer) -> Result:
    if isinstance(answer, Settled):
        return answer
    if answer.is_mpp_timeout:
        return Failure(FailureCode.MPP_TIMEOUT, PAYEE_INDEX)
    return Failure(FailureCode.INCORRECT_OR_UNKNOWN_PAYMENT_DETAILS, PAYEE_INDEX, answer.height)


def short_channel_id(block_height: int, transaction: int) -> int:
    """BOLT7: height, transaction and output in 3 + 3 + 2 bytes; the output is 0."""
    return block_height << 40 | transaction << 16


def default_channels(
    count: int = 1, *, capacity_sat: int = 10_000_000, local_sat: int = 5_000_000
) -> tuple[Channel, ...]:
    """Channels to the peer, all alike; amounts in sat."""
    return tuple(
        Channel(
            chan_id=short_channel_id(100, number),
            capacity_sat=capacity_sat,
            local_msat=local_sat * 1000,
            remote_msat=(capacity_sat - local_sat) * 1000,
        )
        for number in range(1, count + 1)
    )
