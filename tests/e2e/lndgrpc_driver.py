"""Runs in the environment of lnd-grpc-client: does what stdin says, a JSON list a line, and answers with JSON.

That client can't share a process with other lnd stubs (the same symbols twice), and prints errors instead of raising
them; so what it prints goes to stderr, and calls whose error matters go to its stubs.
"""

from __future__ import annotations

import contextlib
import json
import sys
from typing import Any

Described = dict[str, dict[str, list[Any]]]


def describe(*serialized_files: bytes) -> Described:
    """Field, enum value and method → what it is on the wire, by the full name of what it belongs to."""
    from google.protobuf.descriptor_pb2 import FileDescriptorProto

    found: Described = {}

    def add_enum(prefix: str, enum: Any) -> None:
        found[f"{prefix}.{enum.name}"] = {value.name: [value.number] for value in enum.value}

    def add_message(prefix: str, message: Any) -> None:
        name = f"{prefix}.{message.name}"
        found[name] = {
            field.name: [field.number, field.type, field.label, field.type_name.lstrip(".")] for field in message.field
        }
        for nested in message.nested_type:
            add_message(name, nested)
        for enum in message.enum_type:
            add_enum(name, enum)

    for serialized in serialized_files:
        file = FileDescriptorProto.FromString(serialized)
        for message in file.message_type:
            add_message(file.package, message)
        for enum in file.enum_type:
            add_enum(file.package, enum)
        for service in file.service:
            found[f"{file.package}.{service.name}"] = {
                method.name: [method.input_type, method.output_type, method.client_streaming, method.server_streaming]
                for method in service.method
            }
    return found


class Driver:
    """One client of one node."""

    def __init__(self, address: str, cert: str, macaroon: str) -> None:
        from lndgrpc import LNDClient  # type: ignore[import-not-found]

        self._client = LNDClient(address, cert_filepath=cert, macaroon_filepath=macaroon)

    def descriptors(self) -> Described:
        from lndgrpc.compiled import (  # type: ignore[import-not-found]
            lightning_pb2,
            router_pb2,
            stateservice_pb2,
        )

        files = (lightning_pb2, router_pb2, stateservice_pb2)
        return describe(*(file.DESCRIPTOR.serialized_pb for file in files))

    def call(self, name: str, **arguments: Any) -> Any:
        """A method of the client."""
        return as_json(getattr(self._client, name)(**arguments))

    def track(self, payment_hash: str) -> Any:
        """Every message of TrackPaymentV2."""
        from lndgrpc.compiled import router_pb2

        request = router_pb2.TrackPaymentRequest(payment_hash=bytes.fromhex(payment_hash))
        return [as_json(message) for message in self._client._router_stub.TrackPaymentV2(request)]

    def send(self, **request: Any) -> Any:
        """Every message of SendPaymentV2, the error too."""
        from lndgrpc.compiled import router_pb2

        return [as_json(m) for m in self._client._router_stub.SendPaymentV2(router_pb2.SendPaymentRequest(**request))]


def as_json(answer: Any) -> Any:
    from google.protobuf.json_format import MessageToDict

    if isinstance(answer, list):
        return [as_json(each) for each in answer]
    return MessageToDict(answer, preserving_proto_field_name=True, always_print_fields_with_no_presence=True)


def main() -> None:
    import grpc

    answers = sys.stdout
    with contextlib.redirect_stdout(sys.stderr):
        driver = Driver(*sys.argv[1:])
        for line in sys.stdin:
            method, arguments = json.loads(line)
            try:
                answer = {"result": getattr(driver, method)(**arguments)}
            except grpc.RpcError as error:
                answer = {"code": error.code().name, "details": error.details()}
            print(json.dumps(answer), file=answers, flush=True)


if __name__ == "__main__":
    main()
