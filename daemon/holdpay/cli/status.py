"""`holdpay status`: whether an order would be taken now, and if not, why."""

from __future__ import annotations

from typing import TYPE_CHECKING, NoReturn

import click

from holdpay.cli import render
from holdpay.cli.app import App, pass_app
from holdpay.cli.budget import budget_facts, line_name
from holdpay.cli.exit_codes import ExitCode
from holdpay.cli.failure import Unreachable

if TYPE_CHECKING:
    from holdpay._pb.v1 import holdpay_pb2 as pb

WATCH_EVERY_S = 2


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print JSON on stdout.")
@click.option(
    "--watch",
    "every_s",
    type=click.IntRange(min=1, max=86_400),
    is_flag=False,
    flag_value=WATCH_EVERY_S,
    metavar="[SECONDS]",
    help=f"Show it again and again, every {WATCH_EVERY_S} s or so many, until ^C.",
)
@pass_app
@click.pass_context
def status(ctx: click.Context, app: App, *, as_json: bool, every_s: int | None) -> None:
    """Show lnd, the provider, the money and the alarms.

    Exits 0 when lnd, the limits and the disk would let an order through now, else 8. Whether the provider would take it
    is known only when it is asked; how it answered last is shown. Full screen, and with keys: `holdpay top`.
    """
    if every_s is not None:
        _watch(app, every_s, as_json=as_json)
    reply = _ask(app)
    _show(reply, app.clock.now_ms(), as_json=as_json)
    ctx.exit(ExitCode.DONE if reply.ready else ExitCode.REFUSED_NOW)


def _ask(app: App) -> pb.GetStatusResponse:
    from holdpay._pb.v1 import holdpay_pb2 as pb

    return app.call(lambda client: client.ask(client.stub.GetStatus, pb.GetStatusRequest()))


def _show(reply: pb.GetStatusResponse, now_ms: int, *, as_json: bool) -> None:
    if as_json:
        render.echo_json(reply)
    else:
        render.out(render.facts(_status_facts(reply, now_ms)))


def _watch(app: App, every_s: int, *, as_json: bool) -> NoReturn:
    """Raises Unreachable if the daemon is not there at first; later it is waited for."""
    is_first, is_away = True, False
    while True:
        try:
            reply = _ask(app)
        except Unreachable as away:
            if is_first:
                raise
            if not is_away:
                render.note(render.plain(f"{away} Asking again every {every_s} s …"))
            is_away = True
        else:
            if is_away:
                render.note("The daemon is back.")
            if not as_json:
                render.out(f"{'' if is_first else chr(10)}{render.date_time(app.clock.now_ms())}")
            _show(reply, app.clock.now_ms(), as_json=as_json)
            is_first, is_away = False, False
        app.clock.sleep(every_s)


def _status_facts(reply: pb.GetStatusResponse, now_ms: int) -> list[tuple[str, str]]:
    running = render.span(now_ms - reply.started_at_ms)
    if reply.client:
        return _client_facts(reply, now_ms)
    beside = {alarm for out in reply.out for alarm in out.alarms}
    return [
        ("Orders", "taken" if reply.ready else f"not taken now: {reply.not_ready_reason}"),
        *(("ALARM", alarm) for alarm in reply.alarms if alarm not in beside),
        *(fact for out in reply.out for fact in _out_facts(out, now_ms)),
        ("", f"{reply.more_out:,} more orders have money out: holdpay orders list --open" if reply.more_out else ""),
        *_queue_facts(reply.holds, now_ms),
        *_lnd_facts(reply.lnd, now_ms, is_told=reply.lnd.detail in reply.not_ready_reason),
        *_provider_facts(reply.provider, now_ms),
        *_money_facts(reply),
        ("holdpayd", f"{reply.version}, running for {running}"),
        ("Config", reply.config_path),
        ("State", reply.state_dir),
    ]


def _client_facts(reply: pb.GetStatusResponse, now_ms: int) -> list[tuple[str, str]]:
    """What a client is told: what concerns itself."""
    beside = {alarm for out in reply.out for alarm in out.alarms} | set(reply.budget.warnings)
    return [
        ("Orders", "taken" if reply.ready else f"not taken now: {reply.not_ready_reason}"),
        *(("ALARM", alarm) for alarm in reply.alarms if alarm not in beside),
        *(fact for out in reply.out for fact in _out_facts(out, now_ms)),
        ("", f"{reply.more_out:,} more orders have money out: holdpay orders list --open" if reply.more_out else ""),
        ("Client", reply.client),
        *budget_facts(reply.budget),
        *((line_name(line).capitalize(), _line_words(line)) for line in reply.budget.lines),
        ("lnd", reply.lnd.state),
        ("holdpayd", f"{reply.version}, running for {render.span(now_ms - reply.started_at_ms)}"),
    ]


def _line_words(line: pb.BudgetLine) -> str:
    used_msat = line.spent_msat + line.reserved_msat
    return (
        f"{_bare_sat(line.spent_msat)} spent + {_bare_sat(line.reserved_msat)} reserved = {_bare_sat(used_msat)} of"
        f" {render.sat(line.limit_sat)}"
    )


def _out_facts(out: pb.MoneyOut, now_ms: int) -> list[tuple[str, str]]:
    parts = [
        (
            f"{out.request_id}: {render.msat(out.locked_msat)} since {render.clock_time(out.since_ms)}"
            f" ({render.span(now_ms - out.since_ms)})"
        ),
        out.phase,
    ]
    if out.HasField("promise_until_ms"):
        over = " (passed)" if now_ms > out.promise_until_ms else ""
        parts.append(f"promised until {render.clock_time(out.promise_until_ms)}{over}")
    if out.HasField("expiry_height"):
        parts.append(f"expires at {render.height(out.expiry_height)}{_left(out)}")
    alarms = [(_alarm_head(out), alarm.removeprefix(f"order {out.request_id}: ")) for alarm in out.alarms]
    return [
        ("Money out", "; ".join(parts)),
        *(("", _htlc(htlc, now_ms)) for htlc in out.htlcs),
        *alarms,
        ("", out.next),
    ]


