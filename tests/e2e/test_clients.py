"""Clients with a socket and a budget each: who may connect, what they may spend, and what they see of each other."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import grp
import json
import os
import signal
import stat
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest
import pytest_asyncio
from google.rpc import error_details_pb2, status_pb2

from holdpay._pb.v1 import holdpay_pb2 as pb
from tests.e2e.shop import FEE_MSAT, FOR_EVER_S, PRICE_MSAT, Shop, open_shop
from tests.harness import Daemon, Seen, is_held, is_over, run_cli, told

pytestmark = pytest.mark.asyncio(loop_scope="module")

ANN_GROUP, BOB_GROUP, NOBODY_UID = "games", "video", 65534
PRICE_SAT, FEE_LIMIT_SAT = 3_060, 30
"""What a code may cost at most, with its tolerance; and its fee limit."""
LEFT_SAT = 2 * (PRICE_SAT + FEE_LIMIT_SAT)
"""Two orders at a time are ann's."""
IS_ROOT = os.geteuid() == 0
needs_root = pytest.mark.skipif(not IS_ROOT, reason="only root can give sockets to other groups, and be somebody else")


def group_of(name: str) -> str:
    """Or another one to which this process may give a socket, beside its own."""
    others = [name] if IS_ROOT else [grp.getgrgid(gid).gr_name for gid in os.getgroups() if gid != os.getegid()]
    if len(others) < 2 and not IS_ROOT:
        pytest.skip("each client needs a group of its own, and this process has too few")
    return others[0] if name == ANN_GROUP or IS_ROOT else others[1]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shop(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Shop]:
    # Everybody may enter: the sockets' own rights are what is tested.
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        Path(folder).chmod(0o755)
        clients = f"""
[[client]]
name = "ann"
group = "{group_of(ANN_GROUP)}"
socket = "{folder}/ann.sock"
max_spend_per_day_sat = {LEFT_SAT}
[[client]]
name = "bob"
group = "{group_of(BOB_GROUP)}"
socket = "{folder}/bob.sock"
may_fund = true
"""
        directory = tmp_path_factory.mktemp("clients")
        async with open_shop(directory, edit_config=lambda text: text + clients) as opened:
            yield opened


@contextlib.asynccontextmanager
async def client(shop: Shop, name: str) -> AsyncIterator[Daemon]:
    """The daemon as this client has it."""
    found = Daemon(shop.world.config, socket_of(shop, name))
    found.connect()
    try:
        yield found
    finally:
        await found.channel.close()


@pytest_asyncio.fixture(loop_scope="module")
async def ann(shop: Shop) -> AsyncIterator[Daemon]:
    async with client(shop, "ann") as found:
        yield found


@pytest_asyncio.fixture(loop_scope="module")
async def bob(shop: Shop) -> AsyncIterator[Daemon]:
    async with client(shop, "bob") as found:
        yield found


def socket_of(shop: Shop, name: str) -> Path:
    (line,) = (line for line in shop.world.config.read_text().splitlines() if f"/{name}.sock" in line)
    return Path(line.split('"')[1])


async def refused(call: Awaitable[object]) -> tuple[str, dict[str, str]]:
    """Reason and metadata."""
    with pytest.raises(grpc.aio.AioRpcError) as error:
        await call
    info = error_details_pb2.ErrorInfo()
    for key, value in error.value.trailing_metadata():
        if key == "grpc-status-details-bin":
            status_pb2.Status.FromString(value).details[0].Unpack(info)
    return info.reason, dict(info.metadata)


_CONNECT = """
import os, socket, sys
path, gid, uid = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
os.setgroups([])
os.setgid(gid)
os.setuid(uid)
sys.exit(socket.socket(socket.AF_UNIX).connect_ex(path))
"""


def connects(path: Path, group: str) -> int:
    """0, or the error's number, for a user that is in this group and in no other."""
    somebody = (str(grp.getgrnam(group).gr_gid), str(NOBODY_UID))
    return subprocess.run([sys.executable, "-c", _CONNECT, str(path), *somebody], check=False).returncode


# --- who may connect ------------------------------------------------------------------------------------------------


