"""The settings: every key with its type, bounds and default, and what the parts of the daemon get of them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from holdpay.config.certificates import CertificateFile, CertificateUnusable, read_certificates
from holdpay.config.fields import (
    Address,
    AnyPath,
    BaseUrl,
    ClientName,
    HookCommand,
    HookEvents,
    HookSecretFile,
    HookUrl,
    HostName,
    KeyFile,
    Listen,
    MacaroonFile,
    ProxyUrl,
    Pubkey,
    PublicUrl,
    Ref,
    SocketPath,
    UnixGroup,
    check_program,
    check_socket,
    credential_key,
    is_loopback,
    read_hook_secret,
)
from holdpay.core.budget import Budget, Renewal
from holdpay.core.holds import HoldCaps, WhenFull
from holdpay.core.payees import PayeeCheck
from holdpay.core.policy import Policy, Strictness
from holdpay.log import Format, Level
from holdpay.ports import Limits

SMS4SATS_NODE = "035b04e00521a8d50894e813c72576d2a03a09cd940be074b7f2e35e0a01d7d12d"
"""The node id that sms4sats publishes; its own example invoice is signed by it."""

_LEAST_PROOF_S = 30
"""On real nodes a send arrived after a Track had said NOT_FOUND; 30 s apart is the shortest proof of absence."""
MOST_SECONDS_AN_ORDER = 15
"""With as many orders open as the limits allow, each should be asked about as often as this at least."""
_LEAST_CONFIRM_S = 10

Network = Literal["mainnet", "testnet", "testnet4", "signet", "simnet", "regtest"]
FeeRung = Annotated[float, Field(ge=0, le=100)]
RetryDelay = Annotated[int, Field(ge=0, le=3600)]


class _Section(BaseModel):
    """Unknown keys and values of another type are errors; nothing is converted silently."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid", hide_input_in_errors=True)


class DaemonSection(_Section):
    """The process itself."""

    state_dir: AnyPath = Path("/var/lib/holdpay")
    socket: SocketPath = Path("/run/holdpay/holdpay.sock")
    log_format: Format = Field(default=Format.TEXT, strict=False)
    log_level: Level = Field(default=Level.INFO, strict=False)
    shutdown_wait_s: int = Field(default=5, ge=0, le=60)
    retain_codes_days: int = Field(default=30, ge=1, le=36_500)


class LndPlace(_Section):
    """Where a node is, and how it is known."""

    address: Address = "127.0.0.1:10009"
    tls_cert: CertificateFile | None = None
    """None: the system's roots."""
    tls_server_name: HostName | None = None
    """None: the host of ``address``."""

    @model_validator(mode="after")
    def _has_certificates(self) -> LndPlace:
        if self.tls_cert is None:
            try:
                read_certificates(None)
            except CertificateUnusable as error:
                raise ValueError(f"tls_cert {error}") from None
        return self


class LndSection(LndPlace):
    """The node that pays."""

    macaroon: MacaroonFile = Field(
        description='name the file that `lncli bakemacaroon` wrote, or "credential:macaroon" under systemd'
    )
    network: Network | None = None
    """None: whatever network the node is on."""


