"""`holdpayd doctor` and `holdpayd bake-macaroon` as processes, on the sandbox: all well, then one thing after another
broken."""

from __future__ import annotations

import asyncio
import grp
import json
import os
import re
import shutil
import stat
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from email.utils import formatdate
from pathlib import Path

import pytest

from holdpay.lnd.macaroon import BAKE, RIGHTS, missing_rights
from holdpay.sandbox import http_server
from holdpay.sandbox.tls import write_certificate
from holdpay.sandbox.world import SandboxWorld
from holdpay.store.newest import allow
from holdpay.store.store import SqliteStore
from tests.e2e.shop import open_shop

METHODS = [right.removeprefix("uri:") for right in RIGHTS]
ALL_CHECKS = [
    *("configuration", "files", "disk", "database", "certificate", "lnd", "macaroon", "version", "network", "sync"),
    *("balance", "payee", "route", "provider", "clock", "socket", "unit"),
]


@dataclass(frozen=True, slots=True)
class Ran:
    """One run of a command."""

    code: int
    out: str
    err: str

    def of(self, check: str) -> str:
        """Verdict, text and remedy of each finding of a check, in one string."""
        found = [each for each in json.loads(self.out)["checks"] if check in each["check"].split(", ")]
        return "\n".join(f"{each['verdict']}: {each['text']} | {each['todo']}" for each in found)

    @property
    def failed(self) -> set[str]:
        return {each["check"] for each in json.loads(self.out)["checks"] if each["verdict"] == "failed"}


async def holdpayd(config: Path, *arguments: str | Path, **env: str) -> Ran:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "holdpay.cli.daemon", "--config", config, *arguments),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={**os.environ, **env},
    )
    out, err = await process.communicate()
    assert process.returncode is not None
    ran = Ran(process.returncode, out.decode(), err.decode())
    assert "Traceback" not in ran.err, ran.err
    assert not re.search(r"[0-9a-f]{64}", ran.out + ran.err)
    return ran


async def doctor(world: SandboxWorld, **env: str) -> Ran:
    ran = await holdpayd(world.config, "doctor", "--json", **env)
    assert json.loads(ran.out)["exit_code"] == ran.code
    return ran


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[SandboxWorld]:
    async with SandboxWorld(tmp_path) as world:
        yield world


def configure(world: SandboxWorld, key: str, value: str) -> None:
    """Sets ``section.name`` to a value of TOML."""
    section, _, name = key.partition(".")
    text = re.sub(rf"(?m)^{name} = .*\n", "", world.config.read_text())
    if f"[{section}]\n" not in text:
        text += f"[{section}]\n"
    world.config.write_text(text.replace(f"[{section}]\n", f"[{section}]\n{name} = {value}\n"))


# --- all is well ------------------------------------------------------------------------------------------------------


async def test_all_is_well_beside_a_running_daemon_which_goes_on_and_pays_nothing(tmp_path: Path) -> None:
    others = [gid for gid in os.getgroups() if gid != os.getegid()]
    if os.geteuid() != 0 and not others:
        pytest.skip("a client needs a group of its own, and this process has only one")
    group = "games" if os.geteuid() == 0 else grp.getgrgid(others[0]).gr_name
    client = f'[[client]]\nname = "ann"\ngroup = "{group}"\n'
    async with open_shop(tmp_path, edit_config=lambda text: text + client) as shop:
        order = await shop.held()
        orders, htlcs = len(shop.world.provider.orders), len(shop.world.lnd.network.htlcs)
        ran = await holdpayd(shop.world.config, "doctor", "--json")
        said = {each["check"]: each["verdict"] for each in json.loads(ran.out)["checks"]}
        assert list(said) == ALL_CHECKS
        # This shop's limits are lax, and its simulated chain runs ahead of the clock: both are told.
        assert {check for check, verdict in said.items() if verdict != "ok"} <= {"configuration", "clock"}
        assert "has 1 open order." in ran.of("database")
        assert "may order" in ran.of("socket")
        assert f"The client ann may order at {tmp_path}/holdpay-ann.sock: whoever is in the group {group}." in ran.out
        assert (len(shop.world.provider.orders), len(shop.world.lnd.network.htlcs)) == (orders, htlcs)
        ours = shop.world.lnd.replace_node()
        ran = await holdpayd(shop.world.config, "doctor", "--json")
        assert f"open orders were paid from {ours.pubkey[:10]}…" in ran.of("lnd")
        shop.world.lnd.replace_node(node=ours)
        await shop.deliver(order)
        (tmp_path / "holdpay-ann.sock").chmod(0o666)
        ran = await holdpayd(shop.world.config, "doctor", "--json")
        assert ran.failed == {"socket"}
        assert "should be for" in ran.of("socket")
    guide = (Path(__file__).parents[2] / "docs" / "operations.md").read_text().partition("\n## check")[0]
    assert [check for check in ALL_CHECKS if f"`{check}`" not in guide] == []


