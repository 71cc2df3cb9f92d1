"""What LND said, as values. The wire's own types stay in ``holdpay.lnd``."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from enum import IntEnum, StrEnum


def preimage_fits(preimage_hex: str, payment_hash_hex: str) -> bool:
    """Settled means exactly this (LND: a preimage of 64 zeros stands for "none")."""
    return hashlib.sha256(bytes.fromhex(preimage_hex)).hexdigest() == payment_hash_hex


@dataclass(frozen=True, slots=True)
class NodeIdentity:
    """Which node pays: identity pubkey (66 hex digits) and network ("mainnet", "simnet", ...)."""

    pubkey: str
    network: str


@dataclass(frozen=True, slots=True)
class Invoice:
    """A decoded BOLT11 invoice (DecodePayReq). ``amount_msat`` 0 means that the invoice names no amount."""

    payment_hash: str
    payee: str
    amount_msat: int
    created_at_ms: int
    expiry_s: int
    final_cltv_delta: int
    has_payment_address: bool
    memo: str

    @property
    def expires_at_ms(self) -> int:
        return self.created_at_ms + self.expiry_s * 1000


class PaymentStatus(StrEnum):
    """LND's Payment.status. Unknown numbers of later versions read as IN_FLIGHT: money may be out."""

    IN_FLIGHT = "in_flight"
    SUCCEEDED = "succeeded"
    FAILED = "failed"


class AttemptStatus(StrEnum):
    """LND's HTLCAttempt.status."""

    IN_FLIGHT = "in_flight"
    SUCCEEDED = "succeeded"
    FAILED = "failed"


class FailureReason(StrEnum):
    """LND's PaymentFailureReason. Read later than the live stream it may have been overwritten, by a time-out say."""

    NONE = "none"
    TIMEOUT = "timeout"
    NO_ROUTE = "no_route"
    ERROR = "error"
    INCORRECT_PAYMENT_DETAILS = "incorrect_payment_details"
    INSUFFICIENT_BALANCE = "insufficient_balance"
    CANCELED = "canceled"
    OTHER = "other"
    NEVER_SENT = "never_sent"
    """Ours, not LND's: it calls the payment in flight, and after its expiry height no channel carried the HTLC."""
    BY_OPERATOR = "by_operator"
    """Ours, not LND's: `holdpayd resolve`."""

    @property
    def in_words(self) -> str:
        """For people."""
        return _IN_WORDS[self]


_IN_WORDS = {
    FailureReason.NONE: "lnd gives no reason",
    FailureReason.TIMEOUT: "lnd's time for it ran out",
    FailureReason.NO_ROUTE: "no route worked within the limits for fee and time lock",
    FailureReason.ERROR: "lnd had an internal error",
    FailureReason.INCORRECT_PAYMENT_DETAILS: "the payee refused it, or canceled the hold invoice",
    FailureReason.INSUFFICIENT_BALANCE: "no active channel has the balance (one whose peer is offline does not count)",
    FailureReason.CANCELED: "it was canceled in lnd",
    FailureReason.OTHER: "lnd gives a reason that this version of holdpay does not know",
    FailureReason.NEVER_SENT: "lnd never gave its HTLC to a channel",
    FailureReason.BY_OPERATOR: "an operator said so",
}


class FailureCode(IntEnum):
    """The BOLT4 failure codes, in LND's numbering, that decide something here (lnrpc Failure.FailureCode)."""

    NO_FAILURE = 0
    INCORRECT_OR_UNKNOWN_PAYMENT_DETAILS = 1
    PERMANENT_CHANNEL_FAILURE = 21


def short_channel_id(chan_id: int) -> str:
    """``892800812941312001`` → ``812000x1x1``: block height, transaction and output, as people and `lncli` know it."""
    return f"{chan_id >> 40}x{chan_id >> 16 & 0xFFFFFF}x{chan_id & 0xFFFF}"


@dataclass(frozen=True, slots=True)
class Attempt:
    """One HTLC attempt (a shard, with MPP) inside a payment."""

    attempt_id: int
    status: AttemptStatus
    amount_msat: int
    """What reaches the payee."""
    fee_msat: int
    expiry_height: int
    """Absolute height at which our own HTLC expires (route.total_time_lock)."""
    hop_count: int
    attempted_at_ms: int
    resolved_at_ms: int | None = None
    failure_code: int = 0
    failure_source_index: int = 0
    """0 is our node, ``hop_count`` the payee."""
    first_hop: str | None = None
    """Pubkey of the peer that our HTLC is offered to. None: not told."""
    first_channel: str | None = None
    """Short id of the channel to it, as ``short_channel_id`` writes it. None: not told."""
    failed_hop: str | None = None
    """Pubkey of the node that said why it failed. None: our own, or it did not fail."""
    failed_channel: str | None = None
    """Short id of the channel that this node had to forward through. None: it is the payee, or it did not fail."""

    @property
    def failed_at_payee(self) -> bool:
        return self.status is AttemptStatus.FAILED and self.failure_source_index >= self.hop_count > 0


