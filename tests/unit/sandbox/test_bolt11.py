"""BOLT11 of the sandbox: the reference's own invoice, round trips, and LND's words for what is wrong."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from coincurve import PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from holdpay.sandbox.bolt11 import PREFIXES, Invoice, InvoiceError, Terms, decode, encode

EXAMPLE = json.loads((Path(__file__).parents[2] / "fixtures" / "sms4sats" / "createorder.json").read_text())
KEY = PrivateKey(bytes(31) + b"\1")
TERMS = Terms(
    network="simnet",
    payment_hash=bytes(range(32)),
    payment_secret=bytes(32),
    amount_msat=2_000_000,
    timestamp_s=1_700_000_000,
    description="sms4sats payment Germany twitter",
    expiry_s=86_400,
    min_final_cltv_delta=40,
)


def test_the_references_invoice_says_what_the_reference_says() -> None:
    invoice = decode(EXAMPLE["payreq"], "mainnet")

    assert invoice.payee_pubkey.hex() == "035b04e00521a8d50894e813c72576d2a03a09cd940be074b7f2e35e0a01d7d12d"
    assert invoice.terms.payment_hash.hex() == EXAMPLE["orderId"]
    assert invoice.terms.amount_msat == 3_000_000
    assert invoice.terms.description == "sms4sats payment Germany twitter"
    assert (invoice.terms.expiry_s, invoice.terms.min_final_cltv_delta) == (86_400, 40)
    assert len(invoice.terms.payment_secret or b"") == 32


@given(
    terms=st.builds(
        Terms,
        network=st.sampled_from(sorted(PREFIXES)),
        payment_hash=st.binary(min_size=32, max_size=32),
        payment_secret=st.none() | st.binary(min_size=32, max_size=32),
        amount_msat=st.none() | st.integers(1, 10**14),
        timestamp_s=st.integers(0, 2**35 - 1),
        description=st.text(max_size=100),
        expiry_s=st.integers(0, 10**9),
        min_final_cltv_delta=st.integers(0, 10_000),
        feature_bits=st.frozensets(st.integers(0, 60)),
    )
)
def test_what_is_written_is_read_back(terms: Terms) -> None:
    payreq = encode(terms, KEY)

    assert decode(payreq, terms.network) == Invoice(terms, KEY.public_key.format())
    assert decode(payreq.upper(), terms.network) == decode(payreq, terms.network)


@pytest.mark.parametrize(
    ("amount_msat", "amount"),
    [(1, "10p"), (100, "1n"), (2_001_002, "20010020p"), (2_000_000, "20u"), (10**11, "1"), (10**8, "1m")],
)
def test_amounts_take_the_shortest_form(amount_msat: int, amount: str) -> None:
    assert encode(replace(TERMS, amount_msat=amount_msat), KEY).startswith(f"lnsb{amount}1")


def test_a_damaged_invoice_fails_its_checksum_with_both_named() -> None:
    payreq = encode(TERMS, KEY)
    last = payreq[-6:]
    damaged = payreq[:-1] + ("q" if payreq[-1] != "q" else "p")

    with pytest.raises(InvoiceError) as refusal:
        decode(damaged, "simnet")

    assert str(refusal.value) == f"checksum failed. Expected {last}, got {damaged[-6:]}."


@pytest.mark.parametrize(
    ("payreq", "text"),
    [
        ("lnsb1", "invalid bech32 string length 5"),
        ("lnsb 1qqqqqq", "invalid character in string: ' '"),
        ("lnSB1qqqqqq", "string not all lowercase or all uppercase"),
        ("lnsbqqqqqqqq", "invalid index of 1"),
        ("lnsb1qqqqqb", "failed converting data to bytes: invalid character not part of charset: 98"),
        ("ln" * 4000, "invoice is too large"),
    ],
)
def test_what_is_no_invoice_is_refused_in_lnds_words(payreq: str, text: str) -> None:
    with pytest.raises(InvoiceError) as refusal:
        decode(payreq, "simnet")

    assert str(refusal.value) == text


def test_an_invoice_of_another_network_is_refused() -> None:
    with pytest.raises(InvoiceError, match=r"^invoice not for current active network 'mainnet'$"):
        decode(encode(TERMS, KEY), "mainnet")


def test_one_changed_character_anywhere_is_noticed() -> None:
    payreq = encode(TERMS, KEY)
    for at in range(len("lnsb"), len(payreq)):
        changed = payreq[:at] + ("q" if payreq[at] != "q" else "p") + payreq[at + 1 :]
        with pytest.raises(InvoiceError):
            decode(changed, "simnet")
