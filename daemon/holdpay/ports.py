"""What the engine needs of the world: implemented by ``lnd``, ``sms4sats`` and ``store``, and by fakes in tests."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import IntEnum, StrEnum
from types import TracebackType
from typing import Final, Generic, Protocol, TypeVar

from holdpay.core.budget import Budget, Usage
from holdpay.core.dispatches import Dispatched
from holdpay.core.events import Event, ProviderStatus
from holdpay.core.hooks import HookState, News, Notice, Position, Topic
from holdpay.core.kinds.spec import KindName, Placing
from holdpay.core.lightning import DispatchSpec, HtlcLook, Invoice, LndMessage, NodeIdentity, OpenChannel
from holdpay.core.model import OPERATOR, Order
from holdpay.core.payees import Standing
from holdpay.core.routes import RouteLook, RouteQuery
from holdpay.core.states import End
from holdpay.core.stats import Outcome
from holdpay.core.step import Step
from holdpay.errors import LimitExceeded, NotAllowed


class Clock(Protocol):
    """Wall-clock time as of the start, and the only way to wait."""

    def now_ms(self) -> int: ...

    def wall_ahead_ms(self) -> int:
        """How far the present wall clock is ahead of ``now_ms``: it was set since. Negative: behind."""
        ...

    async def sleep(self, seconds: float) -> None: ...


# --- LND ------------------------------------------------------------------------------------------------------------


class NodeState(StrEnum):
    """How usable lnd is, as GetStatus shows it."""

    READY = "ready"
    UNREACHABLE = "unreachable"
    LOCKED = "locked"
    STARTING = "starting"
    SYNCING = "syncing"
    """synced_to_chain is false and no new height came for ten minutes: refuses new orders only."""
    DENIED = "denied"
    TOO_OLD = "too-old"
    WRONG_NODE = "wrong-node"


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeStatus:
    """What is known of lnd now. ``detail``: one sentence what is wrong and one what to do; empty when all is well."""

    state: NodeState
    detail: str = ""
    identity: NodeIdentity | None = None
    alias: str = ""
    version: str = ""
    block_height: int = 0
    synced_to_chain: bool = False
    address: str = ""
    local_balance_sat: int | None = None
    answered_at_ms: int | None = None
    """When lnd last told all but ``state``, ``detail`` and ``address``. None: it never did."""


class LightningNode(Protocol):
    """The user's LND. Only ``LndError`` and its children are raised."""

    @property
    def status(self) -> NodeStatus:
        """The latest look; kept fresh in the background."""
        ...

    @property
    def identity(self) -> NodeIdentity | None:
        """Of the node that can be paid from and followed now; None while none can."""
        ...

    async def decode(self, payreq: str) -> tuple[Invoice, NodeIdentity]:
        """DecodePayReq, and the node that did it. Raises LndRefused if the text is not an invoice of its network."""
        ...

    def send(self, spec: DispatchSpec, payer: NodeIdentity) -> AsyncGenerator[LndMessage, None]:
        """SendPaymentV2 from the node ``payer`` and no other.

        Yields messages up to exactly one last one: a terminal ``Reported``, ``Refused`` or ``Lost``. Never raises for
        what LND or the network does. Raises LndWrongNode before anything is sent if another node answers.
        """
        ...

    def track(self, payment_hash: str, payer: NodeIdentity) -> AsyncGenerator[LndMessage, None]:
        """GetInfo, then TrackPaymentV2 on a fresh call, and whatever LND says later; yields like ``send``, with
        ``NotKnown`` as a further last one.

        Yields ``Lost`` if GetInfo does not answer or another node answers: then nothing was asked about the payment.
        """
        ...

    async def until_back(self, payer: NodeIdentity) -> None:
        """Returns when the node ``payer`` answers: at once while it does, and else to one order after another. To be
        awaited after ``Lost``, instead of trying again and again."""
        ...

    async def look_for_htlc(self, payment_hash: str, payer: NodeIdentity) -> HtlcLook:
        """GetInfo, ListChannels and PendingChannels of the node ``payer``. Raises LndError's children."""
        ...

    async def look_for_route(self, query: RouteQuery, payer: NodeIdentity) -> RouteLook:
        """What the node ``payer`` knows of a way to a payee, within some seconds: its channels (ListChannels), the
        payee in its graph (GetNodeInfo), routes (QueryRoutes, with what its mission control has learnt). Sends nothing,
        changes nothing. Raises nothing: what cannot be asked is not known."""
        ...

    async def channels(self, payer: NodeIdentity) -> Sequence[OpenChannel]:
        """All open channels of the node ``payer``, from one ListChannels. Raises LndError's children."""
        ...


