"""How a look is taken: within its time limit, whatever hangs, and never with a traceback."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

from holdpay.audit.database import AS_THE_DAEMON
from holdpay.doctor.findings import Unseen, parted
from holdpay.errors import HoldpayError

T = TypeVar("T")


async def look(wanted: Awaitable[T], limit_s: float, slow: Unseen) -> T | Unseen:
    """What it sees; ``slow`` after ``limit_s``. Raises nothing."""
    try:
        async with asyncio.timeout(limit_s):
            return await wanted
    except TimeoutError:
        return slow
    except HoldpayError as error:
        return parted(error.message)
    except OSError as error:
        todo = AS_THE_DAEMON if isinstance(error, PermissionError) else "See to what it names."
        return Unseen(f"It cannot be looked at ({error.strerror or type(error).__name__}).", todo)
    except Exception as error:  # noqa: BLE001 - the other checks go on
        return Unseen(f"The check itself failed ({type(error).__name__}).", "Please report this.")


class Abandoning(ThreadPoolExecutor):
    """A thread for each call, which the end of the process does not wait for: a disk, a name server or a command that
    hangs must not hang the doctor."""

    def submit(self, fn: Callable[..., T], /, *args: Any, **kwargs: Any) -> Future[T]:
        future: Future[T] = Future()

        def work() -> None:
            if not future.set_running_or_notify_cancel():
                return
            try:
                result = fn(*args, **kwargs)
            except BaseException as error:  # noqa: BLE001 - it is raised where the result is awaited
                future.set_exception(error)
            else:
                future.set_result(result)

        threading.Thread(target=work, daemon=True).start()
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Nobody is waited for."""
