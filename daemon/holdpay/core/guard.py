"""What an operator should look at: each finding with its level and its words, and what is seen of an HTLC that is out.

A hold is money that only the payee, or the chain, gives back. At an HTLC's expiry height lnd closes the channel that
carries it by force: at once, and in the first seconds after its start a little later (lnd: contractcourt/
channel_arbitrator.go shouldGoOnChain; lncfg.DefaultOutgoingBroadcastDelta is 0). What can be done is to be done before.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from holdpay.core.amounts import minutes
from holdpay.core.charge import Charge, ChargeState
from holdpay.core.machine import may_be_canceled, patience_until_ms
from holdpay.core.model import Order, Payment
from holdpay.core.policy import Policy
from holdpay.core.states import HoldLevel, HtlcState, OrderState

MINUTES_PER_BLOCK = 10
"""On average; an hour without one is nothing unusual, nor are six in ten minutes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HtlcSight:
    """One HTLC that is out, at our end of its way."""

    channel: str
    """Short id of the one on which it left, as ``short_channel_id`` writes it."""
    peer_pubkey: str
    peer_alias: str = ""
    expiry_height: int
    is_on_channel: bool | None
    """Our commitment of an open channel has it. None: nobody has looked yet."""
    is_online: bool | None
    """None: the channel is not open (any more), or nobody looked. False also where it was offline when lnd was last
    there to be asked."""
    offline_since_ms: int | None = None
    """When the peer was first seen to be offline. None: it is not."""

    @property
    def peer(self) -> str:
        """Its name and the beginning of its key, for people."""
        key = f"{self.peer_pubkey[:16]}…" if self.peer_pubkey else "not known"
        return f"{self.peer_alias} ({key})" if self.peer_alias else key


@dataclass(frozen=True, slots=True, kw_only=True)
class Sight:
    """What the latest look at the node says of one order's money."""

    block_height: int = 0
    """0: lnd has named none yet."""
    is_estimate: bool = False
    """lnd does not answer: blocks are counted by the clock since."""
    htlcs: tuple[HtlcSight, ...] = ()
    missing_since_ms: int | None = None
    """Since when no open channel has an HTLC of it, though lnd calls the payment in flight. None: one has, or nobody
    looked."""

    def expiry_height(self, payment: Payment) -> int | None:
        """The first height at which lnd closes a channel because of it. None: no attempt is known."""
        return min((htlc.expiry_height for htlc in self.htlcs), default=payment.expiry_height)

    def blocks_left(self, payment: Payment) -> int | None:
        """Up to that height; 0 or less: it has come. None: one of the two is not known."""
        height = self.expiry_height(payment)
        return height - self.block_height if height is not None and self.block_height else None


UNSEEN = Sight()


def hours(blocks: int) -> float:
    """That so many blocks take, on average."""
    return blocks * MINUTES_PER_BLOCK / 60


@dataclass(frozen=True, slots=True)
class Finding:
    """``key`` names what is the matter; ``text`` says it, with numbers that change."""

    key: str
    level: HoldLevel
    text: str


def level_of(found: Iterable[Finding]) -> HoldLevel:
    """The worst of them."""
    return max((finding.level for finding in found), key=_SEVERITY.index, default=HoldLevel.OK)


_SEVERITY = list(HoldLevel)


def alarms(order: Order, policy: Policy, now_ms: int, sight: Sight = UNSEEN) -> tuple[str, ...]:
    """The words of ``findings``."""
    return tuple(finding.text for finding in findings(order, policy, now_ms, sight))


def findings(order: Order, policy: Policy, now_ms: int, sight: Sight = UNSEEN) -> tuple[Finding, ...]:
    """What an operator should look at now, the most urgent first."""
    if order.is_closed:
        return ()
    found = sorted(_findings(order, policy, now_ms, sight), key=lambda finding: -_SEVERITY.index(finding.level))
    return tuple(_told(order, finding) for finding in found)


