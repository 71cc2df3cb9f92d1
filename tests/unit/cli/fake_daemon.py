"""A daemon from a script: each call of a streaming method plays the next script, on a real Unix socket."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, NoReturn
from urllib.parse import quote

import grpc
from google.rpc import error_details_pb2, status_pb2

from holdpay._pb.v1 import holdpay_pb2 as pb
from holdpay._pb.v1 import holdpay_pb2_grpc as rpc
from holdpay.cli.app import Clock
from holdpay.cli.client import DETAILS, DOMAIN

NOW_MS = 1_790_000_000_000
ORDER_ID = "ord-7f3a9c"
NOT_FOUND = "There is no such order."


@dataclass(frozen=True, slots=True)
class Refuse:
    """The daemon's own no."""

    code: grpc.StatusCode
    details: str = "No. Do something else."
    reason: str = "INVALID_REQUEST"
    metadata: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Break:
    """What a client sees of a transport that broke."""

    code: grpc.StatusCode = grpc.StatusCode.UNAVAILABLE


class Hang:
    """Nothing more comes."""


class Wait:
    """What follows comes once the test says ``go_on``."""


class Die:
    """The daemon goes away, its socket with it."""


Step = pb.RequestUpdate | Refuse | Break | Hang | Wait | Die
Script = Sequence[Step]


class FakeClock(Clock):
    """Stands still but for sleeps; `on_sleep` is played one by one."""

    def __init__(self) -> None:
        self.elapsed_s = 0.0
        self.on_sleep: list[Callable[[], None]] = []

    def now_ms(self) -> int:
        return NOW_MS + int(self.elapsed_s * 1000)

    def monotonic_s(self) -> float:
        return self.elapsed_s

    def sleep(self, duration_s: float) -> None:
        self.elapsed_s += duration_s
        if self.on_sleep:
            self.on_sleep.pop(0)()


def interrupt() -> None:
    """The user presses ^C."""
    raise KeyboardInterrupt


_ITEMS = {
    "earlier_numbers": pb.ITEM_KIND_NUMBER,
    "number": pb.ITEM_KIND_NUMBER,
    "code": pb.ITEM_KIND_CODE,
    "later_codes": pb.ITEM_KIND_CODE,
    "messages": pb.ITEM_KIND_MESSAGE,
    "sending": pb.ITEM_KIND_SENDING,
    "unread": pb.ITEM_KIND_UNREAD,
    "unread_more": pb.ITEM_KIND_UNREAD_MORE,
}
"""What was delivered, by the name under which ``a_request`` takes it: one text, or several."""
CODE = pb.CodeBought(country_code=187, country="USA", service="oi", service_name="OpenAI")


def a_request(**changes: Any) -> pb.Request:
    """A request just accepted, with these fields of it, of its order, and these items (see ``_ITEMS``)."""
    kind = changes.pop("kind", pb.KIND_CODE)
    may_lack_zeros = changes.pop("code_may_lack_zeros", False)
    items = [
        pb.Item(kind=item_kind, text=text, seen_at_ms=NOW_MS, may_lack_zeros=may_lack_zeros and name == "code")
        for name, item_kind in _ITEMS.items()
        for text in _as_list(changes.pop(name, ()))
    ]
    for seq, item in enumerate(items, start=1):
        item.seq = seq
    of_both = pb.Request.DESCRIPTOR.fields_by_name
    names = [name for name in changes if name in pb.Order.DESCRIPTOR.fields_by_name and name not in of_both]
    of_order = {name: changes.pop(name) for name in names}
    plain: dict[str, Any] = {
        "state": pb.ORDER_STATE_REQUESTED,
        "htlc": pb.HTLC_STATE_NONE,
        "phase": "asking the provider",
        "max_price_sat": 3060,
        "max_fee_sat": 31,
    }
    order = pb.Order(**plain | of_order)
    about: dict[str, Any] = {
        "id": ORDER_ID,
        "kind": kind,
        "what": "an activation code for OpenAI in USA",
        "code": CODE if kind == pb.KIND_CODE else None,
        "idempotency_key": "cli-test",
        "created_at_ms": NOW_MS,
        "fulfilled": order.state == pb.ORDER_STATE_DELIVERED,
    }
    return pb.Request(**about | changes, items=items, orders=[order])


def _as_list(texts: str | Sequence[str]) -> Sequence[str]:
    return [texts] if isinstance(texts, str) else texts


