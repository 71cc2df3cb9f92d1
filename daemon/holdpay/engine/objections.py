"""What stands in the way of an order, looked at before it is made: one list of rules.

An order ends it at the first objection; a dry run and `holdpay vet` tell the whole of it. So what is told is what is
decided. Nothing is recorded or ordered here, and nothing is sent.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Final

import structlog

from holdpay.core.budget import Budget
from holdpay.core.diagnosis import Cause, Diagnosis, in_the_way
from holdpay.core.holds import ordinal
from holdpay.core.kinds import AnySpec
from holdpay.core.model import OPERATOR, Order, with_fee_msat
from holdpay.core.payees import PayeeCheck
from holdpay.core.policy import CLTV_PADDING_DELTA, Policy, max_parts
from holdpay.core.routes import RouteLook, RouteQuery
from holdpay.core.vetting import Check, Verdict, route_checks, rule_of
from holdpay.engine.account import Account
from holdpay.engine.engine import Engine
from holdpay.engine.peers import PeerWait
from holdpay.engine.quoting import Quoted, Quoter
from holdpay.engine.wanted import Asked, CodeWanted, FundWanted, Wanted
from holdpay.errors import (
    BalanceTooLow,
    HoldpayError,
    InvalidRequest,
    NotPayable,
    NotReady,
    OutOfStock,
    PriceTooHigh,
    PriceUnknown,
)
from holdpay.ports import NodeState

log = structlog.get_logger(__name__)

ROUTE_LOOK_S = 3.0
"""An order waits no longer for lnd to find a way; without its word the order goes on."""
LOOK_GOOD_FOR_S = 5
"""A way that lnd has found is not looked for again: what became of it since, the payment itself finds out."""
PEER_WAIT_S = 15
"""A new order waits so long for a peer that is away. lnd tries to reach one after 1, 2, 4 s (defaultMinBackoff)."""
_LIMITS = ("max_open_orders", "max_pending_sat", "max_spend_per_day_sat")
_NO_LIMIT = 2**60
USUAL_FINAL_CLTV_DELTA = 40
"""What the provider's invoices ask. The route's own bound does not depend on it."""


@dataclass(frozen=True, slots=True)
class Finding:
    """What one rule says; ``error``: with which no order is made."""

    check: Check
    error: HoldpayError | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What all rules say of an order, or of an invoice."""

    what: str
    amount_msat: int | None
    """Of the invoice, or as the provider quotes it. None: nobody says it."""
    findings: tuple[Finding, ...]

    @property
    def is_fine(self) -> bool:
        """Whether no rule refuses it."""
        return all(finding.check.verdict is not Verdict.FAIL for finding in self.findings)

    @property
    def error(self) -> HoldpayError | None:
        """With which the order would be refused."""
        return next((finding.error for finding in self.findings if finding.error is not None), None)


@dataclass(slots=True)
class Draft:
    """The order, as far as it is known."""

    quoted: Quoted | None = None
    cap_sat: int = 0
    """What its invoice may ask."""
    max_fee_sat: int = 0
    max_total_sat: int | None = None
    """What all orders of its request together may cost. None: no such limit."""

    @property
    def reserved_msat(self) -> int:
        """What the order, paid by a hold invoice, will reserve when it is recorded."""
        return with_fee_msat(self.cap_sat * 1000, self.max_fee_sat)

    @property
    def spec(self) -> AnySpec:
        """To be asked once it is quoted."""
        assert self.quoted is not None
        return self.quoted.spec


def refused(rule: str, error: HoldpayError, *, value: str = "", limit: str = "", key: str = "") -> Finding:
    """A rule that fails."""
    why = error.message
    return Finding(Check(rule=rule, value=value, limit=limit, key=key, verdict=Verdict.FAIL, why=why), error)