def _told(order: Order, finding: Finding) -> Finding:
    return Finding(finding.key, finding.level, f"order {order.id}: {finding.text}")


def _findings(order: Order, policy: Policy, now_ms: int, sight: Sight) -> Iterator[Finding]:
    if order.is_quarantined:
        why = order.quarantine_reason.rstrip(".")
        whose = "" if order.is_perhaps_placed else "holdpayd contradicted itself: "
        yield Finding("quarantined", HoldLevel.WARNING, f"quarantined, since {whose}{why}")
    payment = order.payment
    if order.charge is not None:
        yield from _of_charge(order, order.charge, policy, now_ms)
    if payment is None:
        return
    age_ms = now_ms - max(order.state_since_ms, payment.htlc_since_ms)
    is_charged_in_vain = payment.htlc is HtlcState.SETTLED and order.state is not OrderState.DELIVERED
    if is_charged_in_vain and age_ms > policy.guard_refund_s * 1000:
        yield Finding(
            "charged_in_vain",
            HoldLevel.LATE,
            f"charged, and {order.spec.words.thing} did not come; the preimage is the proof for the provider's support",
        )
    if order.is_money_out:
        yield from _of_expiry(order, payment, policy, sight)
        yield from _of_peers(policy, now_ms, sight)
        yield from _of_time(order, payment, policy, age_ms, now_ms)


def _of_charge(order: Order, charge: Charge, policy: Policy, now_ms: int) -> Iterator[Finding]:
    if charge.state is ChargeState.UNKNOWN and now_ms - charge.since_ms > policy.guard_refund_s * 1000:
        yield Finding(
            "charge_unknown",
            HoldLevel.WARNING,
            f"nobody can say whether the account was charged; see `holdpayd resolve {order.id}`",
        )
        return
    until_ms = patience_until_ms(order, policy)
    is_late = until_ms is not None and now_ms > until_ms + policy.guard_refund_s * 1000
    if is_late and order.state is not OrderState.DELIVERED:
        text = f"{_what_is_late(order, policy)} and {order.spec.words.thing} did not come"
        yield Finding("promise_passed", HoldLevel.LATE, text)


def _of_expiry(order: Order, payment: Payment, policy: Policy, sight: Sight) -> Iterator[Finding]:
    height, left = sight.expiry_height(payment), sight.blocks_left(payment)
    if height is None or left is None or left >= policy.guard_warning_blocks:
        return
    channel = _channels(sight)
    if left <= 0:
        yield Finding(
            "expired",
            HoldLevel.CRITICAL,
            f"its HTLC has expired at block {height:,}: lnd closes {channel} by force, and what is not settled comes"
            " back on chain, less the fees. Keep lnd running until then",
        )
        return
    about = " (by the clock: lnd does not answer)" if sight.is_estimate else ""
    when = f"at block {height:,}, in {left:,} blocks or about {minutes(left * MINUTES_PER_BLOCK * 60_000)}{about}"
    if left >= policy.guard_critical_blocks:
        yield Finding("expires", HoldLevel.WARNING, f"its HTLC expires {when}; lnd closes {channel} by force then")
        return
    yield Finding(
        "expires_soon",
        HoldLevel.CRITICAL,
        f"lnd closes {channel} by force {when}, if its HTLC is still out then. Until then: {_to_do(order, sight)}",
    )


def _channels(sight: Sight) -> str:
    if not sight.htlcs:
        return "its channel"
    soonest = min(sight.htlcs, key=lambda htlc: htlc.expiry_height)
    return f"channel {soonest.channel} with {soonest.peer}"


def _to_do(order: Order, sight: Sight) -> str:
    if sight.is_estimate:
        return "start or unlock lnd, and see that it is synced"
    away = next((htlc for htlc in sight.htlcs if htlc.is_online is False), None)
    if away is not None:
        return f"get the peer back (`lncli connect {away.peer_pubkey}@HOST`): the HTLC can only come back through it"
    is_over = order.state in {OrderState.CANCELED, OrderState.DELIVERED}
    if may_be_canceled(order) and not is_over and order.cancel_wanted_at_ms is None:
        return f"ask for the money back with `holdpay orders cancel {order.id}`, and write to the provider's support"
    return "write to the provider's support: its node has to settle the HTLC or to fail it"


