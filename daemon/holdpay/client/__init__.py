"""For programs in Python: holdpayd's socket, typed, with streams that go on over lost connections and restarts.

    from holdpay.client import Client, PriceTooHigh

    with Client() as holdpay:
        request = holdpay.code("usa", "openai", max_price_sat=4_000, key="job-42")
        print(holdpay.wait(request, "number").number)
        print(holdpay.wait(request, "code").code)

``AsyncClient`` has the same methods, to be awaited. docs/client.md has more.
"""

from holdpay.client.aio import AsyncClient
from holdpay.client.errors import (
    EndedWithout,
    HoldpayClientError,
    InvalidRequest,
    KeyTaken,
    LimitReached,
    NotFound,
    NotReady,
    OutOfStock,
    PriceTooHigh,
    Refused,
    TimedOut,
    Unreachable,
)
from holdpay.client.sync import Client
from holdpay.client.types import Cancellation, End, Item, Kind, Request, Until, Update

__all__ = [
    "AsyncClient",
    "Cancellation",
    "Client",
    "End",
    "EndedWithout",
    "HoldpayClientError",
    "InvalidRequest",
    "Item",
    "KeyTaken",
    "Kind",
    "LimitReached",
    "NotFound",
    "NotReady",
    "OutOfStock",
    "PriceTooHigh",
    "Refused",
    "Request",
    "TimedOut",
    "Unreachable",
    "Until",
    "Update",
]