def within_total(draft: Draft, max_total_sat: int) -> Finding:
    """With its fee limit an order may take all of the total, since the orders before it cost nothing, or there would be
    no next one. Bounds what the invoice may ask."""
    assert draft.quoted is not None
    price_sat, room_sat = draft.quoted.quote_sat or 1, max_total_sat - draft.max_fee_sat
    value = f"{draft.cap_sat:,} sat, with {draft.max_fee_sat:,} sat of fees"
    limit = f"at most {max_total_sat:,} sat"
    if room_sat >= price_sat:
        draft.cap_sat = min(draft.cap_sat, room_sat)
        return Finding(Check(rule="total", value=value, limit=f"{limit}; the invoice may ask what is left of it"))
    error = PriceTooHigh(
        f"The price is {price_sat:,} sat, with a fee of up to {draft.max_fee_sat:,} sat, and the request allows"
        f" {max_total_sat:,} in all. Allow more, or order something else.",
        price_sat=price_sat,
        limit="max_total_sat",
        limit_sat=max_total_sat,
    )
    return refused("total", error, value=value, limit=limit)


class Objections:
    """Goes through the rules."""

    def __init__(self, engine: Engine, quoter: Quoter, account: Account) -> None:
        self._engine = engine
        self._quoter = quoter
        self._account = account
        self._way_found: tuple[RouteQuery, RouteLook, int] | None = None
        """The latest one that carries the dearest order, and when, in ms."""
        self._peers = PeerWait(engine.clock, self._is_peer_away)

    # --- the daemon and its node --------------------------------------------------------------------------------------

    def readiness(self, *, is_prepaid: bool = False) -> Iterator[Finding]:
        """Whether any order can be recorded to its end, and paid."""
        yield self._disk()
        if not is_prepaid:
            yield self._lnd()
        for rule, cause, trouble in (
            ("holdpayd", "tasks", self._engine.trouble()),
            ("clock", "clock", self._engine.clock_trouble()),
        ):
            found = Finding(Check(rule=rule, value="well"))
            yield refused(rule, NotReady(trouble, cause=cause), value="troubled") if trouble else found

    def _disk(self) -> Finding:
        try:
            self._engine.store.check_space()
        except NotReady as error:
            return refused("disk", error, value=f"{error.metadata.get('free_mib', '?')} MiB free")
        return Finding(Check(rule="disk", value="enough room"))

    def _lnd(self) -> Finding:
        status = self._engine.node_status()
        state = status.state.value
        if status.state is NodeState.READY:
            return Finding(Check(rule="lnd", value=state, limit="ready"))
        said = status.detail or f"lnd is {state}. Wait until it is ready."
        return refused("lnd", NotReady(said, lnd_state=state), value=state, limit="ready")

    # --- an order -----------------------------------------------------------------------------------------------------

    async def of_order(
        self, asked: Asked, wanted: Wanted, draft: Draft, *, is_all_told: bool = False
    ) -> AsyncGenerator[Finding, None]:
        """All that is to be known before an order is made, but for the limits that count all orders: those are looked
        at in the transaction that records it. Fills ``draft``. ``is_all_told``: also what decides nothing, which takes
        longer. Raises InvalidRequest and its children."""
        for finding in self.readiness(is_prepaid=asked.is_prepaid):
            yield finding
        balance_sat, is_refused = 0, False
        if asked.is_prepaid or isinstance(wanted, FundWanted):
            # Without a key nothing of it can be ordered.
            try:
                balance_sat = (await self._account.balance()).balance_sat
            except HoldpayError as error:
                yield refused("prepaid_account", error, value="not known")
                return
        async with self._looking(asked, wanted, is_begun=not is_all_told) as looking:
            async for finding in self._quoted(asked, wanted, draft):
                is_refused = is_refused or finding.error is not None
                yield finding
            if draft.quoted is None:
                return
            if asked.is_prepaid:
                yield self._balance(balance_sat, draft.quoted, asked.client)
                return
            for finding in self._fee_and_total(asked, draft):
                is_refused = is_refused or finding.error is not None
                yield finding
            for finding in await self._way(asked, draft, looking, is_patient=not (asked.force or is_refused)):
                yield finding

    async def _quoted(self, asked: Asked, wanted: Wanted, draft: Draft) -> AsyncGenerator[Finding, None]:
        """Stock and price. ``draft.quoted`` stays None where no more can be said."""
        needs_price = asked.max_price_sat is None
        try:
            quoted = await self._quoter.quote(wanted, force=asked.force, needs_price=needs_price)
        except OutOfStock as error:
            yield refused("stock", error, value="none", limit="some")
            if not isinstance(wanted, CodeWanted):
                return
            # Only a dry run comes here: it tells the rest, too.
            try:
                quoted = await self._quoter.quote(wanted, force=True, needs_price=needs_price)
            except HoldpayError:
                return
        except InvalidRequest:
            raise
        except HoldpayError as error:
            yield refused("provider", error, value="not usable")
            return
        else:
            stock = "not said" if quoted.stock is None else f"{quoted.stock:,}"
            if isinstance(wanted, CodeWanted):
                yield Finding(Check(rule="stock", value=stock, limit="some; force orders all the same"))
        draft.quoted = quoted
        finding, cap_sat = self._price(asked, quoted)
        yield finding
        if cap_sat is None:
            draft.quoted = None
        else:
            draft.cap_sat = cap_sat

    def _price(self, asked: Asked, quoted: Quoted) -> tuple[Finding, int | None]:
        """And what the invoice may ask; None: nothing says it."""
        policy, quote_sat = self._engine.policy, quoted.quote_sat
        cap_sat = quote_sat if quoted.is_exact else policy.price_cap_sat(quote_sat, asked.max_price_sat)
        own_sat, own_limit = self._own_price_limit(asked.client)
        if cap_sat is not None and own_sat is not None:
            cap_sat = min(cap_sat, own_sat)
        value = "not known" if quote_sat is None else f"{quote_sat:,} sat"
        for limit_sat, limit, who in (
            (asked.max_price_sat, "max_price_sat", "the request allows"),
            (own_sat, own_limit, f"{own_limit} allows"),
            (policy.max_price_sat, "payment.max_price_sat", "payment.max_price_sat allows"),
        ):
            if quote_sat is not None and limit_sat is not None and quote_sat > limit_sat:
                what_next = "Allow more" if limit == "max_price_sat" else "Raise it in the configuration"
                error = PriceTooHigh(
                    f"The price is {quote_sat:,} sat, and {who} {limit_sat:,}. {what_next}, or order something else.",
                    price_sat=quote_sat,
                    limit=limit,
                    limit_sat=limit_sat,
                )
                key = "" if limit == "max_price_sat" else limit
                return refused("price", error, value=value, limit=f"at most {limit_sat:,} sat", key=key), cap_sat
        if cap_sat is None:
            return refused("price", PriceUnknown(limit="max_price_sat"), value=value, limit="a known one"), None
        limit = f"at most {cap_sat:,} sat {'of the account' if asked.is_prepaid else 'in the invoice'}"
        return Finding(Check(rule="price", value=value, limit=limit, key="payment.price_tolerance_percent")), cap_sat

    def _own_price_limit(self, client: str) -> tuple[int | None, str]:
        """Of a client, and how refusals name it. None: it has none of its own."""
        budget = self._engine.limits.budgets.get(client)
        return (None, "") if budget is None else (budget.max_price_sat, budget.key("max_price_sat"))

    def _fee_and_total(self, asked: Asked, draft: Draft) -> Iterator[Finding]:
        yield self._fee_limit(asked, draft)
        if draft.max_total_sat is not None:
            yield within_total(draft, draft.max_total_sat)

    def _fee_limit(self, asked: Asked, draft: Draft) -> Finding:
        policy, cap_sat = self._engine.policy, draft.cap_sat
        bound_sat = policy.fee_bound_sat(cap_sat)
        wanted_sat = policy.fee_cap_sat(cap_sat) if asked.max_fee_sat is None else asked.max_fee_sat
        draft.max_fee_sat = min(wanted_sat, bound_sat)
        value, limit, key = f"{wanted_sat:,} sat", f"at most {bound_sat:,} sat", "payment.max_fee_sat"
        if wanted_sat <= bound_sat:
            return Finding(Check(rule="fee_limit", value=value, limit=limit, key=key))
        error = InvalidRequest(
            f"A fee limit of {wanted_sat:,} sat was asked for, and payment.max_fee_sat allows {bound_sat:,} sat"
            f" for an order of up to {cap_sat:,} sat. Ask for a smaller one, or raise the key in the configuration.",
            field="max_fee_sat",
            limit="payment.max_fee_sat",
            limit_sat=bound_sat,
        )
        return refused("fee_limit", error, value=value, limit=limit, key=key)

    def _balance(self, balance_sat: int, quoted: Quoted, client: str) -> Finding:
        """A client that may not look at the account hears only whether it has enough."""
        price_sat, budget = quoted.quote_sat or 1, self._engine.limits.budgets.get(client)
        is_told = client == OPERATOR or (budget is not None and budget.may_fund)
        is_enough = balance_sat >= price_sat
        value, limit = f"{balance_sat:,} sat", f"at least {price_sat:,} sat"
        if not is_told:
            value = "enough" if is_enough else "too little"
        if is_enough:
            return Finding(Check(rule="prepaid_account", value=value, limit=limit))
        has = f"{balance_sat:,} sat" if is_told else "less"
        error = BalanceTooLow(
            f"The price is {price_sat:,} sat, and the prepaid account has {has}. Put money into it, or order"
            " without it.",
            price_sat=price_sat,
            **({"balance_sat": balance_sat} if is_told else {}),
        )
        return refused("prepaid_account", error, value=value, limit=limit)

    def limits(self, more_msat: int, more_fee_sat: int, client: str) -> Iterator[Finding]:
        """The limits of the client, and those that count all orders, each by itself, with an order of ``more_msat``
        more, of which ``more_fee_sat`` may go for routing. What is told here may be another in the transaction that
        records an order, which decides."""
        budget = self._engine.limits.budgets.get(client)
        if budget is not None:
            yield self._budget(budget, more_msat, more_fee_sat)
        limits, totals = self._engine.limits, self._engine.totals()
        more_sat = -(-more_msat // 1000)
        pending_sat, spent_sat = -(-totals.pending_msat // 1000), -(-totals.spent_day_msat // 1000)
        for rule, name, value in (
            ("open_orders", "max_open_orders", f"{totals.open_orders:,}, and this one"),
            ("sat_pending", "max_pending_sat", f"{pending_sat:,} sat, and {more_sat:,} sat of this one"),
            (
                "sat_in_24_hours",
                "max_spend_per_day_sat",
                f"{spent_sat:,} sat, {pending_sat:,} sat pending, and {more_sat:,} sat of this one",
            ),
        ):
            others: dict[str, Any] = {field: _NO_LIMIT for field in _LIMITS if field != name}
            reached = replace(limits, **others).reached_by(totals, more_msat, client)
            if client != OPERATOR:
                value = "of all clients together"  # what the others do is not this one's business
            limit = f"at most {getattr(limits, name):,}{'' if name == 'max_open_orders' else ' sat'}"
            key = f"limits.{name}"
            if reached is None:
                yield Finding(Check(rule=rule, value=value, limit=limit, key=key))
            else:
                yield refused(rule, reached, value=value, limit=limit, key=key)

    def _budget(self, budget: Budget, more_msat: int, more_fee_sat: int) -> Finding:
        now_ms = self._engine.clock.now_ms()
        reached = self._engine.store.over_budget(budget, now_ms, more_msat, more_fee_sat * 1000)
        value, limit = f"{-(-more_msat // 1000):,} sat more", f"the limits of {budget.client}"
        if reached is None:
            return Finding(Check(rule="budget", value=value, limit=limit))
        return refused("budget", reached, value=value, limit=limit, key=reached.metadata["limit"])

    def place(self, order: Order) -> Iterator[Finding]:
        """Among the holds (see ``places``), where there is a cap."""
        places, caps = self._engine.places, self._engine.places.caps
        if order.request.is_prepaid or {caps.max_orders, caps.max_locked_sat, caps.max_channel_locked_sat} == {None}:
            return
        full = places.entering(order)
        if full is None:
            yield Finding(Check(rule="place", value="free", key="holds"))
        elif places.is_refused(order):
            yield refused("place", full, value="none", key=full.metadata["limit"])
        else:
            value = f"{ordinal(places.waiting + 1)} in the queue"
            yield Finding(
                Check(rule="place", value=value, key="holds.when_full", verdict=Verdict.WARN, why=full.message)
            )

    # --- the way to the payee -----------------------------------------------------------------------------------------

    @contextlib.asynccontextmanager
    async def _looking(
        self, asked: Asked, wanted: Wanted, *, is_begun: bool
    ) -> AsyncGenerator[asyncio.Future[RouteLook] | None, None]:
        """A look for a way that could carry the dearest order of its kind, while the provider is asked for the price:
        what carries that much carries less. One that was just found stands for it."""
        payees, policy = self._payees(), self._engine.policy
        if asked.is_prepaid or not payees or not is_begun:
            yield None
            return
        most_sat = min(asked.max_price_sat or policy.max_price_sat, policy.max_price_sat)
        if isinstance(wanted, FundWanted):
            most_sat = wanted.amount_sat
        fee_sat = policy.fee_cap_sat(most_sat) if asked.max_fee_sat is None else asked.max_fee_sat
        looking = self._found_or_begun(replace(way_query(payees[0], most_sat, fee_sat, policy), is_route_enough=True))
        try:
            yield looking
        finally:
            looking.cancel()
            await asyncio.wait({looking})

    def _found_or_begun(self, query: RouteQuery) -> asyncio.Future[RouteLook]:
        now_ms = self._engine.clock.now_ms()
        if self._way_found is not None:
            known, look, at_ms = self._way_found
            if known == query and 0 <= now_ms - at_ms < LOOK_GOOD_FOR_S * 1000:
                found: asyncio.Future[RouteLook] = asyncio.get_running_loop().create_future()
                found.set_result(look)
                return found
        looking = self._look_begun(query)
        looking.add_done_callback(partial(self._keep_way, query, now_ms))
        return looking

    def _keep_way(self, query: RouteQuery, at_ms: int, looking: asyncio.Task[RouteLook]) -> None:
        if not looking.cancelled() and looking.exception() is None and _is_whole(looking.result()):
            self._way_found = (query, looking.result(), at_ms)

    def _look_begun(self, query: RouteQuery) -> asyncio.Task[RouteLook]:
        return asyncio.create_task(self._look(query), name="look for a way")

    async def _look(self, query: RouteQuery) -> RouteLook:
        # As of the latest look at lnd: right after a start its payment stream, without which nothing is paid yet, may
        # not stand; a way can be looked for all the same.
        payer = self._engine.node_status().identity
        if payer is None:
            return RouteLook(is_route_known=False, unknown=("lnd cannot be asked now",))
        async with asyncio.timeout(ROUTE_LOOK_S):
            return await self._engine.node.look_for_route(query, payer)

    async def look(self, query: RouteQuery) -> RouteLook:
        """What lnd says within a few seconds. Raises nothing."""
        looking = self._look_begun(query)
        try:
            return await _seen(looking)
        finally:
            if not looking.done():  # who asked is gone
                looking.cancel()
                await asyncio.wait({looking})

    async def _way(
        self, asked: Asked, draft: Draft, looking: asyncio.Future[RouteLook] | None, *, is_patient: bool
    ) -> Iterable[Finding]:
        """Whether lnd could pay it now. Only what is sure refuses. ``is_patient``: waiting for a peer could help."""
        quoted, policy, payees = draft.quoted, self._engine.policy, self._payees()
        if not payees or quoted is None or quoted.quote_sat is None:
            why = "no price is known" if payees else "nobody knows yet which node will be paid"
            return [Finding(Check(rule="route", value="not looked for", verdict=Verdict.UNKNOWN, why=why))]
        queries = [way_query(payee, quoted.quote_sat, draft.max_fee_sat, policy) for payee in payees]
        if looking is not None:
            dearest = await _seen(looking)
            if _is_whole(dearest) and dearest.route is not None and dearest.route.fee_msat <= draft.max_fee_sat * 1000:
                look = RouteLook(is_route_known=True, route=dearest.route)
                return self.way(queries[0], look, draft.reserved_msat)
            if dearest == RouteLook(is_route_known=False, unknown=dearest.unknown):
                # It knows nothing now, and would not a second time.
                return self.way(queries[0], dearest, draft.reserved_msat)
        query, look = await self._best_way(queries, is_patient=is_patient)
        return self.way(query, look, draft.reserved_msat, is_forced=asked.force)

    async def _best_way(self, queries: Sequence[RouteQuery], *, is_patient: bool) -> tuple[RouteQuery, RouteLook]:
        """To one of the nodes that may be paid: one that will do is enough. Where only a peer is away, it is waited
        for: an lnd that has just started has its peers back within seconds."""
        clock = self._engine.clock
        until_ms = clock.now_ms() + (PEER_WAIT_S * 1000 if is_patient else 0)
        while True:
            best = await self._best_of(queries)
            if not _lacks_peer(*best) or (left_ms := until_ms - clock.now_ms()) <= 0:
                return best
            await self._peers.until_back(queries, left_ms / 1000)

    async def _best_of(self, queries: Sequence[RouteQuery]) -> tuple[RouteQuery, RouteLook]:
        looks = await asyncio.gather(*(self.look(query) for query in queries))
        return max(zip(queries, looks, strict=True), key=lambda each: _worth(*each))

    async def _is_peer_away(self, queries: Sequence[RouteQuery]) -> bool:
        return _lacks_peer(*await self._best_of(queries))

    def way(
        self,
        query: RouteQuery,
        look: RouteLook,
        reserved_msat: int,
        *,
        is_forced: bool = False,
        is_payee_known: bool = False,
    ) -> Iterator[Finding]:
        """What a look makes of an order, or of an invoice, that may lock ``reserved_msat``. ``is_payee_known``: nobody
        else will be paid."""
        wrong = None if _is_whole(look) else in_the_way(query, look)
        if wrong is None and look.route is None:
            log.warning("lnd does not say whether it knows a way to pay", unknown="; ".join(look.unknown))
        is_payee_known = is_payee_known or self._engine.policy.payee_check in {PayeeCheck.PIN, PayeeCheck.FIRST_USE}
        waits = self._engine.places.waits(reserved_msat)
        is_sure = (
            not is_forced
            and wrong is not None
            and not (waits and wrong.cause in MAY_PASS)
            and _is_sure(wrong.cause, query, is_payee_known=is_payee_known)
        )
        for check in route_checks(query, look, wrong, is_sure=is_sure):
            is_refusal = is_sure and wrong is not None and check.rule == rule_of(wrong)
            yield Finding(check, self._not_payable(query, look, wrong) if is_refusal and wrong is not None else None)

    def _not_payable(self, query: RouteQuery, look: RouteLook, wrong: Diagnosis) -> NotPayable:
        error = not_payable(query, look, wrong)
        if wrong.cause is Cause.PAYEE_UNKNOWN and self._engine.policy.payee_check is PayeeCheck.FIRST_USE:
            more = "Or, if the provider has a new node: holdpayd payees add PUBKEY, and payees remove the old one."
            return NotPayable(f"{error.message} {more}", **error.metadata)
        return error

    def _payees(self) -> list[str]:
        """Who will be paid, as far as that is known."""
        policy = self._engine.policy
        if policy.payee_check is PayeeCheck.FIRST_USE:
            return self._engine.store.trusted_payees()
        return sorted(policy.payee_pubkeys)


MAY_PASS: Final = frozenset({Cause.OUTBOUND, Cause.PEER_OFFLINE})
"""Of our own node: sure now. An order that waits for its place is paid later, when the hold before it has given its
money back."""


def _lacks_peer(query: RouteQuery, look: RouteLook) -> bool:
    wrong = in_the_way(query, look)
    return wrong is not None and wrong.cause is Cause.PEER_OFFLINE


def _worth(query: RouteQuery, look: RouteLook) -> int:
    """A way is better than not knowing, and that better than knowing what is in the way."""
    return 2 if look.route is not None else int(in_the_way(query, look) is None)


def _is_whole(look: RouteLook) -> bool:
    """Parts are looked for one by one: whether they fit together, the channels say."""
    return look.route is not None and look.route.parts == 1


def _is_sure(cause: Cause, query: RouteQuery, *, is_payee_known: bool) -> bool:
    """Whether it keeps an order from being paid, for sure. Who may be paid besides the listed nodes may be reached
    otherwise; and what parts cost together is an estimate."""
    if cause in MAY_PASS:
        return True
    return is_payee_known and not (cause is Cause.FEE_LIMIT and query.max_parts > 1)


async def _seen(looking: asyncio.Future[RouteLook]) -> RouteLook:
    """An order that could be paid must never fail by the look, whatever becomes of it."""
    await asyncio.wait({looking})
    if looking.cancelled():
        return RouteLook(is_route_known=False, unknown=("the look was given up",))
    error = looking.exception()
    if error is None:
        return looking.result()
    if not isinstance(error, Exception):
        raise error
    if isinstance(error, TimeoutError):
        return RouteLook(is_route_known=False, unknown=(f"lnd did not say it within {ROUTE_LOOK_S:g} s",))
    log.error("a look for a way failed", exc_info=error)
    return RouteLook(is_route_known=False, unknown=("the look failed by a defect of holdpay",))


def way_query(
    payee: str, amount_sat: int, max_fee_sat: int, policy: Policy, final_cltv_delta: int = USUAL_FINAL_CLTV_DELTA
) -> RouteQuery:
    """As a payment would ask, but for what lnd learnt of failures: it forgets that in minutes."""
    delta = final_cltv_delta
    return RouteQuery(
        payee=payee,
        amount_msat=amount_sat * 1000,
        fee_limit_msat=max_fee_sat * 1000,
        final_cltv_delta=delta,
        cltv_limit=delta + CLTV_PADDING_DELTA + policy.route_cltv_delta,
        max_parts=max_parts(amount_sat * 1000, policy),
        avoids_failed=False,
    )


def not_payable(query: RouteQuery, look: RouteLook, wrong: Diagnosis) -> NotPayable:
    """With the numbers that the cause is about."""
    numbers: dict[str, int] = {}
    match wrong.cause:
        case Cause.OUTBOUND | Cause.PEER_OFFLINE if look.outbound is not None:
            has_msat = look.outbound.largest_msat if query.max_parts == 1 else look.outbound.total_msat
            numbers = {"wanted_sat": -(-query.amount_msat // 1000), "has_sat": has_msat // 1000}
        case Cause.FEE_LIMIT if look.dearer is not None:
            numbers = {"fee_sat": -(-look.dearer.fee_msat // 1000), "limit_sat": (query.fee_limit_msat or 0) // 1000}
        case Cause.TIME_LOCK if look.longer is not None:
            numbers = {"lock_blocks": look.longer.lock_blocks, "limit_blocks": query.cltv_limit}
    return NotPayable(f"Your node cannot pay this now: {wrong.text}.", cause=wrong.cause.value, **numbers)
