"""What is sent where stderr is systemd's journal, to a socket of our own in the place of its."""

from __future__ import annotations

import logging
import os
import re
import socket
import struct
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog

from holdpay import journald, log
from holdpay.log import Format, Level

Capture = pytest.CaptureFixture[str]
CODE, NUMBER, HASH = "246810", "+18826202473", "0011223344556677" * 4


@pytest.fixture(autouse=True)
def _put_back() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    hooks = sys.excepthook, sys.unraisablehook
    yield
    for ours in root.handlers:
        if ours not in handlers:
            ours.close()
    root.handlers[:] = handlers
    root.setLevel(level)
    sys.excepthook, sys.unraisablehook = hooks
    logging.captureWarnings(False)
    structlog.reset_defaults()


class Journal:
    """The other end."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(str(path))
        self._socket.setblocking(False)

    def close(self) -> None:
        self._socket.close()

    def next(self) -> dict[str, str]:
        """Read as the protocol says it."""
        rest, found = self._socket.recv(1 << 20), {}
        while rest:
            line, _, rest = rest.partition(b"\n")
            key, equals, value = line.partition(b"=")
            if not equals:
                (length,) = struct.unpack("<Q", rest[:8])
                value, rest = rest[8 : 8 + length], rest[8 + length + 1 :]
            found[key.decode()] = value.decode()
        return found

    def is_empty(self) -> bool:
        try:
            self._socket.recv(1)
        except BlockingIOError:
            return True
        return False


@pytest.fixture
def journal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Journal]:
    info = os.fstat(2)
    monkeypatch.setenv("JOURNAL_STREAM", f"{info.st_dev}:{info.st_ino}")
    opened = Journal(tmp_path / "journal")
    yield opened
    opened.close()


def test_a_record_has_its_fields_and_its_text_has_no_time_of_its_own(journal: Journal, capsys: Capture) -> None:
    log.configure(Format.TEXT, Level.INFO, journal.path)
    structlog.get_logger("holdpay.engine.engine").info(
        "order closed", order_id="dpktyah2w6", end="refunded", spent_msat=0
    )
    assert journal.next() == {
        "MESSAGE": "order closed  order_id=dpktyah2w6 end=refunded spent_msat=0  [holdpay.engine.engine]",
        "PRIORITY": "6",
        "SYSLOG_IDENTIFIER": "holdpayd",
        "LOGGER": "holdpay.engine.engine",
        "ORDER_ID": "dpktyah2w6",
        "MESSAGE_ID": "b10f9d989a504e0fba08c74c1d51c614",
    }
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("level", "priority"), [("debug", "7"), ("info", "6"), ("warning", "4"), ("error", "3"), ("critical", "2")]
)
def test_each_level_has_its_priority(journal: Journal, level: str, priority: str) -> None:
    log.configure(Format.TEXT, Level.DEBUG, journal.path)
    getattr(structlog.get_logger("holdpay.x"), level)("something")
    found = journal.next()
    assert found["PRIORITY"] == priority
    assert "ORDER_ID" not in found
    assert "MESSAGE_ID" not in found


def test_json_is_the_text_where_that_was_asked_for(journal: Journal) -> None:
    log.configure(Format.JSON, Level.INFO, journal.path)
    structlog.get_logger("holdpay.engine.engine").warning("alarm", order_id="dpktyah2w6", text="late")
    found = journal.next()
    assert '"text": "late"' in found["MESSAGE"]
    assert found["MESSAGE_ID"] == journald.MESSAGE_IDS["alarm"]


def test_a_line_break_forges_no_field(journal: Journal) -> None:
    log.configure(Format.TEXT, Level.INFO, journal.path)
    try:
        raise ValueError("first\nMESSAGE_ID=forged\nORDER_ID=forged")
    except ValueError:
        structlog.get_logger("holdpay.x").exception("failed\nPRIORITY=0", order_id="a\nPRIORITY=0")
    found = journal.next()
    assert found["PRIORITY"] == "3"
    assert "MESSAGE_ID" not in found
    assert found["ORDER_ID"] == "a\nPRIORITY=0"
    assert "ValueError: first" in found["MESSAGE"]


def test_what_is_secret_is_cut_as_it_is_everywhere(journal: Journal) -> None:
    log.configure(Format.TEXT, Level.INFO, journal.path)
    structlog.get_logger("holdpay.x").info(f"of {HASH}", code=CODE, number=NUMBER, text=f"call {NUMBER}", order_id=HASH)
    said = str(journal.next())
    assert CODE not in said
    assert NUMBER not in said
    assert HASH not in said


def test_a_librarys_record_comes_too_and_is_none_of_ours(journal: Journal) -> None:
    log.configure(Format.TEXT, Level.INFO, journal.path)
    logging.getLogger("some.library").warning("alarm")
    found = journal.next()
    assert (found["LOGGER"], found["PRIORITY"]) == ("some.library", "4")
    assert "MESSAGE_ID" not in found


def test_a_traceback_without_end_is_cut_and_still_arrives(journal: Journal) -> None:
    log.configure(Format.TEXT, Level.INFO, journal.path)
    structlog.get_logger("holdpay.x").info("x" * 10_000_000)
    assert len(journal.next()["MESSAGE"]) == journald.MAX_MESSAGE_CHARS


def test_what_the_journal_does_not_take_goes_to_stderr(
    journal: Journal, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    log.configure(Format.TEXT, Level.INFO, journal.path)
    count = 0
    while not (said := capsys.readouterr().err):
        structlog.get_logger("holdpay.x").warning("again")
        count += 1
        assert count < 100_000
    assert said == "<4>again  [holdpay.x]\n"
    journal.close()
    journal.path.unlink()
    structlog.get_logger("holdpay.x").warning("nobody there")
    assert capsys.readouterr().err == "<4>nobody there  [holdpay.x]\n"


def test_where_stderr_is_not_the_journal_nothing_goes_there(
    journal: Journal, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("JOURNAL_STREAM", "1:1")
    log.configure(Format.TEXT, Level.INFO, journal.path)
    structlog.get_logger("holdpay.x").info("to stderr")
    assert "info    to stderr  [holdpay.x]" in capsys.readouterr().err
    assert journal.is_empty()
    assert not journald.is_journal({"JOURNAL_STREAM": "1:1"})
    assert not journald.is_journal({})
    assert not journald.is_journal({"JOURNAL_STREAM": ""}, fd=-1)


def test_the_last_configuration_counts_and_nothing_is_sent_twice(journal: Journal) -> None:
    log.configure(Format.TEXT, Level.INFO, journal.path)
    log.configure(Format.TEXT, Level.INFO, journal.path)
    structlog.get_logger("holdpay.x").info("once")
    assert journal.next()["MESSAGE"].startswith("once")
    assert journal.is_empty()


def test_the_page_has_a_line_for_each_message_id_and_no_other() -> None:
    page = (Path(__file__).parents[2] / "docs" / "operations.md").read_text()
    assert set(re.findall(r"MESSAGE_ID=([0-9a-f]{32})", page)) == set(journald.MESSAGE_IDS.values())
