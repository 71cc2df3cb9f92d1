"""BOLT11 invoices: write them with a key, read them as LND does.

Pure. The refusals have the texts of LND's decoder (lnd: zpay32/bech32.go, decode.go, invoice.go, amountunits.go),
because the sandbox LND hands them on. Route hints, fallback addresses and metadata are skipped when read, and never
written.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from hashlib import sha256

from coincurve import PrivateKey, PublicKey

CHARSET = "qpzry9x8gf2tvdw0s3jn54khce6mua7l"
SIGNATURE_GROUPS = 104  # 520 bits: r, s and the recovery id
TIMESTAMP_GROUPS = 7
CHECKSUM_CHARS = 6
HASH_GROUPS = 52
MAX_INVOICE_CHARS = 7089
MSAT_PER_BTC = 100_000_000_000
DEFAULT_EXPIRY_S = 3600
DEFAULT_MIN_FINAL_CLTV_DELTA = 18

# Prefix of the human-readable part, by network name as LND says it in an error.
PREFIXES = {"mainnet": "bc", "testnet3": "tb", "signet": "tbs", "simnet": "sb", "regtest": "bcrt"}
# Feature bits (BOLT9) of LND's own invoices: what a payer must understand is even, the rest odd.
VAR_ONION_REQUIRED, PAYMENT_SECRET_REQUIRED, BASIC_MPP_OPTIONAL = 8, 14, 17

_MULTIPLIERS_PER_BTC = {"m": 1_000, "u": 1_000_000, "n": 1_000_000_000, "p": 1_000_000_000_000}
_TAGS = {"p": 1, "s": 16, "d": 13, "n": 19, "h": 23, "x": 6, "c": 24, "9": 5}


class InvoiceError(ValueError):
    """LND's decoder would refuse this invoice, with this text."""


@dataclass(frozen=True, slots=True)
class Terms:
    """What an invoice says, apart from who signed it."""

    network: str  # a key of PREFIXES
    payment_hash: bytes  # 32 bytes
    payment_secret: bytes | None  # 32 bytes
    amount_msat: int | None  # None: the payer chooses
    timestamp_s: int  # seconds since 1970
    description: str = ""
    expiry_s: int = DEFAULT_EXPIRY_S
    min_final_cltv_delta: int = DEFAULT_MIN_FINAL_CLTV_DELTA
    feature_bits: frozenset[int] = frozenset({VAR_ONION_REQUIRED, PAYMENT_SECRET_REQUIRED, BASIC_MPP_OPTIONAL})

    @property
    def valid_until_s(self) -> int:
        return self.timestamp_s + self.expiry_s


@dataclass(frozen=True, slots=True)
class Invoice:
    """An invoice that was read: its terms, and the 33-byte public key of the node that signed it."""

    terms: Terms
    payee_pubkey: bytes


def encode(terms: Terms, key: PrivateKey) -> str:
    """Sign the terms: a BOLT11 string in lower case. The payee's key is not in it; readers recover it."""
    hrp = "ln" + PREFIXES[terms.network] + _amount_text(terms.amount_msat)
    groups = [*_int_groups(terms.timestamp_s, TIMESTAMP_GROUPS), *_tagged_fields(terms)]
    signature = key.sign_recoverable(_signed_message(hrp, groups))
    groups += _regroup(signature, 8, 5)
    return hrp + "1" + "".join(CHARSET[group] for group in [*groups, *_checksum(hrp, groups)])


def decode(payreq: str, network: str) -> Invoice:
    """Read an invoice of this network, in upper or lower case.

    Raises InvoiceError with the text of LND's decoder.
    """
    if len(payreq) > MAX_INVOICE_CHARS:
        raise InvoiceError("invoice is too large")
    hrp, groups = _bech32_decode(payreq)
    amount_msat = _parse_hrp(hrp, network)
    if len(groups) < SIGNATURE_GROUPS:
        raise InvoiceError("short invoice")
    body, signature_groups = groups[:-SIGNATURE_GROUPS], groups[-SIGNATURE_GROUPS:]
    if len(body) < TIMESTAMP_GROUPS:
        raise InvoiceError(f"data too short: {len(body)}")
    fields = dict(_first_of_each(_split_fields(body[TIMESTAMP_GROUPS:])))
    payee_pubkey = _recover(_signed_message(hrp, body), bytes(_regroup(signature_groups, 5, 8, pad=False)))
    if "n" in fields and _to_bytes(fields["n"]) != payee_pubkey:
        raise InvoiceError("invalid invoice signature")
    return Invoice(_terms(network, amount_msat, _groups_int(body[:TIMESTAMP_GROUPS]), fields), payee_pubkey)


