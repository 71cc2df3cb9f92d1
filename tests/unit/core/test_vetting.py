"""The rules of a hold invoice: each with its value, its limit and its verdict, and what they make of it together."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from holdpay.core import events as ev
from holdpay.core.diagnosis import Cause, Diagnosis
from holdpay.core.lightning import Invoice, NodeIdentity
from holdpay.core.payees import PayeeCheck, Standing, Trust
from holdpay.core.policy import Strictness
from holdpay.core.routes import Outbound, Route, RouteLook, RouteQuery
from holdpay.core.vetting import Check, Report, Terms, Verdict, route_checks, terms_of, trust_of, vet
from tests.unit.build import ALICE, HASH, NOW_MS, PAYEE, POLICY, S, invoice, order

PLACED = terms_of(order(provider_order_id=HASH))
STRANGER = "02" + "dd" * 32


def _decoded(found: Invoice, node: NodeIdentity = ALICE, **said: Any) -> ev.InvoiceDecoded:
    return ev.InvoiceDecoded(found, node, **{"seen_before": False, **said})


def _vet(found: Invoice, *, terms: Terms = PLACED, seen_before: bool = False, **policy: Any) -> Report:
    standing = policy.pop("standing", Standing.TRUSTED)
    decoded = _decoded(found, seen_before=seen_before, payee=standing)
    return vet(terms, decoded, replace(POLICY, **policy), NOW_MS)


def _check(report: Report, rule: str) -> Check:
    (found,) = [check for check in report.checks if check.rule == rule]
    return found


RULES = {
    "network": ("simnet", "simnet", "lnd.network"),
    "amount": ("2,000 sat", "at most 2,040 sat", "payment.price_tolerance_percent"),
    "time_left": ("86,400 s", "at least 60 s", "payment.min_expiry_left_s"),
    "final_cltv_delta": ("40 blocks", "at most 144 blocks", "payment.max_final_cltv_delta"),
    "payment_hash": ("new", "new", ""),
    "payment_address": ("there", "there", ""),
    "payee": (PAYEE, "one of provider.payee_pubkeys", "provider.payee_check"),
    "order_id": ("the payment hash", "the payment hash", "provider.order_id_check"),
}


def test_the_providers_usual_invoice_passes_every_rule_and_each_says_what_it_compared() -> None:
    report = _vet(invoice())
    assert {check.rule: (check.value, check.limit, check.key) for check in report.checks} == RULES
    assert {check.verdict for check in report.checks} == {Verdict.PASS}
    assert (report.is_fine, report.reasons, report.warnings) == (True, (), ())


@pytest.mark.parametrize(
    ("bad", "rule", "value", "words"),
    [
        (invoice(amount_msat=0), "amount", "0 sat", "no amount"),
        (invoice(amount_msat=2_040_001), "amount", "2,040.001 sat", "it asks 2,041 sat, and at most 2,040 sat"),
        (invoice(created_at_ms=NOW_MS - 86_341 * S), "time_left", "59 s", "expires in 59 s"),
        (invoice(created_at_ms=NOW_MS - 90_000 * S), "time_left", "-3,600 s", "expires in -3600 s"),
        (invoice(final_cltv_delta=145), "final_cltv_delta", "145 blocks", "is 145 blocks, and at most 144"),
        (invoice(final_cltv_delta=-1), "final_cltv_delta", "-1 blocks", "is -1 blocks, and at most 144"),
        (invoice(has_payment_address=False), "payment_address", "missing", "no payment address"),
        (invoice(payee=STRANGER), "payee", STRANGER, "not the provider's known node"),
    ],
)
def test_each_thing_that_is_wrong_with_an_invoice_refuses_it_and_no_other_rule_does(
    bad: Invoice, rule: str, value: str, words: str
) -> None:
    report = _vet(bad)
    assert not report.is_fine
    (reason,) = report.reasons
    assert words in reason
    assert [check.rule for check in report.checks if check.verdict is Verdict.FAIL] == [rule]
    assert _check(report, rule).value == value


@pytest.mark.parametrize(
    "good",
    [
        invoice(amount_msat=2_040_000),
        invoice(amount_msat=1),
        invoice(created_at_ms=NOW_MS - 86_340 * S),
        invoice(final_cltv_delta=144),
        invoice(final_cltv_delta=0),
    ],
)
def test_an_invoice_right_at_a_bound_passes(good: Invoice) -> None:
    assert _vet(good).reasons == ()


def test_a_payment_hash_seen_before_is_refused() -> None:
    report = _vet(invoice(), seen_before=True)
    assert "another order" in report.reasons[0]
    assert _check(report, "payment_hash").value == "of another order"


def test_an_invoice_of_another_network_than_the_configured_one_is_refused() -> None:
    assert _vet(invoice(), network="mainnet").reasons == ("it is for simnet, and lnd.network wants mainnet",)
    assert _vet(invoice(), network=None).is_fine


def test_without_a_quote_the_amount_is_held_against_the_cap_alone_and_says_so() -> None:
    report = _vet(invoice(amount_msat=3_000_000), terms=Terms(max_price_sat=2_999, provider_order_id=HASH))
    assert report.reasons == (
        "it asks 3,000 sat, and at most 2,999 sat were allowed (by the request or payment.max_price_sat)",
    )
    assert _check(report, "amount").key == "payment.max_price_sat"


def test_an_amount_over_the_quote_and_its_tolerance_is_told_with_both() -> None:
    (reason,) = _vet(invoice(amount_msat=2_040_001)).reasons
    assert reason.endswith("allowed (by the quote of 2,000 sat + 2 %, the request or payment.max_price_sat)")


def test_a_millisatoshi_is_an_amount() -> None:
    (reason,) = _vet(invoice(amount_msat=1), terms=Terms(max_price_sat=0, provider_order_id=HASH)).reasons
    assert reason.startswith("it asks 1 sat, and at most 0 sat")


def test_all_that_is_wrong_is_said_at_once() -> None:
    bad = Invoice(
        payment_hash="ff" * 32,
        payee=STRANGER,
        amount_msat=0,
        created_at_ms=NOW_MS - 90_000 * S,
        expiry_s=3600,
        final_cltv_delta=2016,
        has_payment_address=False,
        memo="",
    )
    report = _vet(bad, seen_before=True, network="mainnet", order_id_check=Strictness.PIN)
    assert len(report.reasons) == len(RULES)
    assert len(set(report.reasons)) == len(RULES)
    assert report.warnings == ()


@pytest.mark.parametrize(
    ("check", "verdict", "words"),
    [
        (PayeeCheck.PIN, Verdict.FAIL, "one of provider.payee_pubkeys"),
        (PayeeCheck.WARN, Verdict.WARN, "one of provider.payee_pubkeys"),
        (PayeeCheck.OFF, Verdict.PASS, 'any ("off")'),
    ],
)
def test_a_payee_that_is_not_on_the_list_is_judged_as_strictly_as_configured(
    check: PayeeCheck, verdict: Verdict, words: str
) -> None:
    report = _vet(invoice(payee=STRANGER), payee_check=check)
    found = _check(report, "payee")
    assert (found.verdict, found.limit) == (verdict, words)
    assert (len(report.reasons), len(report.warnings)) == (verdict is Verdict.FAIL, verdict is Verdict.WARN)


@pytest.mark.parametrize(
    ("check", "verdict"),
    [(Strictness.PIN, Verdict.FAIL), (Strictness.WARN, Verdict.WARN), (Strictness.OFF, Verdict.PASS)],
)
def test_another_payment_hash_than_the_order_id_is_judged_as_strictly_as_configured(
    check: Strictness, verdict: Verdict
) -> None:
    report = _vet(invoice(payment_hash="ff" * 32), order_id_check=check)
    assert _check(report, "order_id").verdict is verdict
    assert _check(report, "order_id").value == "something else"


@pytest.mark.parametrize("check", Strictness)
def test_without_an_order_its_id_is_not_known_which_refuses_nothing(check: Strictness) -> None:
    report = _vet(invoice(), terms=Terms(max_price_sat=2_000), order_id_check=check)
    assert _check(report, "order_id").verdict is Verdict.UNKNOWN
    assert report.is_fine


@pytest.mark.parametrize(
    ("standing", "verdict"),
    [(Standing.FIRST, Verdict.PASS), (Standing.TRUSTED, Verdict.PASS), (Standing.STRANGER, Verdict.FAIL)],
)
def test_on_first_use_the_record_decides_and_the_list_does_not(standing: Standing, verdict: Verdict) -> None:
    for payee in (PAYEE, STRANGER):
        report = _vet(invoice(payee=payee), payee_check=PayeeCheck.FIRST_USE, standing=standing)
        assert _check(report, "payee").verdict is verdict


def test_the_first_payee_is_told_that_it_will_be_trusted() -> None:
    limits = {
        standing: _check(_vet(invoice(), payee_check=PayeeCheck.FIRST_USE, standing=standing), "payee").limit
        for standing in Standing
    }
    assert limits == {
        Standing.FIRST: "any: none is trusted yet, and this one will be",
        Standing.TRUSTED: "one that is trusted since its first use",
        Standing.STRANGER: "one that is trusted since its first use",
    }


def test_a_stranger_is_refused_with_the_command_that_trusts_it() -> None:
    (reason,) = _vet(invoice(), payee_check=PayeeCheck.FIRST_USE, standing=Standing.STRANGER).reasons
    assert f"`holdpayd payees add {PAYEE}`" in reason


def test_with_a_list_the_record_does_not_decide() -> None:
    assert _vet(invoice(), standing=Standing.STRANGER).is_fine
    assert not _vet(invoice(payee=STRANGER), standing=Standing.TRUSTED).is_fine


@pytest.mark.parametrize(
    ("check", "payee", "trust"),
    [
        (PayeeCheck.PIN, PAYEE, Trust.LIST),
        (PayeeCheck.WARN, PAYEE, Trust.LIST),
        (PayeeCheck.WARN, STRANGER, None),
        (PayeeCheck.OFF, STRANGER, None),
        (PayeeCheck.FIRST_USE, STRANGER, Trust.FIRST_USE),
    ],
)
def test_a_paid_payee_is_trusted_by_the_list_or_by_its_first_use_and_else_not(
    check: PayeeCheck, payee: str, trust: Trust | None
) -> None:
    assert trust_of(_decoded(invoice(payee=payee)), replace(POLICY, payee_check=check)) is trust


# --- the way to the payee ---------------------------------------------------------------------------------------------

QUERY = RouteQuery(
    payee=PAYEE, amount_msat=2_000_000, fee_limit_msat=20_000, final_cltv_delta=40, cltv_limit=475, avoids_failed=False
)
ROUTE = Route(fee_msat=1_002, lock_blocks=163, hops=("02" + "bb" * 32, PAYEE), first_channel="1x1x0")
LONG = replace(ROUTE, fee_msat=20_001, lock_blocks=476)
ENOUGH = Outbound(largest_msat=5_000_000, total_msat=8_000_000, channel_count=2)


def _rows(look: RouteLook, wrong: Diagnosis | None = None, *, is_sure: bool = True) -> dict[str, Check]:
    return {check.rule: check for check in route_checks(QUERY, look, wrong, is_sure=is_sure)}


def _verdicts(rows: dict[str, Check]) -> dict[str, str]:
    return {rule: check.verdict.value for rule, check in rows.items()}


def test_a_way_within_the_limits_passes_every_rule() -> None:
    for route in (ROUTE, replace(ROUTE, fee_msat=20_000, lock_blocks=475)):
        rows = _rows(RouteLook(is_route_known=True, route=route, outbound=ENOUGH))
        assert set(_verdicts(rows).values()) == {"pass"}
    assert rows["route"].value == "2 hops, by channel 1x1x0"


def test_a_route_that_breaks_two_limits_fails_both_whichever_is_the_cause() -> None:
    for cause in (Cause.TIME_LOCK, Cause.FEE_LIMIT, Cause.OUTBOUND):
        wrong = Diagnosis(cause=cause, text="so it is")
        rows = _rows(RouteLook(is_route_known=True, longer=LONG, outbound=ENOUGH), wrong)
        verdicts = _verdicts(rows)
        assert (verdicts["routing_fee"], verdicts["time_lock"], verdicts["route"]) == ("fail", "fail", "pass")
        assert verdicts["outbound"] == ("fail" if cause is Cause.OUTBOUND else "pass")
        assert [check.rule for check in rows.values() if check.why == "so it is"] == [
            {Cause.TIME_LOCK: "time_lock", Cause.FEE_LIMIT: "routing_fee", Cause.OUTBOUND: "outbound"}[cause]
        ]


def test_what_is_not_sure_only_warns() -> None:
    wrong = Diagnosis(cause=Cause.NO_ROUTE, text="no way")
    rows = _rows(RouteLook(is_route_known=True, outbound=ENOUGH), wrong, is_sure=False)
    assert _verdicts(rows) == {
        "outbound": "pass",
        "route": "warn",
        "routing_fee": "unknown",
        "time_lock": "unknown",
    }


def test_what_lnd_did_not_say_is_not_known_and_says_why() -> None:
    rows = _rows(RouteLook(is_route_known=False, unknown=("the macaroon does not allow QueryRoutes",)))
    assert set(_verdicts(rows).values()) == {"unknown"}
    assert {check.why for check in rows.values()} == {"the macaroon does not allow QueryRoutes"}


@pytest.mark.parametrize(("is_known", "why"), [(True, "there is no route"), (False, "it was not looked for")])
def test_without_a_reason_a_missing_route_says_whether_anybody_looked(is_known: bool, why: str) -> None:
    rows = _rows(RouteLook(is_route_known=is_known, outbound=ENOUGH))
    assert [rows[rule].why for rule in ("routing_fee", "time_lock")] == [why, why]
    assert [rows[rule].value for rule in ("routing_fee", "time_lock")] == ["not known", "not known"]
    assert rows["route"].value == ("none" if is_known else "not known")


def test_price_and_time_of_a_route_name_the_keys_that_bound_them() -> None:
    rows = _rows(RouteLook(is_route_known=True, route=replace(ROUTE, hops=(PAYEE,)), outbound=ENOUGH))
    assert (rows["routing_fee"].key, rows["routing_fee"].limit) == ("payment.fee_limit_percent", "at most 20 sat")
    assert (rows["time_lock"].key, rows["time_lock"].limit) == ("payment.route_cltv_delta", "at most 475 blocks")
    assert rows["route"].value == "1 hop, by channel 1x1x0"
    free = route_checks(replace(QUERY, fee_limit_msat=None), RouteLook(is_route_known=True), None, is_sure=True)
    assert [check.limit for check in free if check.rule == "routing_fee"] == ["at most 0 sat"]


def test_a_sum_that_may_be_split_is_held_against_all_channels() -> None:
    split = replace(QUERY, max_parts=4)
    look = RouteLook(is_route_known=True, route=replace(ROUTE, parts=2), outbound=ENOUGH)
    outbound, route, *_ = route_checks(split, look, None, is_sure=True)
    assert outbound.value == "8,000 sat in all usable channels"
    assert route.value == "2 hops, by channel 1x1x0, in 2 parts"
    assert _rows(look)["outbound"].value == "5,000 sat in the largest usable channel"
