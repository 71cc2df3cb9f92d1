"""`holdpay top` and the live line in a real terminal: tmux, the real daemon, the sandbox."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import shutil
import sys
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import pytest_asyncio

from holdpay._pb.v1 import holdpay_pb2 as pb
from holdpay.sandbox.sms4sats_knobs import Scenario
from holdpay.sandbox.world import SandboxWorld
from tests.e2e.test_clients import ANN_GROUP, group_of
from tests.harness import Daemon
from tests.unit.cli.fake_daemon import NUMBERED, FakeDaemon, Hang, a_request, updates

BIN = Path(sys.executable).parent
PATIENCE_S = 120
HELD = Scenario(code_after_s=1e9)

pytestmark = [
    pytest.mark.skipif(shutil.which("tmux") is None, reason="needs tmux"),
    pytest.mark.asyncio(loop_scope="module"),
]


class Tmux:
    """A shell in a terminal of a size that can be changed."""

    def __init__(self, folder: Path, socket: Path) -> None:
        self._server = folder / "tmux"
        self._environment = {
            "HOLDPAY_SOCKET": str(socket),
            "PATH": f"{BIN}:{os.environ['PATH']}",
            "HOME": str(folder),
            "LC_ALL": "C.UTF-8",
        }

    async def start(self, columns: int = 80, lines: int = 24) -> None:
        size = ("-x", str(columns), "-y", str(lines))
        await self._tmux(
            "-f", "/dev/null", "new-session", "-d", "-c", str(self._server.parent), *size, "bash --norc --noprofile -i"
        )
        await self.until(lambda screen: bool(screen.strip()))

    async def stop(self) -> None:
        await self._tmux("kill-server")

    async def run(self, command: str) -> None:
        await self._tmux("send-keys", "-l", command)
        await self.press("Enter")

    async def press(self, *keys: str) -> None:
        await self._tmux("send-keys", *keys)

    async def resize(self, columns: int, lines: int) -> None:
        await self._tmux("resize-window", "-x", str(columns), "-y", str(lines))

    async def ask(self, what: str) -> str:
        """A format of tmux: "#{cursor_flag}"."""
        return (await self._tmux("display-message", "-p", what)).strip()

    async def screen(self, *, colours: bool = False) -> str:
        return await self._tmux("capture-pane", "-p", *(["-e"] if colours else []))

    async def until(self, is_so: Callable[[str], bool]) -> str:
        """The first screen of which it is so."""
        shown = ""
        try:
            async with asyncio.timeout(PATIENCE_S):
                while not is_so(shown := await self.screen()):
                    await asyncio.sleep(0.05)
        except TimeoutError:
            raise AssertionError(f"it never came to that:\n{shown}") from None
        return shown

    async def see(self, words: str) -> str:
        return await self.until(lambda screen: words in screen)

    async def _tmux(self, *arguments: str) -> str:
        process = await asyncio.create_subprocess_exec(
            *("tmux", "-u", "-S", str(self._server), *arguments),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env=self._environment,
        )
        stdout, stderr = await process.communicate()
        assert process.returncode == 0, stderr.decode()
        return stdout.decode()


@pytest.fixture
def folder() -> Iterator[Path]:
    # The shell, which has its home there, may write its history while it goes.
    with tempfile.TemporaryDirectory(prefix="holdpay-top-", ignore_cleanup_errors=True) as folder:
        yield Path(folder)


@contextlib.asynccontextmanager
async def a_terminal(folder: Path, socket: Path) -> AsyncIterator[Tmux]:
    tmux = Tmux(folder, socket)
    await tmux.start()
    try:
        yield tmux
    finally:
        await tmux.stop()


@dataclass(frozen=True, slots=True)
class Shop:
    """The real daemon, for the operator and for a client of his."""

    world: SandboxWorld
    daemon: Daemon
    ann: Daemon


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shop() -> AsyncIterator[Shop]:
    with tempfile.TemporaryDirectory(prefix="holdpay-top-") as name:
        client = f'''
[[client]]
name = "ann"
group = "{group_of(ANN_GROUP)}"
socket = "{name}/ann.sock"
max_spend_per_day_sat = 20000
'''
        async with SandboxWorld(Path(name), pace=20, extra_config=client) as world:
            world.provider.knobs.scenario = HELD
            daemon, ann = Daemon(world.config, world.socket), Daemon(world.config, Path(name) / "ann.sock")
            await daemon.start_ready()
            ann.connect()
            yield Shop(world, daemon, ann)
            await ann.channel.close()
            await daemon.stop()


@pytest_asyncio.fixture(loop_scope="module")
async def tmux(folder: Path, shop: Shop) -> AsyncIterator[Tmux]:
    async with a_terminal(folder, shop.world.socket) as tmux:
        yield tmux


@pytest_asyncio.fixture(loop_scope="module")
async def fake(folder: Path) -> AsyncIterator[FakeDaemon]:
    fake = FakeDaemon(str(folder / "holdpay.sock"), is_from_now=True)
    fake.answers["GetStatus"] = pb.GetStatusResponse(ready=True, version="0.1.0")
    fake.requests = [a_request(**NUMBERED, cursor=1)]
    fake.watch_scripts = [[*updates(NUMBERED), Hang()] for _ in range(3)]
    fake.start()
    yield fake
    fake.stop()


async def test_an_order_is_watched_explained_and_canceled_in_80_by_24_and_in_40_by_10(tmux: Tmux, shop: Shop) -> None:
    daemon = shop.daemon
    await tmux.run("holdpay top")
    await tmux.see("nothing is open")
    order = await daemon.order()
    await tmux.see("held, waiting for the SMS; the number is +")
    # What comes of the status comes with the next look at it.
    told = re.compile(rf"1 of 8.*Pending[\s\S]*^► {order.id} .* ok *$", re.MULTILINE)
    lines = (await tmux.until(lambda screen: bool(told.search(screen)))).splitlines()
    assert lines[0].startswith("holdpay  orders are taken")
    assert any(line.startswith("lnd      ready · block 500, synced") for line in lines)
    assert len(lines) == 24

    await tmux.press("Enter")
    await tmux.see("What happened")
    await tmux.press("Escape")
    await tmux.see("LAST EVENTS")

    await tmux.resize(40, 10)
    await tmux.until(lambda screen: "LAST EVENTS" not in screen and "q quit" in screen)
    await tmux.press("c")
    await tmux.see(f"Cancel {order.id}? y: yes, else: no")
    await tmux.press("n")
    await tmux.see(f"{order.id} was not canceled.")
    assert not (await daemon.get(order.id)).has("cancel_wanted_at_ms")
    await tmux.resize(120, 40)
    await tmux.until(lambda screen: "LAST EVENTS" in screen and "was not canceled" in screen)
    await tmux.press("c")
    await tmux.see(f"Cancel {order.id}?")
    await tmux.press("y")
    await tmux.see("you asked to cancel")
    assert (await daemon.get(order.id)).has("cancel_wanted_at_ms")


@pytest.mark.parametrize("keys", [("q",), ("C-c",), ("C-z", "q")])
async def test_a_key_that_ends_it_leaves_the_terminal_as_it_was(
    fake: FakeDaemon, folder: Path, keys: tuple[str, ...]
) -> None:
    async with a_terminal(folder, Path(fake.path)) as tmux:
        await tmux.run("stty -a >before; holdpay top; echo code $?")
        await tmux.see("LAST EVENTS")
        assert await tmux.ask("#{alternate_on} #{cursor_flag}") == "1 0"
        await tmux.press(keys[0])
        if len(keys) > 1:
            await tmux.see("Stopped")
            assert await tmux.ask("#{alternate_on} #{cursor_flag}") == "0 1"
            await tmux.run("fg; echo code $?")
            await tmux.see("LAST EVENTS")
            await tmux.press(keys[1])
            await tmux.see("code 0")  # the shell reads again; what was typed before is gone
        else:
            await tmux.see(f"code {130 if keys[0] == 'C-c' else 0}")
        assert await _is_as_before(tmux)


async def _is_as_before(tmux: Tmux) -> bool:
    await tmux.run("clear; stty -a >after; cmp -s before after && echo it is the same || echo differ")
    shown = await tmux.until(lambda screen: bool({"it is the same", "differ"} & set(screen.splitlines())))
    is_same = "it is the same" in shown.splitlines()
    return is_same and await tmux.ask("#{alternate_on} #{cursor_flag} #{wrap_flag}") == "0 1 1"


async def test_a_sigterm_leaves_the_terminal_as_it_was(fake: FakeDaemon, folder: Path) -> None:
    async with a_terminal(folder, Path(fake.path)) as tmux:
        await tmux.run("stty -a >before; sh -c 'echo $$ >pid; exec holdpay top'; echo code $?")
        await tmux.see("LAST EVENTS")
        os.kill(int((folder / "pid").read_text()), 15)
        await tmux.see("code 130")
        assert await _is_as_before(tmux)


async def test_a_daemon_that_is_killed_and_comes_back_is_told_and_the_orders_are_there_again(
    tmux: Tmux, shop: Shop
) -> None:
    order = await shop.daemon.order()
    await tmux.run("holdpay top")
    await tmux.see(order.id)
    await shop.daemon.kill()
    await tmux.see("THE DAEMON IS AWAY")
    await shop.daemon.start()
    await tmux.until(lambda screen: "orders are taken" in screen and order.id in screen)


async def test_a_client_with_a_budget_of_its_own_sees_its_own_alone(shop: Shop, folder: Path) -> None:
    await shop.daemon.until_ready()
    others, own = await shop.daemon.order(), await shop.ann.order()
    async with a_terminal(folder, shop.ann.socket) as tmux:
        await tmux.run("holdpay top")
        shown = await tmux.until(lambda screen: f"► {own.id}" in screen and "the number is +" in screen)
    assert shown.startswith("holdpay · ann  orders are taken")
    assert "Day" in shown
    assert "of 20,000 sat" in shown
    assert others.id not in shown
    assert "synced" not in shown


async def test_texts_of_the_provider_cannot_play_with_the_terminal(fake: FakeDaemon, folder: Path) -> None:
    hostile = "\x1b]2;owned\x07\x1b[2J\x1b[1;1Hgone"
    stage = NUMBERED | {"number": hostile, "phase": hostile, "hold_why": hostile, "messages": [hostile]}
    fake.requests = [a_request(**stage, cursor=1)]
    fake.watch_scripts = [[*updates(NUMBERED, stage), Hang()]]
    async with a_terminal(folder, Path(fake.path)) as tmux:
        await tmux.run("holdpay top")
        shown = await tmux.until(lambda screen: screen.count("gone") >= 2)
        assert shown.startswith("holdpay  orders are taken")
        assert await tmux.ask("#{pane_title}") != "owned"


async def test_there_is_colour_unless_no_color_is_set(fake: FakeDaemon, folder: Path) -> None:
    async with a_terminal(folder, Path(fake.path)) as tmux:
        await tmux.run("holdpay top; echo code $?")
        await tmux.see("LAST EVENTS")
        assert "\x1b[32m" in await tmux.screen(colours=True)
        await tmux.press("q")
        await tmux.see("code 0")  # the shell reads again; what was typed before is gone
        await tmux.run("NO_COLOR=1 holdpay top")
        await tmux.see("LAST EVENTS")
        assert "\x1b[32m" not in await tmux.screen(colours=True)


@pytest.mark.parametrize("command", ["TERM=dumb holdpay top", "holdpay top | cat", "holdpay top </dev/null"])
async def test_where_it_cannot_be_it_names_what_can(fake: FakeDaemon, folder: Path, command: str) -> None:
    async with a_terminal(folder, Path(fake.path)) as tmux:
        await tmux.run(f"set -o pipefail; {command}; echo code $?")
        await tmux.see("code 2")
        assert "holdpay status --watch" in (await tmux.screen()).replace("\n", " ")


async def test_a_wait_for_a_code_has_one_live_line_and_only_the_code_on_stdout(tmux: Tmux, shop: Shop) -> None:
    await shop.daemon.until_ready()
    await tmux.resize(120, 24)
    await tmux.run("code=$(holdpay code usa openai); echo got $code")
    shown = await tmux.see("held, waiting for the SMS …")
    (live,) = [line for line in shown.splitlines() if "held, waiting for the SMS" in line]
    assert live.endswith(" to the promised end")
    assert "░" in live
    order = list(shop.world.provider.orders.values())[-1]
    order.code = "246810"
    await shop.world.payee.settle(order.preimage)
    shown = await tmux.see("got 246810")
    assert "…" not in shown
    assert "the number is +" in shown
