"""Takes requests in: before an order is durable it may be refused, and nothing is recorded or ordered."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import secrets
from dataclasses import asdict, replace

from holdpay.core.events import InvoiceDecoded
from holdpay.core.holds import WhenFull
from holdpay.core.kinds import AnySpec, CodeSpec
from holdpay.core.model import OPERATOR, Order, Request, with_fee_msat
from holdpay.core.stats import Outcome, best_first
from holdpay.core.strategy import Country, Strategy
from holdpay.core.vetting import Check, Terms, vet
from holdpay.engine.account import Account
from holdpay.engine.engine import Engine
from holdpay.engine.next_orders import NextOrders, check_strategy, strategy_of
from holdpay.engine.objections import Answer, Draft, Finding, Objections, way_query
from holdpay.engine.quoting import Quoter
from holdpay.engine.refusals import refusal_of_all
from holdpay.engine.wanted import Asked, CodeWanted, FundWanted, Wanted
from holdpay.errors import (
    HoldpayError,
    InvalidRequest,
    KeyTaken,
    LndRefused,
    NotReady,
    OutOfStock,
    PriceTooHigh,
    StoreError,
    UnknownService,
)
from holdpay.ports import Catalog, told_to

MAX_KEY_LENGTH = 128
BEST_SINCE_S = 90 * 24 * 3600
"""What came before says nothing about a country any more."""
MAX_INVOICE_LENGTH = 7089
"""Of a BOLT11 invoice (lnd: zpay32/decode.go, maxInvoiceLength)."""
_ID_ALPHABET = "abcdefghjkmnpqrstuvwxyz23456789"
_ID_LENGTH = 10


class Desk:
    """Checks requests and hands them to the engine."""

    def __init__(self, engine: Engine, catalog: Catalog, account: Account, ref: str | None = None) -> None:
        """``ref``: a Lightning Address that earns a share of each order."""
        self._engine = engine
        self._quoter = Quoter(engine.provider, catalog, ref)
        self._objections = Objections(engine, self._quoter, account)
        engine.next_orders = NextOrders(engine, self)

    async def submit(self, asked: Asked, wanted: Wanted) -> Order:
        """The recorded order, or the first one of the same key. Raises HoldpayError where it is refused."""
        self._check(asked, wanted)
        first = self._engine.store.find_key(asked.key, asked.client)
        if first is not None:
            return self._same_again(first, asked, wanted)
        try:
            return await self._submit_new(asked, wanted)
        except StoreError:
            raise
        except HoldpayError:
            # Another call with this key may have been recorded while this one looked around, and be what is in its way.
            first = self._engine.store.find_key(asked.key, asked.client)
            if first is None:
                raise
            return self._same_again(first, asked, wanted)

    async def _submit_new(self, asked: Asked, wanted: Wanted) -> Order:
        if isinstance(wanted, CodeWanted) and wanted.goes_on:
            return await self._submit_strategy(asked, wanted)
        draft = await self._drafted(asked, wanted)
        return self._engine.request(self._order(asked, draft, _fingerprint(asked, draft.spec)))

    def _check(self, asked: Asked, wanted: Wanted) -> None:
        _check_asked(asked, wanted)
        self._check_allowed(asked, wanted)
        self._quoter.check(wanted)
        if isinstance(wanted, CodeWanted):
            check_strategy(asked, wanted, self._engine.policy)

    async def _drafted(self, asked: Asked, wanted: Wanted, max_total_sat: int | None = None) -> Draft:
        """Raises the first objection."""
        draft = Draft(max_total_sat=max_total_sat)
        async with contextlib.aclosing(self._objections.of_order(asked, wanted, draft)) as findings:
            async for finding in findings:
                if finding.error is not None:
                    raise finding.error
        return draft

    # --- requests that go on ------------------------------------------------------------------------------------------

    async def _submit_strategy(self, asked: Asked, wanted: CodeWanted) -> Order:
        """The first order, in the first country that can be ordered from. Raises what was in the way of all."""
        strategy = strategy_of(asked, wanted, await self._countries(wanted), self._engine.policy)
        refusals: list[tuple[Country, HoldpayError]] = []
        for country in strategy.countries:
            try:
                draft = await self._drafted(asked, wanted.in_country(country.code), strategy.max_total_sat)
            except (OutOfStock, UnknownService, PriceTooHigh) as error:
                refusals.append((country, error))
                if country == strategy.countries[-1]:
                    raise refusal_of_all(wanted.service, refusals) from error
                continue
            break
        fingerprint = self._fingerprint_of_strategy(asked, wanted, draft.spec)
        return self._engine.request(self._order(asked, draft, fingerprint, strategy))

    async def next_order(self, before: Order, country: Country) -> Order:
        """The order that comes after one of its request, in a country; nothing is recorded. Raises HoldpayError."""
        request, strategy, spec = before.request, before.request.strategy, before.spec
        if (unknown := self._engine.limits.unknown(request.client)) is not None:
            raise unknown
        assert strategy is not None
        assert isinstance(spec, CodeSpec)
        asked = Asked(
            key=request.key,
            client=request.client,
            max_price_sat=strategy.max_price_sat,
            max_fee_sat=strategy.max_fee_sat,
            force=strategy.force,
        )
        wanted = CodeWanted(
            countries=(str(country.code),), service=spec.service, is_real_phone=spec.is_real_phone, ref=spec.ref
        )
        draft = await self._drafted(asked, wanted, strategy.max_total_sat)
        order, nth = self._order_of(request, draft), before.nth + 1
        return replace(order, id=f"{request.id}-{nth}", nth=nth, country=country.code, country_name=country.name)

    async def _countries(self, wanted: CodeWanted) -> tuple[Country, ...]:
        named = self._quoter.countries(wanted)
        if named:
            return named
        if not wanted.is_best:
            return await self._quoter.countries_with_stock(wanted)
        outcomes = await self._outcomes_of(wanted.service)
        known = [each.country_code for each in outcomes if each.country_code is not None and each.came]
        found = await self._quoter.countries_with_stock(wanted, known)
        by_code = {country.code: country for country in found}
        return tuple(by_code[code] for code in best_first(outcomes, by_code))

    async def _outcomes_of(self, service: str) -> list[Outcome]:
        """What became of the orders for a service lately, whoever made them; none where it cannot be read now."""
        since_ms = self._engine.clock.now_ms() - BEST_SINCE_S * 1000
        try:
            outcomes = await asyncio.to_thread(self._engine.store.outcomes, since_ms, None)
        except NotReady:
            return []
        return [each for each in outcomes if service.casefold() in {each.service_code, each.service.casefold()}]

    def _fingerprint_of_strategy(self, asked: Asked, wanted: CodeWanted, spec: AnySpec) -> str:
        """In whatever country the first order is, and in whatever order any country was."""
        assert isinstance(spec, CodeSpec)
        countries = tuple(country.code for country in self._quoter.countries(wanted))
        said = (countries or wanted.is_best, tuple(asdict(wanted.strategy).values()), asked.force)
        return _fingerprint(asked, replace(spec, country=None), said)

    # --- dry runs -----------------------------------------------------------------------------------------------------

    async def check(self, asked: Asked, wanted: Wanted) -> Answer:
        """What every rule says of a request, which is not made; of one that goes on, of its first order. Raises
        InvalidRequest and its children, KeyTaken, NotAllowed; and what is in the way of finding any country."""
        self._check(asked, wanted)
        first = self._engine.store.find_key(asked.key, asked.client)
        if first is not None:
            known = self._same_again(first, asked, wanted)
            check = Check(rule="idempotency_key", value=f"of order {known.id}, which it would follow")
            return Answer(what=known.spec.what, amount_msat=None, findings=(Finding(check),))
        if isinstance(wanted, CodeWanted) and wanted.goes_on:
            return await self._check_strategy(asked, wanted)
        return await self._checked(asked, wanted)

    async def _check_strategy(self, asked: Asked, wanted: CodeWanted) -> Answer:
        """Of the country that ``_submit_strategy`` would order from, or of the last one that lists the service."""
        strategy = strategy_of(asked, wanted, await self._countries(wanted), self._engine.policy)
        refusals: list[tuple[Country, HoldpayError]] = []
        answer: Answer | None = None
        for country in strategy.countries:
            try:
                answer = await self._checked(asked, wanted.in_country(country.code), strategy.max_total_sat)
            except UnknownService as error:
                refusals.append((country, error))
                continue
            if not isinstance(answer.error, OutOfStock | PriceTooHigh):
                return answer
            refusals.append((country, answer.error))
        refusal = refusal_of_all(wanted.service, refusals)
        if answer is None:
            raise refusal
        return _answered(answer, refusal)

    async def _checked(self, asked: Asked, wanted: Wanted, max_total_sat: int | None = None) -> Answer:
        draft = Draft(max_total_sat=max_total_sat)
        of_order = self._objections.of_order(asked, wanted, draft, is_all_told=True)
        findings = [finding async for finding in of_order]
        if draft.quoted is None:
            return Answer(what="", amount_msat=None, findings=tuple(findings))
        order = self._order(asked, draft, _fingerprint(asked, draft.spec))
        quote_sat = draft.quoted.quote_sat
        limits = self._objections.limits(order.reserved_msat, order.max_fee_sat, asked.client)
        findings += [*limits, *self._objections.place(order)]
        amount_msat = None if quote_sat is None else quote_sat * 1000
        return Answer(what=order.spec.what, amount_msat=amount_msat, findings=tuple(findings))

    async def vet(
        self, payreq: str, max_price_sat: int | None, max_fee_sat: int | None, client: str = OPERATOR
    ) -> Answer:
        """What every rule says of an invoice, which is not paid. Raises InvalidRequest if it is none, LndError."""
        engine, policy = self._engine, self._engine.policy
        try:
            invoice, node = await engine.node.decode(_invoice_text(payreq))
        except LndRefused as error:
            raise InvalidRequest(
                f"lnd cannot read this as an invoice of its network ({error.message.rstrip('.')}). Give a BOLT11"
                " invoice.",
                field="invoice",
            ) from error
        decoded = InvoiceDecoded(
            invoice,
            node,
            engine.store.has_payment_hash(invoice.payment_hash),
            payee=engine.standing_of(invoice.payee),
        )
        amount_sat = -(-invoice.amount_msat // 1000)
        most_sat = min(max_price_sat or policy.max_price_sat, policy.max_price_sat)
        fee_sat = min(
            policy.fee_cap_sat(amount_sat) if max_fee_sat is None else max_fee_sat, policy.fee_bound_sat(amount_sat)
        )
        now_ms = engine.clock.now_ms() + engine.clock.wall_ahead_ms()
        findings = list(self._objections.readiness())
        findings += [Finding(check) for check in vet(Terms(max_price_sat=most_sat), decoded, policy, now_ms).checks]
        reserved_msat = with_fee_msat(invoice.amount_msat, fee_sat)
        findings += self._objections.limits(reserved_msat, fee_sat, client)
        if amount_sat > 0:
            query = way_query(invoice.payee, amount_sat, fee_sat, policy, invoice.final_cltv_delta)
            look = await self._objections.look(query)
            findings += self._objections.way(query, look, reserved_msat, is_payee_known=True)
        return Answer(what="an invoice", amount_msat=invoice.amount_msat, findings=tuple(findings))

    def _check_allowed(self, asked: Asked, wanted: Wanted) -> None:
        """Raises NotAllowed."""
        budget = self._engine.limits.budgets.get(asked.client)
        if budget is not None and isinstance(wanted, FundWanted):
            budget.check_may_fund()

    def _order(self, asked: Asked, draft: Draft, fingerprint: str, strategy: Strategy | None = None) -> Order:
        """The first of a request."""
        webhooks = self._engine.webhooks
        request = Request(
            id="".join(secrets.choice(_ID_ALPHABET) for _ in range(_ID_LENGTH)),
            client=asked.client,
            key=asked.key,
            # Without a webhook of ours: it is another one each time.
            fingerprint=fingerprint,
            spec=draft.spec if webhooks is None else draft.spec.with_webhook(webhooks.new_url),
            is_prepaid=asked.is_prepaid,
            created_at_ms=self._engine.clock.now_ms(),
            strategy=strategy,
        )
        return self._order_of(request, draft)

    def _order_of(self, request: Request, draft: Draft) -> Order:
        assert draft.quoted is not None
        now_ms = self._engine.clock.now_ms()
        return Order(
            id=request.id,
            request=request,
            created_at_ms=now_ms,
            pay_by_ms=now_ms + self._engine.policy.pay_within_s * 1000,
            max_price_sat=draft.cap_sat,
            max_fee_sat=draft.max_fee_sat,
            quote_sat=draft.quoted.quote_sat,
            state_since_ms=now_ms,
            place_at_ms=now_ms,
        )

    def _same_again(self, first: Order, asked: Asked, wanted: Wanted) -> Order:
        """The first order of a key, if the request is the same one, in whatever words. Raises KeyTaken."""
        known = first.request.spec
        if isinstance(wanted, CodeWanted) and wanted.goes_on:
            if not isinstance(known, CodeSpec) or known.country is None:
                raise KeyTaken
            spec = self._quoter.read_again(wanted.in_country(known.country), known)
            fingerprint = self._fingerprint_of_strategy(asked, wanted, spec)
        else:
            fingerprint = _fingerprint(asked, self._quoter.read_again(wanted, known))
        if not first.request.fingerprint:
            raise KeyTaken(
                f"What order {first.id} of this key was for is erased by now, so nobody can tell whether this is the"
                " same request. Use another key."
            )
        if first.request.fingerprint != fingerprint:
            raise KeyTaken
        return first

    def check_ready(self, *, is_prepaid: bool = False) -> None:
        """Raises NotReady with the reason while no new order can be paid, or recorded to its end."""
        for finding in self._objections.readiness(is_prepaid=is_prepaid):
            if finding.error is not None:
                raise finding.error

    def reason_against_orders(self, client: str = OPERATOR) -> str:
        """Why any order of this client would be refused now, before the provider is even asked. Empty: it would not."""
        try:
            self.check_ready()
        except NotReady as error:
            return error.message
        engine, budget = self._engine, self._engine.limits.budgets.get(client)
        reached = None if budget is None else engine.store.over_budget(budget, engine.clock.now_ms())
        reached = reached or engine.limits.reached_by(engine.totals(), client=client)
        if reached is None and engine.places.caps.when_full is WhenFull.REFUSE:
            full = engine.places.full(1)
            reached = None if full is None else told_to(client, full)
        return "" if reached is None else reached.message


def _answered(answer: Answer, error: HoldpayError) -> Answer:
    """With another refusal in place of its own."""
    findings = (
        replace(finding, check=replace(finding.check, why=error.message), error=error)
        if finding.error is answer.error
        else finding
        for finding in answer.findings
    )
    return replace(answer, findings=tuple(findings))


def _fingerprint(asked: Asked, spec: AnySpec, strategy: tuple[object, ...] = ()) -> str:
    parts = (*_identity(spec), asked.max_price_sat, asked.max_fee_sat, *strategy)
    if asked.is_prepaid:
        parts = (*parts, "prepaid")
    return hashlib.sha256(repr(parts).encode()).hexdigest()


def _identity(spec: AnySpec) -> tuple[object, ...]:
    """What makes two requests the same: not how the provider calls it."""
    if isinstance(spec, CodeSpec):
        # As the first release had it, for keys that were used then.
        more = tuple(value for value in (spec.is_real_phone, spec.ref) if value)
        return (spec.kind.value, spec.country, spec.service, *more)
    said = asdict(spec)
    return tuple(str(said[name]) for name in sorted(said) if not name.endswith("_name"))


def _invoice_text(payreq: str) -> str:
    """Raises InvalidRequest for what cannot be one."""
    text = payreq.strip()
    if text[:10].lower() == "lightning:":
        text = text[10:]
    if not 1 <= len(text) <= MAX_INVOICE_LENGTH or not (text.isascii() and text.isalnum()):
        raise InvalidRequest(
            f"This is no invoice: one has letters and digits only, {MAX_INVOICE_LENGTH:,} at most. Give the whole of a"
            " BOLT11 invoice, and nothing else.",
            field="invoice",
        )
    return text


def _check_asked(asked: Asked, wanted: Wanted) -> None:
    if not 1 <= len(asked.key) <= MAX_KEY_LENGTH or not asked.key.isprintable():
        raise InvalidRequest(
            f"The idempotency key must have 1 to {MAX_KEY_LENGTH} printable characters. Give another one.",
            field="idempotency_key",
        )
    if asked.max_price_sat == 0:
        raise InvalidRequest(
            "A price limit of 0 sat allows nothing. Give a positive number of sat.", field="max_price_sat"
        )
    if asked.is_prepaid and isinstance(wanted, FundWanted):
        raise InvalidRequest("The account cannot be funded from itself. Order it without the account.", field="prepaid")