class ProviderSection(_Section):
    """sms4sats."""

    base_url: BaseUrl = "https://api2.sms4sats.com"
    proxy: ProxyUrl | None = Field(default=None, repr=False)
    """May hold a password. None: a direct connection, whatever the environment says."""
    api_key_file: KeyFile = Field(default_factory=credential_key, validate_default=True)
    """None: there is no prepaid account. Without the key: systemd's credential, if there is one."""
    ref: Ref | None = None
    """None: nobody earns a share."""
    warn_balance_below_sat: int | None = Field(default=None, ge=1, le=100_000_000)
    """None: the balance is never asked for by itself."""
    top_up_below_sat: int | None = Field(default=None, ge=1, le=100_000_000)
    """None: money for the account is ordered by people only."""
    top_up_amount_sat: int | None = Field(default=None, ge=1, le=100_000_000)

    @model_validator(mode="after")
    def _tops_up_wholly(self) -> ProviderSection:
        if (self.top_up_below_sat is None) != (self.top_up_amount_sat is None):
            raise ValueError("top_up_below_sat and top_up_amount_sat go together: give both, or none")
        return self

    max_requests_per_s: float = Field(default=20.0, ge=0.05, le=1000)
    cancel_after_s: int = Field(default=120, ge=0, le=3600)
    cancel_retry_s: int = Field(default=30, ge=1, le=3600)
    promise_s: int = Field(default=1260, ge=1, le=86_400)
    place_attempts: int = Field(default=3, ge=1, le=10)
    place_retry_s: int = Field(default=5, ge=1, le=300)
    payee_pubkeys: tuple[Pubkey, ...] = Field(default=(SMS4SATS_NODE,), strict=False, max_length=16)
    payee_check: PayeeCheck = Field(default=PayeeCheck.PIN, strict=False)
    order_id_check: Strictness = Field(default=Strictness.WARN, strict=False)

    @model_validator(mode="after")
    def _has_a_payee_to_check(self) -> ProviderSection:
        if not self.payee_pubkeys and self.payee_check in {PayeeCheck.PIN, PayeeCheck.WARN}:
            raise ValueError(
                f'payee_pubkeys is empty, and provider.payee_check is "{self.payee_check}":'
                ' list the provider\'s node, or set provider.payee_check = "first-use"'
            )
        return self


class WebhookSection(_Section):
    """Where the provider hints at news of SMS and e-mails. Off without both keys."""

    listen: Listen | None = None
    public_url: PublicUrl | None = None

    @model_validator(mode="after")
    def _is_whole(self) -> WebhookSection:
        if self.listen is not None and self.public_url is None:
            raise ValueError("public_url is missing: give the URL under which the reverse proxy passes webhooks on")
        if self.public_url is not None and self.listen is None:
            raise ValueError("listen is missing: give the address to which the reverse proxy passes webhooks on")
        return self


class MetricsSection(_Section):
    """What a Prometheus server scrapes."""

    listen: Listen | None = None
    """None: nobody does."""


class PaymentSection(_Section):
    """What may be paid, up to which fee, and when to try again."""

    price_tolerance_percent: float = Field(default=2.0, ge=0, le=50)
    max_price_sat: int = Field(default=10_000, ge=1, le=10_000_000)
    fee_limit_percent: float = Field(default=1.0, ge=0, le=50)
    fee_limit_floor_sat: int = Field(default=10, ge=0, le=10_000)
    max_fee_sat: int | None = Field(default=None, ge=0, le=1_000_000)
    """None: ``Policy.fee_bound_sat`` has the rule."""
    fee_rungs_percent: tuple[FeeRung, ...] = Field(default=(50.0, 100.0), strict=False, max_length=10)
    max_final_cltv_delta: int = Field(default=144, ge=18, le=2016)
    route_cltv_delta: int = Field(default=432, ge=1, le=2016)
    mpp_from_sat: int = Field(default=20_000, ge=0, le=10_000_000)
    mpp_max_parts: int = Field(default=4, ge=1, le=16)
    min_expiry_left_s: int = Field(default=60, ge=0, le=3600)
    pay_within_s: int = Field(default=600, ge=1, le=3600)
    close_unpaid_after_s: int = Field(default=120, ge=0, le=86_400)
    retry_delays_s: tuple[RetryDelay, ...] = Field(default=(0, 60, 120, 180), strict=False, min_length=1, max_length=10)
    max_dispatches: int = Field(default=6, ge=1, le=20)
    prove_absent_s: int = Field(default=30, ge=1, le=600)
    confirm_unpaid_s: int = Field(default=10, ge=0, le=600)
    retrack_s: int = Field(default=300, ge=1, le=3600)
    settled_grace_s: int = Field(default=172_800, ge=0, le=2_592_000)


