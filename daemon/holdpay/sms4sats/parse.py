"""What sms4sats answers, made sense of. Pure: status code and body in, domain out.

Unknown fields are normal. Of an order's status each field is judged by itself, so that nothing odd hides what was paid
for (``fields`` reads the body and its values); elsewhere a known field with a meaning that nobody has seen is a
ProviderProtocolError with the raw body. Numbers are read as text, so that no digit is lost; numbers and strings are
taken for each other everywhere.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from decimal import ROUND_CEILING, Decimal
from typing import Any, Final, TypeVar

from holdpay.core.events import ProviderStatus, SendStatus
from holdpay.errors import ProviderProtocolError, ProviderRefused, ProviderUnavailable
from holdpay.ports import Balance, Funding, FundingEntry, ListedCountry, Placed, Prices, RentalOffer, ServiceInfo
from holdpay.sms4sats import fields

T = TypeVar("T")

MAX_PAYREQ_CHARS: Final = 7089
"""The longest invoice that LND reads (lnd: zpay32, maxInvoiceLength)."""
MAX_PRICE_SAT: Final = 1_000_000_000
MAX_TEXT_CHARS: Final = 300
MAX_NAME_CHARS: Final = 100
MAX_ROWS: Final = 5000
"""Of a list: several times what is sold anywhere; looking for the nearest name among more would hold up the daemon."""
MAX_ENTRIES: Final = 10_000
DEFAULT_PAUSE_S: Final = 5.0
"""Between requests after a 429 that names no time."""

_TOO_EARLY: Final = frozenset({408, 425, 429})
_ORDER_ID: Final = re.compile(r"[A-Za-z0-9_-]{1,128}")
_PAYREQ: Final = re.compile(r"ln[a-z0-9]+", re.IGNORECASE | re.ASCII)
_SERVICE_CODE: Final = re.compile(r"[A-Za-z0-9_.-]{1,32}")
_WHOLE_ID: Final = re.compile(r"[0-9a-fA-F]{64}")
_COUNTRY_CODE: Final = re.compile(r"[0-9]{1,6}")
_WEEKS: Final = re.compile(r"[0-9]{1,3}")
_PRICE: Final = re.compile(r"[0-9]{1,12}(\.[0-9]{0,40})?")
_DIGITS: Final = re.compile(r"[0-9](?:[ .-]?[0-9]){3,}")
_ADDRESS: Final = re.compile(r"\S+@\S+")
_LONG_HEX: Final = re.compile(r"([0-9a-fA-F]{8})[0-9a-fA-F]{24,}")


@dataclass(frozen=True, slots=True)
class Answer:
    """An HTTP response, read to its end. ``retry_after_s``: what its Retry-After asks for, None without one."""

    http_status: int
    body: bytes
    retry_after_s: float | None = None

    @property
    def raw(self) -> str:
        return self.body.decode("utf-8", errors="replace")


# --- one function for each endpoint ---------------------------------------------------------------------------------


def placed(answer: Answer) -> Placed:
    """``/createorder`` and its like, of an order that a hold invoice pays. One without an invoice ('paid' in its place)
    is none of ours."""
    body = _object(answer)
    order_id, payreq = _order_made(body)
    if not payreq and (reason := _reason(body)):
        raise _refused(answer, reason)
    _check_order_id(answer, order_id)
    if len(payreq) > MAX_PAYREQ_CHARS or not _PAYREQ.fullmatch(payreq):
        raise _nonsense(answer, "an order without an invoice")
    return Placed(order_id, payreq)


def placed_prepaid(answer: Answer) -> Placed:
    """``/createorder`` and its like with ``immediate``: 'paid', or nothing, stands in the place of the invoice.

    A no that names an order is none that could be relied on: there may be one, and it may be paid for.
    """
    try:
        body = _object(answer)
    except (ProviderRefused, ProviderUnavailable):
        if _order_made(fields.body(answer.body).members)[0]:
            raise _nonsense(answer, "a no that names an order") from None
        raise
    order_id, payreq = _order_made(body)
    if not (order_id or payreq) and (reason := _reason(body)):
        raise _refused(answer, reason)
    _check_order_id(answer, order_id)
    if payreq.lower() not in {"", "paid"}:
        raise _nonsense(answer, "an order that is not paid from the account")
    return Placed(order_id, None)


def _order_made(body: dict[str, Any]) -> tuple[str, str]:
    """Its id, and what stands in the invoice's place."""
    return fields.text(body.get("orderId")).strip(), fields.text(body.get("payreq")).strip()


