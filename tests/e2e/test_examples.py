"""The examples of contrib/examples, built and run beside the real daemon."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import pytest_asyncio

from tests.e2e.shop import QUICK, Shop, open_shop
from tests.harness import fresh_key

pytestmark = pytest.mark.asyncio(loop_scope="module")

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "contrib" / "examples"
ENVIRONMENT = {**os.environ, "PROTOS": str(ROOT / "protos"), "PROTOC": f"{sys.executable} -m grpc_tools.protoc"}


@dataclass(frozen=True, slots=True)
class Program:
    """An example that is ready to run."""

    command: list[str | Path]

    async def run(self, shop: Shop, *arguments: str) -> tuple[int | None, str, str]:
        """Exit code, stdout and stderr."""
        return await ended(await self.start(shop, *arguments))

    async def start(self, shop: Shop, *arguments: str) -> asyncio.subprocess.Process:
        environment = {**ENVIRONMENT, "HOLDPAY_SOCKET": str(shop.daemon.socket)}
        return await asyncio.create_subprocess_exec(
            *self.command, *arguments, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )


async def ended(process: asyncio.subprocess.Process) -> tuple[int | None, str, str]:
    out, err = await asyncio.wait_for(process.communicate(), 60)
    return process.returncode, out.decode(), err.decode()


def built_go(folder: Path) -> Program:
    if shutil.which("go") is None:
        pytest.skip("needs Go")
    make(folder, ["go", "mod", "download"], "the Go module proxy")
    make(folder, ["./generate"])
    make(folder, ["go", "build", "-o", "bin/holdpay-code", "."])
    return Program([folder / "bin" / "holdpay-code"])


def built_node(folder: Path) -> Program:
    if shutil.which("npm") is None:
        pytest.skip("needs Node and npm")
    make(folder, ["npm", "ci", "--no-audit", "--no-fund", "--ignore-scripts"], "the npm registry")
    return Program(["node", folder / "code.js"])


def make(folder: Path, command: list[str], fetched_from: str | None = None) -> None:
    """A step of an example's page. What cannot be fetched is lacking here, and no fault of the example."""
    done = subprocess.run(command, cwd=folder, env=ENVIRONMENT, capture_output=True, text=True, check=False)
    if done.returncode != 0 and fetched_from is not None:
        pytest.skip(f"needs {fetched_from}: {done.stderr.strip().splitlines()[-1:]}")
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module", params=["go", "node"])
def program(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Program:
    folder = tmp_path_factory.mktemp(request.param) / "example"
    made_here = shutil.ignore_patterns("bin", "holdpayv1", "node_modules")
    shutil.copytree(EXAMPLES / request.param, folder, ignore=made_here)
    return {"go": built_go, "node": built_node}[request.param](folder)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shop(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Shop]:
    async with open_shop(tmp_path_factory.mktemp("examples"), extra_config=QUICK) as opened:
        yield opened


async def test_it_buys_a_code_and_prints_it_alone_and_the_same_key_prints_the_same(
    program: Program, shop: Shop
) -> None:
    key = fresh_key()
    code, out, err = await program.run(shop, "usa", "openai", key)
    assert (code, bool(re.fullmatch(r"\d+\n", out))) == (0, True), err
    assert re.fullmatch(r"the number is \d{7,}\n", err)
    assert await program.run(shop, "usa", "openai", key) == (0, out, err)
    assert [order.idempotency_key for order in await shop.daemon.every()].count(key) == 1


async def test_it_goes_on_over_a_restart_of_the_daemon(program: Program, shop: Shop) -> None:
    shop.next_order(code_after_s=2 * 50.0)
    process = await program.start(shop, "usa", "openai", fresh_key())
    assert process.stderr is not None
    assert (await asyncio.wait_for(process.stderr.readline(), 30)).startswith(b"the number is")
    await shop.daemon.restart()
    code, out, _ = await ended(process)
    assert (code, bool(re.fullmatch(r"\d+\n", out))) == (0, True)


async def test_a_daemon_that_does_not_answer_is_told_of_once_and_asked_again(
    program: Program, shop: Shop, tmp_path: Path
) -> None:
    """A path that is wrong is waited at, too: nobody shall wait without a word."""
    environment = {**ENVIRONMENT, "HOLDPAY_SOCKET": str(tmp_path / "none.sock")}
    process = await asyncio.create_subprocess_exec(
        *program.command, "usa", "openai", fresh_key(), env=environment, stderr=subprocess.PIPE
    )
    assert process.stderr is not None
    said = await asyncio.wait_for(process.stderr.readline(), 30)
    assert said.startswith(b"holdpayd does not answer, it is asked again: ")
    assert process.returncode is None
    (tmp_path / "none.sock").symlink_to(shop.daemon.socket)
    assert (await asyncio.wait_for(process.stderr.readline(), 60)).startswith(b"the number is")
    assert await asyncio.wait_for(process.wait(), 60) == 0


async def test_a_refusal_is_told_by_its_reason(program: Program, shop: Shop) -> None:
    code, out, err = await program.run(shop, "atlantis", "openai", fresh_key())
    assert (code, out) == (1, "")
    assert err.startswith("UNKNOWN_COUNTRY ")
    assert "country" in err


async def test_an_order_that_brings_no_code_ends_it_with_the_end_and_the_reason(program: Program, shop: Shop) -> None:
    shop.next_order(no_number=True, gives_up_after_s=50.0)
    code, out, err = await program.run(shop, "usa", "openai", fresh_key())
    assert (code, out) == (1, "")
    assert err.startswith("END_REFUNDED: ")
