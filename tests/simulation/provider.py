"""The provider of the simulation: it sells all kinds of orders, for hold invoices of its own node or from the account.

It knows nothing of holdpay's model. What is true of the money is in ``Truth`` and ``Spend``; its words lag behind.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field

from holdpay.core.events import ProviderStatus, SendStatus
from holdpay.core.kinds.spec import Placing
from holdpay.core.lightning import Invoice
from tests.simulation.faults import Faults
from tests.simulation.heap import Heap
from tests.simulation.parties import MINUTE_MS, PAYEE, SimLnd, Truth

HOUR_MS = 60 * MINUTE_MS
WEEK_MS = 7 * 24 * HOUR_MS
PRICES_SAT = {"code": 2_000, "sms": 2_000, "email": 2_000, "rental": 8_000}
"""Most of them alike: what one order gives back can hide what another one took."""
ERROR = "No available number, payment request is canceled."
MAX_EARLIER = 8
_RANKS = ("unpaid", "paid", "number", "fulfilled")


@dataclass(slots=True)
class Spend:
    """One placing that was to be paid from the account, and what really happened to the money."""

    price_sat: int
    at_ms: int
    """When it set out."""
    state: str = "on the way"
    """on the way, lost, refused, taken, returned"""


@dataclass(slots=True)
class Message:
    """What came to a rented number. ``until_ms``: the next one took its place; None: it is told to the end."""

    text: str
    at_ms: int
    is_garbled: bool
    until_ms: int | None = None


@dataclass(slots=True)
class Sale:
    """The provider's record of one order. ``word``: unpaid, paid, number, fulfilled, over."""

    id: str
    kind: str
    truth: Truth | None
    spend: Spend | None
    created_at_ms: int
    has_number: bool = True
    has_thing: bool = True
    weeks: int = 0
    amount_sat: int = 0
    word: str = "unpaid"
    is_over: bool = False
    is_given_back: bool = False
    number: str | None = None
    code: str | None = None
    send_status: SendStatus | None = None
    was_sent: bool = False
    messages: list[Message] = field(default_factory=list)
    is_list: bool = False
    """Of a rental: all messages are told, not only the latest."""
    settles_at_message: bool = False
    rental_ends_at_ms: int | None = None
    held_at_ms: int | None = None
    earlier: list[ProviderStatus] = field(default_factory=list)

    @property
    def is_paid_for(self) -> bool:
        """Whether the provider has the money, or holds it."""
        return self.spend.state == "taken" if self.spend is not None else self._htlc in {"held", "settled"}

    @property
    def is_charged(self) -> bool:
        """Whether the provider has the money for good."""
        return self.spend.state == "taken" if self.spend is not None else self._htlc == "settled"

    @property
    def _htlc(self) -> str:
        return "none" if self.truth is None else self.truth.htlc