@needs_root
async def test_each_socket_is_its_groups_own(shop: Shop) -> None:
    anns, bobs = socket_of(shop, "ann"), socket_of(shop, "bob")
    assert [stat.S_IMODE(path.stat().st_mode) for path in (anns, bobs)] == [0o660, 0o660]
    assert connects(anns, ANN_GROUP) == 0
    assert connects(anns, BOB_GROUP) == errno.EACCES
    assert connects(bobs, BOB_GROUP) == 0
    assert connects(bobs, ANN_GROUP) == errno.EACCES
    assert connects(shop.world.socket, ANN_GROUP) == errno.EACCES


# --- what is whose --------------------------------------------------------------------------------------------------


async def test_a_client_has_its_own_orders_only_and_the_operator_has_all(shop: Shop, ann: Daemon, bob: Daemon) -> None:
    anns, bobs = await ann.order(), await bob.order()
    for order in (anns, bobs):
        await shop.daemon.until(order.id, is_over)
    assert {order.id for order in await ann.listed()} == {anns.id}
    assert {order.id for order in await bob.listed()} == {bobs.id}
    assert {order.id: order.request.client for order in await shop.daemon.listed()} == {anns.id: "ann", bobs.id: "bob"}
    assert [order.id for order in await shop.daemon.listed(client="bob")] == [bobs.id]
    assert await ann.listed(client="bob") == []
    theirs: dict[str, Callable[[Any], Any]] = {
        "get": lambda stub: stub.GetRequest(pb.GetRequestRequest(request_id=bobs.id)),
        "by its beginning": lambda stub: stub.GetRequest(pb.GetRequestRequest(request_id=bobs.id[:5])),
        "by its key": lambda stub: stub.GetRequest(pb.GetRequestRequest(idempotency_key=bobs.request.idempotency_key)),
        "items": lambda stub: stub.ListItems(pb.ListItemsRequest(request_id=bobs.id)),
        "explain": lambda stub: stub.ExplainRequest(pb.ExplainRequestRequest(request_id=bobs.id)),
        "cancel": lambda stub: stub.CancelRequest(pb.CancelRequestRequest(request_id=bobs.id)),
    }
    for name, call in theirs.items():
        assert (await refused(call(ann.stub)))[0] == "ORDER_NOT_FOUND", name
        if name != "by its key":
            await call(shop.daemon.stub)
        await call(bob.stub)
    with pytest.raises(grpc.aio.AioRpcError) as error:
        await anext(aiter(ann.stub.WatchRequests(pb.WatchRequestsRequest(request_id=bobs.id, after_cursor=0))))
    assert error.value.code() is grpc.StatusCode.NOT_FOUND


async def test_a_client_that_watches_everything_hears_of_its_own_only(shop: Shop, ann: Daemon, bob: Daemon) -> None:
    after = (await shop.daemon.get((await bob.order()).id)).request.cursor
    call = ann.stub.WatchRequests(pb.WatchRequestsRequest(after_cursor=0))
    assert Seen((await anext(told(call))).request).request.client == "ann", "from the beginning"
    call.cancel()
    call = bob.stub.WatchRequests(pb.WatchRequestsRequest(after_cursor=after))
    heard: list[pb.RequestUpdate] = []
    new = await ann.order()
    mine = await bob.order()
    async for update in told(call):
        heard.append(update)
        if update.request.id == mine.id and update.request.terminal:
            break
    call.cancel()
    assert {update.request.client for update in heard} == {"bob"}
    await shop.daemon.until(new.id, is_over)


async def test_the_same_key_of_two_clients_is_two_requests(shop: Shop, bob: Daemon) -> None:
    bobs = await bob.order(idempotency_key="the-same")
    own = await shop.daemon.order(idempotency_key="the-same")
    assert bobs.id != own.id
    assert (await bob.order(idempotency_key="the-same")).id == bobs.id
    for order in (bobs, own):
        await shop.daemon.until(order.id, is_over)


# --- budgets --------------------------------------------------------------------------------------------------------


