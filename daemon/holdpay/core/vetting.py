"""Looks at a hold invoice from every side before anything is paid: a list of rules, each with what it found.

It is the one way: an order's invoice is decided by it, and `holdpay vet` prints it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum

from holdpay.core.amounts import sat
from holdpay.core.diagnosis import Cause, Diagnosis
from holdpay.core.events import InvoiceDecoded
from holdpay.core.lightning import Invoice
from holdpay.core.model import Order
from holdpay.core.payees import PayeeCheck, Standing, Trust
from holdpay.core.policy import Policy, Strictness
from holdpay.core.routes import Outbound, Route, RouteLook, RouteQuery


class Verdict(StrEnum):
    """What a rule says."""

    PASS = "pass"  # noqa: S105 - no password
    WARN = "warn"
    """It is not as it should be, and goes on: the configuration wants it so."""
    FAIL = "fail"
    UNKNOWN = "unknown"
    """It could not be looked at. No reason to refuse."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One rule. ``value`` and ``limit`` are for people; numbers in them name their unit."""

    rule: str
    """For programs: small letters and underscores."""
    value: str
    limit: str = ""
    """What is allowed. Empty: there is nothing to compare with."""
    key: str = ""
    """Of the configuration, which sets the limit. Empty: nobody can."""
    verdict: Verdict = Verdict.PASS
    why: str = ""
    """What is wrong, if it is not a pass: part of a sentence."""


