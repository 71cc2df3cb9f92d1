"""No look hangs the doctor, and none shows a traceback."""

from __future__ import annotations

import asyncio
import subprocess
import sys

from holdpay.doctor.findings import Unseen
from holdpay.doctor.looking import Abandoning, look
from holdpay.errors import LndUnavailable

PATIENCE_S = 20
"""Nothing here waits so long."""
SLOW = Unseen("It is slow.", "Hurry it.")


async def fails(error: Exception) -> int:
    raise error


async def test_what_a_look_sees_is_handed_on() -> None:
    async def sees() -> int:
        return 7

    assert await look(sees(), PATIENCE_S, SLOW) == 7


async def test_a_look_that_hangs_ends_with_its_time_limit() -> None:
    assert await look(asyncio.Event().wait(), 0.01, SLOW) is SLOW


async def test_an_error_of_ours_says_what_happened_and_what_to_do() -> None:
    assert await look(fails(LndUnavailable("lnd is down. Start it.")), PATIENCE_S, SLOW) == Unseen(
        "lnd is down.", "Start it."
    )


async def test_any_other_error_is_a_finding_of_its_kind_alone() -> None:
    seen = await look(fails(ValueError("with a secret")), PATIENCE_S, SLOW)
    assert seen == Unseen("The check itself failed (ValueError).", "Please report this.")
    seen = await look(fails(PermissionError(13, "Permission denied")), PATIENCE_S, SLOW)
    assert isinstance(seen, Unseen)
    assert "Permission denied" in seen.text


async def test_a_thread_that_hangs_is_left_behind() -> None:
    asyncio.get_running_loop().set_default_executor(Abandoning())
    assert await asyncio.to_thread(lambda: 7) == 7
    seen = await look(asyncio.to_thread(fails_at_once), PATIENCE_S, SLOW)
    assert seen == Unseen("The check itself failed (ZeroDivisionError).", "Please report this.")


def fails_at_once() -> float:
    return 1 / 0


def test_the_process_ends_although_a_thread_hangs() -> None:
    code = """
import asyncio, threading
from holdpay.doctor.findings import Unseen
from holdpay.doctor.looking import Abandoning, look

async def main():
    asyncio.get_running_loop().set_default_executor(Abandoning())
    print((await look(asyncio.to_thread(threading.Event().wait), 0.05, Unseen("It is slow.", ""))).text)

asyncio.run(main())
"""
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert (ran.stdout, ran.stderr, ran.returncode) == ("It is slow.\n", "", 0)