def _check_order_id(answer: Answer, order_id: str) -> None:
    if not _ORDER_ID.fullmatch(order_id):
        raise _nonsense(answer, "an order without a usable id")


def order_status(answer: Answer, order_id: str = "") -> ProviderStatus:
    """``/orderstatus`` of the order ``order_id``. What was delivered counts whatever stands beside it, the HTTP status
    too. A reply that does not say whether it was paid never reads as unpaid, because that word licenses another
    payment; one in which something delivered cannot be read neither."""
    read = fields.body(answer.body)
    body = read.members
    if body.keys().isdisjoint(_STATUS_FIELDS):
        _object(answer)
        raise _nonsense(answer, "an order status that does not say whether it was paid")
    if _is_of_another(body, order_id):
        raise _nonsense(answer, "the status of another order", is_of_order=False)
    says_no = _says_no(answer, body)
    found = _delivered(body, says_no=says_no)
    if not found.is_there:
        _check_is_yes(answer, body, says_no=says_no)
    error = "" if says_no else fields.text(body.get("error"))
    is_paid = True if found.is_paid_for else fields.truth(body.get("paid"))
    if is_paid is None and (found.number.text or error):
        is_paid = bool(found.number.text)
    is_doubtful = found.is_unread or says_no or not (_is_ok(body) and read.is_whole)
    if is_paid is None or (not is_paid and is_doubtful and not found.number.text):
        raise _nonsense(answer, "an order status that does not say whether it was paid")
    return ProviderStatus(
        is_paid=is_paid,
        number=found.number.text or None,
        code=found.code.text or None,
        code_may_lack_zeros=found.code.is_number,
        messages=found.messages.texts,
        send_status=found.sending.status,
        # Kept for ever, unlike a code or a number.
        error=masked(one_line(error)) or None,
        ends_at_ms=_ends_at_ms(body),
        unread_messages=found.messages.unread,
        unread=fields.kept_raw(answer.raw) if found.is_unread_elsewhere else None,
    )


@dataclass(frozen=True, slots=True)
class _Sending:
    status: SendStatus | None
    is_unread: bool


@dataclass(frozen=True, slots=True)
class _Delivered:
    """What an order status says of the thing that was bought."""

    code: fields.Read
    number: fields.Read
    messages: fields.Messages
    sending: _Sending

    @property
    def is_paid_for(self) -> bool:
        """Nobody gets this without paying. ``created`` and ``failed`` prove nothing."""
        is_sent = self.sending.status in {SendStatus.SENT, SendStatus.DELIVERED}
        return bool(self.code.text or self.messages.texts) or is_sent

    @property
    def is_unread(self) -> bool:
        return bool(self.messages.unread) or self.is_unread_elsewhere

    @property
    def is_unread_elsewhere(self) -> bool:
        """Besides single messages, which are shown by themselves."""
        return self._is_lost or (self.number.is_unread and not self.code.text)

    @property
    def is_there(self) -> bool:
        is_known = self.is_paid_for or bool(self.number.text) or self.sending.status is not None
        return is_known or bool(self.messages.unread) or self._is_lost

    @property
    def _is_lost(self) -> bool:
        return self.code.is_unread or self.messages.is_cut or self.sending.is_unread


def _delivered(body: dict[str, Any], *, says_no: bool) -> _Delivered:
    code, number, messages = fields.code(body.get("code")), fields.number(body.get("number")), fields.messages(body)
    if says_no and not (number.text or _may_be_paid(body)):
        # A no that says nothing else about an order has under the same names what frameworks and gateways tell of an
        # error ("ECONNREFUSED", 429, "no such order"), and not what an SMS brought.
        code = code if _may_hold_code(code.text) else fields.Read()
        messages = messages if any(map(_may_hold_code, messages.texts)) else fields.Messages()
    return _Delivered(code=code, number=number, messages=messages, sending=_sending(body))


def _may_be_paid(body: dict[str, Any]) -> bool:
    """Whether it says so, or something that is no yes and no no."""
    is_paid = fields.truth(body.get("paid"))
    return bool(is_paid) or (is_paid is None and not fields.is_absent(body.get("paid")))