@dataclass(frozen=True, slots=True)
class PaymentUpdate:
    """One snapshot of a payment, as SendPaymentV2 and TrackPaymentV2 stream them."""

    status: PaymentStatus
    failure_reason: FailureReason
    attempts: tuple[Attempt, ...]
    fee_msat: int
    preimage: str | None
    payment_index: int
    """LND numbers each try of the same hash anew. Only where it keeps payments in tables of SQLite a try may get the
    number of the one that it replaces (lnd: payments/db/sql_store.go InitPayment), and only the time differs then."""
    created_at_ms: int | None = None
    """When this try began, by LND's clock. None: not said, or journaled by a holdpay that did not note it."""

    @property
    def is_terminal(self) -> bool:
        return self.status is not PaymentStatus.IN_FLIGHT


@dataclass(frozen=True, slots=True)
class StoredPayment:
    """A payment as LND has it on record (ListPayments). Of a failed one the attempts are gone, as a rule."""

    payment_hash: str
    payreq: str
    """Empty for a payment without an invoice."""
    amount_msat: int
    created_at_ms: int
    """When the latest try of this hash began."""
    last_node: str | None
    """Where its attempts lead to, which is the payee; None: no attempt is kept."""
    leaves_by: tuple[int, ...]
    """Short ids of our channels that hold the HTLCs of its attempts in flight."""
    update: PaymentUpdate


@dataclass(frozen=True, slots=True)
class OfferedHtlc:
    """An HTLC that the node offers on one of its channels."""

    payment_hash: str
    expiry_height: int


@dataclass(frozen=True, slots=True)
class OpenChannel:
    """A channel of the node (ListChannels)."""

    chan_id: int
    is_active: bool
    """Its peer is connected."""
    offered: tuple[OfferedHtlc, ...]
    """As the node's own commitment has them: one that only the peer's commitment has yet is not among them (lnd:
    rpcserver.go createRPCOpenChannel)."""
    peer_pubkey: str = ""
    peer_alias: str = ""
    """May be empty: the graph does not say, or it was not asked for."""

    @property
    def paying(self) -> frozenset[str]:
        """Payment hashes of the HTLCs that the node offers."""
        return frozenset(htlc.payment_hash for htlc in self.offered)


@dataclass(frozen=True, slots=True)
class HtlcLook:
    """What the node's channels say of one payment hash at ``block_height``."""

    block_height: int
    is_synced: bool
    """LND has seen the chain's tip: otherwise the height is of the past."""
    is_in_channel: bool
    """An open channel carries an HTLC with this hash."""
    is_maybe_closing: bool
    """A channel that is being closed may carry it: those do not tell the hash."""

    @property
    def is_carried(self) -> bool:
        return self.is_in_channel or self.is_maybe_closing

    @property
    def holds_up(self) -> str:
        """What is in the way of calling the HTLC gone, in words; empty: nothing."""
        if self.is_in_channel:
            return "a channel carries its HTLC"
        return "a channel is being closed that may carry its HTLC" if self.is_maybe_closing else ""


@dataclass(frozen=True, slots=True)
class DispatchSpec:
    """Everything that one SendPaymentV2 call says, each option explicit (LND: an omitted fee limit means 0)."""

    payreq: str
    payment_hash: str
    fee_limit_msat: int
    timeout_s: int
    max_parts: int
    cltv_limit: int
    outgoing_chan_ids: tuple[int, ...] = ()
    """Our channels by which it may leave. Empty: any."""


# What a payment stream can say. A failed payment, an unknown payment and a refusal are values, not errors.


@dataclass(frozen=True, slots=True)
class Reported:
    """A snapshot; ``live`` if this stream saw the payment run before (so reasons and attempts are LND's first word)."""

    update: PaymentUpdate
    live: bool


@dataclass(frozen=True, slots=True)
class Refused:
    """LND answered the call with an error. It says nothing about the money: track next."""

    text: str
    has_hash: bool = False
    """It has a payment of this hash already, in flight or paid (ALREADY_EXISTS; lnd: routerrpc/router_server.go)."""


@dataclass(frozen=True, slots=True)
class NotKnown:
    """TrackPaymentV2 said NOT_FOUND. Once proves nothing: the send may still arrive."""


@dataclass(frozen=True, slots=True)
class Lost:
    """The stream ended, or never began, without a terminal message."""

    text: str


LndMessage = Reported | Refused | NotKnown | Lost