class PollingSection(_Section):
    """How often the provider is asked about one order."""

    min_s: float = Field(default=1.0, ge=0.01, le=60)
    max_s: float = Field(default=15.0, ge=0.01, le=300)
    late_max_s: float = Field(default=600.0, ge=0.01, le=3600)

    @model_validator(mode="after")
    def _is_in_order(self) -> PollingSection:
        if self.min_s > self.max_s:
            raise ValueError(f"min_s is {self.min_s:g} and polling.max_s is {self.max_s:g}: make min_s the smaller one")
        return self


class HoldsSection(_Section):
    """How many holds may be out at once; further orders wait for their place, or are refused."""

    max_orders: int | None = Field(default=None, ge=1, le=10_000)
    """None: as many as ``limits`` lets in."""
    max_locked_sat: int | None = Field(default=None, ge=1, le=100_000_000)
    max_channel_orders: int | None = Field(default=None, ge=1, le=483)
    """483: what a channel of lnd's can hold (BOLT 2, max_accepted_htlcs)."""
    max_channel_locked_sat: int | None = Field(default=None, ge=1, le=100_000_000)
    when_full: WhenFull = Field(default=WhenFull.QUEUE, strict=False)
    max_wait_s: int = Field(default=1800, ge=1, le=86_400)


class GuardSection(_Section):
    """When money that is out is late, a warning, or critical."""

    look_every_s: int = Field(default=60, ge=1, le=3600)
    in_transit_s: int = Field(default=180, ge=1, le=86_400)
    refund_s: int = Field(default=120, ge=1, le=86_400)
    peer_offline_s: int = Field(default=600, ge=0, le=86_400)
    warning_blocks: int = Field(default=24, ge=1, le=2016)
    critical_blocks: int = Field(default=12, ge=1, le=2016)

    @model_validator(mode="after")
    def _is_in_order(self) -> GuardSection:
        if self.critical_blocks > self.warning_blocks:
            raise ValueError(
                f"critical_blocks is {self.critical_blocks} and guard.warning_blocks is {self.warning_blocks}:"
                " make critical_blocks the smaller one"
            )
        return self


class LimitsSection(_Section):
    """What all clients together may do; checked in the transaction that records a request."""

    max_open_orders: int = Field(default=8, ge=1, le=10_000)
    max_pending_sat: int = Field(default=50_000, ge=1, le=100_000_000)
    max_spend_per_day_sat: int = Field(default=100_000, ge=1, le=1_000_000_000)


class RequestsSection(_Section):
    """What one request may do."""

    max_attempts: int = Field(default=5, ge=1, le=20)


class LndOnly(_Section):
    """What `holdpayd bake-macaroon` needs before there is a macaroon. Made by ``load_lnd_place``."""

    lnd: LndPlace


class ClientSection(_Section):
    """One client: its socket, who may open that, and what it may spend. None: no limit but [limits]."""

    name: ClientName = Field(description="give it a short name")
    group: UnixGroup = Field(description="name the group whose members may open its socket")
    socket: SocketPath | None = None
    """None: holdpay-NAME.sock beside ``daemon.socket``."""
    window: Renewal = Field(default=Renewal.ROLLING, strict=False)
    max_price_sat: int | None = Field(default=None, ge=1, le=10_000_000)
    max_spend_per_hour_sat: int | None = Field(default=None, ge=1, le=1_000_000_000)
    max_spend_per_day_sat: int | None = Field(default=None, ge=1, le=1_000_000_000)
    max_spend_per_week_sat: int | None = Field(default=None, ge=1, le=1_000_000_000)
    max_spend_per_month_sat: int | None = Field(default=None, ge=1, le=1_000_000_000)
    max_fee_per_day_sat: int | None = Field(default=None, ge=0, le=1_000_000_000)
    max_open_orders: int | None = Field(default=None, ge=1, le=10_000)
    max_orders_per_minute: int | None = Field(default=None, ge=1, le=10_000)
    may_fund: bool = False

    def budget(self) -> Budget:
        """What the store checks."""
        return Budget(
            client=self.name,
            renewal=self.window,
            max_price_sat=self.max_price_sat,
            max_spend_per_hour_sat=self.max_spend_per_hour_sat,
            max_spend_per_day_sat=self.max_spend_per_day_sat,
            max_spend_per_week_sat=self.max_spend_per_week_sat,
            max_spend_per_month_sat=self.max_spend_per_month_sat,
            max_fee_per_day_sat=self.max_fee_per_day_sat,
            max_open_orders=self.max_open_orders,
            max_orders_per_minute=self.max_orders_per_minute,
            may_fund=self.may_fund,
        )