# --- the provider ---------------------------------------------------------------------------------------------------


T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Reply(Generic[T]):
    """The provider's answer made sense of, with the raw body (bounded) for the journal."""

    value: T
    raw: str


@dataclass(frozen=True, slots=True)
class Placed:
    """An order that the provider took. ``payreq`` None: it is paid, from the account's balance."""

    provider_order_id: str
    payreq: str | None


@dataclass(frozen=True, slots=True)
class CountryInfo:
    """A country that can be ordered from. ``code`` 0 is a real country."""

    code: int
    name: str
    aliases: tuple[str, ...]
    is_shown: bool | None = None
    """Whether the provider's list has it, and not as hidden. None: the list was never seen."""
    has_rentals: bool | None = None
    """Whether numbers are rented there. None: the provider does not say."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ListedCountry:
    """A row of the provider's list. None: it does not say."""

    code: int
    name: str
    is_shown: bool | None
    has_rentals: bool | None


@dataclass(frozen=True, slots=True, kw_only=True)
class CountriesOrigin:
    """``asked_at_ms``: when the provider told its list; None: never, it is the one that comes with the package.
    ``is_stale``: the provider did not tell it lately, or does not answer now."""

    asked_at_ms: int | None
    is_stale: bool


@dataclass(frozen=True, slots=True)
class ServiceInfo:
    """What can be ordered in a country. ``stock`` None: the provider does not say."""

    code: str
    name: str
    stock: int | None


@dataclass(frozen=True, slots=True)
class RentalOffer:
    """A number for rent. ``country``: as the provider names it. None, or empty: the provider does not say."""

    country_code: int | None
    country: str
    weeks: int | None
    price_sat: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Prices:
    """In sat; None where the provider does not say. ``exact_sat`` is for the country and service asked for."""

    receive_sat: int | None = None
    send_sat: int | None = None
    rent_from_sat: int | None = None
    real_phone_sat: int | None = None
    exact_sat: int | None = None
    asked_at_ms: int


class Lane(IntEnum):
    """Who goes first when the provider's budget is used up. Some turns go by age, so that nobody starves."""

    NEWS = 0
    """The provider knows something for sure, or owes it: the HTLC ended, or was settled and nothing came for it."""
    CANCEL = 1
    """Money is locked meanwhile."""
    PERSON = 2
    """A new order, and what a person looks up."""
    LOOK = 3
    """There may be news of an order."""


class Slot(Protocol):
    """Room for one request in the budget of all. A context manager: around the request."""

    def done(self) -> None:
        """The request has ended. Once is enough, more does no harm."""
        ...

    def give_back(self) -> None:
        """No request was made."""
        ...

    def __enter__(self) -> None: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None, /
    ) -> None: ...


class Catalog(Protocol):
    """What can be bought, by the names that people use."""

    def countries(self) -> Sequence[CountryInfo]: ...

    def resolve_country(self, text: str) -> CountryInfo:
        """By number, name or alias. Raises UnknownCountry with the nearest matches."""
        ...

    def resolve_service(self, text: str, services: Sequence[ServiceInfo]) -> ServiceInfo:
        """By short code or name. Raises UnknownService with the nearest matches."""
        ...


