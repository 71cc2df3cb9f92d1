"""What the daemon knows, for shell completion: quick, or nothing at all. Imports grpc: import this module late."""

from __future__ import annotations

from holdpay._pb.v1 import holdpay_pb2 as pb
from holdpay.cli import render
from holdpay.cli.client import Client
from holdpay.cli.failure import Failure
from holdpay.cli.kinds import brief, kind_number, order_of
from holdpay.cli.sockets import find_socket

PATIENCE_S = 0.7
"""A key was pressed: rather no completion than a shell that hangs."""


def country_names(socket: str | None) -> list[str]:
    """Names and aliases in lower case, sorted; empty if the daemon does not answer."""
    try:
        with Client(find_socket(socket), PATIENCE_S) as client:
            reply = client.ask(client.stub.ListCountries, pb.ListCountriesRequest(), PATIENCE_S)
    except Failure:
        return []
    names = (name for country in reply.countries for name in (country.name, *country.aliases))
    return sorted({render.plain(name.lower()) for name in names})


def services(socket: str | None) -> list[tuple[str, str]]:
    """Short codes and names of all services that the daemon ever saw; empty if it does not answer."""
    try:
        with Client(find_socket(socket), PATIENCE_S) as client:
            reply = client.ask(client.stub.ListServices, pb.ListServicesRequest(), PATIENCE_S)
    except Failure:
        return []
    return [(service.code, render.plain(service.name)) for service in reply.services]


def order_ids(socket: str | None, kind: str) -> list[tuple[str, str]]:
    """The newest orders' ids, of a kind or ("") all, with a few words on each; empty if the daemon does not answer."""
    try:
        with Client(find_socket(socket), PATIENCE_S) as client:
            wanted = pb.ListRequestsRequest(page_size=50, kind=kind_number(kind))
            reply = client.ask(client.stub.ListRequests, wanted, PATIENCE_S)
    except Failure:
        return []
    return [(request.id, render.plain(f"{brief(request)}: {order_of(request).phase}")) for request in reply.requests]
