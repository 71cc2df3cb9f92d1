"""What a hook is sent, and what is said of a try that was in vain."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from holdpay.core.hooks import Happening, body
from holdpay.redact import redact_mapping


@dataclass(frozen=True, slots=True)
class Message:
    """One delivery. ``at_s``: of this try, Unix time."""

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


def message_of(happening: Happening, now_ms: int, *, include_secrets: bool) -> Message:
    """Without ``include_secrets`` it is as clean as a line of the log."""
    data: Mapping[str, Any]
    data = {**happening.data, **happening.secret} if include_secrets else redact_mapping(happening.data)
    return Message(happening.id, happening.type, now_ms // 1000, body(data, happening))
