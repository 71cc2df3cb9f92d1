"""The log: its two forms, and that no secret gets through, whichever way it comes."""

import asyncio
import io
import itertools
import json
import logging
import re
import sys
import threading
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import structlog

import holdpay
from holdpay import log
from holdpay.log import Format, Level
from holdpay.redact import redact_mapping, redact_text, redact_value

HASH = "0011223344556677" * 4
INVOICE = "lnbc30u1pnabcdef" + "q" * 200
Capture = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def _put_back() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    hooks = sys.excepthook, threading.excepthook, sys.unraisablehook
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    sys.excepthook, threading.excepthook, sys.unraisablehook = hooks
    logging.captureWarnings(False)
    structlog.reset_defaults()


def only_record(capture: Capture) -> dict[str, Any]:
    lines = capture.readouterr().err.splitlines()
    assert len(lines) == 1, lines
    record: dict[str, Any] = json.loads(lines[0])
    return record


# --- form ---


def test_a_json_record_is_one_object_a_line_on_stderr(capsys: Capture) -> None:
    log.configure(Format.JSON, Level.INFO)
    structlog.get_logger("holdpay.engine").info("order accepted", price_sat=3000)
    record = only_record(capsys)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d+Z", record.pop("timestamp"))
    assert record == {"event": "order accepted", "level": "info", "logger": "holdpay.engine", "price_sat": 3000}


def test_a_text_record_is_a_line_for_people(capsys: Capture) -> None:
    log.configure(Format.TEXT, Level.INFO)
    structlog.get_logger("holdpay.engine").info("order accepted", price_sat=3000, country="South Korea", reason="")
    line = capsys.readouterr().err
    assert re.match(r"\d{4}-\S+Z info    order accepted  ", line)
    assert line.endswith('price_sat=3000 country="South Korea" reason=""  [holdpay.engine]\n')


def test_a_text_from_outside_cannot_forge_a_record_or_steer_a_terminal(capsys: Capture) -> None:
    log.configure(Format.TEXT, Level.INFO)
    structlog.get_logger("x").info("reply\n2026", text="fine\n2026-01-01 info settled \x1b[2J\x9b", order="a b=c")
    assert len(capsys.readouterr().err.splitlines()) == 1
    try:
        raise ValueError("first\n2026-01-01 info settled")
    except ValueError:
        structlog.get_logger("x").exception("failed")
    lines = capsys.readouterr().err.splitlines()
    assert all(line.startswith("    ") for line in lines[1:])
    assert "    2026-01-01 info settled" in lines


def test_records_below_the_level_are_not_written(capsys: Capture) -> None:
    log.configure(Format.JSON, Level.WARNING)
    structlog.get_logger("x").info("quiet")
    logging.getLogger("x").info("quiet")
    assert capsys.readouterr().err == ""
    structlog.get_logger("x").warning("loud")
    assert only_record(capsys)["event"] == "loud"


def test_a_logger_made_before_the_configuration_obeys_it(capsys: Capture) -> None:
    early = structlog.get_logger("holdpay.early")
    log.configure(Format.JSON, Level.WARNING)
    early.info("quiet")
    early.warning("loud")
    assert only_record(capsys)["event"] == "loud"


def test_the_last_configuration_counts_and_nothing_is_written_twice(capsys: Capture) -> None:
    log.configure(Format.TEXT, Level.INFO)
    log.configure(Format.JSON, Level.INFO)
    structlog.get_logger("x").info("once")
    assert only_record(capsys)["event"] == "once"


# --- libraries ---


def test_a_librarys_record_has_the_same_form_and_the_same_redaction(capsys: Capture) -> None:
    log.configure(Format.JSON, Level.INFO)
    logging.getLogger("some.library").warning("status of %s", HASH)
    record = only_record(capsys)
    assert record["event"] == "status of 00112233…"
    assert (record["level"], record["logger"]) == ("warning", "some.library")


