"""What the simulated sms4sats sells, and for how much: countries, services, rentals, prices."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any, Final

from holdpay.sandbox.http_server import Request, Response, json_response
from holdpay.sandbox.sms4sats_knobs import Knobs
from holdpay.sandbox.sms4sats_requests import is_digits

SERVICES: Final = {
    "go": "Google,youtube,Gmail",
    "tg": "Telegram",
    "wa": "Whatsapp",
    "dr": "OpenAI",
    "tw": "Twitter",
    "vk": "vk.com",
    "ot": "Any other",
}
"""Short code → text."""


@dataclass(frozen=True, slots=True)
class RentalOffer:
    weeks: int
    price_sat: int


RENTALS: Final = {6: RentalOffer(weeks=2, price_sat=1368), 16: RentalOffer(weeks=2, price_sat=4815)}
"""By country."""
RENT_FROM_SAT: Final = 15_000
"""What /price says. It contradicts RENTALS, as the provider's own words do."""
ANY_SERVICE: Final = "full"


@cache
def countries() -> Mapping[int, str]:
    """Code → the first of its names."""
    rows = json.loads(files("holdpay").joinpath("data", "countries.json").read_text("utf-8"))
    names: dict[int, str] = {}
    for row in rows:
        names.setdefault(row["cc"], row["country"])
    return names


def country_code(text: str) -> int | None:
    """None: it is no number, or no country has it."""
    code = int(text) if is_digits(text) else None
    return code if code in countries() else None


@dataclass(frozen=True, slots=True)
class Catalog:
    """The endpoints that only tell.

    The reference documents no error for them: where there is no such country there is nothing to tell.
    """

    knobs: Knobs

    async def get_countries(self, request: Request) -> Response:
        rows: list[dict[str, Any]] = [{"id": code, "eng": name, "visible": 1} for code, name in countries().items()]
        return json_response([{**row, "rent": 1} if row["id"] in RENTALS else row for row in rows])

    async def get_numbers_status(self, request: Request) -> Response:
        if country_code(request.query.get("country", "")) is None:
            return json_response([])
        count = str(self.knobs.stock)
        image = {"avatar": True, "src": "/assets/none.png"}
        rows = [{"key": c, "text": text, "value": c, "count": count, "image": image} for c, text in SERVICES.items()]
        return json_response(rows)

    async def get_rental_countries(self, request: Request) -> Response:
        is_sold = request.query.get("service", ANY_SERVICE) in {ANY_SERVICE, *SERVICES}
        rows = [
            {"cc": code, "country": countries()[code], "duration": str(offer.weeks), "price": offer.price_sat}
            for code, offer in RENTALS.items()
        ]
        return json_response(rows if is_sold else [])

    async def price(self, request: Request) -> Response:
        knobs = self.knobs
        receive_sat, realphone_sat = knobs.price_sat, knobs.realphone_sat
        fixed = {"send": knobs.send_sat, "rent": RENT_FROM_SAT}
        if not request.query:
            return json_response({"receive": receive_sat, **fixed, "s4s": realphone_sat})
        # A public client shows numbers and strings mixed like this.
        told = {"receive": str(receive_sat), **fixed, "s4s": str(realphone_sat), "query": dict(request.query)}
        country = country_code(request.query.get("country", ""))
        if country is not None:
            what = f"{countries()[country]} {request.query.get('service', '')}"
            told["computed"] = {"price": receive_sat, "country": country, "description": memo(what)}
        return json_response(told)


def memo(what: str) -> str:
    """Of an invoice."""
    return f"sms4sats payment {what}".strip()