class Directory(Catalog, Protocol):
    """The catalog as it is told to clients. None of it asks the provider."""

    def origin(self) -> CountriesOrigin:
        """Where ``countries`` come from."""
        ...

    def seen_services(self) -> Sequence[ServiceInfo]:
        """All that the provider ever listed for any country, without their stock."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class ProviderHealth:
    """For GetStatus."""

    url: str
    answered_at_ms: int | None
    last_error: str
    request_count: int
    requests_per_s: float
    """What it is asked at most now: less after trouble. 0: no limit."""


class CodeProvider(Protocol):
    """sms4sats. Raises ProviderUnavailable (with ``retry_after_s``), ProviderRefused or ProviderProtocolError only."""

    async def place(self, placing: Placing) -> Reply[Placed]:
        """Creates an order. Never repeated inside: a lost reply leaves an order that nobody pays, or one that is paid.

        ``Placed.payreq`` is None if the placing is prepaid, and only then. Raises ProviderKeyMissing, before anything
        is sent, if it needs the account's key and there is none.
        """
        ...

    async def slot(self, lane: Lane) -> Slot:
        """Waits for room in the budget of all requests, for ``order_status``: the others take theirs."""
        ...

    async def order_status(self, provider_order_id: str) -> Reply[ProviderStatus]:
        """Asks at once: whoever calls it has a slot."""
        ...

    async def cancel(self, provider_order_id: str) -> Reply[None]:
        """Asks once, never repeated inside. Returns if the provider accepted; ProviderRefused if it said no."""
        ...

    @property
    def health(self) -> ProviderHealth:
        """How it answered last."""
        ...

    async def countries(self) -> Sequence[ListedCountry]:
        """Its whole list, never empty."""
        ...

    async def services(self, country_code: int) -> Sequence[ServiceInfo]: ...

    async def rentals(self, service: str | None = None) -> Sequence[RentalOffer]:
        """All countries where a number can be rented for ``service``, a short code; None: for all services."""
        ...

    async def prices(self, country_code: int | None = None, service: str | None = None) -> Prices: ...


@dataclass(frozen=True, slots=True)
class Balance:
    """Of the prepaid account, in whole sat."""

    balance_sat: int
    asked_at_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class FundingEntry:
    """Money that was put into the account. None and empty: the provider does not say. ``preimage``: a secret."""

    amount_sat: int | None
    price_sat: int | None
    created_at_ms: int | None
    description: str
    payment_hash: str
    preimage: str


@dataclass(frozen=True, slots=True)
class Funding:
    """Newest first. ``total_sat`` None: the provider does not say."""

    total_sat: int | None
    entries: tuple[FundingEntry, ...]


class PrepaidAccount(Protocol):
    """The account at sms4sats that its API key opens. Raises as ``CodeProvider``; ProviderKeyMissing without a key."""

    async def balance(self) -> Balance: ...

    async def funding(self) -> Funding: ...


class Provider(CodeProvider, PrepaidAccount, Protocol):
    """All of sms4sats."""


# --- the store ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Update:
    """One row of the journal, as clients see it: the order as it was right after the event."""

    cursor: int
    at_ms: int
    event: str
    order: Order
    notes: tuple[str, ...]
    earlier: tuple[Order, ...] = ()
    """The request's orders before this one, in turn."""