ACCEPTED: dict[str, Any] = {}
HELD = {
    "may_be_canceled": True,
    "state": pb.ORDER_STATE_PAID,
    "htlc": pb.HTLC_STATE_IN_FLIGHT,
    "phase": "held, a number is being found",
    "amount_msat": 3_000_000,
    "fee_msat": 3_512,
    "locked_msat": 3_003_512,
    "expiry_height": 871_234,
    "promise_until_ms": NOW_MS + 1_260_000,
    "dispatches": 1,
}
NUMBERED = HELD | {
    "state": pb.ORDER_STATE_NUMBER_ASSIGNED,
    "number": "15550001111",
    "phase": "held, waiting for the SMS",
}
DELIVERED = NUMBERED | {
    "may_be_canceled": False,
    "state": pb.ORDER_STATE_DELIVERED,
    "code": "004211",
    "phase": "the code is here, settling",
}
_OVER = {"terminal": True, "may_be_canceled": False, "closed_at_ms": NOW_MS + 60_000, "phase": "over"}
SETTLED = (
    DELIVERED
    | _OVER
    | {
        "htlc": pb.HTLC_STATE_SETTLED,
        "end": pb.END_FULFILLED,
        "locked_msat": 0,
        "spent_msat": 3_003_512,
        "preimage": "ab" * 32,
    }
)


def ended(end: pb.End.ValueType, **changes: Any) -> dict[str, Any]:
    """The fields of a request that closed so."""
    return _OVER | {"state": pb.ORDER_STATE_CANCELED, "end": end, "reason": "It ended for a reason."} | changes


def updates(*stages: dict[str, Any], first_cursor: int = 1) -> list[Step]:
    """One update per stage, a second apart, with cursors from `first_cursor` on."""
    return [
        pb.RequestUpdate(
            cursor=first_cursor + index,
            at_ms=NOW_MS + (first_cursor + index) * 1000,
            event=f"event_{first_cursor + index}",
            request=a_request(**stage),
        )
        for index, stage in enumerate(stages)
    ]


def _end_of(context: grpc.ServicerContext) -> threading.Event:
    """Set once the call is over, also one that is over already."""
    over = threading.Event()
    if not context.add_callback(over.set):
        over.set()
    return over