@pytest.mark.parametrize("name", ["httpx", "httpcore.connection", "grpc._cython", "asyncio"])
def test_libraries_that_tell_urls_are_heard_from_warning_on(capsys: Capture, name: str) -> None:
    log.configure(Format.JSON, Level.DEBUG)
    logging.getLogger(name).info("GET https://api2.sms4sats.com/orderstatus?orderId=abc")
    assert capsys.readouterr().err == ""
    logging.getLogger(name).warning("retrying")
    assert only_record(capsys)["event"] == "retrying"


def test_a_python_warning_becomes_a_record(capsys: Capture) -> None:
    log.configure(Format.JSON, Level.INFO)
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.warn(f"deprecated {HASH}", stacklevel=1)
    assert HASH not in (text := capsys.readouterr().err)
    assert json.loads(text)["logger"] == "py.warnings"


# --- what cannot be written ---


class Unspeakable(Exception):
    def __str__(self) -> str:
        raise RuntimeError(HASH)


def test_a_record_that_cannot_be_written_fails_nobody_and_shows_nothing(capsys: Capture) -> None:
    log.configure(Format.JSON, Level.INFO)
    structlog.get_logger("holdpay.x").warning("it failed", code="482913", error=Unspeakable())
    record = only_record(capsys)
    assert record.pop("timestamp")
    assert record == {
        "event": "a record could not be written",
        "error": "RuntimeError",
        "level": "error",
        "logger": "holdpay.x",
    }


def test_a_librarys_record_whose_arguments_do_not_fit_shows_none_of_them(capsys: Capture) -> None:
    log.configure(Format.TEXT, Level.INFO)
    logging.getLogger("library").warning("status %d", HASH)
    line = capsys.readouterr().err
    assert line.endswith("a record could not be written  error=TypeError  [library]\n")
    assert HASH not in line


def test_work_goes_on_where_nobody_hears_the_log(monkeypatch: pytest.MonkeyPatch) -> None:
    closed = io.StringIO()
    closed.close()
    with monkeypatch.context() as broken:
        broken.setattr(sys, "stderr", closed)
        log.configure(Format.TEXT, Level.INFO)
    structlog.get_logger("x").warning("unheard")
    logging.getLogger("x").warning("unheard")


# --- who writes ---


def test_each_module_says_its_name() -> None:
    unnamed = [path for path in Path(holdpay.__file__).parent.rglob("*.py") if "get_logger()" in path.read_text()]
    assert unnamed == []


# --- redaction ---


@pytest.mark.parametrize("form", list(Format))
def test_no_secret_gets_through_a_value_a_key_or_a_message(capsys: Capture, form: Format) -> None:
    log.configure(form, Level.DEBUG)

    class Kind(Enum):
        HASH = HASH

    @dataclass
    class Order:
        payment_hash: str = HASH

    structlog.get_logger("x").warning(
        f"paying {INVOICE} for {HASH}",
        url=f"https://api2.sms4sats.com/orderstatus?orderId={HASH}",
        upper=HASH.upper(),
        nested={"a": [HASH, {"code": "482913", HASH: 1}], "set": {HASH}, "number": "+19175550123"},
        path=Path("/x") / HASH,
        error=ValueError(HASH),
        kind=Kind.HASH,
        order=Order(),
        raw=bytes.fromhex(HASH),
        macaroon="0201036c6e64",
        code="482913",
        number="+19175550123",
        preimage="00",
        api_key="sesame",
        proxy="socks5h://user:sesame@127.0.0.1:9050",
        text="call +19175550123 now",
    )
    text = capsys.readouterr().err
    assert "paying lnbc30u1…" in text.replace("\\u2026", "…")
    secrets = [HASH, HASH[:16], HASH.upper()[:16], INVOICE[:30], "482913", "9175550123", "sesame", "0201036c6e64"]
    assert [secret for secret in secrets if secret in text] == []
    assert str(bytes.fromhex(HASH))[2:-1] not in text


