"""What the hooks need to know."""

from __future__ import annotations

from dataclasses import dataclass, field
from urllib.parse import urlsplit

from holdpay.core.hooks import Topic


@dataclass(frozen=True, slots=True, kw_only=True)
class Url:
    """A POST to ``url``, signed with ``secret``. ``proxy``: as of the provider's; None: a direct connection."""

    url: str = field(repr=False)
    secret: bytes = field(repr=False)
    proxy: str | None = field(repr=False)
    timeout_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """A program with its arguments; no shell."""

    argv: tuple[str, ...]
    timeout_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Unusable:
    """The machine lacks the program or the secret: "command names ...: do this"."""

    leads_to: str
    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Hook:
    """One ``[[hook]]``."""

    name: str
    topics: tuple[Topic, ...]
    include_secrets: bool
    target: Url | Command | Unusable


def shown(url: str) -> str:
    """Without its path, which may be what keeps strangers out."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.hostname}" + (f":{parts.port}" if parts.port else "")
