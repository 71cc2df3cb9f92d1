"""How hostile the world is, drawn from the seed, so that no two seeds fail alike."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random


@dataclass(slots=True, kw_only=True)
class Faults:
    """Chances are per occasion; times in ms. ``calm`` turns all of them off at once (phase two)."""

    is_calm: bool = False
    lost_reply: float = 0.0
    """The request is carried out, and the answer is lost."""
    provider_error: float = 0.0
    provider_flip: float = 0.0
    """A status reply is that of an unpaid order, or lacks what an earlier one had."""
    stale_reply: float = 0.0
    """A status reply was true when the request was sent, and comes much later."""
    older_reply: float = 0.0
    """A status reply is one that was true earlier."""
    never_placed: float = 0.0
    """A placing from the account never arrives, and nobody says so."""
    late_placing: float = 0.0
    """A placing from the account arrives when its sender has given up waiting for the answer."""
    error_after: float = 0.0
    """HTTP 5xx to a placing from the account that was carried out all the same."""
    others_spend: float = 0.0
    """Per minute: another program of the user spends from the same account."""
    garbled_message: float = 0.0
    """A message to a rented number that cannot be read."""
    sending_fails: float = 0.0
    """An SMS or e-mail fails, before it was sent or after that."""
    cut_stream: float = 0.0
    """A payment stream ends without a terminal message."""
    hung_stream: float = 0.0
    """A payment stream stays open and says nothing any more."""
    duplicate_update: float = 0.0
    late_update: float = 0.0
    """A copy of an update comes once more, up to 10 s later, after newer ones."""
    late_send: float = 0.0
    """A SendPaymentV2 arrives late, though a Track in between said NOT_FOUND."""
    dropped_send: float = 0.0
    """A SendPaymentV2 never arrives, and its stream breaks."""
    false_refusal: float = 0.0
    """A SendPaymentV2 is answered with an error although the payment runs (invoice expired, in transition)."""
    is_on_sqlite: bool = False
    """lnd keeps payments in tables of SQLite, where the number of a try that is replaced is free for the next one."""
    lnd_down: float = 0.0
    lnd_down_ms: int = 0
    lnd_forgets_attempts: float = 0.0
    """A terminal payment read later shows no attempts, and TIMEOUT for its reason."""
    routing_failure: float = 0.0
    payee_offline: float = 0.0
    on_chain: float = 0.0
    """A held HTLC ends on chain: FAILED with a reason that looks retryable."""
    lost_record: float = 0.0
    """lnd's record of a payment that the daemon knows is gone from some moment on, whether the HTLC is out or not."""
    never_signed: float = 0.0
    """lnd calls a payment in flight for ever, and no channel ever carries its HTLC (lnd issue 9340)."""
    no_number: float = 0.0
    no_code: float = 0.0
    never_a_code: float = 0.0
    """The hold invoice is settled and the code never shown."""
    refuse_order: float = 0.0
    client_cancel: float = 0.0
    crash: float = 0.0
    """At a commit, before or after it, and inside performers."""
    clock_step: float = 0.0
    wrong_preimage: float = 0.0
    short_invoice: float = 0.0
    """The invoice expires while the HTLC is held."""
    lag_ms: int = 50
    """What lies between a party's deed and its word."""
    counts: dict[str, int] = field(default_factory=dict)
    tell: Callable[[str], None] = lambda line: None
    """Takes which fault strikes, for the story of a seed."""

    def hits(self, rng: Random, name: str) -> bool:
        """Whether this fault strikes now."""
        chance = 0.0 if self.is_calm else getattr(self, name)
        if chance <= 0 or rng.random() >= chance:
            return False
        self.count(name)
        return True

    def count(self, name: str) -> None:
        """Something hostile happened that no chance decided."""
        self.counts[name] = self.counts.get(name, 0) + 1
        self.tell(f"    fault: {name.replace('_', ' ')}")


NO_CHANCES = frozenset({"is_calm", "is_on_sqlite", "lnd_down_ms", "lag_ms", "counts", "tell"})
CHANCES = tuple(name for name in Faults.__dataclass_fields__ if name not in NO_CHANCES)


def draw(rng: Random) -> Faults:
    """Some faults often, some seldom, most not at all: a mix in which everything fails always finds little."""
    faults = Faults(lag_ms=rng.choice((5, 50, 500, 5_000)), lnd_down_ms=rng.choice((2_000, 60_000, 600_000)))
    for name in CHANCES:
        if rng.random() < 0.45:
            setattr(faults, name, rng.choice((0.02, 0.1, 0.3)))
    if faults.client_cancel:
        faults.client_cancel = rng.choice((0.3, 1.0))  # of orders: each has one occasion
    faults.crash = min(faults.crash, 0.1)
    faults.lnd_down = min(faults.lnd_down, 0.1)
    faults.lost_reply = min(faults.lost_reply, 0.3)
    faults.is_on_sqlite = rng.random() < 0.5
    return faults
