"""What sms4sats answers, made sense of. Pure: status code and body in, domain out.

Unknown fields are normal; a known field with a meaning that nobody has seen is a ProviderProtocolError with the raw
body. Integers are read as text, so that no digit is lost; numbers and strings are taken for each other everywhere.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any, Final

from holdpay.core.events import ProviderStatus
from holdpay.errors import ProviderProtocolError, ProviderRefused, ProviderUnavailable
from holdpay.ports import Placed, Prices, ServiceInfo

MAX_CODE_CHARS: Final = 320
"""Two SMS: what is paid for may come as a whole sentence."""
MAX_NUMBER_DIGITS: Final = 32
MAX_PAYREQ_CHARS: Final = 7089
"""The longest invoice that LND reads (lnd: zpay32, maxInvoiceLength)."""
MAX_PRICE_SAT: Final = 1_000_000_000
MAX_TEXT_CHARS: Final = 300
MAX_NAME_CHARS: Final = 100
MAX_SERVICES: Final = 5000
"""Several times what is sold anywhere: looking for the nearest name among more would hold up the daemon."""
DEFAULT_PAUSE_S: Final = 5.0
"""Between requests after a 429 that names no time."""

_TOO_EARLY: Final = frozenset({408, 425, 429})
_ORDER_ID: Final = re.compile(r"[A-Za-z0-9_-]{1,128}")
_PAYREQ: Final = re.compile(r"ln[a-z0-9]+", re.IGNORECASE | re.ASCII)
_SERVICE_CODE: Final = re.compile(r"[A-Za-z0-9_.-]{1,32}")
_NUMBER: Final = re.compile(r"\+?[0-9][0-9 ()-]*")
_LONG_HEX: Final = re.compile(r"([0-9a-fA-F]{8})[0-9a-fA-F]{24,}")


class JsonNumber(str):
    """A number of the body, in the digits in which it was written."""

    __slots__ = ()


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
    """``/createorder``. An order without an invoice ('paid' in its place: a prepaid account's) is none of ours."""
    body = _object(answer)
    order_id = _absent_or_text(body.get("orderId")).strip()
    payreq = _absent_or_text(body.get("payreq")).strip()
    if not payreq and (reason := _reason(body)):
        raise _refused(answer, reason)
    if not _ORDER_ID.fullmatch(order_id):
        raise _nonsense(answer, "an order without a usable id")
    if len(payreq) > MAX_PAYREQ_CHARS or not _PAYREQ.fullmatch(payreq):
        raise _nonsense(answer, "an order without an invoice")
    return Placed(order_id, payreq)


def order_status(answer: Answer) -> ProviderStatus:
    """``/orderstatus``. Nothing that cannot be read hides a code; a reply that does not say whether it was
    paid never reads as unpaid, because that word licenses another payment."""
    body = _object(answer)
    code, code_may_lack_zeros = _code(answer, body.get("code"))
    number = _number(answer, body.get("number"), is_needed=not code)
    error = _absent_or_text(body.get("error"))
    is_paid = True if code else _truth(answer, body.get("paid"))
    if is_paid is None:
        if not (number or error):
            raise _nonsense(answer, "an order status that does not say whether it was paid")
        is_paid = bool(number)
    return ProviderStatus(
        is_paid=is_paid,
        number=number or None,
        code=code or None,
        code_may_lack_zeros=code_may_lack_zeros,
        error=one_line(error) or None,
    )


def cancel_accepted(answer: Answer) -> None:
    """``/cancelorder``: returns if the provider said OK and nothing else."""
    body = _object(answer)
    if reason := _reason(body):
        raise _refused(answer, reason)
    if _text(body.get("status")).lower() != "ok":
        raise _nonsense(answer, "an answer to a cancel that is neither yes nor no")


def services(answer: Answer) -> tuple[ServiceInfo, ...]:
    """``/getnumbersstatus``. Rows without a short code are left out, as long as there are others."""
    rows = _load(answer)
    if not isinstance(rows, list):
        _object(answer)
        raise _nonsense(answer, "something that is not a list of services")
    if len(rows) > MAX_SERVICES:
        raise _nonsense(answer, f"{len(rows)} services")
    known = [info for row in rows if (info := _service(row))]
    if rows and not known:
        raise _nonsense(answer, "a list of services without a short code")
    return tuple(known)


def prices(answer: Answer, asked_at_ms: int) -> Prices:
    """``/price``, with or without a query."""
    body = _object(answer)
    computed = body.get("computed")
    exact = computed.get("price") if isinstance(computed, dict) else None
    return Prices(
        receive_sat=_sat(answer, body.get("receive")),
        send_sat=_sat(answer, body.get("send")),
        rent_from_sat=_sat(answer, body.get("rent")),
        real_phone_sat=_sat(answer, body.get("s4s")),
        exact_sat=_sat(answer, exact),
        asked_at_ms=asked_at_ms,
    )


# --- the answer as a whole ------------------------------------------------------------------------------------------


def _object(answer: Answer) -> dict[str, Any]:
    """The body of a yes. Judges by the body as well as by the HTTP status: a no may come with 200."""
    body = _load(answer)
    if not isinstance(body, dict):
        raise _nonsense(answer, "something that is not an object")
    status = _text(body.get("status")).lower()
    if status == "error" or (not status and body.get("reason")) or answer.http_status >= 400:
        raise _refused(answer, _reason(body))
    if status not in {"", "ok"}:
        raise _nonsense(answer, f'the status "{one_line(status)}"')
    return body


def _load(answer: Answer) -> object:
    status = answer.http_status
    if status >= 500 or status in _TOO_EARLY:
        raise _unavailable(answer)
    if 300 <= status < 400:
        raise _nonsense(answer, f"a redirect (HTTP {status}), which is not followed")
    try:
        return _json(answer.body)
    except ValueError:
        if status in {401, 403, 407} or answer.body.lstrip()[:1] == b"<":
            raise _walled(answer) from None
        raise _nonsense(answer, f"something that is not JSON (HTTP {status})") from None


def _json(body: bytes) -> object:
    """Raises ValueError, for what is nested absurdly deep, too."""
    try:
        return json.loads(
            body.decode("utf-8"), parse_int=JsonNumber, parse_float=JsonNumber, parse_constant=_no_constant
        )
    except RecursionError:
        raise ValueError("nested too deep") from None


def _no_constant(name: str) -> object:
    raise ValueError(f"{name} is not JSON")


def _unavailable(answer: Answer) -> ProviderUnavailable:
    retry_after_s = answer.retry_after_s
    if answer.http_status == 429:
        retry_after_s = DEFAULT_PAUSE_S if retry_after_s is None else retry_after_s
        return ProviderUnavailable(
            f"sms4sats takes no requests for the next {retry_after_s:.0f} s (HTTP 429). Try again then.",
            retry_after_s,
            answer.raw,
        )
    try:
        body = _json(answer.body)
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


def _nonsense(answer: Answer, what: str) -> ProviderProtocolError:
    return ProviderProtocolError(
        f"sms4sats answered with {what}. See that provider.base_url is right; if it is, its API has changed.",
        answer.raw,
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


def _absent_or_text(value: object) -> str:
    """Empty for what means absent; other things than text are kept in JSON, since they say something."""
    if value is None or value is False or value in ("", "0"):
        return ""
    return value if isinstance(value, str) else json.dumps(value)


def _reason(body: dict[str, Any]) -> str:
    return one_line(_absent_or_text(body.get("reason")) or _absent_or_text(body.get("error")))


def one_line(text: str) -> str:
    """One short printable line of what came from outside.

    A long run of hex digits is an order id, which must not reach a log.
    """
    printable = "".join(char if char.isprintable() else " " for char in text[: 4 * MAX_TEXT_CHARS])
    line = " ".join(_LONG_HEX.sub(r"\1…", printable).split())
    return line if len(line) <= MAX_TEXT_CHARS else line[: MAX_TEXT_CHARS - 1] + "…"


def _code(answer: Answer, value: object) -> tuple[str, bool]:
    """The code, and whether it may have lost leading zeros because it came as a number."""
    code = " ".join(_absent_or_text(value).split())
    is_number = isinstance(value, JsonNumber)
    is_text = isinstance(value, str) and code.isprintable() and (not is_number or code.isdecimal())
    if code and not (is_text and len(code) <= MAX_CODE_CHARS):
        raise _nonsense(answer, "a code that cannot be one")
    return code, is_number and bool(code)


def _number(answer: Answer, value: object, *, is_needed: bool) -> str:
    """Digits only, with the country's prefix."""
    number = _absent_or_text(value).strip()
    digits = re.sub(r"[^0-9]", "", number)
    if number and not (_NUMBER.fullmatch(number) and len(digits) <= MAX_NUMBER_DIGITS):
        if is_needed:
            raise _nonsense(answer, "a phone number that cannot be one")
        return ""
    return digits


def _truth(answer: Answer, value: object) -> bool | None:
    if value is None or isinstance(value, bool):
        return value
    word = _text(value).lower()
    if word not in {"true", "1", "false", "0"}:
        raise _nonsense(answer, "an order status that does not say whether it was paid")
    return word in {"true", "1"}


def _sat(answer: Answer, value: object) -> int | None:
    """0 means that there is no such price: nothing is sold for nothing."""
    text = _absent_or_text(value).strip()
    if not text:
        return None
    whole = re.fullmatch(r"([0-9]{1,12})(\.0*)?", text)
    if whole is None or int(whole[1]) > MAX_PRICE_SAT:
        raise _nonsense(answer, "a price that cannot be one")
    return int(whole[1]) or None


def _service(row: object) -> ServiceInfo | None:
    if not isinstance(row, dict):
        return None
    code = _text(row.get("value")) or _text(row.get("key"))
    if not _SERVICE_CODE.fullmatch(code):
        return None
    count = _text(row.get("count"))
    stock = int(count) if re.fullmatch(r"[0-9]{1,12}", count) else None
    return ServiceInfo(code=str(code), name=one_line(_text(row.get("text")))[:MAX_NAME_CHARS] or str(code), stock=stock)
