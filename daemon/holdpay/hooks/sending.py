"""What a hook is sent, and what is said of a try that was in vain."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from holdpay.core.hooks import Happening, body
from holdpay.ports import Clock
from holdpay.redact import redact_mapping


@dataclass(frozen=True, slots=True)
class Message:
    """One delivery. ``at_s``: of this try, Unix time of the wall clock as it is now, since a receiver compares it."""

    id: str
    type: str
    at_s: int
    body: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Trouble:
    """Why it was not acknowledged: the end of a sentence that begins with the hook. ``is_final``: it will never be."""

    text: str
    is_final: bool = False


class Sender(Protocol):
    """One way to a receiver."""

    @property
    def target(self) -> str:
        """Where that leads, without what may be secret."""
        ...

    async def send(self, message: Message) -> Trouble | None:
        """None: it was acknowledged. Raises nothing."""
        ...

    async def close(self) -> None: ...


def message_of(happening: Happening, clock: Clock, *, include_secrets: bool) -> Message:
    """To be sent now. Without ``include_secrets`` it is as clean as a line of the log."""
    data: Mapping[str, Any]
    data = {**happening.data, **happening.secret} if include_secrets else redact_mapping(happening.data)
    at_s = (clock.now_ms() + clock.wall_ahead_ms()) // 1000
    return Message(happening.id, happening.type, at_s, body(data, happening))
