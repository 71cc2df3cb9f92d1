"""How a message is sent: what is acknowledged, what is not, and that neither a receiver nor a program can do harm."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import ssl
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from holdpay.hooks.command import CommandSender
from holdpay.hooks.http import HttpSender
from holdpay.hooks.sending import Message, Trouble
from holdpay.hooks.settings import Command, Url
from holdpay.hooks.signing import signature
from holdpay.sandbox.tls import write_certificate
from tests.e2e.receivers import Receiver, receiving

KEY = b"0123456789abcdef01234567"
MESSAGE = Message("msg_1", "closed", 1_800_000_000, b'{"type":"closed","timestamp":"now","data":{}}')


def sender_of(url: str, **changes: object) -> HttpSender:
    given: dict[str, object] = {"secret": KEY, "proxy": None, "timeout_s": 5, **changes}
    return HttpSender(Url(url=url, **given))  # type: ignore[arg-type]


@contextlib.asynccontextmanager
async def sent(url: str, **changes: object) -> AsyncIterator[Trouble | None]:
    sender = sender_of(url, **changes)
    try:
        yield await sender.send(MESSAGE)
    finally:
        await sender.close()


async def test_a_post_is_signed_and_a_2xx_acknowledges_it() -> None:
    async with receiving(status=202, reply=b"thanks") as receiver, sent(receiver.url) as trouble:
        assert trouble is None
        (got,) = receiver.got
        assert got.body == MESSAGE.body
        assert got.headers["webhook-id"] == "msg_1"
        assert got.headers["webhook-timestamp"] == "1800000000"
        assert got.headers["webhook-signature"] == signature(MESSAGE, KEY)
        assert got.headers["content-type"] == "application/json"


async def test_one_after_the_other_goes_over_one_connection_which_is_closed_at_the_end() -> None:
    connections, ends = 0, asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        with contextlib.suppress(asyncio.IncompleteReadError):
            while True:
                await reader.readuntil(b"\r\n\r\n")
                await reader.readexactly(len(MESSAGE.body))
                writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\nthanks")
        ends.set()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    sender = sender_of(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/")
    assert [await sender.send(MESSAGE) for _ in range(4)] == [None] * 4
    assert connections == 1
    await sender.close()
    async with asyncio.timeout(60):
        await ends.wait()
    server.close()


@pytest.mark.parametrize(
    ("status", "wanted", "is_final"),
    [
        (500, "answered with HTTP 500", False),
        (404, "answered with HTTP 404", False),
        (429, "answered with HTTP 429", False),
        (302, "answered with a redirect (HTTP 302), which is not followed", False),
        (410, "answered that it wants no more (HTTP 410)", True),
    ],
)
async def test_any_other_answer_is_no_acknowledgement_and_a_redirect_is_not_followed(
    status: int, wanted: str, is_final: bool
) -> None:
    async with receiving() as elsewhere, receiving(status=status) as receiver:
        receiver.extra_headers = f"location: {elsewhere.url}\r\n"
        async with sent(receiver.url) as trouble:
            assert trouble is not None
            assert (trouble.text, trouble.is_final) == (wanted, is_final)
        assert elsewhere.got == []


async def test_a_receiver_that_says_nothing_is_given_up_in_time() -> None:
    async with receiving() as receiver:
        receiver.may_answer.clear()
        async with sent(receiver.url, timeout_s=0.2) as trouble:
            assert trouble is not None
            assert trouble.text == "did not answer within 0.2 s"


async def test_a_reply_without_end_is_not_waited_for() -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
        with contextlib.suppress(ConnectionError, asyncio.CancelledError):
            while True:
                writer.write(b"x" * 4096)
                await writer.drain()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with sent(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/") as trouble:
        assert trouble is None
    server.close()


@pytest.mark.parametrize("is_cut", [True, False])
async def test_a_reply_whose_text_does_not_come_acknowledges_all_the_same(is_cut: bool) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nok")
        await writer.drain()
        if is_cut:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    began_s = time.monotonic()
    async with sent(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/", timeout_s=30) as trouble:
        assert trouble is None
    assert time.monotonic() - began_s < 15, "it waits for the rest for a second, not for timeout_s"
    server.close()


async def test_nobody_there_is_told_without_the_url_whose_path_may_be_secret() -> None:
    async with receiving() as receiver:
        url = receiver.url
    sender = sender_of(url.replace("from-holdpay", "hidden?key=hidden"))
    trouble = await sender.send(MESSAGE)
    await sender.close()
    assert trouble is not None
    assert trouble.text == "cannot be reached (ConnectError)"
    assert sender.target == url.partition("/hooks")[0]


def test_nothing_that_may_be_secret_is_in_what_a_log_could_show() -> None:
    target = Url(url="https://x/hidden", secret=b"hidden", proxy="http://hidden@x", timeout_s=1)
    assert "hidden" not in f"{target} {Message('msg_1', 'code', 1, b'hidden')}"


async def test_a_certificate_that_nobody_vouches_for_is_not_taken(tmp_path: Path) -> None:
    write_certificate(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "tls.cert", tmp_path / "tls.key")
    receiver = Receiver()
    receiver.may_answer.set()
    server = await asyncio.start_server(receiver.serve, "127.0.0.1", 0, ssl=context)
    async with sent(f"https://localhost:{server.sockets[0].getsockname()[1]}/") as trouble:
        assert trouble is not None
        assert trouble.text.startswith("cannot be reached")
    server.close()
    assert receiver.got == []


async def test_a_certificate_for_which_the_system_vouches_is_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As an operator's own authority does: OpenSSL's store of the system, in place of which it takes this file."""
    write_certificate(tmp_path)
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "tls.cert"))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "tls.cert", tmp_path / "tls.key")
    receiver = Receiver()
    receiver.may_answer.set()
    server = await asyncio.start_server(receiver.serve, "127.0.0.1", 0, ssl=context)
    async with sent(f"https://localhost:{server.sockets[0].getsockname()[1]}/") as trouble:
        assert trouble is None
    server.close()


