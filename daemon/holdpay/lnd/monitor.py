"""Keeps ``NodeStatus`` fresh: asks lnd for its state, its identity and its balance, again and again."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from typing import Final

from holdpay._pb.lnd import lightning_pb2 as lnrpc
from holdpay._pb.lnd import stateservice_pb2 as staterpc
from holdpay.lnd.connection import Connection
from holdpay.lnd.convert import to_identity
from holdpay.lnd.failures import CallFailed, Failure, FailureKind, explain
from holdpay.lnd.link import Link
from holdpay.lnd.settings import LndSettings
from holdpay.lnd.version import too_old_text, version_warning
from holdpay.ports import Clock, NodeState, NodeStatus

SYNCING_AFTER_S: Final = 600
"""synced_to_chain turns false at every block, and while the tip is over two hours old: by itself it says little."""
BREAK_LOOK_AFTER_S: Final = 0.2
"""After a break; not at once, or a server that only accepts and hangs up would be asked without end."""

_STATE_OF_FAILURE: Final = {
    FailureKind.LOCKED: NodeState.LOCKED,
    FailureKind.NO_WALLET: NodeState.LOCKED,
    FailureKind.STARTING: NodeState.STARTING,
    FailureKind.DENIED: NodeState.DENIED,
}

_FAILURE_OF_WALLET: Final = {
    int(staterpc.NON_EXISTING): Failure(FailureKind.NO_WALLET, ""),
    int(staterpc.LOCKED): Failure(FailureKind.LOCKED, ""),
    int(staterpc.UNLOCKED): Failure(FailureKind.STARTING, "its calls are about to start"),
    int(staterpc.WAITING_TO_START): Failure(FailureKind.STARTING, "it waits for its turn to start"),
}


class Monitor:
    """Looks at lnd now and then, and soon after the connection broke."""

    def __init__(
        self, settings: LndSettings, clock: Clock, on_look: Callable[[bool, str], None] = lambda answers, why_not: None
    ) -> None:
        """``on_look``: whether lnd answered the latest look, and why not, in two sentences."""
        self._settings = settings
        self._clock = clock
        self._on_look = on_look
        self._broke = asyncio.Event()
        self._progress_at_ms: int | None = None
        self._denied: Failure | None = None
        self._seen = NodeStatus(
            state=NodeState.UNREACHABLE, detail="lnd was not asked yet. Wait a second.", address=settings.address
        )

    @property
    def status(self) -> NodeStatus:
        """What the last look saw."""
        return self._seen

    def wake(self) -> None:
        """The connection broke: look soon."""
        self._broke.set()

    def deny(self, failure: Failure) -> None:
        """A call that paying needs was denied. The macaroon is read at the start only, so no look takes this back."""
        self._denied = failure
        if self._seen.state is NodeState.READY:
            self._seen = replace(self._seen, state=NodeState.DENIED, detail=explain(failure, self._settings.address))

    async def turn(self, link: Link) -> None:
        """Looks, and waits until the next look is due."""
        await self.look(link)
        await self._pause()

    async def look(self, link: Link) -> None:
        """One look. Raises nothing."""
        try:
            seen = await self._ask(link)
        except CallFailed as error:
            self._progress_at_ms = None
            seen = replace(
                self._seen,
                state=_STATE_OF_FAILURE.get(error.failure.kind, NodeState.UNREACHABLE),
                detail=explain(error.failure, self._settings.address),
                local_balance_sat=None,
            )
            self._on_look(False, seen.detail)
        else:
            self._on_look(True, "")
        self._seen = seen

    async def _ask(self, link: Link) -> NodeStatus:
        try:
            wallet = await link.ask(Connection.wallet_state)
        except CallFailed as error:
            if not (error.failure.is_answer or error.failure.kind is FailureKind.WALLED):
                raise
        else:  # a gateway may keep the state to itself; then GetInfo tells
            if (failure := _FAILURE_OF_WALLET.get(wallet)) is not None:
                raise CallFailed(failure)
        info = await link.look()
        state, detail = self._judge(info)
        return NodeStatus(
            state=state,
            detail=detail,
            identity=to_identity(info),
            alias=info.alias,
            version=info.version,
            block_height=info.block_height,
            synced_to_chain=info.synced_to_chain,
            address=self._settings.address,
            local_balance_sat=await _balance_sat(link),
            answered_at_ms=self._clock.now_ms(),
        )

    def _judge(self, info: lnrpc.GetInfoResponse) -> tuple[NodeState, str]:
        if self._denied is not None:
            return NodeState.DENIED, explain(self._denied, self._settings.address)
        if too_old := too_old_text(info.version):
            return NodeState.TOO_OLD, too_old
        if self._is_stuck(info):
            return NodeState.SYNCING, (
                "lnd is not synced to the chain and has seen no new block for ten minutes."
                " See lnd's log and its bitcoin backend."
            )
        return NodeState.READY, version_warning(info.version)

    def _is_stuck(self, info: lnrpc.GetInfoResponse) -> bool:
        now_ms = self._clock.now_ms()
        if info.synced_to_chain or info.block_height != self._seen.block_height or self._progress_at_ms is None:
            self._progress_at_ms = now_ms
        return now_ms - self._progress_at_ms >= SYNCING_AFTER_S * 1000

    async def _pause(self) -> None:
        is_ready = self._seen.state is NodeState.READY
        seconds = self._settings.look_every_ready_s if is_ready else self._settings.look_every_unready_s
        sleeping = asyncio.create_task(self._clock.sleep(seconds))
        breaking = asyncio.create_task(self._broke.wait())
        try:
            await asyncio.wait({sleeping, breaking}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            sleeping.cancel()
            breaking.cancel()
        if self._broke.is_set():
            await self._clock.sleep(BREAK_LOOK_AFTER_S)
            self._broke.clear()


async def _balance_sat(link: Link) -> int | None:
    """What our channels hold; None if the macaroon keeps it to itself, or lnd just went away."""
    try:
        return (await link.ask(Connection.balance)).local_balance.sat
    except CallFailed:
        return None