def _terms(network: str, amount_msat: int | None, timestamp_s: int, fields: dict[str, list[int]]) -> Terms:
    if "p" not in fields:
        raise InvoiceError("no payment hash found")
    if "d" in fields and "h" in fields:
        raise InvoiceError("both description and description hash set")
    if "d" not in fields and "h" not in fields:
        raise InvoiceError("neither description nor description hash set")
    try:
        description = _to_bytes(fields.get("d", [])).decode()
    except UnicodeDecodeError:
        raise InvoiceError("description is not valid UTF-8") from None
    return Terms(
        network=network,
        payment_hash=_to_bytes(fields["p"]),
        payment_secret=_to_bytes(fields["s"]) if "s" in fields else None,
        amount_msat=amount_msat,
        timestamp_s=timestamp_s,
        description=description,
        expiry_s=_groups_int(fields["x"]) if "x" in fields else DEFAULT_EXPIRY_S,
        min_final_cltv_delta=_groups_int(fields["c"]) if "c" in fields else DEFAULT_MIN_FINAL_CLTV_DELTA,
        feature_bits=_parse_features(fields.get("9", [])),
    )


def _tagged_fields(terms: Terms) -> Iterator[int]:
    yield from _field("p", _regroup(terms.payment_hash, 8, 5))
    if terms.payment_secret is not None:
        yield from _field("s", _regroup(terms.payment_secret, 8, 5))
    yield from _field("d", _regroup(terms.description.encode(), 8, 5))
    yield from _field("x", _int_groups(terms.expiry_s))
    yield from _field("c", _int_groups(terms.min_final_cltv_delta))
    yield from _field("9", _int_groups(sum(1 << bit for bit in terms.feature_bits)))


def _field(tag: str, groups: list[int]) -> list[int]:
    if len(groups) > 1023:
        raise InvoiceError(f"data length too big to fit within 10 bits: {len(groups)}")
    return [_TAGS[tag], len(groups) >> 5, len(groups) & 31, *groups]


def _split_fields(groups: list[int]) -> Iterator[tuple[str, list[int]]]:
    names = {number: name for name, number in _TAGS.items()}
    at = 0
    while at < len(groups):
        if len(groups) - at < 3:
            raise InvoiceError("last tagged field is broken")
        end = at + 3 + (groups[at + 1] << 5 | groups[at + 2])
        if len(groups) < end:
            raise InvoiceError("invalid field length")
        if name := names.get(groups[at]):
            yield name, groups[at + 3 : end]
        at = end


def _first_of_each(fields: Iterable[tuple[str, list[int]]]) -> Iterator[tuple[str, list[int]]]:
    """BOLT11: a reader takes the first field of a kind, and skips hashes and keys of a wrong length."""
    lengths = {"p": HASH_GROUPS, "s": HASH_GROUPS, "h": HASH_GROUPS, "n": 53}
    seen = set()
    for name, groups in fields:
        if name not in seen and lengths.get(name, len(groups)) == len(groups):
            seen.add(name)
            yield name, groups


def _parse_features(groups: list[int]) -> frozenset[int]:
    value = _groups_int(groups)
    return frozenset(bit for bit in range(value.bit_length()) if value >> bit & 1)


def _amount_text(amount_msat: int | None) -> str:
    if amount_msat is None:
        return ""
    for unit, per_btc in {"": 1, **_MULTIPLIERS_PER_BTC}.items():
        if amount_msat * per_btc % MSAT_PER_BTC == 0:
            return f"{amount_msat * per_btc // MSAT_PER_BTC}{unit}"
    raise InvoiceError(f"unable to express {amount_msat} msat as pBTC")


def _parse_hrp(hrp: str, network: str) -> int | None:
    if len(hrp) < 3:
        raise InvoiceError("hrp too short")
    if not hrp.startswith("ln"):
        raise InvoiceError('prefix should be "ln"')
    prefix = "ln" + PREFIXES[network]
    if not hrp.startswith(prefix):
        raise InvoiceError(f"invoice not for current active network '{network}'")
    amount = hrp[len(prefix) :]
    return _parse_amount(amount) if amount else None