async def test_all_is_well_before_the_first_start_too_and_nothing_is_written(world: SandboxWorld) -> None:
    before = sorted(world.directory.rglob("*"))
    ran = await holdpayd(world.config, "doctor")
    assert ran.code == 0, ran.out
    assert "Checks: 16 ok; 1 warning (socket)." in ran.out
    assert "route for 10,000 sat to carol" in ran.out
    assert "fee 1.01 sat (the limit is 100)" in " ".join(ran.out.split())
    assert sorted(world.directory.rglob("*")) == before
    sentences = [line for line in ran.out.splitlines() if str(world.directory) not in line]
    assert max(map(len, sentences)) <= 80


# --- one thing after another broken -----------------------------------------------------------------------------------


async def _narrow_macaroon(world: SandboxWorld) -> None:
    kept = [method for method in METHODS if not method.endswith(("/SendPaymentV2", "/ListPayments"))]
    configure(world, "lnd.macaroon", f'"{world.lnd.bake("narrow.macaroon", kept)}"')


async def _revoked_macaroon(world: SandboxWorld) -> None:
    macaroon = world.lnd.bake("revoked.macaroon", METHODS)
    world.lnd.revoke(macaroon)
    configure(world, "lnd.macaroon", f'"{macaroon}"')


async def _foreign_certificate(world: SandboxWorld) -> None:
    folder = world.directory / "other"
    folder.mkdir()
    write_certificate(folder, ["localhost", "127.0.0.1"])
    configure(world, "lnd.tls_cert", f'"{folder / "tls.cert"}"')


async def _old_lnd(world: SandboxWorld) -> None:
    world.lnd._served.version = "0.18.0-beta"


async def _peer_away(world: SandboxWorld) -> None:
    world.lnd.set_online("peer", online=False)


async def _open_state_dir(world: SandboxWorld) -> None:
    (world.directory / "state").mkdir()
    (world.directory / "state").chmod(0o755)


async def _broken_database(world: SandboxWorld) -> None:
    (world.directory / "state").mkdir(mode=0o700)
    (world.directory / "state" / "holdpay.db").write_bytes(b"scribble" * 1000)


async def _lost_database(world: SandboxWorld) -> None:
    (world.directory / "state").mkdir(mode=0o700)
    allow(world.directory / "state" / "holdpay.db", 70)


async def _file_for_socket(world: SandboxWorld) -> None:
    world.socket.touch()


async def _no_fee(world: SandboxWorld) -> None:
    configure(world, "payment.max_fee_sat", "1")


Break = Callable[[SandboxWorld], Awaitable[object]]


def set_to(key: str, value: str) -> Break:
    async def change(world: SandboxWorld) -> None:
        configure(world, key, value)

    return change


@pytest.mark.parametrize(
    ("broken", "check", "text", "todo"),
    [
        pytest.param(lambda w: w.lnd.stop(), "lnd", "does not answer", "See that it runs", id="lnd is down"),
        pytest.param(lambda w: w.lnd.lock(), "lnd", "wallet is locked", "`lncli unlock`", id="lnd is locked"),
        pytest.param(
            _revoked_macaroon, "lnd", "does not accept the macaroon", "bake-macaroon", id="the macaroon is revoked"
        ),
        pytest.param(
            _narrow_macaroon, "macaroon", "SendPaymentV2: nothing can be paid", "bake-macaroon", id="it cannot pay"
        ),
        pytest.param(_narrow_macaroon, "macaroon", "warning: It does not allow ListPayments", "", id="nor list"),
        pytest.param(_foreign_certificate, "certificate", "does not vouch", "Copy lnd's tls.cert", id="another's"),
        pytest.param(
            set_to("lnd.tls_server_name", '"elsewhere"'),
            "certificate",
            "not for the host",
            "tls_server_name",
            id="name",
        ),
        pytest.param(_old_lnd, "version", "too old", "Upgrade lnd", id="lnd is too old"),
        pytest.param(set_to("lnd.network", '"mainnet"'), "network", "lnd is on simnet", "lnd.network", id="network"),
        pytest.param(_peer_away, "balance", "0 sat (4,900,000 more in 1", "--inactive_only", id="the peer is away"),
        pytest.param(
            set_to("provider.payee_pubkeys", f'["02{"ab" * 32}"]'),
            "payee",
            "does not have",
            "synced_to_graph",
            id="payee",
        ),
        pytest.param(_no_fee, "route", "costs 1.01 sat, and the fee limit is 1", "max_fee_sat", id="the fee limit"),
        pytest.param(
            set_to("payment.route_cltv_delta", "1"), "route", "lock the money", "route_cltv_delta", id="the time lock"
        ),
        pytest.param(lambda w: w.provider.stop(), "provider", "cannot be reached", "provider.proxy", id="no provider"),
        pytest.param(
            set_to("provider.proxy", '"socks5h://127.0.0.1:9"'),
            "provider",
            "cannot be reached",
            "proxy",
            id="the proxy",
        ),
        pytest.param(_open_state_dir, "files", "Others may enter", "`chmod 700", id="rights of the state directory"),
        pytest.param(_broken_database, "database", "is damaged", "Damaged database", id="the database"),
        pytest.param(_lost_database, "database", "is gone: 70 rows", "`holdpayd recover`", id="the lost database"),
        pytest.param(_file_for_socket, "socket", "is no socket", "Move it away", id="the socket"),
    ],
)
async def test_what_is_broken_is_told_with_its_remedy(
    world: SandboxWorld, broken: Break, check: str, text: str, todo: str
) -> None:
    await broken(world)
    ran = await doctor(world)
    assert ran.code == 4, ran.out
    assert check in ran.failed
    said, _, remedy = ran.of(check).rpartition(" | ")
    assert text in ran.of(check)
    assert todo in ran.of(check)
    assert said
    assert remedy