class HookSection(_Section):
    """A URL or a program that is told what happens."""

    name: ClientName = Field(description="give it a short name")
    events: HookEvents = Field(description="list what it is to be told")
    url: HookUrl | None = Field(default=None, repr=False)
    secret_file: HookSecretFile = None
    use_provider_proxy: bool = False
    command: HookCommand | None = Field(default=None, strict=False, min_length=1, max_length=64)
    timeout_s: int = Field(default=15, ge=1, le=300)
    include_secrets: bool = False

    @model_validator(mode="after")
    def _leads_somewhere(self) -> HookSection:
        if (self.url is None) == (self.command is None):
            raise ValueError("url or command: give one of them")
        if self.url is not None and self.secret_file is None:
            raise ValueError("secret_file is missing: name the file of the secret that signs what is sent")
        if self.command is not None and (self.secret_file is not None or self.use_provider_proxy):
            raise ValueError("command needs neither secret_file nor use_provider_proxy: leave them out")
        return self

    def found(self) -> bytes:
        """That the machine has what it needs: the secret of a URL, or the program, of which nothing is returned.

        Raises ValueError, "secret_file names ...: do this". No part of the configuration's own check: that somebody
        cannot be told is no reason not to look after money.
        """
        try:
            if self.command is not None:
                check_program(Path(self.command[0]))
                return b""
            assert self.secret_file is not None
            return read_hook_secret(self.secret_file)
        except ValueError as error:
            raise ValueError(f"{'secret_file' if self.command is None else 'command'} {error}") from None