@dataclass(frozen=True, slots=True)
class Report:
    """What every rule says."""

    checks: tuple[Check, ...]

    @property
    def is_fine(self) -> bool:
        """Whether no rule refuses it."""
        return not self.reasons

    @property
    def reasons(self) -> tuple[str, ...]:
        """All that refuses it."""
        return self._why(Verdict.FAIL)

    @property
    def warnings(self) -> tuple[str, ...]:
        """What is wrong and does not."""
        return self._why(Verdict.WARN)

    def _why(self, verdict: Verdict) -> tuple[str, ...]:
        return tuple(check.why for check in self.checks if check.verdict is verdict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """What an invoice may ask, and what is known of its order. ``provider_order_id`` None: there is no order (yet)."""

    max_price_sat: int
    quote_sat: int | None = None
    provider_order_id: str | None = None


def terms_of(order: Order) -> Terms:
    """What an order allows its invoice."""
    return Terms(
        max_price_sat=order.max_price_sat, quote_sat=order.quote_sat, provider_order_id=order.provider_order_id
    )


def vet(terms: Terms, decoded: InvoiceDecoded, policy: Policy, now_ms: int) -> Report:
    """What is to be said of an invoice before it is paid. ``now_ms``: of the wall clock."""
    invoice = decoded.invoice
    return Report(
        (
            _network(decoded.node.network, policy),
            _amount(terms, invoice, policy),
            _time_left(invoice, policy, now_ms),
            _final_cltv_delta(invoice, policy),
            _payment_hash(is_seen=decoded.seen_before),
            _payment_address(invoice),
            _payee(invoice.payee, decoded.payee, policy),
            _order_id(terms.provider_order_id, invoice, policy),
        )
    )


def _judged(*, is_fine: bool) -> Verdict:
    return Verdict.PASS if is_fine else Verdict.FAIL


def _network(network: str, policy: Policy) -> Check:
    # LND refuses to decode an invoice of another network than its own, so the node's network is the invoice's.
    return Check(
        rule="network",
        value=network,
        limit=policy.network or "the one that lnd is on",
        key="lnd.network",
        verdict=_judged(is_fine=policy.network in {None, network}),
        why=f"it is for {network}, and lnd.network wants {policy.network}",
    )


def _amount(terms: Terms, invoice: Invoice, policy: Policy) -> Check:
    asked_sat, most_sat = -(-invoice.amount_msat // 1000), terms.max_price_sat
    limits, key = "the request or payment.max_price_sat", "payment.max_price_sat"
    if terms.quote_sat is not None:
        limits = f"the quote of {terms.quote_sat:,} sat + {policy.price_tolerance_percent:g} %, {limits}"
        key = "payment.price_tolerance_percent"
    why = f"it asks {asked_sat:,} sat, and at most {most_sat:,} sat were allowed (by {limits})"
    return Check(
        rule="amount",
        value=sat(invoice.amount_msat),
        limit=f"at most {most_sat:,} sat",
        key=key,
        verdict=_judged(is_fine=0 < invoice.amount_msat <= most_sat * 1000),
        why="it names no amount" if invoice.amount_msat <= 0 else why,
    )


def _time_left(invoice: Invoice, policy: Policy, now_ms: int) -> Check:
    left_s = (invoice.expires_at_ms - now_ms) // 1000
    return Check(
        rule="time_left",
        value=f"{left_s:,} s",
        limit=f"at least {policy.min_expiry_left_s:,} s",
        key="payment.min_expiry_left_s",
        verdict=_judged(is_fine=left_s >= policy.min_expiry_left_s),
        why=f"it expires in {left_s} s, and at least {policy.min_expiry_left_s} s must be left",
    )


def _final_cltv_delta(invoice: Invoice, policy: Policy) -> Check:
    delta, most = invoice.final_cltv_delta, policy.max_final_cltv_delta
    return Check(
        rule="final_cltv_delta",
        value=f"{delta:,} blocks",
        limit=f"at most {most:,} blocks",
        key="payment.max_final_cltv_delta",
        verdict=_judged(is_fine=0 <= delta <= most),
        why=f"its final CLTV delta is {delta:,} blocks, and at most {most:,} are allowed",
    )


def _payment_hash(*, is_seen: bool) -> Check:
    return Check(
        rule="payment_hash",
        value="of another order" if is_seen else "new",
        limit="new",
        verdict=_judged(is_fine=not is_seen),
        why="its payment hash, or the provider's order id, already belongs to another order",
    )


def _payment_address(invoice: Invoice) -> Check:
    return Check(
        rule="payment_address",
        value="there" if invoice.has_payment_address else "missing",
        limit="there",
        verdict=_judged(is_fine=invoice.has_payment_address),
        why="it has no payment address, so an old payee could take a second payment of the same hash",
    )


def _payee(payee: str, standing: Standing, policy: Policy) -> Check:
    check, is_listed = policy.payee_check, payee in policy.payee_pubkeys
    key = "provider.payee_check"
    if check is PayeeCheck.FIRST_USE:
        return _payee_on_first_use(payee, standing, key)
    if check is PayeeCheck.OFF:
        return Check(rule="payee", value=payee, limit=f'any ("{check}")', key=key)
    wrong = Verdict.FAIL if check is PayeeCheck.PIN else Verdict.WARN
    return Check(
        rule="payee",
        value=payee,
        limit="one of provider.payee_pubkeys",
        key=key,
        verdict=Verdict.PASS if is_listed else wrong,
        why=f"its payee is {payee}, not the provider's known node",
    )


def _payee_on_first_use(payee: str, standing: Standing, key: str) -> Check:
    is_first = standing is Standing.FIRST
    return Check(
        rule="payee",
        value=payee,
        limit="any: none is trusted yet, and this one will be"
        if is_first
        else "one that is trusted since its first use",
        key=key,
        verdict=_judged(is_fine=standing is not Standing.STRANGER),
        why=(
            f"its payee is {payee}, and another node is trusted since its first use; if the provider has a new node,"
            f" `holdpayd payees add {payee}` trusts it, too"
        ),
    )


def _order_id(provider_order_id: str | None, invoice: Invoice, policy: Policy) -> Check:
    check, key = policy.order_id_check, "provider.order_id_check"
    if provider_order_id is None:
        return Check(
            rule="order_id",
            value="there is no order",
            limit="the payment hash",
            key=key,
            verdict=Verdict.UNKNOWN,
            why="there is no order whose id it could be",
        )
    is_same = invoice.payment_hash == provider_order_id
    if check is Strictness.OFF:
        return Check(rule="order_id", value=_is_hash(is_same), limit=f'any ("{check}")', key=key)
    wrong = Verdict.FAIL if check is Strictness.PIN else Verdict.WARN
    return Check(
        rule="order_id",
        value=_is_hash(is_same),
        limit="the payment hash",
        key=key,
        verdict=Verdict.PASS if is_same else wrong,
        why="its payment hash differs from the provider's order id",
    )


def _is_hash(is_same: bool) -> str:
    return "the payment hash" if is_same else "something else"


def trust_of(decoded: InvoiceDecoded, policy: Policy) -> Trust | None:
    """Why the payee of an invoice that passed is trusted from now on. None: it is not."""
    if policy.payee_check is PayeeCheck.FIRST_USE:
        return Trust.FIRST_USE
    return Trust.LIST if decoded.invoice.payee in policy.payee_pubkeys else None


# --- the way to the payee ---------------------------------------------------------------------------------------------

_RULE_OF = {
    Cause.OUTBOUND: "outbound",
    Cause.PEER_OFFLINE: "outbound",
    Cause.FEE_LIMIT: "routing_fee",
    Cause.TIME_LOCK: "time_lock",
}
"""Of what is in the way. Everything else is about the route itself."""


def route_checks(query: RouteQuery, look: RouteLook, wrong: Diagnosis | None, *, is_sure: bool) -> tuple[Check, ...]:
    """What LND knows of a way to pay. ``wrong``: what is in it, which alone refuses, and in whose row it is told;
    ``is_sure`` False: nothing does, and all that is wrong only warns."""
    found = look.route or look.dearer or look.longer
    outbound = Check(
        rule="outbound", value=_outbound(look.outbound, query), limit=f"at least {sat(query.amount_msat)} and the fee"
    )
    rows = (outbound, _route(found, look), *_price_of(query, found))
    rule = None if wrong is None else rule_of(wrong)
    unknown = "; ".join(look.unknown) or ("there is no route" if look.is_route_known else "it was not looked for")
    judged = tuple(
        replace(row, verdict=Verdict.FAIL, why=wrong.text)
        if wrong is not None and row.rule == rule
        else _known_or_not(row, unknown)
        for row in rows
    )
    if is_sure and wrong is not None:
        return judged
    return tuple(replace(row, verdict=Verdict.WARN) if row.verdict is Verdict.FAIL else row for row in judged)


def rule_of(wrong: Diagnosis) -> str:
    """In whose row of ``route_checks`` it is told."""
    return _RULE_OF.get(wrong.cause, "route")


def _known_or_not(row: Check, unknown: str) -> Check:
    return row if row.value else replace(row, value="not known", verdict=Verdict.UNKNOWN, why=unknown)


def _price_of(query: RouteQuery, found: Route | None) -> tuple[Check, Check]:
    """What a route costs, in money and in time."""
    limit_msat = query.fee_limit_msat or 0
    fee_msat, lock_blocks = (0, 0) if found is None else (found.fee_msat, found.lock_blocks)
    return (
        Check(
            rule="routing_fee",
            value="" if found is None else sat(fee_msat),
            limit=f"at most {sat(limit_msat)}",
            key="payment.fee_limit_percent",
            verdict=_judged(is_fine=fee_msat <= limit_msat),
            why=f"a route costs {sat(fee_msat)}, and at most {sat(limit_msat)} are allowed",
        ),
        Check(
            rule="time_lock",
            value="" if found is None else f"{lock_blocks:,} blocks",
            limit=f"at most {query.cltv_limit:,} blocks",
            key="payment.route_cltv_delta",
            verdict=_judged(is_fine=lock_blocks <= query.cltv_limit),
            why=f"a route locks the money for {lock_blocks:,} blocks, and at most {query.cltv_limit:,} are allowed",
        ),
    )


def _outbound(outbound: Outbound | None, query: RouteQuery) -> str:
    if outbound is None:
        return ""
    if query.max_parts == 1:
        return f"{sat(outbound.largest_msat)} in the largest usable channel"
    return f"{sat(outbound.total_msat)} in all usable channels"


def _route(found: Route | None, look: RouteLook) -> Check:
    if found is None:
        # Why there is none, another rule may say.
        return Check(rule="route", value="none", verdict=Verdict.UNKNOWN) if look.is_route_known else _NO_WORD
    hops, parts = len(found.hops), found.parts
    words = f"{hops} {'hop' if hops == 1 else 'hops'}, by channel {found.first_channel}"
    return Check(rule="route", value=words if parts == 1 else f"{words}, in {parts} parts")


_NO_WORD = Check(rule="route", value="")