def _sending(body: dict[str, Any]) -> _Sending:
    said = [word for name in fields.SENDING_NAMES if name in body and (word := fields.text(body[name]))]
    known = [SendStatus(word) for text in said if (word := fields.visible(text).lower()) in _SEND_STATUSES]
    return _Sending(known[0] if known else None, is_unread=bool(said) and not known)


def _ends_at_ms(body: dict[str, Any]) -> int | None:
    said = (fields.time_ms(body[name]) for name in fields.ENDS_NAMES if name in body)
    return next((at_ms for at_ms in said if at_ms is not None), None)


def _may_hold_code(text: str) -> bool:
    return sum(char.isdigit() for char in text) >= _LEAST_CODE_DIGITS


_LEAST_CODE_DIGITS: Final = 4
_STATUS_FIELDS: Final = ("status", "paid", "error", *fields.DELIVERED_NAMES)
_SEND_STATUSES: Final = frozenset(SendStatus)


def _is_of_another(body: dict[str, Any], order_id: str) -> bool:
    """The ``id`` of the reference's example is a small number of the provider's own, so only a whole id counts."""
    if not _WHOLE_ID.fullmatch(order_id):
        return False
    said = [fields.text(body.get(name)).strip() for name in ("orderId", "id")]
    return any(_WHOLE_ID.fullmatch(other) and other.lower() != order_id.lower() for other in said)


def cancel_accepted(answer: Answer) -> None:
    """``/cancelorder``: returns if the provider said OK and nothing else."""
    body = _object(answer)
    if reason := _reason(body):
        raise _refused(answer, reason)
    if _text(body.get("status")).lower() != "ok":
        raise _nonsense(answer, "an answer to a cancel that is neither yes nor no")


def countries(answer: Answer) -> tuple[ListedCountry, ...]:
    """``/getCountries``. Rows without a number or a name are left out, as long as there are others; some country there
    must be."""
    found = _listed(answer, _country, "countries", "a number and a name")
    if not found:
        raise _nonsense(answer, "an empty list of countries")
    return found


def services(answer: Answer) -> tuple[ServiceInfo, ...]:
    """``/getnumbersstatus``. Rows without a short code are left out, as long as there are others."""
    return _listed(answer, _service, "services", "a short code")


def rentals(answer: Answer) -> tuple[RentalOffer, ...]:
    """``/getRentalCountries``. Rows that name no country are left out, as long as there are others. A duration or a
    price that cannot be read is as good as none."""
    return _listed(answer, _rental, "rentals", "a country")


def _listed(answer: Answer, read: Callable[[dict[str, Any]], T | None], what: str, needed: str) -> tuple[T, ...]:
    """The rows that ``read`` makes sense of. Raises if there are rows, and none with what is ``needed``."""
    rows = _load(answer)
    if not isinstance(rows, list):
        _object(answer)
        raise _nonsense(answer, f"something that is not a list of {what}")
    if len(rows) > MAX_ROWS:
        raise _nonsense(answer, f"{len(rows)} {what}")
    known = [found for row in rows if isinstance(row, dict) and (found := read(row)) is not None]
    if rows and not known:
        raise _nonsense(answer, f"a list of {what} without {needed}")
    return tuple(known)


def prices(answer: Answer, asked_at_ms: int) -> Prices:
    """``/price``, with or without a query. A price that cannot be read is as good as none."""
    body = _object(answer)
    computed = body.get("computed")
    exact = computed.get("price") if isinstance(computed, dict) else None
    return Prices(
        receive_sat=_sat(body.get("receive")),
        send_sat=_sat(body.get("send")),
        rent_from_sat=_sat(body.get("rent")),
        real_phone_sat=_sat(body.get("s4s")),
        exact_sat=_sat(exact),
        asked_at_ms=asked_at_ms,
    )


def balance(answer: Answer, asked_at_ms: int) -> Balance:
    """``/balance``. 0 is a balance."""
    balance_sat = _amount(_object(answer).get("balance"))
    if balance_sat is None:
        raise _nonsense(answer, "a balance that is no number of sat", is_of_order=False)
    return Balance(balance_sat, asked_at_ms)


