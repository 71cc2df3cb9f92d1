"""What is to be thought of lnd: its macaroon, release, chain, channels, and the ways to the provider's node. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Final, Protocol

from holdpay.core.routes import RouteLook, node_name
from holdpay.doctor.findings import Finding, Unseen, Verdict, failed, ok, parted, unseen, warning

OLD_BLOCK_MS: Final = 3600 * 1000
"""Ten minutes lie between two blocks: an hour without one comes once in 400."""
STUCK_BLOCK_MS: Final = 3 * 3600 * 1000
BLOCKS_ON_DEMAND: Final = frozenset({"regtest", "simnet"})
PROVIDERS_NETWORK: Final = "mainnet"

COSTS: Final = {
    "GetInfo": "nobody knows which node would pay, and no order is taken",
    "DecodePayReq": "no hold invoice can be read, so none is paid",
    "SendPaymentV2": "nothing can be paid",
    "TrackPaymentV2": "what became of a payment could not be asked, so nothing is paid",
    "TrackPayments": "payments could not be followed, so nothing is paid",
    "ChannelBalance": "`holdpay status` cannot tell the balance",
    "ListChannels": "an HTLC that lnd lost keeps its order open, and why a payment failed stays unknown",
    "PendingChannels": "an HTLC that lnd lost keeps its order open",
    "ListPayments": "a lost database cannot be rebuilt (`holdpayd recover`)",
    "GetNodeInfo": "whether lnd's graph has the provider's node stays unknown",
    "QueryRoutes": "no route can be looked for, and why a payment failed stays unknown",
    "SubscribeHtlcEvents": "nothing yet; a later version has use for it",
}
"""What a right that is missing costs."""
BAKE_TODO: Final = "Bake another one (`holdpayd bake-macaroon` shows how), put it in place, and restart holdpayd."


class Node(Protocol):
    """What GetInfo said, as ``lnd.exam.NodeSeen`` has it."""

    @property
    def pubkey(self) -> str: ...
    @property
    def network(self) -> str: ...
    @property
    def alias(self) -> str: ...
    @property
    def version(self) -> str: ...
    @property
    def too_old(self) -> str: ...
    @property
    def version_warning(self) -> str: ...
    @property
    def block_height(self) -> int: ...
    @property
    def block_at_ms(self) -> int: ...
    @property
    def synced_to_chain(self) -> bool: ...
    @property
    def peer_count(self) -> int: ...


class Channels(Protocol):
    """What the channels could send, as ``lnd.exam.Sendable`` has it."""

    @property
    def total_msat(self) -> int: ...
    @property
    def away_msat(self) -> int: ...
    @property
    def channel_count(self) -> int: ...
    @property
    def away_count(self) -> int: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Rights:
    """``denied``: methods of the documented line that the macaroon does not allow; ``untold``: nobody knows of."""

    wanted: tuple[str, ...]
    denied: tuple[str, ...]
    untold: tuple[str, ...] = ()


def judge_rights(rights: Rights, paying: Collection[str]) -> list[Finding]:
    """One finding for each right that is missing. ``paying``: those without which no order can be paid."""
    check = "macaroon"
    found = []
    for method in rights.denied:
        text = f"It does not allow {method}: {COSTS[method]}."
        found.append((failed if method in paying else warning)(check, text, BAKE_TODO))
    if rights.untold:
        text = f"It is not in lnd's own format, so whether it allows {_listed(rights.untold)} shows only in use."
        found.append(warning(check, text, BAKE_TODO))
    allowed = [method for method in rights.wanted if method not in {*rights.denied, *rights.untold}]
    return [*([ok(check, f"It allows {_listed(allowed)}.")] if allowed else []), *found]


def judge_node(node: Node | Unseen, payers: Collection[str] = ()) -> Finding:
    """``payers``: our nodes from which money of open orders is out."""
    check = "lnd"
    if isinstance(node, Unseen):
        return unseen(check, node)
    if others := [payer for payer in payers if payer != node.pubkey]:
        return failed(
            check,
            f"{node_name(node.pubkey, node.alias)} answers, and open orders were paid from"
            f" {', '.join(f'{payer[:10]}…' for payer in others)}: holdpayd asks and pays nothing until that node is"
            " back.",
            "Point lnd.address at that node again. If it is gone for good: `holdpayd resolve ORDER --node-retired`.",
        )
    return ok(check, f"{node_name(node.pubkey, node.alias)} answers, and takes the macaroon.")


def judge_version(node: Node) -> Finding:
    check = "version"
    for message, verdict in ((node.too_old, failed), (node.version_warning, warning)):
        if message:
            what = parted(message)
            return verdict(check, what.text, what.todo)
    return ok(check, f"lnd {node.version.split()[0]} is a release that holdpay was tried with.")


def judge_network(node: Node, wanted: str | None, *, is_providers: bool) -> Finding:
    """``is_providers``: the provider is sms4sats itself, and no sandbox."""
    check = "network"
    if wanted is not None and node.network != wanted:
        return failed(
            check,
            f"lnd is on {node.network}, and lnd.network says {wanted}: nothing is paid.",
            "Let lnd.address name the other node, or correct lnd.network.",
        )
    if is_providers and node.network != PROVIDERS_NETWORK:
        text = f"lnd is on {node.network}, and the provider's invoices are of {PROVIDERS_NETWORK}: lnd cannot pay them."
        return failed(check, text, f"Let lnd.address name a node on {PROVIDERS_NETWORK}.")
    return ok(check, f"lnd is on {node.network}.")


def judge_sync(node: Node, now_ms: int) -> Finding:
    check = "sync"
    block = f"block {node.block_height:,}"
    age_ms = now_ms - node.block_at_ms
    todo = "See lnd's log, and its bitcoin backend: is that in sync, and connected?"
    if not node.synced_to_chain and age_ms > OLD_BLOCK_MS:
        return failed(check, f"lnd is not synced to the chain; its latest is {block}, {_hours(age_ms)} old.", todo)
    if not node.synced_to_chain:
        text = f"lnd is not synced to the chain just now ({block}); at each new block that lasts a moment."
        return warning(check, text, f"Run this again in a minute. If it stays so: {todo[0].lower()}{todo[1:]}")
    if node.network in BLOCKS_ON_DEMAND:
        return ok(check, f"lnd is synced to the chain, at {block}.")
    if age_ms > STUCK_BLOCK_MS:
        return failed(check, f"lnd calls itself synced, and its latest {block} is {_hours(age_ms)} old.", todo)
    if age_ms > OLD_BLOCK_MS:
        return warning(check, f"lnd's latest {block} is {_hours(age_ms)} old.", f"If none comes soon: {todo}")
    return ok(check, f"lnd is synced to the chain, at {block}, {max(0, age_ms) // 60_000} min old.")


def _hours(ms: int) -> str:
    minutes = ms // 60_000
    return f"{minutes} min" if minutes < 120 else f"{minutes // 60} h"


def judge_balance(channels: Channels | Unseen, max_price_sat: int, max_fee_sat: int) -> Finding:
    """Against the dearest order that the configuration allows."""
    check = "balance"
    if isinstance(channels, Unseen):
        return unseen(check, channels)
    if not channels.channel_count:
        return failed(check, "lnd has no open channel, so it cannot pay.", "Open one, or several, from this node.")
    most_sat = max_price_sat + max_fee_sat
    sat, away_sat = channels.total_msat // 1000, channels.away_msat // 1000
    text = f"The channels can send {sat:,} sat"
    away = f" ({away_sat:,} more in {channels.away_count} whose peers are away)" if channels.away_count else ""
    if sat >= most_sat:
        return ok(check, f"{text}{away}; the dearest order takes {most_sat:,} with its fee.")
    todo = "Open a channel, or move money to your side of one (a loop out, a payment to this node)."
    if sat + away_sat >= most_sat:
        todo = "See why those peers are away: `lncli listchannels --inactive_only`."
    if not sat:
        return failed(check, f"{text}{away}: nothing can be paid.", todo)
    return warning(check, f"{text}{away}, less than payment.max_price_sat with its fee limit ({most_sat:,}).", todo)


def judge_routes(looks: Mapping[str, RouteLook], max_price_sat: int, max_fee_sat: int) -> list[Finding]:
    """One finding for each pinned payee and its route; with several one that can be reached is enough."""
    if not looks:
        return [
            warning(
                "route",
                "No node is known that may be paid, so there is none to look for a route to.",
                "List the provider's node in provider.payee_pubkeys, or, with first-use, `holdpayd payees add` it.",
            )
        ]
    payees = [_judge_payee(payee, look) for payee, look in looks.items()]
    routes = [_judge_route(payee, look, max_price_sat, max_fee_sat) for payee, look in looks.items()]
    if any(finding.verdict is Verdict.OK for finding in routes):
        return [_at_worst_a_warning(finding) for finding in (*payees, *routes)]
    return [*payees, *routes]


def _at_worst_a_warning(finding: Finding) -> Finding:
    return replace(finding, verdict=Verdict.WARNING) if finding.verdict is Verdict.FAILED else finding


def _judge_payee(payee: str, look: RouteLook) -> Finding:
    check, node = "payee", look.payee
    if node is None:
        return warning(
            check,
            f"Whether lnd's graph has {node_name(payee, '')} is not known ({_reasons(look)}).",
            "See the other checks of lnd and of the macaroon.",
        )
    if not node.is_in_graph:
        return failed(
            check,
            f"lnd's graph does not have the provider's node {node_name(payee, '')}.",
            "Wait until lnd has synced its graph (`lncli getinfo`: synced_to_graph), or correct"
            " provider.payee_pubkeys.",
        )
    return ok(check, f"{node_name(payee, node.alias)} is in lnd's graph, with {_channels(node.channel_count)}.")


def _channels(count: int) -> str:
    return f"{count:,} channel{'' if count == 1 else 's'}"


def _judge_route(payee: str, look: RouteLook, max_price_sat: int, max_fee_sat: int) -> Finding:
    check, name = "route", node_name(payee, look.payee.alias if look.payee else "")
    what = f"{max_price_sat:,} sat to {name}"
    if look.route is not None:
        parts = f" in {look.route.parts} parts" if look.route.parts > 1 else ""
        return ok(
            check,
            f"lnd knows a route for {what}{parts}: fee {_sat(look.route.fee_msat)} sat (the limit is {max_fee_sat:,}),"
            f" locked for {look.route.lock_blocks:,} blocks at most.",
        )
    if not look.is_route_known:
        text = f"Whether there is a route for {what} is not known ({_reasons(look)})."
        return warning(check, text, "See the other checks of lnd and of the macaroon, then run this again.")
    if look.outbound is not None and look.outbound.total_msat < max_price_sat * 1000:
        return warning(check, f"There is no route for {what}: the channels cannot send as much.", "See the balance.")
    if look.dearer is not None:
        return failed(
            check,
            f"The cheapest route for {what} costs {_sat(look.dearer.fee_msat)} sat, and the fee limit is"
            f" {max_fee_sat:,}.",
            "Raise payment.fee_limit_percent or payment.max_fee_sat, or open a channel nearer to the payee.",
        )
    if look.longer is not None:
        return failed(
            check,
            f"The only route for {what} would lock the money for {look.longer.lock_blocks:,} blocks, more than is"
            " allowed.",
            "Raise payment.route_cltv_delta, or open a channel nearer to the payee.",
        )
    if look.avoided is not None:
        text = f"lnd avoids the only route for {what}, since it failed lately."
        return warning(check, text, "Wait some minutes; then lnd tries it again by itself.")
    return failed(
        check,
        f"lnd finds no route for {what}, whatever it costs.",
        "See the balance above. If it is enough: open a channel to a better connected node, or to the payee itself.",
    )


def _reasons(look: RouteLook) -> str:
    return "; ".join(look.unknown) or "lnd did not say"


def _sat(msat: int) -> str:
    return f"{msat / 1000:,.3f}".rstrip("0").rstrip(".")


def _listed(names: Iterable[str]) -> str:
    """ "a", "a and b", "a, b and c"."""
    *others, last = names
    return f"{', '.join(others)} and {last}" if others else last