@dataclass(frozen=True, slots=True)
class Change:
    """What an event made of ``before``, which is the order as it is stored. ``raw``: the reply behind the event."""

    before: Order
    event: Event
    step: Step
    raw: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Checked in the transaction that records a request."""

    max_open_orders: int
    max_pending_sat: int
    max_spend_per_day_sat: int
    budgets: Mapping[str, Budget] = field(default_factory=dict)
    """Besides, what each client may do, by its name."""

    def unknown(self, client: str) -> NotAllowed | None:
        """Why nothing more is ordered for a client that the configuration does not have; None: it has it."""
        if client == OPERATOR or client in self.budgets:
            return None
        return NotAllowed(
            f"{client} is no client of the configuration any more, so nothing says what it may spend."
            " Order it anew, or have the client entered again.",
            client=client,
        )

    def reached_by(self, totals: MoneyTotals, more_msat: int = 0, client: str = OPERATOR) -> LimitExceeded | None:
        """The limit that leaves no room for an order of ``more_msat``, as ``client`` may be told it; None: there is
        room."""
        reached = self._reached_by(totals, more_msat)
        return None if reached is None else told_to(client, reached)

    def _reached_by(self, totals: MoneyTotals, more_msat: int) -> LimitExceeded | None:
        if totals.open_orders >= self.max_open_orders:
            count = f"{totals.open_orders:,} {'order is' if totals.open_orders == 1 else 'orders are'}"
            return LimitExceeded(
                f"{count} open and limits.max_open_orders is {self.max_open_orders:,}."
                " Wait for one to end, or raise the limit.",
                limit="limits.max_open_orders",
                limit_orders=self.max_open_orders,
                open_orders=totals.open_orders,
            )
        # An order costs something: with nothing named, a limit that is just reached is over.
        least_msat = more_msat or 1
        pending_msat = totals.pending_msat + least_msat
        if pending_msat > self.max_pending_sat * 1000:
            pending_sat = _whole_sat(pending_msat)
            return LimitExceeded(
                f"With this order {pending_sat:,} sat would be pending and limits.max_pending_sat is"
                f" {self.max_pending_sat:,}. Wait for an order to end, or raise the limit.",
                limit="limits.max_pending_sat",
                limit_sat=self.max_pending_sat,
                wanted_sat=pending_sat,
            )
        day_msat = pending_msat + totals.spent_day_msat
        if day_msat > self.max_spend_per_day_sat * 1000:
            day_sat = _whole_sat(day_msat)
            return LimitExceeded(
                f"With this order {day_sat:,} sat would be spent within a day and limits.max_spend_per_day_sat is"
                f" {self.max_spend_per_day_sat:,}. Wait, or raise the limit.",
                limit="limits.max_spend_per_day_sat",
                limit_sat=self.max_spend_per_day_sat,
                wanted_sat=day_sat,
            )
        return None


def told_to(client: str, reached: LimitExceeded) -> LimitExceeded:
    """A limit that counts all orders: a client hears which it is, and not what the others do."""
    if client == OPERATOR:
        return reached
    limit = reached.metadata["limit"]
    return LimitExceeded(
        f"All clients together leave no room ({limit}). Wait for one of their orders to end, or have the limit raised.",
        limit=limit,
    )


def _whole_sat(amount_msat: int) -> int:
    """Rounded up."""
    return -(-amount_msat // 1000)


@dataclass(frozen=True, slots=True, kw_only=True)
class MoneyTotals:
    """What the limits look at."""

    open_orders: int
    """Those that may hold an HTLC or come to hold one."""
    settled_orders: int
    """Open too, and paid, or charged for all we know: they hold no HTLC."""
    pending_msat: int
    spent_day_msat: int
    """Settled in the last 24 hours; pending is not in it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BudgetEntry:
    """An order behind a budget's sums: what it reserves since it was made at ``at_ms``, or spent at ``at_ms``."""

    request_id: str
    """Of which it is an order."""
    at_ms: int
    spent_msat: int = 0
    fee_msat: int = 0
    """Of what was spent."""
    reserved_msat: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class OrderFilter:
    """Of requests. ``client`` None: everybody's. ``before`` pages through them, newest first: the (created_at_ms, id)
    of the last one seen."""

    client: str | None = None
    open_only: bool = False
    closed_only: bool = False
    kind: str = ""
    end: End | None = None
    created_from_ms: int | None = None
    created_before_ms: int | None = None
    before: tuple[int, str] | None = None
    limit: int = 50


MOST_OUTCOMES: Final = 50_000
"""Orders that statistics look at: read in a second or two."""