def funding(answer: Answer) -> Funding:
    """``/history``. Of each entry every field is judged by itself; ``userId`` is the key, and is not kept."""
    body = _object(answer)
    rows = body.get("orders")
    if not isinstance(rows, list) or len(rows) > MAX_ENTRIES:
        raise _nonsense(answer, "something that is not a history of the account", is_of_order=False)
    entries = [_funding_entry(row) for row in rows if isinstance(row, dict)]
    if rows and not entries:
        raise _nonsense(answer, "a history without entries", is_of_order=False)
    entries.sort(key=lambda entry: entry.created_at_ms or 0, reverse=True)
    return Funding(_amount(body.get("totalAmount")), tuple(entries))


def _funding_entry(row: dict[str, Any]) -> FundingEntry:
    return FundingEntry(
        amount_sat=_amount(row.get("amount")),
        price_sat=_amount(row.get("price")),
        created_at_ms=_time_ms(row.get("createdAt")),
        description=one_line(fields.text(row.get("description")) or fields.text(row.get("desc"))),
        payment_hash=_hash(row.get("preimageHash")),
        preimage=_hash(row.get("preimage")),
    )


# --- the answer as a whole ------------------------------------------------------------------------------------------


def _object(answer: Answer) -> dict[str, Any]:
    """The body of a yes. Judges by the body as well as by the HTTP status: a no may come with 200."""
    body = _load(answer)
    if not isinstance(body, dict):
        raise _nonsense(answer, "something that is not an object")
    if _says_no(answer, body):
        raise _refused(answer, _reason(body))
    if not _is_ok(body):
        raise _nonsense(answer, "a status that is neither OK nor error")
    return body


def _check_is_yes(answer: Answer, body: dict[str, Any], *, says_no: bool) -> None:
    """Raises for an order status without anything to deliver whose head or status says no."""
    _check_head(answer)
    if says_no:
        raise _refused(answer, _reason(body))


def _says_no(answer: Answer, body: dict[str, Any]) -> bool:
    status = _status(body)
    return status == "error" or (not status and bool(fields.text(body.get("reason")))) or answer.http_status >= 300


def _is_ok(body: dict[str, Any]) -> bool:
    return _status(body) in {"", "ok", "true", "success", "200"}


def _status(body: dict[str, Any]) -> str:
    return fields.text(body.get("status")).strip().lower()


def _load(answer: Answer) -> object:
    _check_head(answer)
    try:
        return fields.strict_json(answer.body)
    except ValueError:
        if answer.http_status in {401, 403, 407} or answer.body.lstrip()[:1] == b"<":
            raise _walled(answer) from None
        raise _nonsense(answer, f"something that is not JSON (HTTP {answer.http_status})") from None


def _check_head(answer: Answer) -> None:
    status = answer.http_status
    if status >= 500 or status in _TOO_EARLY:
        raise _unavailable(answer)
    if 300 <= status < 400:
        raise _nonsense(answer, f"a redirect (HTTP {status}), which is not followed", is_of_order=False)


def _unavailable(answer: Answer) -> ProviderUnavailable:
    retry_after_s = answer.retry_after_s
    if answer.http_status == 429:
        retry_after_s = DEFAULT_PAUSE_S if retry_after_s is None else retry_after_s
        return ProviderUnavailable(
            f"sms4sats takes no requests for the next {retry_after_s:.0f} s (HTTP 429). Try again then.",
            retry_after_s,
            answer.raw,
            is_turned_away=True,
        )
    try:
        body = fields.strict_json(answer.body)
    except ValueError:
        body = None
    reason = _reason(body) if isinstance(body, dict) else ""
    said = f' and says "{reason}"' if reason else ""
    return ProviderUnavailable(
        f"sms4sats has a problem of its own (HTTP {answer.http_status}){said}. Try again later.",
        retry_after_s,
        answer.raw,
    )


def _refused(answer: Answer, reason: str) -> ProviderRefused:
    return ProviderRefused(f'sms4sats says "{one_line(reason) or f"HTTP {answer.http_status}"}"', answer.raw)


def _nonsense(answer: Answer, what: str, *, is_of_order: bool = True) -> ProviderProtocolError:
    """``is_of_order``: a person may still find in it what was paid for."""
    return ProviderProtocolError(
        f"sms4sats answered with {what}. See that provider.base_url is right; if it is, its API has changed.",
        answer.raw,
        fields.kept_raw(answer.raw) if is_of_order and answer.raw.strip() else None,
    )


