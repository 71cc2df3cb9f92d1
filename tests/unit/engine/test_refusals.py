"""One refusal for all countries of a request."""

from __future__ import annotations

from holdpay.core.strategy import Country
from holdpay.engine.refusals import MOST_TOLD, refusal_of_all
from holdpay.errors import (
    HoldpayError,
    NotAllowed,
    NotPayable,
    OutOfStock,
    PriceTooHigh,
    PriceUnknown,
    UnknownService,
)


def _of(*refusals: tuple[str, HoldpayError]) -> HoldpayError:
    return refusal_of_all("OpenAI", [(Country(code, name), error) for code, (name, error) in enumerate(refusals)])


def _none_in(name: str) -> OutOfStock:
    return OutOfStock(f"The provider has no numbers for OpenAI in {name} now.", country=name, service="oi")


DEAR = PriceTooHigh("The price is 3,400 sat, and the request allows 2,000. Allow more.", limit="max_price_sat")
DEARER = PriceTooHigh("The price is 9,400 sat, and the request allows 2,000. Allow more.", limit="max_price_sat")
UNKNOWN = UnknownService("The provider lists no such service in Canada. Nearest: OpenAj.", field="service")


def test_each_country_is_told_with_its_reason_and_those_of_the_same_reason_together() -> None:
    refusal = _of(
        ("Russia", _none_in("Russia")),
        ("Canada", UNKNOWN),
        ("England", DEAR),
        ("Poland", DEARER),
        ("Germany", _none_in("Germany")),
        ("France", PriceUnknown()),
        ("Spain", NotPayable("Your node cannot pay this now: no way. Open a channel.")),
    )
    assert refusal.message == (
        "OpenAI can be ordered in no country of the request (Russia, Germany: no numbers now; Canada: not listed;"
        " England: 3,400 sat, and the request allows 2,000; Poland: 9,400 sat, and the request allows 2,000;"
        f" France: {PriceUnknown().message.rstrip('.')}; Spain: Your node cannot pay this now: no way)."
        " Allow more, or try other countries."
    )
    assert type(refusal) is OutOfStock
    assert refusal.metadata == {"country": "Russia, Germany", "service": "oi"}


def test_it_is_of_the_mildest_kind_in_whatever_order_they_came() -> None:
    for refusals in ([("a", DEAR), ("b", UNKNOWN)], [("b", UNKNOWN), ("a", DEAR)]):
        refusal = _of(*refusals)
        assert type(refusal) is PriceTooHigh
        assert refusal.metadata == DEAR.metadata
    refusal = _of(("a", UNKNOWN), ("b", _none_in("b")))
    assert type(refusal) is OutOfStock
    assert refusal.message.endswith("(a: not listed; b: no numbers now). Try other countries.")
    assert type(_of(("a", NotPayable()), ("b", NotAllowed()))) is NotAllowed


def test_it_is_of_the_mildest_kind_however_many_came_before_and_that_one_is_told() -> None:
    unknown = [(f"c{n}", UNKNOWN) for n in range(MOST_TOLD)]
    refusal = _of(*unknown, ("dear", DEAR), ("none", _none_in("none")))
    assert type(refusal) is OutOfStock
    assert refusal.metadata == {"country": "none", "service": "oi"}
    assert (
        "(c0, c1, c2, c3, c4, c5: not listed; dear: 3,400 sat, and the request allows 2,000; none: no numbers now; "
        in refusal.message
    )
    assert refusal.message.endswith("; nor in 2 others). Allow more, or try other countries.")
    refusal = _of(*((f"c{n}", _none_in(f"c{n}")) for n in range(MOST_TOLD)), ("dear", DEAR))
    assert refusal.message.endswith("; nor in 1 other). Allow more, or try other countries.")


def test_of_one_country_and_where_all_lack_the_same_it_is_the_last_ones_own() -> None:
    assert _of(("a", DEAR)) is DEAR
    assert _of(("a", DEAR), ("b", DEAR)) is DEAR
    assert _of(("a", UnknownService("Nearest: OpenAl.")), ("b", UNKNOWN)) is UNKNOWN


def test_the_prices_of_all_are_told_where_each_is_too_dear() -> None:
    assert "a: 3,400 sat, and the request allows 2,000; b: 9,400 sat" in _of(("a", DEAR), ("b", DEARER)).message


def test_however_many_they_are_the_sentence_stays_short() -> None:
    names = [f"c{n}" for n in range(MOST_TOLD + 190)]
    refusal = _of(*((name, _none_in(name)) for name in names))
    assert f"in {', '.join(names[:MOST_TOLD])} or 190 others now. Try another country." in refusal.message
    assert refusal.metadata["country"] == ", ".join(names[:MOST_TOLD])
    mixed = _of(*((name, DEAR if n % 2 else _none_in(name)) for n, name in enumerate(names)))
    assert "; nor in 190 others)" in mixed.message
    assert len(mixed.message) < 300
    one_more = names[: MOST_TOLD + 1]
    assert " or 1 other now." in _of(*((name, _none_in(name)) for name in one_more)).message
    assert "; nor in 1 other)" in _of(*((name, DEAR if n else UNKNOWN) for n, name in enumerate(one_more))).message
    just = _of(*((name, _none_in(name)) for name in names[:MOST_TOLD]))
    assert f"{names[MOST_TOLD - 2]} or {names[MOST_TOLD - 1]} now" in just.message