def _of_peers(policy: Policy, now_ms: int, sight: Sight) -> Iterator[Finding]:
    bound_ms = policy.guard_peer_offline_s * 1000
    for htlc in sight.htlcs:
        if htlc.offline_since_ms is not None and now_ms - htlc.offline_since_ms > bound_ms:
            yield Finding(
                f"peer_offline {htlc.channel}",
                HoldLevel.WARNING,
                f"the peer of channel {htlc.channel}, {htlc.peer}, is offline for"
                f" {minutes(now_ms - htlc.offline_since_ms)}, and its HTLC can only come back through it: see why"
                f" (`lncli connect {htlc.peer_pubkey}@HOST`)",
            )
    if sight.missing_since_ms is not None and now_ms - sight.missing_since_ms > bound_ms:
        yield Finding(
            "on_no_channel",
            HoldLevel.WARNING,
            "lnd calls its payment in flight, and no open channel carries the HTLC: look at `lncli pendingchannels`",
        )


def _of_time(order: Order, payment: Payment, policy: Policy, age_ms: int, now_ms: int) -> Iterator[Finding]:
    if order.state is OrderState.AWAITING_PAYMENT and age_ms > policy.guard_in_transit_s * 1000:
        text = "the payment is in flight and the provider still does not call it paid"
        yield Finding("in_transit", HoldLevel.LATE, text)
    if order.state is OrderState.CANCELED and age_ms > policy.guard_refund_s * 1000:
        yield Finding("refund", HoldLevel.LATE, "canceled, and the money is still not back")
    until_ms = patience_until_ms(order, policy)
    # A refund at the promise's end takes its time, too.
    if until_ms is not None and now_ms > until_ms + policy.guard_refund_s * 1000:
        text = f"{_what_is_late(order, policy)} and the money is still out"
        yield Finding("promise_passed", HoldLevel.LATE, text)
    if payment.gone_since_ms is not None:
        yield Finding("gone", HoldLevel.LATE, "lnd has no record of its payment any more")
    if payment.htlc is HtlcState.UNKNOWN and age_ms > policy.guard_refund_s * 1000:
        yield Finding("unknown", HoldLevel.LATE, "lnd still does not say what became of its payment")


def _what_is_late(order: Order, policy: Policy) -> str:
    if order.state is OrderState.DELIVERED:
        return order.spec.words.got
    if order.spec.has_promise:
        return "the provider's promise has passed"
    # Of these the provider promises nothing.
    return f"{minutes(policy.promise_s * 1000)} have passed since it was paid (our own measure)"


def worst(order: Order, found: tuple[Finding, ...]) -> tuple[HoldLevel, str]:
    """The level of ``findings`` of an order, and why, in the words of the first of them (empty: it is ok)."""
    return level_of(found), found[0].text.removeprefix(f"order {order.id}: ") if found else ""


def where(sight: Sight) -> str:
    """On which channels the HTLCs of an order are, in sentences. Empty: nobody has seen them."""
    return " ".join(_where(htlc) for htlc in sight.htlcs)


def _where(htlc: HtlcSight) -> str:
    if htlc.is_on_channel is None:
        return f"The HTLC left by channel {htlc.channel} to {htlc.peer}."
    if not htlc.is_on_channel:
        return f"The HTLC left by channel {htlc.channel} to {htlc.peer}, and no open channel carries it now."
    online = "online" if htlc.is_online else "offline"
    return (
        f"The HTLC is on channel {htlc.channel}; its peer, {htlc.peer}, is {online}."
        f" It expires at block {htlc.expiry_height:,}."
    )