def _walled(answer: Answer) -> ProviderProtocolError:
    return ProviderProtocolError(
        f"A web page came in place of sms4sats's answer (HTTP {answer.http_status}): a login page of the network, a"
        " proxy, or a guard against robots. Look at provider.base_url from this machine (`curl -i`); log in to the"
        " network, or take another way out (provider.proxy).",
        answer.raw,
    )


# --- single values --------------------------------------------------------------------------------------------------


def _text(value: object) -> str:
    return value.strip() if isinstance(value, str) else ""


def _reason(body: dict[str, Any]) -> str:
    """For messages, which are kept for ever and get into the log."""
    text = one_line(fields.text(body.get("reason")) or fields.text(body.get("error")))
    return masked(text)


def masked(text: str) -> str:
    """Four digits in a row and more, separators between them or not, become "…": a code or a phone number. So do the
    two halves of an e-mail address."""
    return _DIGITS.sub("…", _ADDRESS.sub("…@…", text))


def one_line(text: str) -> str:
    """One short printable line of what came from outside.

    A long run of hex digits is an order id, which must not reach a log.
    """
    printable = text[: 4 * MAX_TEXT_CHARS]
    if not printable.isprintable():
        printable = "".join(char if char.isprintable() else " " for char in printable)
    line = " ".join(_LONG_HEX.sub(r"\1…", printable).split())
    return line if len(line) <= MAX_TEXT_CHARS else line[: MAX_TEXT_CHARS - 1] + "…"


def _sat(value: object) -> int | None:
    """Rounded up. None: there is no such price, since nothing is sold for nothing, or it cannot be read."""
    text = fields.whole_digits(fields.text(value).strip())
    if not _PRICE.fullmatch(text):
        return None
    price_sat = int(Decimal(text).to_integral_value(ROUND_CEILING))
    return price_sat if 0 < price_sat <= MAX_PRICE_SAT else None


def _amount(value: object) -> int | None:
    """Whole sat, rounded down. 0 is an amount. None: it cannot be read."""
    value = fields.single(value)
    text = fields.whole_digits(value.strip()) if isinstance(value, str) else ""
    return int(Decimal(text)) if _PRICE.fullmatch(text) else None


def _time_ms(value: object) -> int | None:
    text = fields.whole_digits(fields.text(value).strip())
    return int(text) if re.fullmatch(r"[0-9]{1,15}", text) else None


def _hash(value: object) -> str:
    """32 bytes in hex; empty: it is not that."""
    text = fields.text(value).strip()
    return text.lower() if _WHOLE_ID.fullmatch(text) else ""


def _country(row: dict[str, Any]) -> ListedCountry | None:
    code, name = _whole(row.get("id"), _COUNTRY_CODE), _name(row.get("eng"))
    if code is None or not name:
        return None
    is_shown, has_rentals = fields.truth(row.get("visible")), fields.truth(row.get("rent"))
    return ListedCountry(code=code, name=name, is_shown=is_shown, has_rentals=has_rentals)


def _rental(row: dict[str, Any]) -> RentalOffer | None:
    code, country = _whole(row.get("cc"), _COUNTRY_CODE), _name(row.get("country"))
    if code is None and not country:
        return None
    # Nothing is rented for no time.
    return RentalOffer(code, country, _whole(row.get("duration"), _WEEKS) or None, _sat(row.get("price")))


def _whole(value: object, pattern: re.Pattern[str]) -> int | None:
    """0 is a number like any other here."""
    digits = fields.whole_digits(_text(fields.single(value)))
    return int(digits) if pattern.fullmatch(digits) else None


def _name(value: object) -> str:
    """What people read, in one short line."""
    return one_line(_text(value))[:MAX_NAME_CHARS]


def _service(row: dict[str, Any]) -> ServiceInfo | None:
    code = _text(row.get("value")) or _text(row.get("key"))
    if not _SERVICE_CODE.fullmatch(code):
        return None
    count = _text(row.get("count"))
    stock = int(count) if re.fullmatch(r"[0-9]{1,12}", count) else None
    return ServiceInfo(code=str(code), name=_name(row.get("text")) or str(code), stock=stock)