class Settings(_Section):
    """The whole configuration. Made by ``load``."""

    daemon: DaemonSection = Field(default_factory=DaemonSection)
    lnd: LndSection
    provider: ProviderSection = Field(default_factory=ProviderSection)
    webhook: WebhookSection = Field(default_factory=WebhookSection)
    metrics: MetricsSection = Field(default_factory=MetricsSection)
    payment: PaymentSection = Field(default_factory=PaymentSection)
    polling: PollingSection = Field(default_factory=PollingSection)
    holds: HoldsSection = Field(default_factory=HoldsSection)
    guard: GuardSection = Field(default_factory=GuardSection)
    limits: LimitsSection = Field(default_factory=LimitsSection)
    requests: RequestsSection = Field(default_factory=RequestsSection)
    client: tuple[ClientSection, ...] = Field(default=(), strict=False, max_length=1_000)
    hook: tuple[HookSection, ...] = Field(default=(), strict=False, max_length=16)

    @model_validator(mode="after")
    def _fits_together(self) -> Settings:
        _raise(_problems_together(self))
        return self

    def socket_of(self, client: ClientSection) -> Path:
        """Where it asks."""
        return _socket_of(client, self.daemon)

    def policy(self) -> Policy:
        """What the pure part needs."""
        provider, payment = self.provider, self.payment
        return Policy(
            payee_pubkeys=frozenset(provider.payee_pubkeys),
            payee_check=provider.payee_check,
            order_id_check=provider.order_id_check,
            network=self.lnd.network,
            price_tolerance_percent=payment.price_tolerance_percent,
            max_price_sat=payment.max_price_sat,
            fee_limit_percent=payment.fee_limit_percent,
            fee_limit_floor_sat=payment.fee_limit_floor_sat,
            max_fee_sat=payment.max_fee_sat,
            fee_rungs_percent=payment.fee_rungs_percent,
            max_final_cltv_delta=payment.max_final_cltv_delta,
            route_cltv_delta=payment.route_cltv_delta,
            mpp_from_sat=payment.mpp_from_sat,
            mpp_max_parts=payment.mpp_max_parts,
            min_expiry_left_s=payment.min_expiry_left_s,
            pay_within_s=payment.pay_within_s,
            close_unpaid_after_s=payment.close_unpaid_after_s,
            retry_delays_s=payment.retry_delays_s,
            max_dispatches=payment.max_dispatches,
            prove_absent_s=payment.prove_absent_s,
            confirm_unpaid_s=payment.confirm_unpaid_s,
            retrack_s=payment.retrack_s,
            cancel_after_s=provider.cancel_after_s,
            cancel_retry_s=provider.cancel_retry_s,
            promise_s=provider.promise_s,
            settled_grace_s=payment.settled_grace_s,
            hold_max_wait_s=self.holds.max_wait_s,
            guard_in_transit_s=self.guard.in_transit_s,
            guard_refund_s=self.guard.refund_s,
            guard_peer_offline_s=self.guard.peer_offline_s,
            guard_warning_blocks=self.guard.warning_blocks,
            guard_critical_blocks=self.guard.critical_blocks,
            place_attempts=provider.place_attempts,
            place_retry_s=provider.place_retry_s,
            poll_min_s=self.polling.min_s,
            poll_max_s=self.polling.max_s,
            max_attempts=self.requests.max_attempts,
            poll_late_max_s=self.polling.late_max_s,
        )

    def order_limits(self) -> Limits:
        """What the store checks."""
        return Limits(
            max_open_orders=self.limits.max_open_orders,
            max_pending_sat=self.limits.max_pending_sat,
            max_spend_per_day_sat=self.limits.max_spend_per_day_sat,
            budgets={client.name: client.budget() for client in self.client},
        )

    def hold_caps(self) -> HoldCaps:
        """What the engine checks before an order is placed."""
        return HoldCaps(
            max_orders=self.holds.max_orders,
            max_locked_sat=self.holds.max_locked_sat,
            when_full=self.holds.when_full,
            max_channel_orders=self.holds.max_channel_orders,
            max_channel_locked_sat=self.holds.max_channel_locked_sat,
        )

    def unusable_hooks(self) -> dict[str, str]:
        """By name, those whose secret or program this machine does not have: what it is, with what to do."""
        unusable = {}
        for hook in self.hook:
            try:
                hook.found()
            except ValueError as error:
                unusable[hook.name] = str(error)
        return unusable

    def warnings(self) -> list[str]:
        """What can be used and is probably not meant; a sentence each."""
        looks = (
            _warn_of_times,
            _warn_of_fees,
            _warn_of_sums,
            _warn_of_checks,
            _warn_of_balance,
            _warn_of_webhook,
            _warn_of_metrics,
            _warn_of_rate,
            _warn_of_holds,
            _warn_of_clients,
        )
        return [warning for look in looks for warning in look(self)]


class Together(_Section):
    """The sections that have to fit each other, as far as each of them is right: whatever is wrong with the rest."""

    daemon: DaemonSection = Field(default_factory=DaemonSection)
    provider: ProviderSection = Field(default_factory=ProviderSection)
    client: tuple[ClientSection, ...] = Field(default=(), strict=False)
    hook: tuple[HookSection, ...] = Field(default=(), strict=False)
    webhook: WebhookSection = Field(default_factory=WebhookSection)
    metrics: MetricsSection = Field(default_factory=MetricsSection)

    @model_validator(mode="after")
    def _fits_together(self) -> Together:
        _raise(_problems_together(self))
        return self