def _alarm_head(out: pb.MoneyOut) -> str:
    level = render.enum_text(out, "level")
    return level.upper() if level in {"warning", "critical"} else "ALARM"


def _htlc(htlc: pb.HtlcOut, now_ms: int) -> str:
    peer = f"{htlc.peer_alias} {htlc.peer_pubkey}".strip() or "a peer that is not known"
    online = "not known to be online"
    if htlc.HasField("peer_online"):
        online = "online" if htlc.peer_online else "offline"
    if htlc.HasField("peer_offline_since_ms"):
        online += f" for {render.span(now_ms - htlc.peer_offline_since_ms)}"
    there = {True: "the HTLC is on it", False: "the HTLC is not on it"}
    seen = there[htlc.on_channel] if htlc.HasField("on_channel") else "not looked at yet"
    return f"by channel {htlc.channel} ({seen}) to {peer} ({online})"


def _left(out: pb.MoneyOut) -> str:
    if not out.HasField("blocks_left"):
        return ""
    if out.blocks_left <= 0:
        return ", which has passed: the channel's close ends it"
    return f", {out.blocks_left:,} blocks or about {out.hours_left:,.0f} h from now"


def _lnd_facts(lnd: pb.LndStatus, now_ms: int, *, is_told: bool) -> list[tuple[str, str]]:
    balance = render.sat(lnd.local_balance_sat) if lnd.HasField("local_balance_sat") else "not known"
    chain = f"{render.height(lnd.block_height)}, {'' if lnd.synced_to_chain else 'not '}synced to chain"
    if lnd.state != "ready" and lnd.HasField("answered_at_ms"):
        chain += f", as of {render.span(now_ms - lnd.answered_at_ms)} ago"
    return [
        ("lnd", f"{lnd.state} at {lnd.address}" + (f": {lnd.detail}" if lnd.detail and not is_told else "")),
        ("Node", " ".join(part for part in (lnd.alias, lnd.identity_pubkey) if part)),
        ("Version", f"{lnd.version} on {lnd.network}" if lnd.version else ""),
        ("Chain", chain if lnd.block_height else ""),
        ("Spendable", balance if lnd.state == "ready" else ""),
    ]


def _provider_facts(provider: pb.ProviderStatus, now_ms: int) -> list[tuple[str, str]]:
    answered = "not asked yet"
    if provider.HasField("answered_at_ms"):
        answered = f"answered {render.span(now_ms - provider.answered_at_ms)} ago"
    return [
        ("Provider", f"{provider.url}, {answered}, {provider.requests:,} requests"),
        (
            "Asking",
            (
                f"at most {provider.requests_per_s:g} requests/s; {provider.due_questions:,} questions about orders are"
                f" due, and the next waits about {provider.question_delay_s:.1f} s"
            ),
        ),
        ("Failing", provider.last_error),
    ]


def _money_facts(reply: pb.GetStatusResponse) -> list[tuple[str, str]]:
    money = reply.money
    return [
        ("Open", f"{reply.open_orders:,} of {money.max_open_orders:,} orders"),
        ("", _beside(money)),
        ("Pending", f"{_bare_sat(money.pending_msat)} of {render.sat(money.max_pending_sat)}"),
        (
            "Last 24 h",
            (
                f"{_bare_sat(money.spent_day_msat)} spent + {_bare_sat(money.pending_msat)} pending ="
                f" {_bare_sat(money.spent_day_msat + money.pending_msat)} of {render.sat(money.max_spend_per_day_sat)}"
            ),
        ),
        ("Locked", render.msat(money.locked_msat)),
        ("Holds", _holds(reply.holds)),
    ]


def _holds(holds: pb.Holds) -> str:
    """Empty: none of them is capped."""
    facts = []
    if holds.HasField("max_orders"):
        facts.append(f"{holds.orders:,} of {holds.max_orders:,}")
    if holds.HasField("max_locked_sat"):
        facts.append(f"{_bare_sat(holds.locked_msat)} of {render.sat(holds.max_locked_sat)}, with their largest fees")
    return "; ".join(facts)


def _queue_facts(holds: pb.Holds, now_ms: int) -> list[tuple[str, str]]:
    """Those that wait for a place, the next one first."""
    found = [
        (
            "Waiting",
            (
                f"{order.request_id}: for a place among the holds, for {render.span(now_ms - order.since_ms)};"
                f" until {render.clock_time(order.until_ms)} at most"
            ),
        )
        for order in holds.queue
    ]
    more = holds.waiting - len(holds.queue)
    return [*found, ("", f"{more:,} more orders wait behind them" if more else "")]


def _beside(money: pb.Money) -> str:
    """The orders that take no place among the open ones. Empty: there are none."""
    followed, perhaps, returning = money.followed_orders, money.perhaps_charged_orders, money.returning_orders
    due = money.settled_orders - followed - perhaps - returning
    counts = [
        (due, "paid and not delivered yet"),
        (followed, "delivered and still followed"),
        (perhaps, "perhaps charged to the account (holdpay orders list --open)"),
        (returning, "over, with the price on its way back to the account"),
    ]
    found = [f"{count:,} {words}" for count, words in counts if count > 0]
    return f"beside them {', '.join(found)}" if found else ""


def _bare_sat(amount_msat: int) -> str:
    return render.msat(amount_msat).removesuffix(" sat")
