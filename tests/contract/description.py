"""The OpenAPI description of the provider's API, and what it says to a request or a reply."""

from __future__ import annotations

import json
from collections.abc import Mapping
from importlib.resources import files
from typing import Any, Final

import jsonschema_rs

from holdpay.sandbox.http_server import Request

DESCRIPTION: Final[dict[str, Any]] = json.loads(
    files("holdpay").joinpath("data", "sms4sats.openapi.json").read_text("utf-8")
)


def _check_schema(schema: Mapping[str, Any], value: object) -> None:
    """``schema`` may point into the description. Raises jsonschema_rs.ValidationError."""
    whole = {**schema, "components": DESCRIPTION["components"]}
    jsonschema_rs.Draft202012Validator(whole, validate_formats=True).validate(value)


def check_reply(method: str, path: str, http_status: int, body: object) -> None:
    """Raises AssertionError for a status that is not described, jsonschema_rs.ValidationError for a wrong body."""
    responses = _operation(method, path)["responses"]
    assert str(http_status) in responses, f"{method} {path} is not described with HTTP {http_status}"
    _check_schema(_resolved(responses[str(http_status)])["content"]["application/json"]["schema"], body)


def check_request(request: Request) -> None:
    """Stricter than the description, which allows more fields than it names: a client of ours sends none of them.

    Raises AssertionError, jsonschema_rs.ValidationError.
    """
    path, query = request.path, request.query
    operation = _operation(request.method, path)
    parameters = operation.get("parameters", [])
    given = {"query": query, "header": request.headers}
    for parameter in parameters:
        name, place = parameter["name"], given[parameter["in"]]
        name = name.lower() if parameter["in"] == "header" else name
        assert name in place or not parameter["required"], f"{path} needs {name}"
        if name in place:
            _check_schema(parameter["schema"], place[name])
    described = {parameter["name"] for parameter in parameters if parameter["in"] == "query"}
    assert query.keys() <= described, f"{path} knows no {query.keys() - described}"
    _check_body(operation, request.headers, request.body)


def _check_body(operation: Mapping[str, Any], headers: Mapping[str, str], content: bytes) -> None:
    if "requestBody" not in operation:
        assert content == b"", "a body where none is described"
        return
    assert headers.get("content-type") == "application/json"
    schema = operation["requestBody"]["content"]["application/json"]["schema"]
    body = json.loads(content)
    _check_schema(schema, body)
    described = _resolved(schema)["properties"]
    assert body.keys() <= described.keys(), f"fields that are not described: {body.keys() - described.keys()}"


def _operation(method: str, path: str) -> dict[str, Any]:
    operation = DESCRIPTION["paths"].get(path, {}).get(method.lower())
    assert operation is not None, f"{method} {path} is not described"
    return dict(operation)


def _resolved(value: Mapping[str, Any]) -> Mapping[str, Any]:
    """What a ``$ref`` points to; anything else as it is."""
    if "$ref" not in value:
        return value
    found: Any = DESCRIPTION
    for part in value["$ref"].removeprefix("#/").split("/"):
        found = found[part]
    return dict(found)
