"""The present connection to lnd: calls on it, retries, and a new one after lnd changed its certificate."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Final, TypeVar

from holdpay._pb.lnd import lightning_pb2 as lnrpc
from holdpay.config.certificates import CertificateUnusable, read_certificates
from holdpay.errors import ConfigError
from holdpay.lnd.connection import Connection
from holdpay.lnd.failures import CallFailed, Failure, FailureKind, failure_of, is_own_cancel, to_error
from holdpay.lnd.settings import LndSettings
from holdpay.ports import Clock

T = TypeVar("T")

_RETRY_AFTER_S: Final = (0.2, 0.6)
"""A call that broke is made again after each of these."""
# A new connection changes its state twice while it comes up, and each change calls for another look.
_LOOK_ATTEMPTS: Final = 5


class Link:
    """Owns the connections: one takes the calls, older ones live on until their streams have ended."""

    def __init__(
        self,
        settings: LndSettings,
        clock: Clock,
        on_break: Callable[[], None],
        on_no_right: Callable[[Failure], None] = lambda failure: None,
    ) -> None:
        """Raises ConfigError if the certificate cannot be used. ``on_break``: the connection that
        takes the calls went away, or another one took its place. ``on_no_right``: the macaroon lacks the right to a
        call that paying needs.
        """
        self.settings = settings
        self.on_no_right = on_no_right
        self._clock = clock
        self._on_break = on_break
        try:
            certificates = read_certificates(settings.tls_cert_path)
        except CertificateUnusable as error:
            raise ConfigError([f"lnd.tls_cert {error}."]) from error
        self.current = Connection(settings, certificates, on_break)
        self._retiring: set[asyncio.Task[None]] = set()
        self._retired: set[Connection] = set()
        self._is_closed = False

    async def ask(self, call: Callable[[Connection], Awaitable[T]]) -> T:
        """One unary call. Raises CallFailed."""
        connection = self.current
        with connection.in_use:
            try:
                return await call(connection)
            except (Exception, asyncio.CancelledError) as error:
                if is_own_cancel(error):
                    raise
                failure = failure_of(error)
        self.note(connection, failure)
        raise CallFailed(failure)

    async def look(self) -> lnrpc.GetInfoResponse:
        """GetInfo of the node behind the present connection, whose ``identity`` is known then. Raises CallFailed."""
        for _ in range(_LOOK_ATTEMPTS):
            if not self.current.is_watched:
                # It would never know its node again.
                self._replace(self.current.certificates)
            await self.ask(Connection.get_info)
            if (info := self.current.info) is not None:
                return info
        raise CallFailed(Failure(FailureKind.UNREACHABLE, "the connection breaks again and again"))

    async def verified(self, *, afresh: bool = False) -> Connection:
        """The connection that takes the calls, ``identity`` known unless it broke this instant.

        ``afresh``: only after lnd has answered just now. Raises LndError's children.
        """
        if afresh or self.current.identity is None:
            await self._patiently(self.look, is_for_paying=True)
        return self.current

    async def ask_patiently(self, call: Callable[[Connection], Awaitable[T]], *, is_for_paying: bool = False) -> T:
        """One unary call that may be repeated if the connection breaks. Raises LndError's children.

        ``is_for_paying``: without the right to it nothing can be paid.
        """
        return await self._patiently(partial(self.ask, call), is_for_paying=is_for_paying)

    def note(self, connection: Connection, failure: Failure) -> None:
        """Takes note of how a call ended. After a failed handshake lnd may have a new certificate; a channel that could
        not resolve the name tries again after up to two minutes, whatever its options say, and a new one at once.
        """
        if failure.kind is FailureKind.UNTRUSTED and connection is self.current:
            self._renew()
        elif failure.kind is FailureKind.UNRESOLVED and connection is self.current:
            # Nobody is woken: nothing stood, and the next look comes by itself.
            self._replace(connection.certificates)

    async def close(self) -> None:
        """Ends every call on every connection."""
        self._is_closed = True
        for task in self._retiring:
            task.cancel()
        for connection in [self.current, *self._retired]:
            await connection.close()

    async def _patiently(self, operation: Callable[[], Awaitable[T]], *, is_for_paying: bool) -> T:
        try:
            # No tenacity: nearly always the first try is the only one, and its bookkeeping costs as much as the call.
            for wait_s in _RETRY_AFTER_S:
                try:
                    return await operation()
                except CallFailed as error:
                    if error.failure.kind not in _TRANSPORT:
                        raise
                await self._clock.sleep(wait_s)
            return await operation()
        except CallFailed as error:
            if is_for_paying and error.failure.is_without_right:
                self.on_no_right(error.failure)
            raise to_error(error.failure, self.settings.address) from error

    def _renew(self) -> None:
        try:
            certificates = read_certificates(self.settings.tls_cert_path)
        except CertificateUnusable:
            return  # lnd is writing it; the next failed handshake looks again
        if certificates == self.current.certificates:
            return
        self._replace(certificates)
        self._on_break()

    def _replace(self, certificates: bytes) -> None:
        if self._is_closed:
            return  # a call ended only now, and nobody would end the new connection
        old, self.current = self.current, Connection(self.settings, certificates, self._on_break)
        self._retired.add(old)
        task = asyncio.create_task(self._retire(old), name="lnd connection, retired")
        self._retiring.add(task)
        task.add_done_callback(self._retiring.discard)

    async def _retire(self, connection: Connection) -> None:
        await connection.close_when_idle()
        self._retired.discard(connection)


_TRANSPORT: Final = frozenset({FailureKind.UNREACHABLE, FailureKind.UNRESOLVED, FailureKind.UNTRUSTED})
