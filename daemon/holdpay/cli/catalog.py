"""`holdpay countries`, `services`, `rentals` and `prices`: what can be ordered, and for how much."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from holdpay.cli import render
from holdpay.cli.app import App, pass_app
from holdpay.cli.params import complete_country, complete_service

if TYPE_CHECKING:
    from holdpay._pb.v1 import holdpay_pb2 as pb

_json = click.option("--json", "as_json", is_flag=True, help="Print JSON on stdout.")


@click.command(short_help="List the countries.")
@click.argument("filter_", metavar="[FILTER]", default="")
@_json
@pass_app
def countries(app: App, *, filter_: str, as_json: bool) -> None:
    """List the countries, or those with FILTER in a name, an alias or the number.

    The list is what the provider said last; it is asked in the background.
    """
    from holdpay._pb.v1 import holdpay_pb2 as pb

    reply = app.call(lambda client: client.ask(client.stub.ListCountries, pb.ListCountriesRequest()))
    found = [
        country for country in reply.countries if _matches(filter_, country.name, *country.aliases, str(country.code))
    ]
    if as_json:
        told = pb.ListCountriesResponse(countries=found, stale=reply.stale)
        if reply.HasField("asked_at_ms"):
            told.asked_at_ms = reply.asked_at_ms
        render.echo_json(told)
    elif not found:
        _echo_nothing("country", filter_)
    else:
        rows = [(str(country.code), _name(country), _rentals(country), ", ".join(country.aliases)) for country in found]
        render.out(render.table(("CODE", "COUNTRY", "RENTALS", "ALSO"), rows))
        render.note(_origin(reply, app.clock.now_ms()))


def _name(country: pb.Country) -> str:
    is_left_out = country.HasField("shown") and not country.shown
    return f"{country.name} (not listed by sms4sats now)" if is_left_out else country.name


def _rentals(country: pb.Country) -> str:
    if not country.HasField("rentals"):
        return "?"
    return "yes" if country.rentals else "no"


def _origin(reply: pb.ListCountriesResponse, now_ms: int) -> str:
    """Where the list comes from, in a sentence."""
    if not reply.HasField("asked_at_ms"):
        return (
            "sms4sats did not tell its countries yet: these come with holdpay. `holdpay status` shows how it answers."
        )
    age = f"As sms4sats said {render.span(now_ms - reply.asked_at_ms)} ago"
    return f"{age}; it does not answer now. `holdpay status` shows why." if reply.stale else f"{age}."


@click.command(short_help="List what can be ordered in a country.")
@click.argument("country", shell_complete=complete_country)
@click.argument("filter_", metavar="[FILTER]", default="")
@_json
@pass_app
def services(app: App, *, country: str, filter_: str, as_json: bool) -> None:
    """List what can be ordered in COUNTRY now, or what has FILTER in its short code or name."""
    from holdpay._pb.v1 import holdpay_pb2 as pb

    reply = app.call(lambda client: client.ask(client.stub.ListServices, pb.ListServicesRequest(country=country)))
    found = [service for service in reply.services if _matches(filter_, service.code, service.name)]
    if as_json:
        render.echo_json(pb.ListServicesResponse(country=reply.country, services=found))
    elif not found:
        _echo_nothing("service", filter_)
    else:
        rows = [(service.code, _stock(service), service.name) for service in found]
        render.out(render.table(("SERVICE", "STOCK", "NAME"), rows))
    if not as_json and reply.country.rentals:
        render.note(f"Numbers of {reply.country.name} are rented, too: holdpay rentals {reply.country.code}")


@click.command(short_help="List where numbers are rented.")
@click.argument("country", default="", shell_complete=complete_country)
@click.option(
    "--service",
    default="",
    shell_complete=complete_service,
    help="For this service alone: its short code or name.  [default: a number for any service]",
)
@_json
@pass_app
def rentals(app: App, *, country: str, service: str, as_json: bool) -> None:
    """List where numbers are rented, or what is offered in COUNTRY: for how many weeks, and for how much."""
    from holdpay._pb.v1 import holdpay_pb2 as pb

    request = pb.ListRentalsRequest(country=country, service=service)
    reply = app.call(lambda client: client.ask(client.stub.ListRentals, request))
    if as_json:
        render.echo_json(reply)
    elif not reply.rentals:
        where = f" in {reply.country.name}" if country else ""
        render.note(f"No number is rented{where} for {reply.service.name} now.")
    else:
        headings = ("CODE", "COUNTRY", "WEEKS", "PRICE")
        render.out(render.table(headings, [_rental_row(offer) for offer in reply.rentals]))


def _rental_row(offer: pb.RentalOffer) -> tuple[str, str, str, str]:
    code = str(offer.country_code) if offer.HasField("country_code") else "?"
    weeks = str(offer.weeks) if offer.HasField("weeks") else "?"
    return code, offer.country, weeks, render.sat(offer.price_sat) if offer.HasField("price_sat") else "?"


def _matches(filter_: str, *texts: str) -> bool:
    return any(filter_.lower() in text.lower() for text in texts)


def _echo_nothing(what: str, filter_: str) -> None:
    render.note(f"No {what} with {filter_!r} in it." if filter_ else f"No {what}.")


def _stock(service: pb.Service) -> str:
    return f"{service.stock:,}" if service.HasField("stock") else "?"


@click.command(short_help="Show prices.")
@click.argument("country", default="", shell_complete=complete_country)
@click.argument("service", default="", shell_complete=complete_service)
@_json
@pass_app
def prices(app: App, *, country: str, service: str, as_json: bool) -> None:
    """Show the provider's standard prices, and the exact one of SERVICE in COUNTRY."""
    from holdpay._pb.v1 import holdpay_pb2 as pb

    if country and not service:
        raise click.UsageError("Give COUNTRY and SERVICE, or neither.")
    reply = app.call(
        lambda client: client.ask(client.stub.GetPrices, pb.GetPricesRequest(country=country, service=service))
    )
    if as_json:
        render.echo_json(reply)
    else:
        render.out(
            render.facts(_price_facts(reply, f"{reply.service.name} in {reply.country.name}" if country else ""))
        )


def _price_facts(reply: pb.GetPricesResponse, exact: str) -> list[tuple[str, str]]:
    not_said = "not said"
    exact_price = render.sat(reply.exact_sat) if reply.HasField("exact_sat") else not_said
    return [
        (f"A code, {exact}", exact_price if exact else ""),
        ("A code, standard", render.sat(reply.receive_sat) if reply.HasField("receive_sat") else not_said),
        ("An SMS sent", render.sat(reply.send_sat) if reply.HasField("send_sat") else ""),
        ("A rental, from", render.sat(reply.rent_from_sat) if reply.HasField("rent_from_sat") else ""),
        (f"Rentals in {reply.country.name}", _rentals(reply.country) if reply.country.HasField("rentals") else ""),
        ("A real phone", render.sat(reply.real_phone_sat) if reply.HasField("real_phone_sat") else ""),
        ("Asked", render.date_time(reply.asked_at_ms)),
    ]