@pytest.mark.parametrize("form", list(Format))
def test_a_traceback_goes_through_the_redaction_and_shows_no_variables(capsys: Capture, form: Format) -> None:
    log.configure(form, Level.INFO)

    def pay(variable: str) -> None:
        assert variable
        raise RuntimeError(f"lost {HASH}") from ValueError(INVOICE)

    try:
        pay("only in a variable")
    except RuntimeError:
        structlog.get_logger("x").exception("it failed")
        logging.getLogger("library").exception("it failed too")
    text = capsys.readouterr().err
    assert text.count("RuntimeError: lost 00112233") == 2
    assert text.count("ValueError: lnbc30u1") == 2
    assert HASH not in text
    assert INVOICE[:30] not in text
    assert "only in a variable" not in text.replace('pay("only in a variable")', "").replace(
        'pay(\\"only in a variable\\")', ""
    )


def test_what_nobody_catches_is_logged_and_redacted(capsys: Capture) -> None:
    log.configure(Format.JSON, Level.INFO)

    def fail() -> None:
        raise RuntimeError(HASH)

    thread = threading.Thread(target=fail)
    thread.start()
    thread.join()
    try:
        fail()
    except RuntimeError as error:
        sys.excepthook(type(error), error, error.__traceback__)
        unraisable = SimpleNamespace(exc_type=type(error), exc_value=error, exc_traceback=error.__traceback__)
        sys.unraisablehook(unraisable)
    text = capsys.readouterr().err
    assert [json.loads(line)["event"] for line in text.splitlines()] == ["uncaught error"] * 3
    assert HASH not in text


async def test_the_event_loops_own_complaints_are_redacted(capsys: Capture) -> None:
    log.configure(Format.JSON, Level.INFO)
    asyncio.get_running_loop().call_exception_handler({"message": "lost", "exception": RuntimeError(HASH)})
    record = only_record(capsys)
    assert record["logger"] == "asyncio"
    assert "RuntimeError: 00112233…" in record["exception"]


@pytest.mark.parametrize(
    ("text", "cut"),
    [
        (HASH, "00112233…"),
        (HASH[:63], HASH[:63]),
        (f"0x{HASH}ff.", "0x00112233…."),
        ("lntb1500n1" + "p" * 60, "lntb1500…"),
        ("LNBCRT1" + "P" * 60, "LNBCRT1PPP…"),
        ("lightning:lnsb1" + "p" * 60, "lightning:lnsb1ppp…"),
        ("lnd is locked", "lnd is locked"),
        ("+4915112345678", "+49…"),
        ("https://u:p@host/x", "https://…@host/x"),
        (
            "height 912345, 3000 sat, 2026-11-22T10:00:00.123456Z",
            "height 912345, 3000 sat, 2026-11-22T10:00:00.123456Z",
        ),
    ],
)
def test_only_what_must_not_be_read_is_cut(text: str, cut: str) -> None:
    assert redact_text(text) == cut


@pytest.mark.parametrize("between", ["", " ", "/", "@", "=", "\n", ".", "://", ":", "+"])
def test_secrets_side_by_side_are_all_cut(between: str) -> None:
    secrets = {HASH: "445566", INVOICE: "qqq", "https://u:sesame@host": "sesame", "+4915112345678": "1511"}
    if not between:
        del secrets["+4915112345678"]  # with letters at its end it is no phone number
    for texts in itertools.permutations(secrets):
        cut = redact_text(between.join(texts))
        assert [secret for secret, part in secrets.items() if part in cut] == [], cut


def test_plain_values_stay_as_they_are() -> None:
    values = {"a": 1, "b": 1.5, "c": None, "d": True, "e": "text", "f": [1, ("x",)]}
    assert redact_mapping(values) == values | {"f": [1, ["x"]]}


def test_a_value_without_end_is_cut_off() -> None:
    loop: list[object] = []
    loop.append(loop)
    assert "…" in str(redact_value(loop))
