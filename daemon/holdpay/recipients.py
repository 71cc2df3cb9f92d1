"""What people give of those who get something: phones, addresses, messages, webhooks. Checked as text, nobody is asked.

Each check returns the text as the provider wants it. Raises InvalidRequest, which never repeats the text: it is the
buyer's own business, and messages reach logs.
"""

from __future__ import annotations

import re
import unicodedata
from typing import Final, NoReturn
from urllib.parse import urlsplit

from email_validator import EmailNotValidError, validate_email

from holdpay.errors import InvalidRequest

MAX_MESSAGE_CHARS: Final = 140
"""Of an SMS or an e-mail (the provider's reference), counted as Unicode characters."""
MIN_PHONE_CHARS: Final = 8
MAX_PHONE_CHARS: Final = 16
"""With the plus. Shorter ones are of services, which get no SMS; E.164 knows no longer ones."""
MAX_URL_CHARS: Final = 2048
MAX_LIGHTNING_ADDRESS_CHARS: Final = 254

_PHONE: Final = re.compile(r"\+?[0-9 ()./-]{1,40}")
_LABEL: Final = r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?"
_LIGHTNING_ADDRESS: Final = re.compile(rf"[a-z0-9_.+-]{{1,64}}@(?:{_LABEL}\.)+{_LABEL}")
"""LUD-16: the name's characters; then a host. LUD-16 has lower case only."""
_URL: Final = re.compile(r"[!-~]+")


def is_region(text: str) -> bool:
    """Whether it is a country (ISO 3166, two letters) whose phone numbers are known."""
    # Imported where it is wanted, as below: a megabyte that only a daemon that sends SMS needs.
    from phonenumbers import SUPPORTED_REGIONS

    return text in SUPPORTED_REGIONS


def phone_number(text: str, region: str | None = None) -> str:
    """E.164, "+19871234567". ``region``: the country (ISO 3166, two letters) whose people write it like ``text``; a
    number that begins with + needs none.

    Whether the number was ever given to anybody is not asked: new ones appear before any list has them.
    """
    import phonenumbers
    from phonenumbers import NumberParseException, PhoneNumberFormat, ValidationResult

    text = text.strip()
    if not _PHONE.fullmatch(text):
        _refuse("phone", "The phone number has characters that belong to none.", "Write it like +19871234567.")
    if region is not None and not is_region(region.upper()):
        _refuse(
            "country", "In this country no phone numbers are known.", "Write the number with + and the country's code."
        )
    if region is None and not text.startswith("+"):
        _refuse("phone", "The phone number does not say its country.", "Begin it with +, or name the country.")
    try:
        number = phonenumbers.parse(text, region and region.upper())
    except NumberParseException:
        _refuse("phone", "This is no phone number that can be dialed.", "Write it like +19871234567.")
    verdict = phonenumbers.is_possible_number_with_reason(number)
    if verdict != ValidationResult.IS_POSSIBLE:
        _refuse("phone", f"The phone number {_why_not(verdict)}.", "Write it like +19871234567.")
    e164 = str(phonenumbers.format_number(number, PhoneNumberFormat.E164))
    if not MIN_PHONE_CHARS <= len(e164) <= MAX_PHONE_CHARS:
        short_or_long = "short" if len(e164) < MIN_PHONE_CHARS else "long"
        _refuse("phone", f"The phone number is too {short_or_long}.", "Write it like +19871234567.")
    return e164


def _why_not(verdict: int) -> str:
    from phonenumbers import ValidationResult

    return {
        ValidationResult.TOO_SHORT: "is too short",
        ValidationResult.TOO_LONG: "is too long",
        ValidationResult.INVALID_COUNTRY_CODE: "begins with the code of no country",
        ValidationResult.IS_POSSIBLE_LOCAL_ONLY: "lacks the area code",
    }.get(verdict, "has a length that no number there has")


def email_address(text: str) -> str:
    """One address, without a name beside it. Its domain is not looked up; one in another script comes out in ASCII."""
    try:
        found = validate_email(text.strip(), check_deliverability=False, allow_smtputf8=False, strict=True)
    except EmailNotValidError:
        _refuse("address", "This is no e-mail address.", "Write it like satoshi@example.com.")
    return str(found.ascii_email)


def message_text(text: str) -> str:
    """1 to MAX_MESSAGE_CHARS characters, none of them a control character, a line's end included."""
    if not text.strip():
        _refuse("message", "The message is empty.", "Give it a text.")
    if len(text) > MAX_MESSAGE_CHARS:
        raise InvalidRequest(
            f"The message has {len(text):,} characters, and the provider takes {MAX_MESSAGE_CHARS}. Shorten it.",
            field="message",
            length_chars=len(text),
            limit_chars=MAX_MESSAGE_CHARS,
        )
    if any(unicodedata.category(char) in {"Cc", "Cs", "Zl", "Zp"} for char in text):
        _refuse(
            "message", "The message has a control character or a line's end.", "Write it in one line of plain text."
        )
    return text


def lightning_address(text: str) -> str:
    """``name@host``, in lower case (LUD-16)."""
    address = text.strip().lower()
    if len(address) > MAX_LIGHTNING_ADDRESS_CHARS or not _LIGHTNING_ADDRESS.fullmatch(address):
        _refuse("ref", "This is no Lightning Address.", "Write it like satoshi@example.com.")
    return address


def webhook_url(text: str) -> str:
    """An https URL of at most MAX_URL_CHARS ASCII characters, without user, password and fragment."""
    if len(text) > MAX_URL_CHARS or not _URL.fullmatch(text):
        _refuse(
            "webhook_url",
            f"The webhook's URL has a blank or another character that no URL has, or over {MAX_URL_CHARS:,} of them.",
            "Encode or shorten it.",
        )
    try:
        url = urlsplit(text)
        has_host = bool(url.hostname) and url.port != 0
    except ValueError:
        has_host = False
    if not has_host or url.scheme != "https":
        _refuse("webhook_url", "The webhook's URL does not begin with https:// and a host.", "Give one that does.")
    if url.username is not None or url.password is not None or "#" in text:
        _refuse("webhook_url", "The webhook's URL has a user, a password or a fragment.", "Leave them out.")
    return text


def _refuse(field: str, what: str, remedy: str) -> NoReturn:
    raise InvalidRequest(f"{what} {remedy}", field=field)
