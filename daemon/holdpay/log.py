"""The log: structured records on stderr, from structlog and from libraries alike, redacted at the last step; where
stderr is systemd's journal, records with fields (``journald``).

log = structlog.get_logger(__name__)
log.info("HTLC in flight", attempts=1)
"""

from __future__ import annotations

import contextlib
import json
import logging
import re
import sys
import threading
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from types import TracebackType
from typing import Any, Final, NoReturn, Protocol, TypeAlias

import structlog
from structlog.processors import format_exc_info
from structlog.typing import EventDict

from holdpay import journald
from holdpay.redact import redact_mapping, redact_text

Render: TypeAlias = Callable[[Mapping[str, Any]], str]

_NOISY = ("httpx", "httpcore", "grpc", "asyncio")
"""Libraries that are heard from WARNING on: httpx logs whole URLs, with the order id, at INFO."""
_JSON: Final = json.JSONEncoder(ensure_ascii=False)
_NO_FIELDS: Final = frozenset({"event", "timestamp", "level", "logger", "exception"})
"""What a line of text has at a place of its own."""
_BARE: Final = re.compile(r'[^\s"=\\]+')
"""A value that needs no quotes."""


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


class Sink(Protocol):
    """Where records go."""

    def write(self, event: Mapping[str, Any], text: str) -> None:
        """A record that was redacted, and its text. Raises OSError, ValueError."""
        ...

    def close(self) -> None: ...


def configure(format: Format, level: Level, journal: Path = journald.SOCKET) -> None:  # noqa: A002  (the key's name)
    """Sets up the log of the whole process; the last call counts. Uncaught errors go through it too. ``journal``: the
    socket of systemd's journal, if that is where stderr leads."""
    records = _records(format, journal)
    root = logging.getLogger()
    for old in root.handlers[:]:
        root.removeHandler(old)
        old.close()
    root.addHandler(_Libraries(records))
    number = logging.getLevelNamesMapping()[level.name]
    root.setLevel(number)
    for name in _NOISY:
        logging.getLogger(name).setLevel(max(number, logging.WARNING))
    logging.captureWarnings(True)
    structlog.configure(
        processors=[records.take],
        logger_factory=str,  # a logger is its name, all that ``take`` needs of it
        wrapper_class=structlog.make_filtering_bound_logger(number),
        # Not cached: a logger that was used before another configuration would keep the old one.
        cache_logger_on_first_use=False,
    )
    _catch_uncaught()


def _records(form: Format, journal: Path) -> _Records:
    if journald.is_journal():
        return _Records(_as_json if form is Format.JSON else _as_words, journald.Journal(journal))
    return _Records(_as_json if form is Format.JSON else _as_text, _Stderr())


class _Records:
    """The way of every record, ours or a library's: its traceback made text, the redaction, its form, its sink."""

    def __init__(self, render: Render, sink: Sink) -> None:
        self._render = render
        self._sink = sink

    def take(self, name: str, method: str, event: EventDict) -> NoReturn:
        """structlog's last processor."""
        self.write(name, method, event)
        raise structlog.DropEvent

    def write(self, name: str, level: str, event: EventDict) -> None:
        """Raises nothing: the work goes on without its log."""
        try:
            # Tracebacks become text before the redaction. Never with the frames' variables: they hold anything.
            self._put(name, level, redact_mapping(format_exc_info(None, level, event)))
        except Exception as error:  # noqa: BLE001 - whatever it is
            self.fail(name, error)

    def fail(self, name: str, error: Exception) -> None:
        """A record of ``name`` could not be written. What it says is not known to be redacted."""
        with contextlib.suppress(Exception):
            self._put(name, "error", {"event": "a record could not be written", "error": type(error).__name__})

    def close(self) -> None:
        self._sink.close()

    def _put(self, name: str, level: str, event: dict[str, Any]) -> None:
        event["level"], event["logger"] = level, redact_text(name)
        event["timestamp"] = f"{datetime.now(UTC).replace(tzinfo=None).isoformat(timespec='microseconds')}Z"
        self._sink.write(event, self._render(event))


class _Libraries(logging.Handler):
    """The records of those who log with the standard library."""

    def __init__(self, records: _Records) -> None:
        super().__init__()
        self._records = records

    def emit(self, record: logging.LogRecord) -> None:
        """See logging.Handler."""
        try:
            event: EventDict = {"event": record.getMessage(), "exc_info": record.exc_info}
        except Exception as error:  # noqa: BLE001 - arguments that do not fit
            self._records.fail(record.name, error)
            return
        if record.stack_info:
            event["stack_info"] = record.stack_info
        self._records.write(record.name, record.levelname.lower(), event)

    def close(self) -> None:
        """See logging.Handler."""
        self._records.close()
        super().close()


class _Stderr:
    def __init__(self) -> None:
        self._stream = sys.stderr
        # The garbage collector may write a record (``sys.unraisablehook``) in the middle of another one.
        self._lock = threading.RLock()

    def write(self, event: Mapping[str, Any], text: str) -> None:
        with self._lock:
            self._stream.write(f"{text}\n")
            self._stream.flush()

    def close(self) -> None:
        """It is everybody's."""


def _as_json(event: Mapping[str, Any]) -> str:
    return _JSON.encode(event)


def _as_text(event: Mapping[str, Any]) -> str:
    return f"{event['timestamp']} {event['level']:<7} {_as_words(event)}"


def _as_words(event: Mapping[str, Any]) -> str:
    """Without what the journal has itself."""
    words = " ".join([f"{key}={_quoted(value)}" for key, value in event.items() if key not in _NO_FIELDS])
    message = _one_line(str(event.get("event", "")))
    line = "  ".join([message, words, f"[{event['logger']}]"] if words else [message, f"[{event['logger']}]"])
    if "exception" not in event:
        return line
    # Indented, so that no line of a message from outside looks like a record of its own.
    return "\n    ".join([line, *str(event["exception"]).splitlines()])


def _one_line(text: str) -> str:
    return text if text.isprintable() else json.dumps(text)[1:-1]


def _quoted(value: object) -> str:
    if not isinstance(value, str):
        return json.dumps(value)
    is_printable = value.isprintable()
    return value if is_printable and _BARE.fullmatch(value) else json.dumps(value, ensure_ascii=not is_printable)


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