class OrderStore(Protocol):
    """The database. Every write is one durable transaction; a failed one raises StoreError, which ends the process."""

    commit_count: int
    """Transactions about orders that this process has made durable."""

    def check_space(self) -> None:
        """Raises NotReady while the disk has too little room for a new order."""
        ...

    def create(self, order: Order, limits: Limits, now_ms: int) -> Order:
        """Records an order with its request, or returns the first order of its key.

        Raises KeyTaken if the key has another fingerprint, LimitExceeded (naming the key of the configuration).
        """
        ...

    def create_next(self, before: Change, order: Order, limits: Limits, now_ms: int) -> None:
        """Records the next order of a request in one transaction with the change of the one before it that says so.
        Raises LimitExceeded; then nothing is written."""
        ...

    def request_id(self, named: str, client: str | None = None) -> str:
        """Of a request, by its id or unique beginning of at least 4 characters, or by the id of one of its orders;
        with ``client`` as if there were no others than its. Raises OrderNotFound, InvalidRequest if it is shorter."""
        ...

    def orders_of(self, request_id: str) -> list[Order]:
        """All orders of a request, in turn; at least one. Raises OrderUnreadable."""
        ...

    def commit_all(self, changes: Iterable[Change], now_ms: int) -> list[int]:
        """Writes what events changed, in one transaction: order, payment, charge, attempts, items, ledger and journal
        row of each. A change is asked for when those before it are written, so that look-ups see them; what asking
        raises undoes them all. Without any, nothing is begun. Returns the journal's cursors."""
        ...

    def checkpoint(self) -> None:
        """Copies the write-ahead log into the file, so that the next writer has less to do. May run in any thread."""
        ...

    def erase_in_copies(self, closed_before_ms: int, now_ms: int) -> None:
        """The part of ``erase_codes`` that takes long, in the copies of the database. May run in any thread."""
        ...

    def erase_codes(self, closed_before_ms: int, now_ms: int) -> Iterator[int]:
        """Erases what was delivered, what the buyer wrote and the provider's replies of the orders that were closed
        before, also in the copies of the database, if ``erase_in_copies`` did not do it. Each step is short: a few
        orders; it gives how many are done with it. The last one gives 0, and after it the write-ahead log is emptied,
        which takes long if there was no ``checkpoint`` since. One that is not followed to its end is begun anew.
        Everything else of them stays: payment hash, amounts, preimage, what happened when.
        """
        ...

    def find_key(self, key: str, client: str = OPERATOR) -> Order | None: ...

    def get(self, order_id: str) -> Order:
        """By its id; or the last order of a request, named as in ``request_id``, which raises the same."""
        ...

    def dispatches(self, order_id: str) -> list[Dispatched]:
        """All SendPaymentV2 calls of an order, oldest first, each with its HTLC attempts. By index."""
        ...

    def open_orders(self) -> list[Order]:
        """Oldest first, and after them those whose request goes on; without those whose row makes no sense."""
        ...

    def quarantine_unreadable(self, now_ms: int) -> list[str]:
        """Marks the open orders whose row makes no sense as quarantined. Returns the ids of all, oldest first."""
        ...

    def has_open(self, kind: KindName) -> bool:
        """Whether an order of this kind is open, also one whose row makes no sense. By index."""
        ...

    def has_recent(self, kind: KindName, since_ms: int, key_prefix: str) -> bool:
        """Whether the operator itself made an order of this kind since then with a key that begins so, open or
        closed, also one whose row makes no sense. By index."""
        ...

    def list_orders(self, wanted: OrderFilter) -> list[Order]:
        """The last order of each request that is wanted, newest request first."""
        ...

    def has_payment_hash(self, payment_hash: str) -> bool: ...

    def has_provider_order(self, provider_order_id: str, besides: str) -> bool:
        """Whether an order, also a closed one, has this id at the provider and a vetted invoice; not counting the order
        ``besides``."""
        ...

    def outcomes(self, since_ms: int, client: str | None) -> list[Outcome]:
        """Orders that ended, of requests made since then, newest first, MOST_OUTCOMES at most.
        ``client`` None: of all. Takes seconds, on a connection of its own: to be called in another thread. Raises
        NotReady."""
        ...

    def standing_of(self, payee: str) -> Standing:
        """What the record of payees says of one."""
        ...

    def trusted_payees(self) -> list[str]:
        """Of the record, the one that was paid last first."""
        ...

    def has_moved_balance_since(self, at_ms: int, besides: str) -> bool:
        """Whether an order other than ``besides`` had a charge that was intended or changed at or after ``at_ms``, or
        has one whose price may go back unseen (it is open, and delivered nothing; or it is an SMS or an e-mail that
        is open or was closed since, and is not said to have arrived), or is an order for money of the account that is
        open or was closed since. Not a charge that is unknown or refused and had the same balance
        before it as that of ``besides``: if the balance is unmoved since the earliest of them,
        none was charged. By index."""
        ...

    def updates(self, after_cursor: int, order_id: str | None, limit: int, client: str | None = None) -> list[Update]:
        """Of one order, of all, or of all of a client's. By index."""
        ...

    def request_updates(self, after_cursor: int, request_id: str, limit: int) -> list[Update]:
        """Journal rows after a cursor of all orders of a request, oldest first. By index."""
        ...

    def last_cursor(self) -> int: ...

    def totals(self, now_ms: int) -> MoneyTotals:
        """What the limits look at. Reads no order but the first time."""
        ...

    def budget_usage(self, budget: Budget, now_ms: int) -> Usage:
        """What its client has used of it. By index; as ``totals`` of what is open."""
        ...

    def over_budget(self, budget: Budget, now_ms: int, order_msat: int = 1, fee_msat: int = 0) -> LimitExceeded | None:
        """The limit that leaves no room for an order of its client of ``order_msat``, of which ``fee_msat`` may go for
        routing; without both, for any. None: there is room."""
        ...

    def budget_entries(self, budget: Budget, now_ms: int, limit: int) -> list[BudgetEntry]:
        """The orders behind the sums, newest first: those that reserve something, then what was spent within the
        longest window. By index."""
        ...

    def spent_day_msat(self, now_ms: int) -> int:
        """See MoneyTotals. By index."""
        ...