@dataclass(slots=True)
class FakeDaemon(rpc.HoldpayServicer):
    """`answers` are by method name: a message, a Refuse or a Hang. `requests`: those that there are."""

    path: str
    submit_scripts: list[Script] = field(default_factory=list)
    watch_scripts: list[Script] = field(default_factory=list)
    answers: dict[str, Any] = field(default_factory=dict)
    requests: list[pb.Request] = field(default_factory=list)
    all_items: list[pb.Item] = field(default_factory=list)
    """What ListItems has, two a page."""
    received: list[Any] = field(default_factory=list)
    is_from_now: bool = False
    """Orders are created when they are asked for, for clients with a real clock."""
    go_on: threading.Event = field(default_factory=threading.Event)
    _called: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))
    _server: grpc.Server | None = None
    _stopped: threading.Event | None = None

    def start(self) -> None:
        if self._stopped is not None:
            self._stopped.wait()
        self._server = grpc.server(ThreadPoolExecutor(max_workers=8))
        rpc.add_HoldpayServicer_to_server(self, self._server)
        self._server.add_insecure_port(f"unix:{quote(self.path)}")
        self._server.start()

    def stop(self) -> None:
        assert self._server is not None
        self._stopped = self._server.stop(None)

    def wait_for_call(self) -> None:
        """Until a unary method is called."""
        self._called.acquire()

    def received_of(self, kind: type[Any]) -> list[Any]:
        return [request for request in self.received if isinstance(request, kind)]

    def ListItems(  # noqa: N802
        self, request: pb.ListItemsRequest, context: grpc.ServicerContext
    ) -> pb.ListItemsResponse:
        self.received.append(request)
        after = [item for item in self.all_items if item.seq > request.after_seq]
        return pb.ListItemsResponse(items=after[:2], more=len(after) > 2)

    def Submit(  # noqa: N802
        self, request: pb.SubmitRequest, context: grpc.ServicerContext
    ) -> Iterator[pb.RequestUpdates]:
        self.received.append(request)
        yield from self._play(self.submit_scripts.pop(0), context)

    def WatchRequests(  # noqa: N802
        self, request: pb.WatchRequestsRequest, context: grpc.ServicerContext
    ) -> Iterator[pb.RequestUpdates]:
        self.received.append(request)
        yield from self._play(self.watch_scripts.pop(0), context)

    def _play(self, script: Script, context: grpc.ServicerContext) -> Iterator[pb.RequestUpdates]:
        over = _end_of(context)
        for step in script:
            if isinstance(step, pb.RequestUpdate):
                if self.is_from_now:
                    step.request.created_at_ms = time.time_ns() // 1_000_000
                yield pb.RequestUpdates(updates=[step])
            elif isinstance(step, Refuse):
                refuse(context, step)
            elif isinstance(step, Break):
                context.abort(step.code, "Socket closed")
            elif isinstance(step, Wait):
                self.go_on.wait()
            elif isinstance(step, Die):
                self.stop()
            else:
                over.wait()

    def _answer(self, name: str, request: Any, context: grpc.ServicerContext) -> Any:
        self.received.append(request)
        self._called.release()
        answer = self.answers[name]
        if isinstance(answer, Refuse):
            refuse(context, answer)
        if isinstance(answer, Hang):
            _end_of(context).wait()
        return answer

    def GetRequest(self, request: pb.GetRequestRequest, context: grpc.ServicerContext) -> pb.Request:  # noqa: N802
        self.received.append(request)
        found = [known for known in self.requests if known.id.startswith(request.request_id)]
        if found:
            return found[0]
        return refuse(context, Refuse(grpc.StatusCode.NOT_FOUND, NOT_FOUND, "ORDER_NOT_FOUND"))

    def ListRequests(  # noqa: N802
        self, request: pb.ListRequestsRequest, context: grpc.ServicerContext
    ) -> pb.ListRequestsResponse:
        self.received.append(request)
        start = int(request.page_token or 0)
        end = start + request.page_size
        return pb.ListRequestsResponse(
            requests=self.requests[start:end], next_page_token=str(end) if end < len(self.requests) else ""
        )

    def CheckRequest(self, request: Any, context: grpc.ServicerContext) -> Any:  # noqa: N802
        return self._answer("CheckRequest", request, context)

    def VetInvoice(self, request: Any, context: grpc.ServicerContext) -> Any:  # noqa: N802
        return self._answer("VetInvoice", request, context)

    def CancelRequest(self, request: Any, context: grpc.ServicerContext) -> Any:  # noqa: N802
        return self._answer("CancelRequest", request, context)

    def ExplainRequest(self, request: Any, context: grpc.ServicerContext) -> Any:  # noqa: N802
        return self._answer("ExplainRequest", request, context)

    def ListCountries(self, request: Any, context: grpc.ServicerContext) -> Any:  # noqa: N802
        return self._answer("ListCountries", request, context)

    def ListServices(self, request: Any, context: grpc.ServicerContext) -> Any:  # noqa: N802
        return self._answer("ListServices", request, context)

    def GetAccount(self, request: Any, context: grpc.ServicerContext) -> Any:  # noqa: N802
        return self._answer("GetAccount", request, context)

    def ListFunding(self, request: Any, context: grpc.ServicerContext) -> Any:  # noqa: N802
        return self._answer("ListFunding", request, context)

    def GetBudget(self, request: Any, context: grpc.ServicerContext) -> Any:  # noqa: N802
        return self._answer("GetBudget", request, context)

    def GetStats(self, request: Any, context: grpc.ServicerContext) -> Any:  # noqa: N802
        return self._answer("GetStats", request, context)

    def ListHooks(self, request: Any, context: grpc.ServicerContext) -> Any:  # noqa: N802
        return self._answer("ListHooks", request, context)

    def TestHook(self, request: Any, context: grpc.ServicerContext) -> Any:  # noqa: N802
        return self._answer("TestHook", request, context)

    def ReplayHook(self, request: Any, context: grpc.ServicerContext) -> Any:  # noqa: N802
        return self._answer("ReplayHook", request, context)

    def ListRentals(self, request: Any, context: grpc.ServicerContext) -> Any:  # noqa: N802
        return self._answer("ListRentals", request, context)

    def GetPrices(self, request: Any, context: grpc.ServicerContext) -> Any:  # noqa: N802
        return self._answer("GetPrices", request, context)

    def GetStatus(self, request: Any, context: grpc.ServicerContext) -> Any:  # noqa: N802
        return self._answer("GetStatus", request, context)


def refuse(context: grpc.ServicerContext, refusal: Refuse) -> NoReturn:
    status = status_pb2.Status(message=refusal.details)
    info = error_details_pb2.ErrorInfo(reason=refusal.reason, domain=DOMAIN, metadata=refusal.metadata)
    status.details.add().Pack(info)
    context.set_trailing_metadata(((DETAILS, status.SerializeToString()),))
    context.abort(refusal.code, refusal.details)
