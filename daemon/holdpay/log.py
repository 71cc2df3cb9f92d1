"""The log: structured records on stderr, from structlog and from libraries alike, redacted at the last step; where
stderr is systemd's journal, records with fields (``journald``).

log = log.get(__name__)
with log.order_context(order_id, payment_hash):
    log.info("HTLC in flight", attempts=1)
"""

from __future__ import annotations

import contextlib
import json
import logging
import sys
import threading
from collections.abc import Iterator
from enum import StrEnum
from pathlib import Path
from types import TracebackType
from typing import Any, cast

import structlog
from structlog.typing import EventDict, FilteringBoundLogger, Processor, WrappedLogger

from holdpay import journald
from holdpay.redact import hash8, redact_mapping

__all__ = ["Format", "Level", "configure", "get", "hash8", "order_context"]

_NOISY = ("httpx", "httpcore", "grpc", "asyncio")
"""Libraries that are heard from WARNING on: httpx logs whole URLs, with the order id, at INFO."""


class Format(StrEnum):
    """How a record is written."""

    JSON = "json"
    """One JSON object a line."""
    TEXT = "text"
    """For people."""


class Level(StrEnum):
    """The least severe record that is written."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


def get(name: str) -> FilteringBoundLogger:
    """A logger; may be called at import, before ``configure``."""
    return cast(FilteringBoundLogger, structlog.get_logger(name))


@contextlib.contextmanager
def order_context(order_id: str, payment_hash: str | None = None) -> Iterator[None]:
    """Every record of this task inside the block names the order, and the payment hash by its first 8 digits."""
    bound = {"order": order_id} if payment_hash is None else {"order": order_id, "hash": hash8(payment_hash)}
    with structlog.contextvars.bound_contextvars(**bound):
        yield


def configure(format: Format, level: Level, journal: Path = journald.SOCKET) -> None:  # noqa: A002  (the key's name)
    """Sets up the log of the whole process; the last call counts. Uncaught errors go through it too. ``journal``: the
    socket of systemd's journal, if that is where stderr leads."""
    handler = _handler(format, journal)
    root = logging.getLogger()
    for old in root.handlers[:]:
        root.removeHandler(old)
        old.close()
    root.addHandler(handler)
    number = logging.getLevelNamesMapping()[level.name]
    root.setLevel(number)
    for name in _NOISY:
        logging.getLogger(name).setLevel(max(number, logging.WARNING))
    logging.captureWarnings(True)
    structlog.configure(
        processors=[*_shared(), structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.make_filtering_bound_logger(number),
        # Not cached: a logger that was used before another configuration would keep the old one.
        cache_logger_on_first_use=False,
    )
    _catch_uncaught()


def _shared() -> list[Processor]:
    return [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]


def _handler(form: Format, journal: Path) -> logging.Handler:
    as_json: Processor = structlog.processors.JSONRenderer(ensure_ascii=False)
    if not journald.is_journal():
        handler = logging.StreamHandler(sys.stderr)
        handler.setFormatter(_formatter(as_json if form is Format.JSON else _as_text))
        return handler
    sending = journald.JournalHandler(journal)
    render = as_json if form is Format.JSON else _as_words

    def described(logger: WrappedLogger, method: str, event: EventDict) -> str:
        return sending.describe(event, str(render(logger, method, dict(event))))

    sending.setFormatter(_formatter(described))
    return sending


def _formatter(render: Processor) -> logging.Formatter:
    return structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=_shared(),
        processors=[
            structlog.stdlib.ProcessorFormatter.remove_processors_meta,
            # Tracebacks become text before the redaction. Never with the frames' variables: they hold anything.
            structlog.processors.format_exc_info,
            _redact,
            render,
        ],
    )


def _redact(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    return redact_mapping(event)


def _as_text(logger: WrappedLogger, method: str, event: EventDict) -> str:
    time, level = event.get("timestamp", ""), event.get("level", "")
    return f"{time} {level:<7} {_as_words(logger, method, event)}"


def _as_words(_logger: WrappedLogger, _method: str, event: EventDict) -> str:
    """Without what the journal has itself."""
    for name in ("timestamp", "level"):
        event.pop(name, None)
    logger, exception = event.pop("logger", ""), event.pop("exception", None)
    message = _one_line(str(event.pop("event", "")))
    words = [f"{key}={_quoted(value)}" for key, value in event.items()]
    line = "  ".join([message, *([" ".join(words)] if words else []), f"[{logger}]"])
    if exception is None:
        return line
    # Indented, so that no line of a message from outside looks like a record of its own.
    return "\n    ".join([line, *str(exception).splitlines()])


def _one_line(text: str) -> str:
    return text if text.isprintable() else json.dumps(text)[1:-1]


def _quoted(value: object) -> str:
    if not isinstance(value, str):
        return json.dumps(value)
    is_plain = value.isprintable() and value and not set(value) & {" ", '"', "=", "\\"}
    return value if is_plain else json.dumps(value, ensure_ascii=not value.isprintable())


def _catch_uncaught() -> None:
    """The interpreter would print these to stderr itself, past the redaction."""
    logger = logging.getLogger("holdpay")

    def uncaught(kind: type[BaseException], error: BaseException, tb: TracebackType | None) -> None:
        if issubclass(kind, KeyboardInterrupt):
            sys.__excepthook__(kind, error, tb)
            return
        logger.critical("uncaught error", exc_info=(kind, error, tb))

    def uncaught_in_thread(args: Any) -> None:
        if args.exc_value is not None and args.exc_type is not SystemExit:
            uncaught(args.exc_type, args.exc_value, args.exc_traceback)

    def unraisable(args: Any) -> None:
        if args.exc_value is not None:
            uncaught(args.exc_type, args.exc_value, args.exc_traceback)

    sys.excepthook = uncaught
    threading.excepthook = uncaught_in_thread
    sys.unraisablehook = unraisable
