"""What GetStatus shows of lnd."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import pytest
import pytest_asyncio
from structlog.testing import capture_logs

from holdpay._pb.lnd import stateservice_pb2 as staterpc
from holdpay.background import RESTART_AFTER_S
from holdpay.errors import LndDenied
from holdpay.lnd.macaroon import BAKE
from holdpay.lnd.node import LndNode
from holdpay.ports import NodeState
from holdpay.sandbox.tls import Certificate
from tests.unit.lnd.fakes import ALICE, SPEC, FakeClock, FakeLnd, collect, settings_for

CODE = grpc.StatusCode
UNREADY_S, READY_S = 5, 15


@pytest_asyncio.fixture
async def started(lnd: FakeLnd, clock: FakeClock, tmp_path: Path) -> AsyncIterator[LndNode]:
    """Started, but nobody has waited for its first look."""
    node = LndNode(settings_for(lnd.port, tmp_path / "tls.cert"), clock)
    await node.start()
    yield node
    await node.close()


def state_of(node: LndNode) -> NodeState:
    """For a second look: the type checker thinks that a status once compared stays as it was."""
    return node.status.state


async def test_a_usable_lnd_is_ready_with_all_that_is_known_of_it(node: LndNode, lnd: FakeLnd) -> None:
    status = node.status
    assert (status.state, status.detail, status.identity) == (NodeState.READY, "", ALICE)
    assert (status.alias, status.version) == ("alice", "0.21.0-beta commit=v0.21.0-beta")
    assert (status.block_height, status.synced_to_chain, status.local_balance_sat) == (500, True, 1234)
    assert status.address == f"127.0.0.1:{lnd.port}"


async def test_before_the_first_look_lnd_is_unreachable(
    certificate: Certificate, clock: FakeClock, tmp_path: Path
) -> None:
    node = LndNode(settings_for(10009, tmp_path / "tls.cert"), clock)
    assert (node.status.state, node.status.address) == (NodeState.UNREACHABLE, "127.0.0.1:10009")


@pytest.mark.parametrize(
    ("wallet", "state", "words"),
    [
        (staterpc.NON_EXISTING, NodeState.LOCKED, "lncli create"),
        (staterpc.LOCKED, NodeState.LOCKED, "lncli unlock"),
        (staterpc.UNLOCKED, NodeState.STARTING, "starting"),
        (staterpc.WAITING_TO_START, NodeState.STARTING, "starting"),
    ],
)
async def test_lnds_own_state_is_told_without_a_macaroon(
    started: LndNode,
    lnd: FakeLnd,
    clock: FakeClock,
    wallet: staterpc.WalletState.ValueType,
    state: NodeState,
    words: str,
) -> None:
    lnd.wallet = wallet
    await clock.until_asleep()
    assert started.status.state is state
    assert words in started.status.detail
    assert lnd.calls == ["GetState"]
    assert lnd.macaroons["GetState"] == []


async def test_lnd_is_usable_from_rpc_active_on(started: LndNode, lnd: FakeLnd, clock: FakeClock) -> None:
    lnd.wallet = staterpc.RPC_ACTIVE
    await clock.until_asleep()
    assert started.status.state is NodeState.READY


@pytest.mark.parametrize(
    ("code", "text", "state"),
    [
        (CODE.UNKNOWN, "permission denied", NodeState.DENIED),
        (CODE.UNKNOWN, "server is still in the process of starting", NodeState.STARTING),
        (CODE.UNKNOWN, "wallet locked, unlock it to enable full RPC access", NodeState.LOCKED),
        (CODE.UNIMPLEMENTED, "unknown service lnrpc.Lightning", NodeState.UNREACHABLE),
    ],
)
async def test_what_getinfo_says_counts_when_the_state_is_fine(
    started: LndNode, lnd: FakeLnd, clock: FakeClock, code: grpc.StatusCode, text: str, state: NodeState
) -> None:
    lnd.errors["GetInfo"] = (code, text)
    await clock.until_asleep()
    assert started.status.state is state


async def test_a_gateway_that_hides_the_state_is_asked_with_getinfo(
    started: LndNode, lnd: FakeLnd, clock: FakeClock
) -> None:
    lnd.errors["GetState"] = (CODE.UNIMPLEMENTED, "unknown service lnrpc.State")
    await clock.until_asleep()
    assert started.status.state is NodeState.READY


async def test_a_macaroon_without_the_balance_costs_only_the_balance(
    started: LndNode, lnd: FakeLnd, clock: FakeClock
) -> None:
    lnd.errors["ChannelBalance"] = (CODE.UNKNOWN, "permission denied")
    await clock.until_asleep()
    assert (started.status.state, started.status.local_balance_sat) == (NodeState.READY, None)


async def test_an_lnd_that_goes_away_is_noticed_at_once_and_what_it_said_is_kept_with_its_time(
    node: LndNode, lnd: FakeLnd, clock: FakeClock
) -> None:
    answered_at_ms = node.status.answered_at_ms
    clock.wake_at(clock.ms)
    await lnd.stop()
    await clock.until_asleep()
    assert node.status.state is NodeState.UNREACHABLE
    await clock.advance(UNREADY_S)
    assert "Connection refused" in node.status.detail
    assert (node.status.alias, node.status.local_balance_sat) == ("alice", None)
    assert (node.status.block_height, node.status.answered_at_ms) == (500, answered_at_ms)
    assert answered_at_ms is not None


async def test_an_unusable_lnd_is_looked_at_every_five_seconds_and_a_usable_one_every_fifteen(
    started: LndNode, lnd: FakeLnd, clock: FakeClock
) -> None:
    lnd.wallet = staterpc.LOCKED
    await clock.until_asleep()
    lnd.wallet = staterpc.SERVER_ACTIVE
    await clock.advance(UNREADY_S)
    assert started.status.state is NodeState.READY
    assert [seconds for seconds in clock.slept_s if seconds >= 1] == [UNREADY_S, READY_S]


async def test_a_send_that_the_macaroon_does_not_allow_denies_lnd_at_once_and_for_good(
    started: LndNode, lnd: FakeLnd, clock: FakeClock
) -> None:
    await clock.until_asleep()
    lnd.errors["SendPaymentV2"] = (grpc.StatusCode.UNKNOWN, "permission denied")
    await collect(started.send(SPEC, ALICE))
    assert started.status.state is NodeState.DENIED
    assert BAKE in started.status.detail
    del lnd.errors["SendPaymentV2"]
    await clock.advance(READY_S)
    assert started.status.state is NodeState.DENIED


async def test_a_payment_that_lnd_refuses_for_another_reason_leaves_it_ready(
    started: LndNode, lnd: FakeLnd, clock: FakeClock
) -> None:
    await clock.until_asleep()
    for text in ("cannot retrieve macaroon: macaroon store is locked", "invoice expired. Valid until 2026-11-22"):
        lnd.errors["SendPaymentV2"] = (grpc.StatusCode.UNKNOWN, text)
        await collect(started.send(SPEC, ALICE))
        assert started.status.state is NodeState.READY


async def test_a_macaroon_that_may_not_decode_denies_lnd(started: LndNode, lnd: FakeLnd, clock: FakeClock) -> None:
    await clock.until_asleep()
    lnd.errors["DecodePayReq"] = (grpc.StatusCode.UNKNOWN, "permission denied")
    with pytest.raises(LndDenied):
        await started.decode("lnsb20u1...")
    assert started.status.state is NodeState.DENIED


# --- versions ---


@pytest.mark.parametrize("version", ["0.18.2", "0.19.1"])
async def test_an_lnd_that_loses_payments_may_not_pay(
    started: LndNode, lnd: FakeLnd, clock: FakeClock, version: str
) -> None:
    lnd.info.version = f"{version}-beta"
    await clock.until_asleep()
    assert started.status.state is NodeState.TOO_OLD
    assert f"lnd {version} " in started.status.detail


async def test_a_doubtful_version_is_ready_with_a_warning(started: LndNode, lnd: FakeLnd, clock: FakeClock) -> None:
    lnd.info.version = "0.22.0-beta"
    await clock.until_asleep()
    assert started.status.state is NodeState.READY
    assert "newer than any" in started.status.detail


# --- the chain ---


async def test_an_unsynced_lnd_counts_as_syncing_after_ten_minutes_without_a_block(
    started: LndNode, lnd: FakeLnd, clock: FakeClock
) -> None:
    lnd.info.synced_to_chain = False
    await clock.until_asleep()
    await clock.advance(599)
    assert (started.status.state, started.status.synced_to_chain) == (NodeState.READY, False)
    await clock.advance(READY_S)
    assert started.status.state is NodeState.SYNCING
    lnd.info.block_height += 1
    await clock.advance(UNREADY_S)
    assert state_of(started) is NodeState.READY


async def test_a_synced_lnd_may_wait_long_for_a_block(started: LndNode, clock: FakeClock) -> None:
    await clock.until_asleep()
    await clock.advance(7_200)
    assert started.status.state is NodeState.READY


async def test_the_ten_minutes_begin_anew_when_lnd_was_away(started: LndNode, lnd: FakeLnd, clock: FakeClock) -> None:
    lnd.info.synced_to_chain = False
    await clock.until_asleep()
    lnd.wallet = staterpc.LOCKED
    await clock.advance(400)
    lnd.wallet = staterpc.SERVER_ACTIVE
    await clock.advance(400)
    assert started.status.state is NodeState.READY


# --- the log ---


async def test_the_macaroon_is_in_no_line_of_the_log(started: LndNode, lnd: FakeLnd, clock: FakeClock) -> None:
    with capture_logs() as logs:
        await clock.until_asleep()
        await clock.advance(READY_S)
        lnd.wallet = staterpc.LOCKED
        await clock.advance(READY_S)
    assert state_of(started) is NodeState.LOCKED
    assert "736563726574" not in repr(logs)


async def test_looks_that_fail_by_a_defect_make_lnd_not_ready_until_one_ends_well(
    node: LndNode, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def broken(link: object) -> None:
        raise ValueError("planted")

    assert state_of(node) is NodeState.READY
    with monkeypatch.context() as planted:
        planted.setattr(node._monitor, "look", broken)
        await clock.advance(READY_S)
        assert state_of(node) is NodeState.UNREACHABLE
        assert "defect" in node.status.detail
    await clock.advance(RESTART_AFTER_S)
    await clock.advance(READY_S)
    assert state_of(node) is NodeState.READY