def _parse_amount(text: str) -> int:
    if text.isdecimal():
        return int(text) * MSAT_PER_BTC
    unit, number = text[-1], text[:-1]
    if unit not in _MULTIPLIERS_PER_BTC:
        raise InvoiceError(f"unknown multiplier {unit}")
    if not number:
        raise InvoiceError("number must be non-empty")
    if not number.isdecimal():
        raise InvoiceError(f'strconv.ParseUint: parsing "{number}": invalid syntax')
    amount_msat, rest = divmod(int(number) * MSAT_PER_BTC, _MULTIPLIERS_PER_BTC[unit])
    if rest:
        raise InvoiceError(f"amount {number} pBTC not expressible in msat")
    return amount_msat


def _signed_message(hrp: str, groups: list[int]) -> bytes:
    return hrp.encode() + bytes(_regroup(groups, 5, 8))


def _recover(message: bytes, signature: bytes) -> bytes:
    try:
        return PublicKey.from_signature_and_message(signature, message).format()
    except Exception as error:
        raise InvoiceError("invalid signature") from error


def payment_hash_of(preimage: bytes) -> bytes:
    return sha256(preimage).digest()


def _bech32_decode(text: str) -> tuple[str, list[int]]:
    """BIP173 without its limit of 90 characters."""
    if len(text) < 8:
        raise InvoiceError(f"invalid bech32 string length {len(text)}")
    for char in text:
        if not 33 <= ord(char) <= 126:
            raise InvoiceError(f"invalid character in string: '{char}'")
    if text not in (text.lower(), text.upper()):
        raise InvoiceError("string not all lowercase or all uppercase")
    text = text.lower()
    split = text.rfind("1")
    if split < 1 or split + CHECKSUM_CHARS + 1 > len(text):
        raise InvoiceError("invalid index of 1")
    hrp, data = text[:split], text[split + 1 :]
    for char in data:
        if char not in CHARSET:
            raise InvoiceError(f"failed converting data to bytes: invalid character not part of charset: {ord(char)}")
    groups = [CHARSET.index(char) for char in data[:-CHECKSUM_CHARS]]
    expected = "".join(CHARSET[group] for group in _checksum(hrp, groups))
    if expected != data[-CHECKSUM_CHARS:]:
        raise InvoiceError(f"checksum failed. Expected {expected}, got {data[-CHECKSUM_CHARS:]}.")
    return hrp, groups


def _checksum(hrp: str, groups: list[int]) -> list[int]:
    generator = (0x3B6A57B2, 0x26508E6D, 0x1EA119FA, 0x3D4233DD, 0x2A1462B3)
    values = [*(ord(char) >> 5 for char in hrp), 0, *(ord(char) & 31 for char in hrp), *groups, *(0,) * CHECKSUM_CHARS]
    check = 1
    for value in values:
        top = check >> 25
        check = (check & 0x1FFFFFF) << 5 ^ value
        for bit, term in enumerate(generator):
            check ^= term if top >> bit & 1 else 0
    check ^= 1
    return [check >> 5 * (CHECKSUM_CHARS - 1 - at) & 31 for at in range(CHECKSUM_CHARS)]


def _regroup(values: Iterable[int], from_bits: int, to_bits: int, *, pad: bool = True) -> list[int]:
    held, bits, regrouped = 0, 0, []
    for value in values:
        held = held << from_bits | value
        bits += from_bits
        while bits >= to_bits:
            bits -= to_bits
            regrouped.append(held >> bits)
            held &= (1 << bits) - 1
    if pad and bits:
        regrouped.append(held << to_bits - bits)
    return regrouped


def _to_bytes(groups: list[int]) -> bytes:
    return bytes(_regroup(groups, 5, 8, pad=False))


def _int_groups(value: int, length: int = 0) -> list[int]:
    groups: list[int] = []
    while value or len(groups) < length:
        groups.insert(0, value & 31)
        value >>= 5
    return groups


def _groups_int(groups: list[int]) -> int:
    value = 0
    for group in groups:
        value = value << 5 | group
    return value