async def test_a_budget_counts_what_is_pending_and_refuses_what_would_be_over_it(shop: Shop, ann: Daemon) -> None:
    spent_msat = sum(order.spent_msat for order in await ann.listed())
    assert spent_msat == 2 * (PRICE_MSAT + FEE_MSAT)
    placed = shop.world.provider.requests["/createorder"]
    reason, metadata = await refused(ann.order())
    assert reason == "LIMIT_REACHED"
    oldest = min(order.request.closed_at_ms for order in await ann.listed())
    renews_at_ms = int(metadata.pop("renews_at_ms"))
    assert 0 <= renews_at_ms - oldest < 24 * 3_600_000 + 60_000
    assert metadata == {
        "limit": "client.ann.max_spend_per_day_sat",
        "limit_sat": str(LEFT_SAT),
        "wanted_sat": str(-(-spent_msat // 1000) + PRICE_SAT + FEE_LIMIT_SAT),
    }
    assert shop.world.provider.requests["/createorder"] == placed, "nothing was ordered"
    await shop.daemon.until((await shop.daemon.order()).id, is_over)


async def test_the_budget_is_told_to_its_client_and_all_budgets_to_the_operator(shop: Shop, ann: Daemon) -> None:
    (own,) = (await ann.stub.GetBudget(pb.GetBudgetRequest(orders=True))).budgets
    (line,) = own.lines
    orders = await ann.listed()
    assert (own.client, line.spent_msat, line.reserved_msat) == ("ann", sum(o.spent_msat for o in orders), 0)
    assert {entry.request_id: entry.spent_msat for entry in own.orders} == {o.id: o.spent_msat for o in orders}
    assert [entry.fee_msat for entry in own.orders] == [FEE_MSAT] * 2
    assert len(own.warnings) == 1
    every = await shop.daemon.stub.GetBudget(pb.GetBudgetRequest())
    assert [budget.client for budget in every.budgets] == ["ann", "bob"]
    assert (await refused(ann.stub.GetBudget(pb.GetBudgetRequest(client="bob"))))[0] == "INVALID_REQUEST"
    assert shop.daemon.log().count("a budget is nearly used up") == 1


async def test_the_status_of_a_client_tells_nothing_of_the_others(shop: Shop, ann: Daemon, bob: Daemon) -> None:
    held = await bob_holds(shop, bob)
    anns, bobs, all_of_it = [await each.status() for each in (ann, bob, shop.daemon)]
    assert [out.request_id for out in anns.out] == []
    assert [out.request_id for out in bobs.out] == [held.id]
    assert [out.request_id for out in all_of_it.out] == [held.id]
    assert (anns.client, bobs.client, all_of_it.client) == ("ann", "bob", "")
    assert (anns.ready, bobs.ready, all_of_it.ready) == (True, True, True)
    assert (anns.open_orders, bobs.open_orders, all_of_it.open_orders) == (0, 1, 1)
    assert anns.lnd == pb.LndStatus(state="ready", network=all_of_it.lnd.network)
    assert held.id not in str(anns)
    await shop.deliver(held)
    await shop.daemon.until(held.id, is_over)


async def test_the_statistics_of_a_client_are_of_its_own_orders(shop: Shop, ann: Daemon, bob: Daemon) -> None:
    async def orders_of(daemon: Daemon) -> int:
        return sum(line.orders for line in (await daemon.stub.GetStats(pb.GetStatsRequest())).lines)

    before = [await orders_of(daemon) for daemon in (ann, bob, shop.daemon)]
    await bob.until((await bob.order()).id, is_over)
    after = [await orders_of(daemon) for daemon in (ann, bob, shop.daemon)]
    assert [now - then for now, then in zip(after, before, strict=True)] == [0, 1, 1]


async def bob_holds(shop: Shop, bob: Daemon) -> Seen:
    shop.next_order(code_after_s=FOR_EVER_S, gives_up_after_s=FOR_EVER_S)
    order = await bob.order()
    return await bob.until(order.id, is_held)


async def test_the_account_is_for_clients_that_may_fund_it(shop: Shop, ann: Daemon, bob: Daemon) -> None:
    fund = pb.SubmitRequest(idempotency_key="fund", fund=pb.FundSpec(amount_sat=1_000))
    for call in (
        ann.stub.GetAccount(pb.GetAccountRequest()),
        ann.stub.ListFunding(pb.ListFundingRequest()),
        (ann.submit(fund)),
    ):
        assert await refused(call) == ("NOT_ALLOWED", {"client": "ann"})
    # This daemon has no key for an account: bob and the operator get as far as that.
    for client in (bob, shop.daemon):
        assert (await refused(client.stub.GetAccount(pb.GetAccountRequest())))[0] == "PROVIDER_KEY_MISSING"
        assert (await refused(client.submit(fund)))[0] == "PROVIDER_KEY_MISSING"


async def test_the_command_line_shows_a_client_its_own(shop: Shop) -> None:
    path = socket_of(shop, "ann")
    code, out, err = await run_cli(path, "status")
    assert (code, err) == (0, "")
    assert "Client       ann" in out
    code, out, _ = await run_cli(path, "budget", "--orders")
    assert code == 0
    assert f"{LEFT_SAT:,} sat" in out
    code, out, _ = await run_cli(path, "budget", "--json")
    assert [budget["client"] for budget in json.loads(out)["budgets"]] == ["ann"]
    code, out, err = await run_cli(path, "code", "usa", "openai")
    assert (code, out) == (8, "")
    assert "client.ann.max_spend_per_day_sat" in err
    code, out, err = await run_cli(path, "account", "balance")
    assert (code, out) == (2, "")
    assert "client.ann.may_fund" in err


# --- over changes of the configuration and restarts -----------------------------------------------------------------


async def test_a_reload_changes_a_budget_at_once_and_one_that_is_gone_goes_on_until_the_restart(
    shop: Shop, ann: Daemon
) -> None:
    text = shop.world.config.read_text()
    raised = text.replace(f"max_spend_per_day_sat = {LEFT_SAT}", "max_spend_per_day_sat = 99999")
    await reloaded(shop, raised, 'in_effect=["client.ann.max_spend_per_day_sat"]')
    assert (await ann.stub.GetBudget(pb.GetBudgetRequest())).budgets[0].lines[0].limit_sat == 99_999
    await reloaded(shop, text.partition("[[client]]")[0], '"client.ann.name"')
    assert (await ann.stub.GetBudget(pb.GetBudgetRequest())).budgets[0].lines[0].limit_sat == 99_999
    await reloaded(shop, text, "in_effect")
    assert (await refused(ann.order()))[0] == "LIMIT_REACHED"


async def reloaded(shop: Shop, text: str, wanted: str) -> None:
    """Returns when the log has ``wanted``."""
    shop.world.config.write_text(text)
    before = len(shop.daemon.log())
    os.kill(shop.daemon.pid, signal.SIGHUP)
    async with asyncio.timeout(60):
        while wanted not in shop.daemon.log()[before:]:
            await asyncio.sleep(0.05)


async def test_a_client_that_is_gone_keeps_its_orders_and_the_operator_has_them(shop: Shop) -> None:
    text = shop.world.config.read_text()
    before = [order.id for order in await shop.daemon.listed(client="ann")]
    shop.world.config.write_text(text.replace('name = "ann"', 'name = "anna"'))
    await shop.daemon.restart()
    assert [order.id for order in await shop.daemon.listed(client="ann")] == before
    async with client(shop, "ann") as anna:
        assert await anna.listed() == [], "a renamed client is another"
        assert (await anna.status()).budget.lines[0].spent_msat == 0


async def test_it_does_not_start_where_a_clients_group_is_the_daemons_own(shop: Shop) -> None:
    """Who is in it could open the operator's socket as well."""
    own = grp.getgrgid(shop.world.socket.stat().st_gid).gr_name
    shop.world.config.write_text(shop.world.config.read_text().replace(f'"{group_of(ANN_GROUP)}"', f'"{own}"'))
    await shop.daemon.stop()
    await shop.daemon.launch()
    async with asyncio.timeout(60):
        assert await shop.daemon.wait() == 78
    assert "its group is that of daemon.socket too" in shop.daemon.log()