def _raise(problems: Iterable[str]) -> None:
    """Raises ValueError with all of them, if there are any."""
    if found := tuple(problems):
        raise ValueError(*found)


def _problems_together(sections: Settings | Together) -> Iterator[str]:
    daemon, clients = sections.daemon, sections.client
    yield from _same_names("hook", sections.hook)
    for number, hook in enumerate(sections.hook, start=1):
        if hook.use_provider_proxy and sections.provider.proxy is None:
            yield f"hook[{number}].use_provider_proxy is set, and there is no provider.proxy: name one"
    yield from _same_names("client", clients)
    names: set[str] = set()
    groups: dict[str, int] = {}
    sockets: dict[Path | str, str] = {daemon.socket: "daemon.socket"}
    for number, client in enumerate(clients, start=1):
        if client.group in groups:
            yield (
                f"client[{number}].group is that of client[{groups[client.group]}] too, and whoever is in it is"
                " both: give each a group of its own"
            )
        groups.setdefault(client.group, number)
        path = _socket_of(client, daemon)
        try:
            check_socket(path)
        except ValueError as error:
            yield f"client[{number}].socket {error}"
        if path in sockets and (client.socket is not None or client.name not in names):
            yield f"client[{number}].socket is {sockets[path]} too: name another path"
        sockets.setdefault(path, f"client[{number}].socket")
        names.add(client.name)
    for key, listen in (("webhook.listen", sections.webhook.listen), ("metrics.listen", sections.metrics.listen)):
        if listen is not None and listen in sockets:
            yield f"{key} is {sockets[listen]} too: name another address"
        elif listen is not None:
            sockets[listen] = key


def _socket_of(client: ClientSection, daemon: DaemonSection) -> Path:
    return client.socket or daemon.socket.with_name(f"holdpay-{client.name}.sock")


def _same_names(section: str, entries: Sequence[ClientSection | HookSection]) -> Iterator[str]:
    names: dict[str, int] = {}
    for number, entry in enumerate(entries, start=1):
        if entry.name in names:
            yield f"{section}[{number}].name is that of {section}[{names[entry.name]}] too: rename one"
        names.setdefault(entry.name, number)


def _warn_of_times(settings: Settings) -> list[str]:
    payment = settings.payment
    found = []
    if payment.prove_absent_s < _LEAST_PROOF_S:
        found.append(
            f"payment.prove_absent_s is {payment.prove_absent_s}: a payment may still arrive after LND said that it"
            f" does not know it; use {_LEAST_PROOF_S} or more outside of tests."
        )
    if payment.confirm_unpaid_s < _LEAST_CONFIRM_S:
        found.append(
            f"payment.confirm_unpaid_s is {payment.confirm_unpaid_s}: the provider's word may lag behind the HTLC;"
            f" use {_LEAST_CONFIRM_S} or more outside of tests."
        )
    return found


def _warn_of_rate(settings: Settings) -> list[str]:
    orders, per_s = settings.limits.max_open_orders, settings.provider.max_requests_per_s
    if orders <= MOST_SECONDS_AN_ORDER * per_s:
        return []
    every_s = orders / per_s
    return [
        (
            f"limits.max_open_orders is {orders} and provider.max_requests_per_s is {per_s:g}: with so many open, each"
            f" order is asked about every {every_s:.0f} s only; lower the one or raise the other."
        )
    ]


def _warn_of_holds(settings: Settings) -> list[str]:
    max_orders, open_orders = settings.holds.max_orders, settings.limits.max_open_orders
    if max_orders is None or max_orders < open_orders:
        return []
    return [
        (
            f"holds.max_orders is {max_orders:,} and limits.max_open_orders is {open_orders:,}, which counts orders"
            " that wait too: none will ever wait; lower the one or raise the other."
        )
    ]