# --- hooks ----------------------------------------------------------------------------------------------------------


class HookStore(Protocol):
    """How far each hook is, and what there is to tell. What fails raises StoreError, and is tried again."""

    def close(self) -> None: ...

    def begin(self, name: str) -> None:
        """A hook that is not known yet begins with what comes from now on."""
        ...

    def state(self, name: str) -> HookState: ...

    def change(self, before: HookState, after: HookState) -> bool:
        """False: it stands elsewhere by now, and stays there."""
        ...

    def position_at(self, cursor: int) -> Position:
        """That of a hook to which all rows up to this one were told, and the notices from before the last of them."""
        ...

    def cursor_before(self, at_ms: int) -> int:
        """The last row of the journal that is older."""
        ...

    def last_cursor(self) -> int: ...

    def news(self, after_cursor: int, limit: int) -> tuple[News | None, int]:
        """Of at most ``limit`` rows the first that tells something, and the last before it, or of all, with none."""
        ...

    def add_notices(self, notices: Sequence[Notice]) -> None:
        """They are on disk then; the oldest give way."""
        ...

    def next_notice(self, after: int) -> Notice | None: ...

    def last_notice(self, topics: Iterable[Topic]) -> Notice | None:
        """The latest of one of these topics."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class HookSight:
    """A hook for people. ``target``: where it leads, without what may be secret. ``waiting_since_ms``: of when what it
    is to be told next is; None: nothing that is known. ``unusable``: what this machine lacks for it; empty: nothing."""

    state: HookState
    target: str
    topics: tuple[Topic, ...]
    has_secrets: bool
    waiting_since_ms: int | None
    unusable: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class HookTrial:
    """What became of a test. ``trouble``: the end of a sentence; empty: it was acknowledged."""

    trouble: str
    took_ms: int


class HookDesk(Protocol):
    """The hooks of the configuration, for who asks on the operator's socket. Raises InvalidRequest for a name that is
    not among them, and StoreError."""

    delivery_count: int
    """Deliveries to this process's hooks that were acknowledged."""
    failure_count: int
    """Those in vain."""

    def sights(self) -> list[HookSight]: ...

    def alarms(self) -> list[str]: ...

    async def test(self, name: str) -> HookTrial:
        """Sends a test, whatever the state of the hook."""
        ...

    def replay(self, name: str, after_cursor: int | None, since_ms: int | None) -> HookSight:
        """Goes on at once: from where it is, after a row of the journal, or with what happened since then."""
        ...

    async def skip(self, name: str) -> HookSight:
        """Goes on at once behind what it was told in vain. InvalidRequest if there is nothing of the kind, too."""
        ...