async def test_the_causes_of_one_fault_do_not_bury_it(world: SandboxWorld) -> None:
    await world.lnd.stop()
    ran = await doctor(world)
    assert ran.failed == {"lnd"}
    for check in ("version", "network", "sync", "balance", "payee", "route"):
        assert ran.of(check).startswith("skipped: lnd has to answer first.")
    assert "allow GetInfo" in ran.of("macaroon").replace("allows", "allow")
    assert "The certificate in lnd.tls_cert is good for" in ran.of("certificate")
    assert ran.of("provider").startswith("ok")


async def test_everything_wrong_with_the_configuration_is_told_at_once_and_the_unit_all_the_same(
    world: SandboxWorld,
) -> None:
    configure(world, "lnd.macaroon", '"gone"')
    configure(world, "payment.pay_within_s", '"10m"')
    ran = await doctor(world)
    assert ran.code == 78
    assert ran.failed == {"configuration"}
    assert "lnd.macaroon names" in ran.of("configuration")
    assert "payment.pay_within_s must be" in ran.of("configuration")
    assert ran.of("unit")


async def test_a_credential_that_only_the_unit_has_is_told_with_the_way_to_run_it_by_hand(world: SandboxWorld) -> None:
    configure(world, "lnd.macaroon", '"credential:macaroon"')
    ran = await doctor(world)
    assert ran.code == 78
    assert "docs/operations.md begins with the lines" in ran.of("configuration")
    credentials = world.directory / "credentials"
    credentials.mkdir()
    shutil.copy(world.lnd.macaroon, credentials / "macaroon")
    assert (await doctor(world, CREDENTIALS_DIRECTORY=str(credentials))).code == 0


async def test_a_clock_that_is_wrong_is_told(world: SandboxWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_server, "formatdate", lambda usegmt: formatdate(time.time() + 3600, usegmt=usegmt))
    ran = await doctor(world)
    assert ran.failed == {"clock"}
    assert "60 min behind the provider's" in ran.of("clock") or "59 min behind" in ran.of("clock")
    assert "timedatectl" in ran.of("clock")


async def test_a_chain_that_is_not_followed_and_a_configuration_that_is_odd_are_warnings(world: SandboxWorld) -> None:
    world.lnd.set_knobs(synced_to_chain=False)
    configure(world, "payment.prove_absent_s", "1")
    ran = await doctor(world)
    assert ran.code == 0
    assert ran.of("sync").startswith("warning: lnd is not synced")
    assert "payment.prove_absent_s is 1" in ran.of("configuration")


async def test_with_trust_on_first_use_the_way_to_the_trusted_node_is_looked_for(world: SandboxWorld) -> None:
    payee = await world.payee.pubkey()
    configure(world, "provider.payee_check", '"first-use"')
    configure(world, "provider.payee_pubkeys", f'["02{"ab" * 32}"]')
    (world.directory / "state").mkdir(mode=0o700)
    SqliteStore(world.directory / "state" / "holdpay.db").close()
    assert "No node is known that may be paid" in (await doctor(world)).of("route")
    added = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "holdpay.cli.daemon", "--config", world.config, "payees", "add", payee),
        stdout=asyncio.subprocess.DEVNULL,
    )
    assert await added.wait() == 0
    ran = await doctor(world)
    assert ran.code == 0, ran.out
    assert ran.of("payee").startswith("ok: carol")
    assert ran.of("route").startswith("ok: lnd knows a route")