def _warn_of_fees(settings: Settings) -> list[str]:
    policy, price_sat = settings.policy(), settings.payment.max_price_sat
    wanted_sat, bound_sat = policy.wanted_fee_cap_sat(price_sat), policy.fee_bound_sat(price_sat)
    if wanted_sat <= bound_sat:
        return []
    allowed = f"payment.max_fee_sat allows a fee of {bound_sat:,} sat for the dearest orders, which counts"
    return [f"{allowed}; fee_limit_percent or fee_limit_floor_sat say {wanted_sat:,}: change one of them."]


def _warn_of_sums(settings: Settings) -> list[str]:
    limits, max_price_sat = settings.limits, settings.payment.max_price_sat
    most_sat = max_price_sat + settings.policy().fee_cap_sat(max_price_sat)
    return [
        f"{key} is {limit_sat:,}, under payment.max_price_sat with its fee limit ({most_sat:,}):"
        " the dearest orders will always be refused; change one of them."
        for key, limit_sat in (
            ("limits.max_pending_sat", limits.max_pending_sat),
            ("limits.max_spend_per_day_sat", limits.max_spend_per_day_sat),
            ("holds.max_locked_sat", settings.holds.max_locked_sat),
            ("holds.max_channel_locked_sat", settings.holds.max_channel_locked_sat),
        )
        if limit_sat is not None and limit_sat < most_sat
    ]


def _warn_of_checks(settings: Settings) -> list[str]:
    if settings.provider.payee_check in {PayeeCheck.PIN, PayeeCheck.FIRST_USE}:
        return []
    check = f'provider.payee_check is "{settings.provider.payee_check}"'
    return [f'{check}: an invoice of any node will be paid; use "pin" with the provider\'s node in payee_pubkeys.']


def _warn_of_balance(settings: Settings) -> list[str]:
    provider = settings.provider
    if provider.api_key_file is not None:
        return []
    wanted = {
        "provider.warn_balance_below_sat": provider.warn_balance_below_sat,
        "provider.top_up_below_sat": provider.top_up_below_sat,
    }
    return [
        f"{key} is set, and provider.api_key_file names no key to ask with: name one."
        for key, value in wanted.items()
        if value is not None
    ]


def _warn_of_metrics(settings: Settings) -> list[str]:
    listen = settings.metrics.listen
    if listen is None or isinstance(listen, Path):
        return []
    if not _is_open_to_others(listen):
        told = (
            f"metrics.listen is {listen}, where every user of this machine, so every client, may read what all spend;"
            " use the path of a Unix socket, which only the daemon's group may open."
        )
        return [told] if settings.client else []
    remedy = "use an address of this machine only (127.0.0.1), or a firewall that lets in the Prometheus server alone"
    return [f"metrics.listen is {listen}, where other machines may read without TLS what holdpay spends; {remedy}."]


def _is_open_to_others(listen: str | Path) -> bool:
    return isinstance(listen, str) and not is_loopback(listen.rpartition(":")[0].strip("[]"))


def _warn_of_webhook(settings: Settings) -> list[str]:
    listen, public_url = settings.webhook.listen, settings.webhook.public_url or ""
    found = []
    if listen is not None and _is_open_to_others(listen):
        found.append(
            f"webhook.listen is {listen}, where other machines may reach it without TLS;"
            " use an address of this machine only (127.0.0.1), and a reverse proxy on it."
        )
    if public_url.startswith("http://") and settings.provider.base_url.startswith("https://"):
        found.append(
            "webhook.public_url begins with http://, and is of this machine only: the provider cannot reach it;"
            " name the https:// URL of your reverse proxy."
        )
    return found


def _warn_of_clients(settings: Settings) -> list[str]:
    return [
        f"client.{client.name} has no limit in sat over an hour, day, week or month: it may spend all that [limits]"
        " allow everybody; give it one."
        for client in settings.client
        if all(line.is_of_fees for line in client.budget().lines())
    ]