async def test_no_proxy_of_the_environment_is_used_and_the_one_that_was_asked_for_is(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with receiving() as proxy, receiving() as receiver:
        address = proxy.url.partition("/hooks")[0]
        for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
            monkeypatch.setenv(name, address)
        async with sent(receiver.url) as trouble:
            assert trouble is None
        assert (len(proxy.got), len(receiver.got)) == (0, 1)
        async with sent(receiver.url, proxy=address) as trouble:
            assert trouble is None
        assert (len(proxy.got), len(receiver.got)) == (1, 1)


# --- programs ---------------------------------------------------------------------------------------------------------


def program(folder: Path, text: str, timeout_s: float = 10) -> CommandSender:
    path = folder / "program"
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return CommandSender(Command(argv=(str(path), "a b; $(touch never)", str(folder)), timeout_s=timeout_s))


async def test_a_program_gets_the_event_on_stdin_and_acknowledges_with_0(tmp_path: Path) -> None:
    sender = program(tmp_path, 'cat > "$2/body"; printf %s "$1" > "$2/first"; env > "$2/env"; pwd > "$2/folder"')
    assert await sender.send(MESSAGE) is None
    assert (tmp_path / "body").read_bytes() == MESSAGE.body
    assert (tmp_path / "first").read_text() == "a b; $(touch never)"
    assert (tmp_path / "folder").read_text() == "/\n"


async def test_its_environment_has_nothing_of_the_daemons(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", "/run/credentials/holdpayd.service")
    assert await program(tmp_path, 'env -u PWD -u SHLVL -u _ > "$2/env"').send(MESSAGE) is None
    names = {line.partition("=")[0] for line in (tmp_path / "env").read_text().splitlines()}
    assert names - {"PWD", "OLDPWD", "SHLVL", "_"} == {
        "PATH",
        "LANG",
        "WEBHOOK_ID",
        "WEBHOOK_TYPE",
        "WEBHOOK_TIMESTAMP",
    }


async def test_another_exit_code_is_no_acknowledgement_and_what_it_writes_is_not_kept(tmp_path: Path) -> None:
    trouble = await program(tmp_path, "cat >&2; exit 3").send(MESSAGE)
    assert trouble is not None
    assert trouble.text == "ended with exit code 3"


async def test_one_that_reads_nothing_and_one_that_was_killed_do_no_harm(tmp_path: Path) -> None:
    assert await program(tmp_path, "exit 0").send(MESSAGE) is None
    trouble = await program(tmp_path, "kill -15 $$").send(MESSAGE)
    assert trouble is not None
    assert trouble.text == f"was ended by signal {signal.SIGTERM}"


async def test_one_that_cannot_be_started_any_more_is_told(tmp_path: Path) -> None:
    sender = program(tmp_path, "exit 0")
    (tmp_path / "program").unlink()
    trouble = await sender.send(MESSAGE)
    assert trouble is not None
    assert trouble.text == "cannot be started (No such file or directory)"


def is_running(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


@pytest.mark.parametrize("ends", [False, True])
async def test_at_its_time_limit_and_at_its_end_nobody_of_its_group_is_left(tmp_path: Path, ends: bool) -> None:
    last, timeout_s = ("exit 0", 60) if ends else ("wait", 3)
    sender = program(tmp_path, f'sleep 300 & echo $! > "$2/child"; trap "" TERM; {last}', timeout_s=timeout_s)
    async with asyncio.timeout(60):
        trouble = await sender.send(MESSAGE)
    if ends:
        assert trouble is None
    else:
        assert trouble is not None
        assert trouble.text == "did not end within 3 s, and was killed"
    child = int((tmp_path / "child").read_text())
    async with asyncio.timeout(60):
        while is_running(child):
            await asyncio.sleep(0.02)


async def test_one_that_runs_when_the_daemon_stops_is_killed(tmp_path: Path) -> None:
    sender = program(tmp_path, 'echo $$ > "$2/own"; sleep 300')
    task = asyncio.create_task(sender.send(MESSAGE))
    async with asyncio.timeout(60):
        while not (tmp_path / "own").exists() or not (tmp_path / "own").read_text():
            await asyncio.sleep(0.02)
    task.cancel()
    await asyncio.wait([task])
    assert task.cancelled()
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "own").read_text()), 0)