async def test_a_unit_that_failed_is_told(world: SandboxWorld, tmp_path: Path) -> None:
    program = tmp_path / "systemctl"
    program.write_text("#!/bin/sh\necho LoadState=loaded\necho ActiveState=failed\necho UnitFileState=disabled\n")
    program.chmod(0o755)
    ran = await doctor(world, PATH=f"{tmp_path}:{os.environ['PATH']}")
    assert ran.failed == {"unit"}
    assert "journalctl -u holdpayd" in ran.of("unit")
    assert "`sudo systemctl enable holdpayd`" in ran.of("unit")


async def test_an_lnd_and_a_provider_that_hang_do_not_hang_the_doctor(world: SandboxWorld) -> None:
    async def never(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await asyncio.Event().wait()

    server = await asyncio.start_server(never, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    configure(world, "provider.base_url", f'"http://127.0.0.1:{port}"')
    configure(world, "lnd.address", f'"127.0.0.1:{port}"')
    async with asyncio.timeout(120):
        ran = await doctor(world)
    assert {"lnd", "provider"} <= ran.failed
    assert ran.of("disk").startswith("ok")


# --- bake-macaroon ----------------------------------------------------------------------------------------------------


async def test_without_arguments_the_line_is_shown(world: SandboxWorld) -> None:
    assert (await holdpayd(world.config, "bake-macaroon")).out == f"{BAKE}\n"
    with_key = (await holdpayd(world.config, "bake-macaroon", "--root-key-id", "77")).out
    assert with_key == BAKE.replace("bakemacaroon", "bakemacaroon --root_key_id=77") + "\n"


async def test_a_macaroon_is_baked_before_the_configuration_names_one(world: SandboxWorld, tmp_path: Path) -> None:
    target = tmp_path / "fresh.macaroon"
    configure(world, "lnd.macaroon", f'"{target}"')
    ran = await bake(world, world.lnd.macaroon, target)
    assert (ran.code, ran.err) == (0, "")
    assert f"{target} (mode 0600)" in ran.out
    assert stat.S_IMODE(target.stat().st_mode) == 0o600
    assert missing_rights(target.read_bytes()) == ()
    assert world.lnd.macaroon_hex not in ran.out
    assert (await doctor(world)).code == 0


async def test_options_take_the_place_of_a_configuration(world: SandboxWorld, tmp_path: Path) -> None:
    target, nowhere = tmp_path / "fresh.macaroon", tmp_path / "nowhere.toml"
    nowhere.write_text("")
    where = ("--lnd-address", world.lnd.target, "--tls-cert", os.path.relpath(world.lnd.tls_cert))
    ran = await bake(world, world.lnd.macaroon, target, *where, config=nowhere)
    assert (ran.code, ran.err) == (0, "")
    assert target.exists()


async def bake(world: SandboxWorld, admin: Path, target: Path, *options: str, config: Path | None = None) -> Ran:
    arguments: tuple[str | Path, ...] = ("bake-macaroon", "--admin-macaroon", admin, "--save-to", target, *options)
    return await holdpayd(config or world.config, *arguments)


async def test_a_file_that_is_there_is_never_overwritten(world: SandboxWorld, tmp_path: Path) -> None:
    target = tmp_path / "precious"
    target.write_bytes(b"mine")
    for path in (target, tmp_path / "link"):
        if path != target:
            path.symlink_to(tmp_path / "gone")
        ran = await bake(world, world.lnd.macaroon, path)
        assert ran.code == 1
        assert "nothing is ever overwritten" in ran.err
    assert target.read_bytes() == b"mine"
    assert not (tmp_path / "gone").exists()


async def test_what_keeps_it_from_being_baked_is_a_sentence_and_no_file_is_left(
    world: SandboxWorld, tmp_path: Path
) -> None:
    target = tmp_path / "fresh.macaroon"

    async def refused(admin: Path, words: str, code: int = 1, *options: str) -> None:
        ran = await bake(world, admin, target, *options)
        assert (ran.code, ran.out) == (code, "")
        assert words in ran.err
        assert len(ran.err.splitlines()) == 1
        assert not target.exists()

    await refused(world.lnd.bake("narrow.macaroon", METHODS), "does not let this macaroon bake another")
    await refused(tmp_path / "gone", "there is no such file")
    (tmp_path / "empty").touch()
    await refused(tmp_path / "empty", "that is empty")
    await refused(world.lnd.macaroon, "lnd.address must be host:port", 78, "--lnd-address", "nonsense")
    await world.lnd.stop()
    await refused(world.lnd.macaroon, "does not answer")
    target = tmp_path / "no" / "folder"
    await refused(world.lnd.macaroon, "cannot be made (No such file or directory)")


async def test_half_of_what_it_needs_is_an_error_of_usage(world: SandboxWorld) -> None:
    ran = await holdpayd(world.config, "bake-macaroon", "--save-to", "x")
    assert ran.code == 2
    assert "go together" in ran.err
