"""`holdpay countries`, `services` and `prices`: what can be ordered, and for how much."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from holdpay.cli import render
from holdpay.cli.app import App, pass_app
from holdpay.cli.params import complete_country

if TYPE_CHECKING:
    from holdpay._pb.v1 import holdpay_pb2 as pb

_json = click.option("--json", "as_json", is_flag=True, help="Print JSON on stdout.")


@click.command(short_help="List the countries.")
@click.argument("filter_", metavar="[FILTER]", default="")
@_json
@pass_app
def countries(app: App, *, filter_: str, as_json: bool) -> None:
    """List the countries, or those with FILTER in a name, an alias or the number."""
    from holdpay._pb.v1 import holdpay_pb2 as pb

    reply = app.call(lambda client: client.ask(client.stub.ListCountries, pb.ListCountriesRequest()))
    found = [
        country for country in reply.countries if _matches(filter_, country.name, *country.aliases, str(country.code))
    ]
    if as_json:
        render.echo_json(pb.ListCountriesResponse(countries=found))
    elif not found:
        _echo_nothing("country", filter_)
    else:
        rows = [(str(country.code), country.name, ", ".join(country.aliases)) for country in found]
        render.out(render.table(("CODE", "COUNTRY", "ALSO"), rows))


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


def _matches(filter_: str, *texts: str) -> bool:
    return any(filter_.lower() in text.lower() for text in texts)


def _echo_nothing(what: str, filter_: str) -> None:
    render.note(f"No {what} with {filter_!r} in it." if filter_ else f"No {what}.")


def _stock(service: pb.Service) -> str:
    return f"{service.stock:,}" if service.HasField("stock") else "?"


@click.command(short_help="Show prices.")
@click.argument("country", default="", shell_complete=complete_country)
@click.argument("service", default="")
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
        render.out(render.facts(_price_facts(reply, f"{service} in {country}" if country else "")))


def _price_facts(reply: pb.GetPricesResponse, exact: str) -> list[tuple[str, str]]:
    not_said = "not said"
    exact_price = render.sat(reply.exact_sat) if reply.HasField("exact_sat") else not_said
    return [
        (f"A code, {exact}", exact_price if exact else ""),
        ("A code, standard", render.sat(reply.receive_sat) if reply.HasField("receive_sat") else not_said),
        ("An SMS sent", render.sat(reply.send_sat) if reply.HasField("send_sat") else ""),
        ("A rental, from", render.sat(reply.rent_from_sat) if reply.HasField("rent_from_sat") else ""),
        ("A real phone", render.sat(reply.real_phone_sat) if reply.HasField("real_phone_sat") else ""),
        ("Asked", render.date_time(reply.asked_at_ms)),
    ]
