"""A hook that is a program: JSON on stdin, and exit code 0 for "I have it"."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from asyncio.subprocess import DEVNULL, PIPE, Process
from typing import Final

from holdpay.hooks.sending import Message, Trouble
from holdpay.hooks.settings import Command

ENVIRONMENT: Final = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LANG": "C.UTF-8"}
"""Nothing of the daemon's own: systemd's credentials and sockets are named there."""


class CommandSender:
    """What the program writes is not read: it may be anything, and whose it is nobody can say."""

    def __init__(self, target: Command) -> None:
        self._argv = target.argv
        self._timeout_s = target.timeout_s

    @property
    def target(self) -> str:
        """Arguments may be secret."""
        return self._argv[0]

    async def send(self, message: Message) -> Trouble | None:
        """See Sender."""
        named = {
            "WEBHOOK_ID": message.id,
            "WEBHOOK_TIMESTAMP": str(message.at_s),
            "WEBHOOK_TYPE": message.type,
        }
        try:
            process = await asyncio.create_subprocess_exec(
                *self._argv,
                stdin=PIPE,
                stdout=DEVNULL,
                stderr=DEVNULL,
                env={**ENVIRONMENT, **named},
                cwd="/",
                start_new_session=True,
            )
        except OSError as error:
            return Trouble(f"cannot be started ({error.strerror})")
        try:
            async with asyncio.timeout(self._timeout_s):
                await process.communicate(message.body)
        except TimeoutError:
            return Trouble(f"did not end within {self._timeout_s:g} s, and was killed")
        finally:
            await _end(process)
        return _trouble(process.returncode)

    async def close(self) -> None:
        """There is nothing to close."""


async def _end(process: Process) -> None:
    """Of its group nobody is left, also where the program itself has ended and left somebody behind."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    await process.wait()


def _trouble(code: int | None) -> Trouble | None:
    if code == 0:
        return None
    if code is not None and code < 0:
        return Trouble(f"was ended by signal {-code}")
    return Trouble(f"ended with exit code {code}")