class SimProvider:
    """Its word and the money's way lag each other, either way round."""

    def __init__(self, heap: Heap, faults: Faults, lnd: SimLnd) -> None:
        self.heap = heap
        self.faults = faults
        self.lnd = lnd
        self.sales: dict[str, Sale] = {}
        self.spends: dict[str, list[Spend]] = {}
        """By order of ours. The provider itself does not know whose they are."""
        self.balance_sat = heap.rng.choice((30_000, 30_000, 30_000, 8_500, 2_500))
        lnd.on_arrival = self.htlc_arrived

    # --- orders -------------------------------------------------------------------------------------------------------

    def place(self, placing: Placing) -> Sale | None:
        """For a hold invoice. None: refused."""
        rng = self.heap.rng
        if self.faults.hits(rng, "refuse_order"):
            return None
        kind, body = _kind_of(placing), placing.body
        price_sat = int(body["amount"]) if kind == "fund" else PRICES_SAT[kind]
        preimage = rng.randbytes(32).hex()
        payment_hash = hashlib.sha256(bytes.fromhex(preimage)).hexdigest()
        invoice = Invoice(
            payment_hash=payment_hash,
            payee=PAYEE,
            amount_msat=price_sat * 1000,
            created_at_ms=self.heap.now_ms,
            expiry_s=120 if self.faults.hits(rng, "short_invoice") else 86_400,
            final_cltv_delta=40,
            has_payment_address=True,
            memo="",
        )
        truth = Truth(preimage, payment_hash, invoice.amount_msat, invoice)
        self.lnd.truths[payment_hash] = truth
        return self._sale(payment_hash, kind, truth, None, price_sat)

    def announce(self, placing: Placing, owner: str) -> Spend:
        """A placing from the account sets out. ``owner``: the order of ours, for the judge only."""
        spend = Spend(PRICES_SAT[_kind_of(placing)], self.heap.now_ms)
        self.spends.setdefault(owner, []).append(spend)
        return spend

    def place_prepaid(self, placing: Placing, spend: Spend) -> Sale | None:
        """It arrives. None: refused."""
        rng = self.heap.rng
        if self.faults.hits(rng, "refuse_order") or self.balance_sat < spend.price_sat:
            spend.state = "refused"
            return None
        spend.state = "taken"
        self.balance_sat -= spend.price_sat
        self.heap.tell(f"    the provider takes {spend.price_sat} sat from the account, {self.balance_sat} are left")
        sale = self._sale(rng.randbytes(32).hex(), _kind_of(placing), None, spend, spend.price_sat)
        sale.held_at_ms, sale.word = self.heap.now_ms, "paid"
        self._serve(sale)
        return sale

    def _sale(self, sale_id: str, kind: str, truth: Truth | None, spend: Spend | None, amount_sat: int) -> Sale:
        rng = self.heap.rng
        sale = Sale(
            sale_id,
            kind,
            truth,
            spend,
            created_at_ms=self.heap.now_ms,
            has_number=not self.faults.hits(rng, "no_number"),
            has_thing=not self.faults.hits(rng, "no_code"),
            weeks=1,
            amount_sat=amount_sat,
            send_status=SendStatus.CREATED if kind in {"sms", "email"} else None,
        )
        self.sales[sale_id] = sale
        return sale

    def status(self, sale_id: str) -> ProviderStatus:
        """The word of this moment, or one that was true before."""
        sale = self.sales[sale_id]
        if self.faults.hits(self.heap.rng, "provider_flip"):
            return ProviderStatus(is_paid=False)
        if sale.earlier and self.faults.hits(self.heap.rng, "older_reply"):
            return self.heap.rng.choice(sale.earlier)
        status = self._status(sale)
        if not sale.earlier or sale.earlier[-1] != status:
            sale.earlier = [*sale.earlier[-MAX_EARLIER:], status]
        return status

    def _status(self, sale: Sale) -> ProviderStatus:
        now_ms = self.heap.now_ms
        told = [m for m in sale.messages if m.at_ms <= now_ms and (m.until_ms is None or now_ms < m.until_ms)]
        read = tuple(m.text for m in told if not m.is_garbled)
        return ProviderStatus(
            is_paid=sale.held_at_ms is not None and sale.word != "unpaid",
            number=sale.number,
            code=sale.code if sale.is_list or not read else read[0],
            messages=read if sale.is_list else (),
            send_status=sale.send_status,
            error=ERROR if sale.word == "over" else None,
            unread=str(told) if len(read) < len(told) else None,
        )

    def cancel(self, sale_id: str) -> bool:
        """A client's cancel: refused before two minutes, after the thing, and for what is no number."""
        sale = self.sales[sale_id]
        since_ms = sale.held_at_ms or sale.created_at_ms
        # Its own node knows at once; the payer's hears of it later.
        is_settled = sale.truth is not None and sale.truth.settle_count > 0
        is_too_early = self.heap.now_ms - since_ms < 2 * MINUTE_MS
        is_delivered = sale.code is not None or bool(sale.messages) or sale.kind not in {"code", "rental"}
        if is_delivered or is_settled or is_too_early or sale.is_over:
            if not sale.is_over:
                self.faults.count("cancel_refused")
            # Of the account's money it says no more than it does; of an HTLC lnd has the last word anyway.
            return sale.is_over if sale.spend is None else sale.spend.state == "returned"
        self._give_back(sale)
        return True

    def others_move_balance(self) -> None:
        """Another program of the user spends from the account."""
        amount_sat = self.heap.rng.choice((*PRICES_SAT.values(), 100))
        if self.balance_sat >= amount_sat:
            self.balance_sat -= amount_sat
            self.heap.tell(f"    another program spends {amount_sat} sat of the account")

    def filled_up(self) -> None:
        """The user puts in what is enough for all that may still be ordered."""
        self.balance_sat += 100_001

    # --- its node -----------------------------------------------------------------------------------------------------

    def htlc_arrived(self, payment_hash: str) -> None:
        sale = self.sales[payment_hash]
        truth = sale.truth
        assert truth is not None
        if sale.is_over or truth.was_held or self.heap.now_ms > truth.invoice.expires_at_ms:
            self.heap.lagged(50, lambda: self.lnd.resolved(payment_hash, "refused"))
            return
        truth.htlc = "held"
        self.heap.tell("    the provider's node holds the HTLC")
        truth.was_held = True
        sale.held_at_ms = self.heap.now_ms
        self.heap.lagged(self.faults.lag_ms, lambda: self._say(sale, "paid"))
        if self.faults.hits(self.heap.rng, "on_chain"):
            self.heap.after(self.heap.rng.randrange(30 * MINUTE_MS), lambda: self._on_chain(sale))
            return
        self._serve(sale)

    def _on_chain(self, sale: Sale) -> None:
        if sale.truth is not None and sale.truth.htlc == "held" and not sale.is_over:
            sale.is_over = True
            self.heap.lagged(self.faults.lag_ms, lambda: self._say(sale, "over"))
            self.lnd.resolved(sale.truth.payment_hash, "on chain")

    def _settle(self, sale: Sale) -> None:
        truth = sale.truth
        if truth is not None and truth.htlc == "held" and not sale.is_given_back:
            truth.settle_count += 1
            self.heap.tell("    the provider's node settles")
            self.heap.lagged(self.faults.lag_ms, lambda: self.lnd.resolved(truth.payment_hash, "settled"))

    def _give_back(self, sale: Sale, *, has_error: bool = True) -> None:
        """``has_error`` False: another word than an error says that it is over."""
        if sale.is_over or (sale.truth is not None and sale.truth.settle_count):
            return
        sale.is_over = sale.is_given_back = True
        self.heap.tell("    the provider gives the money back")
        if has_error:
            self.heap.lagged(self.faults.lag_ms, lambda: self._say(sale, "over"))
        truth = sale.truth
        if truth is not None and truth.htlc == "held":
            self.heap.lagged(self.faults.lag_ms, lambda: self.lnd.resolved(truth.payment_hash, "canceled"))
        if sale.spend is not None:
            self.heap.lagged(self.faults.lag_ms, lambda: self._return(sale))

    def _return(self, sale: Sale) -> None:
        assert sale.spend is not None
        sale.spend.state = "returned"
        self.balance_sat += sale.spend.price_sat
        self.heap.tell(f"    {sale.spend.price_sat} sat are back in the account, which has {self.balance_sat}")

    def _say(self, sale: Sale, word: str) -> None:
        if sale.word != "over" and (word == "over" or _RANKS.index(word) > _RANKS.index(sale.word)):
            sale.word = word

    # --- what it sells ------------------------------------------------------------------------------------------------

    def _serve(self, sale: Sale) -> None:
        """It is paid for: what comes now depends on the kind."""
        {
            "code": self._serve_code,
            "rental": self._serve_rental,
            "sms": self._serve_message,
            "email": self._serve_message,
            "fund": self._serve_fund,
        }[sale.kind](sale)

    def _fails(self, sale: Sale) -> None:
        self.heap.after(self.heap.rng.randrange(MINUTE_MS, 21 * MINUTE_MS), lambda: self._give_back(sale))

    def _number_after(self, sale: Sale, up_to_ms: int) -> int:
        after_ms = self.heap.rng.randrange(1_000, up_to_ms)
        self.heap.after(after_ms, lambda: self._number(sale))
        return after_ms

    def _number(self, sale: Sale) -> None:
        if not sale.is_over:
            sale.number = "15550001111"
            self._say(sale, "number")

    def _serve_code(self, sale: Sale) -> None:
        if not sale.has_number or not sale.has_thing:
            if sale.has_number:
                self._number_after(sale, 30_000)
            self._fails(sale)
            return
        number_ms = self._number_after(sale, 25_000)
        self.heap.after(number_ms + self.heap.rng.randrange(1_000, 5 * MINUTE_MS), lambda: self._deliver_code(sale))

    def _deliver_code(self, sale: Sale) -> None:
        if sale.is_over or not sale.is_paid_for:
            return
        sale.is_over = True
        self.heap.tell("    the provider ends the order")
        if not self.faults.hits(self.heap.rng, "never_a_code"):
            self.heap.lagged(self.faults.lag_ms, lambda: self._show_code(sale))
        self.heap.lagged(self.faults.lag_ms, lambda: self._settle(sale))

    def _show_code(self, sale: Sale) -> None:
        sale.code = "048010"
        self._say(sale, "fulfilled")

    # A rented number: it is charged for with the number, or with the first message; nobody knows which.

    def _serve_rental(self, sale: Sale) -> None:
        if not sale.has_number:
            self._fails(sale)
            return
        rng = self.heap.rng
        sale.is_list = rng.random() < 0.5
        sale.settles_at_message = sale.spend is None and rng.random() < 0.4
        number_ms = self._number_after(sale, 25_000)
        self.heap.after(number_ms, lambda: self._rent(sale))

    def _rent(self, sale: Sale) -> None:
        if sale.is_over or not sale.is_paid_for:
            return
        rng, now_ms = self.heap.rng, self.heap.now_ms
        sale.rental_ends_at_ms = now_ms + sale.weeks * WEEK_MS
        if sale.settles_at_message and not sale.has_thing:
            self._fails(sale)
            return
        early = rng.choice((0, 1, 3)) + sale.settles_at_message
        late = rng.choice((0, 1, 3))
        delays_ms = [rng.randrange(1_000, 15 * MINUTE_MS) for _ in range(early)]
        delays_ms += [rng.randrange(HOUR_MS, sale.weeks * WEEK_MS) for _ in range(late)]
        for delay_ms in sorted(delays_ms):
            self.heap.after(delay_ms, lambda: self._message(sale))
        if not sale.settles_at_message:
            self.heap.lagged(self.faults.lag_ms, lambda: self._settle(sale))
        if rng.random() < 0.5:
            self.heap.after(sale.weeks * WEEK_MS, lambda: self._say(sale, "over"))

    def _message(self, sale: Sale) -> None:
        if sale.is_over or not sale.is_paid_for:
            return
        rng, now_ms = self.heap.rng, self.heap.now_ms
        text = f"Your code is {rng.randrange(10**6):06}."
        if sale.is_list and sale.messages and rng.random() < 0.3:
            text = rng.choice(sale.messages).text  # the same words once more
        if not sale.is_list and sale.messages:
            sale.messages[-1].until_ms = now_ms
        sale.messages.append(Message(text, now_ms, is_garbled=self.faults.hits(rng, "garbled_message")))
        self.heap.tell(f"    a message came to the number: {text}")
        if sale.settles_at_message and len(sale.messages) == 1:
            self.heap.lagged(self.faults.lag_ms, lambda: self._settle(sale))

    # An SMS or an e-mail: charged when it is sent.

    def _serve_message(self, sale: Sale) -> None:
        rng = self.heap.rng
        if not sale.has_number:
            self._fails(sale)
            return
        self.heap.after(rng.randrange(1_000, 90_000), lambda: self._send(sale))

    def _send(self, sale: Sale) -> None:
        if sale.is_over or not sale.is_paid_for:
            return
        if not sale.has_thing or self.faults.hits(self.heap.rng, "sending_fails"):
            self.heap.lagged(self.faults.lag_ms, lambda: self._say_sending(sale, SendStatus.FAILED))
            self._give_back(sale, has_error=self.heap.rng.random() < 0.5)
            return
        sale.is_over = True
        sale.was_sent = True
        self.heap.tell("    the provider sends it")
        self.heap.lagged(self.faults.lag_ms, lambda: self._say_sending(sale, SendStatus.SENT))
        self.heap.lagged(self.faults.lag_ms, lambda: self._settle(sale))
        if self.heap.rng.random() < 0.8:
            # Later than the settlement's lag, or before it.
            after_ms = self.faults.lag_ms + self.heap.rng.randrange(90 * MINUTE_MS)
            last = SendStatus.FAILED if self.faults.hits(self.heap.rng, "sending_fails") else SendStatus.DELIVERED
            self.heap.after(after_ms, lambda: self._say_sending(sale, last))

    def _say_sending(self, sale: Sale, status: SendStatus) -> None:
        sale.send_status = status

    # Money for the account.

    def _serve_fund(self, sale: Sale) -> None:
        if not sale.has_thing:
            self._fails(sale)
            return
        self.heap.after(self.heap.rng.randrange(1_000, 5 * MINUTE_MS), lambda: self._fund(sale))

    def _fund(self, sale: Sale) -> None:
        if sale.is_over or not sale.is_paid_for:
            return
        sale.is_over = True
        self.heap.lagged(self.faults.lag_ms, lambda: self._settle(sale))
        self.heap.lagged(self.faults.lag_ms, lambda: self._credit(sale))

    def _credit(self, sale: Sale) -> None:
        self.balance_sat += sale.amount_sat
        self.heap.tell(f"    {sale.amount_sat} sat are put into the account, which has {self.balance_sat}")


def _kind_of(placing: Placing) -> str:
    if placing.path == "/createorder":
        return "rental" if placing.body.get("isRental") else "code"
    return {"/createsendorder": "sms", "/createemailsendorder": "email", "/fund": "fund"}[placing.path]
